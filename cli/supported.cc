#include "cli/supported.h"

#include <functional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architectures/architecture.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/export/export.h"
#include "quant/methods/learn/learn.h"

namespace qeval::cli {
namespace {

/// Sizes under every name that a family has for them; what else there is to say has the families' defaults.
nlohmann::json usual_settings() {
  return {{"vocab_size", 256},
          {"hidden_size", 64},
          {"n_embd", 64},
          {"intermediate_size", 128},
          {"ffn_dim", 128},
          {"num_hidden_layers", 8},
          {"n_layer", 8},
          {"num_attention_heads", 4},
          {"n_head", 4},
          {"num_key_value_heads", 4},
          {"head_dim", 16},
          {"max_position_embeddings", 512},
          {"n_positions", 512},
          {"moe_intermediate_size", 32},
          {"mamba_d_ssm", 64},
          {"mamba_n_heads", 4},
          {"num_kv_shared_layers", 0},
          {"full_attn_idxs", {1, 3}},
          {"activation_sparsity_pattern", std::vector<double>(8, 0.5)},
          {"layer_norm_eps", 1e-5},
          {"norm_class", "rmsnorm"},
          {"do_layer_norm_before", true}};
}

model::ModelConfig usual_config(const model::Architecture& architecture) {
  nlohmann::json settings = usual_settings();
  settings["model_type"] = architecture.model_type;
  model::ModelConfig config = architecture.read(JsonObject(settings, std::string(architecture.model_type)));
  config.architecture = architecture.model_type;
  config.graph = model::make_graph(config);
  return config;
}

/// "yes", or `otherwise` where `require` refuses the model.
const char* cell(const model::ModelConfig& config,
                 const std::function<void(const model::ModelConfig&)>& require, const char* otherwise = "–") {
  try {
    require(config);
  } catch (const Error&) {
    return otherwise;
  }
  return "yes";
}

}  // namespace

std::string supported_table() {
  std::string table =
      "| `model_type` | folder | GGUF | float | fake | integer | learn | export |\n"
      "| :--- | :---: | :--- | :---: | :---: | :---: | :---: | :---: |\n";
  for (const model::Architecture& architecture : model::architectures()) {
    const model::ModelConfig config = usual_config(architecture);
    const std::string_view own = architecture.gguf_name, within = architecture.gguf_within;
    table +=
        fmt::format("| {} | yes | {} | yes | {} | {} | {} | {} |\n", architecture.model_type,
                    !own.empty()      ? own
                    : !within.empty() ? within
                                      : "–",
                    cell(config, quant::require_points, "weights"), cell(config, quant::require_integer_form),
                    cell(config, quant::require_backward_passes), cell(config, quant::require_graph_form));
  }
  return table;
}

}  // namespace qeval::cli
