#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

/// Llama's blocks, most of them with a short gated convolution instead of the attention.
ModelConfig read_lfm2(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  if (fields.find("block_ff_dim") != nullptr) document["intermediate_size"] = document["block_ff_dim"];
  if (fields.find("tie_embedding") != nullptr) document["tie_word_embeddings"] = document["tie_embedding"];
  const JsonObject given(document, fields.where());
  ModelConfig config = read_common(given, {.context = 128000,
                                           .kv_heads = 8,
                                           .theta = 1e6,
                                           .eps_key = "norm_eps",
                                           .eps = 1e-5,
                                           .tied = true,
                                           .windows = true});
  config.qk_norm = QkNorm::head;
  if (fields.boolean("block_auto_adjust_ff_dim", true)) {
    const int64_t multiple = fields.integer("block_multiple_of", 256);
    if (multiple < 1 || multiple > (1 << 20)) fields.refuse("block_multiple_of", "1 to 1048576");
    const double factor = fields.number("block_ffn_dim_multiplier", 1.0);
    if (!(factor > 0 && factor <= 1024)) fields.refuse("block_ffn_dim_multiplier", "above 0, at most 1024");
    check_sizes(config, fields.where());
    const auto two_thirds = static_cast<double>(2 * config.intermediate_size / 3);
    const auto inner = static_cast<int64_t>(factor * two_thirds);
    config.intermediate_size = (inner + multiple - 1) / multiple * multiple;
  }
  Recurrence r{.kind = Recurrence::Kind::convolution, .taps = fields.integer("conv_L_cache", 3)};
  r.conv_bias = r.in_bias = r.out_bias = fields.boolean("conv_bias", false);
  config.recurrence = r;
  if (fields.find("layer_types") != nullptr) {
    set_mixers(fields, "layer_types", {"conv"}, config);
  } else {
    std::vector<int64_t> full;
    const bool listed = fields.find("full_attn_idxs") != nullptr;
    if (listed) full = fields.counts("full_attn_idxs");
    config.layers.resize(static_cast<size_t>(config.num_layers));
    for (int64_t i = 0; i < config.num_layers; ++i) {
      if (listed && std::ranges::find(full, i) == full.end())
        config.layers[static_cast<size_t>(i)].mixer = LayerSettings::Mixer::recurrent;
    }
  }
  return config;
}

/// What keys, gates and values of the convolution are parts of.
void name_convolution(const ModelConfig& config, const std::string& in, const std::string& conv,
                      const std::string& out, TensorNames& names) {
  const int64_t h = config.hidden_size;
  for (const auto& [module, part] :
       {std::pair{Module::mixer_k, 0}, {Module::mixer_q, 1}, {Module::mixer_v, 2}}) {
    names.modules[module] = {.name = names.layer + in, .first_row = part * h, .rows = 3 * h};
  }
  rename_module(names, Module::mixer_v_conv, conv);
  rename_module(names, Module::mixer_o, out);
}

void rename_lfm2(const ModelConfig& config, TensorNames& names) {
  rename_module(names, Module::input_norm, "operator_norm");
  rename_module(names, Module::post_attention_norm, "ffn_norm");
  rename_module(names, Module::q_norm, "self_attn.q_layernorm");
  rename_module(names, Module::k_norm, "self_attn.k_layernorm");
  rename_module(names, Module::o, "self_attn.out_proj");
  rename_module(names, Module::gate, "feed_forward.w1");
  rename_module(names, Module::up, "feed_forward.w3");
  rename_module(names, Module::down, "feed_forward.w2");
  names.modules[Module::final_norm].name = "embedding_norm";
  name_convolution(config, "conv.in_proj", "conv.conv", "conv.out_proj", names);
}

nlohmann::json translate_lfm2(const GgufSettings& settings) {
  nlohmann::json document =
      translate_common(settings, "lfm2", {.eps_key = "norm_eps", .whole_head = true, .by_layer = true});
  document["block_auto_adjust_ff_dim"] = false;
  document["conv_L_cache"] = settings.integer("shortconv.l_cache");
  nlohmann::json types = nlohmann::json::array();
  for (int64_t i = 0; i < document["num_hidden_layers"].get<int64_t>(); ++i) {
    types.push_back(settings.has_tensor(fmt::format("blk.{}.shortconv.conv.weight", i)) ? "conv"
                                                                                        : "full_attention");
  }
  document["layer_types"] = types;
  return document;
}

void rename_gguf_lfm2(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  name_convolution(config, "shortconv.in_proj", "shortconv.conv", "shortconv.out_proj", names);
  // The final norm stands where others have one behind the embedding.
  if (file.find("output_norm.weight") == nullptr) names.modules[Module::final_norm].name = "token_embd_norm";
}

}  // namespace

std::vector<Architecture> lfm2_family() {
  return {{"lfm2", read_lfm2, rename_lfm2, "lfm2", translate_lfm2, rename_gguf_lfm2}};
}

}  // namespace qeval::model
