#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_starcoder2(const JsonObject& fields) {
  const ConfigDefaults defaults{.context = 4096,
                                .kv_heads = 2,
                                .eps_key = "norm_epsilon",
                                .eps = 1e-5,
                                .activation = "gelu_pytorch_tanh",
                                .tied = true,
                                .windows = true};
  ModelConfig config = read_common(fields, defaults);
  config.norm = NormKind::layer;
  config.gated_mlp = false;
  config.qkv_bias = config.o_bias = config.mlp_bias = fields.boolean("use_bias", true);
  if (const auto window = read_window(fields, std::nullopt)) {
    set_windows(std::vector<bool>(static_cast<size_t>(config.num_layers), true), *window, config);
  }
  return config;
}

void rename_starcoder2(const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::gate, "mlp.c_fc");
  rename_module(names, Module::down, "mlp.c_proj");
}

nlohmann::json translate_starcoder2(const GgufSettings& settings) {
  nlohmann::json document = translate_common(
      settings, "starcoder2", {.eps_key = "norm_epsilon", .layer_norm = true, .whole_head = true});
  document["use_bias"] = document["attention_bias"];
  return document;
}

}  // namespace

std::vector<Architecture> starcoder2_family() {
  return {{"starcoder2", read_starcoder2, rename_starcoder2, "starcoder2", translate_starcoder2}};
}

}  // namespace qeval::model
