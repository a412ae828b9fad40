#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"

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

}  // namespace

std::vector<Architecture> apertus_family() {
  return {{"apertus", read_apertus, rename_apertus}};
}

}  // namespace qeval::model
