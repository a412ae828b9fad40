#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_apertus(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  if (fields.find("rope_parameters") == nullptr && fields.find("rope_scaling") == nullptr) {
    document["rope_scaling"] = {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 8192}};
  }
  const ConfigDefaults defaults{.context = 65536, .theta = 12000000.0, .eps = 1e-5, .activation = "xielu"};
  ModelConfig config = read_common(JsonObject(document, fields.where()), defaults);
  read_attention_bias(fields, config);
  config.gated_mlp = false;
  config.qk_norm = QkNorm::head;
  return config;
}

void rename_apertus(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::input_norm, "attention_layernorm");
  rename_module(names, Module::post_attention_norm, "feedforward_layernorm");
  rename_module(names, Module::gate, "mlp.up_proj");
}

nlohmann::json translate_apertus(const GgufSettings& settings) {
  return translate_common(settings, "apertus", {.whole_head = true});
}

/// xIELU's numbers are metadata: a number each, or one per layer.
void rename_gguf_apertus(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  names.xielu.resize(static_cast<size_t>(config.num_layers));
  size_t field = 0;
  for (const char* key : {"xielu.alpha_p", "xielu.alpha_n", "xielu.beta", "xielu.eps"}) {
    const GgufValue* value = file.find_value(key);
    std::vector<double> numbers;
    if (value != nullptr && std::holds_alternative<std::vector<double>>(*value)) {
      numbers = std::get<std::vector<double>>(*value);
    } else {
      numbers.assign(names.xielu.size(), file.number(key));
    }
    if (numbers.size() != names.xielu.size()) {
      fail("{}: {} is a list of {}; accepted: one per layer, {}", file.path().string(), key, numbers.size(),
           config.num_layers);
    }
    for (size_t i = 0; i < numbers.size(); ++i) names.xielu[i][field] = static_cast<float>(numbers[i]);
    ++field;
  }
}

}  // namespace

std::vector<Architecture> apertus_family() {
  return {{"apertus", read_apertus, rename_apertus, "apertus", translate_apertus, rename_gguf_apertus}};
}

}  // namespace qeval::model
