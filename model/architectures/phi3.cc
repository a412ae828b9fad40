#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Early files call longrope "su" or "yarn".
nlohmann::json with_longrope_named(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  for (const std::string key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = document.find(key);
    if (rope == document.end() || !rope->is_object() || !rope->contains("short_factor")) continue;
    for (const std::string type : {"type", "rope_type"}) {
      const auto name = rope->find(type);
      if (name == rope->end() || !name->is_string()) continue;
      const auto& spelling = name->get_ref<const std::string&>();
      if (spelling == "su" || spelling == "yarn") *name = std::string("longrope");
    }
  }
  return document;
}

ModelConfig read_phi3(const JsonObject& fields) {
  const nlohmann::json document = with_longrope_named(fields);
  const JsonObject named(document, fields.where());
  ModelConfig config =
      read_common(named, {.context = 4096, .rotary_factor = 1.0, .eps = 1e-5, .windows = true});
  if (const auto window = read_window(fields, std::nullopt)) {
    set_windows(std::vector<bool>(static_cast<size_t>(config.num_layers), true), *window, config);
  }
  return config;
}

void rename_phi3(const ModelConfig& config, TensorNames& names) {
  fuse_qkv(config, "self_attn.qkv_proj", names);
  fuse_gate_up(config, "mlp.gate_up_proj", names);
}

/// llama.cpp gives the layers no window, whatever the file says of one.
nlohmann::json translate_phi3(const GgufSettings& settings) {
  return translate_common(settings, "phi3", {.windows = GgufForm::Windows::known});
}

}  // namespace

std::vector<Architecture> phi3_family() {
  return {{"phi3", read_phi3, rename_phi3, "phi3", translate_phi3, fuse_gguf_gate_up}};
}

}  // namespace qeval::model
