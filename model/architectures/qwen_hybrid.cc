#include <algorithm>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Says that llama.cpp's converter has put value heads in another order.
constexpr const char* kTiledKey = "qeval_tiled_value_heads";

/// Gated delta rule on three layers of four, and attention with a gated result on the others.
ModelConfig read_any_qwen_hybrid(const JsonObject& fields, int64_t kv_heads) {
  ModelConfig config = read_common(
      fields,
      {.context = 32768, .kv_heads = kv_heads, .head_dim = 256, .rotary_factor = 0.25, .windows = true});
  read_attention_bias(fields, config);
  config.norm_weight_plus_one = true;
  config.qk_norm = QkNorm::head;
  config.attention_gate = true;
  Recurrence r{.kind = Recurrence::Kind::delta_rule,
               .taps = fields.integer("linear_conv_kernel_dim", 4),
               .key_heads = fields.integer("linear_num_key_heads", 16),
               .value_heads = fields.integer("linear_num_value_heads", 32),
               .key_dim = fields.integer("linear_key_head_dim", 128),
               .value_dim = fields.integer("linear_value_head_dim", 128),
               .norm = Recurrence::Norm::before_gate};
  r.norm_group = r.value_dim;
  r.tiled_heads = fields.boolean(kTiledKey, false);
  config.recurrence = r;
  if (fields.find("layer_types") != nullptr) {
    set_mixers(fields, "layer_types", {"linear_attention"}, config);
    return config;
  }
  const int64_t interval = fields.integer("full_attention_interval", 4);
  if (interval < 1) fields.refuse("full_attention_interval", "1 or more");
  config.layers.resize(static_cast<size_t>(config.num_layers));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if ((i + 1) % interval != 0)
      config.layers[static_cast<size_t>(i)].mixer = LayerSettings::Mixer::recurrent;
  }
  return config;
}

ModelConfig read_qwen3_5(const JsonObject& fields) {
  return read_any_qwen_hybrid(fields, 4);
}

/// On every layer, and a shared one.
ModelConfig read_qwen3_5_moe(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  if (fields.find("intermediate_size") == nullptr)
    document["intermediate_size"] = fields.integer("moe_intermediate_size", 512);
  ModelConfig config = read_any_qwen_hybrid(JsonObject(document, fields.where()), 2);
  Experts experts = read_experts(fields, {.count = 256, .used = 8, .inner = 512});
  experts.route.normalize = true;
  experts.shared_inner = fields.integer("shared_expert_intermediate_size", 512);
  experts.shared_gate = true;
  config.experts = experts;
  set_sparse(config, [](int64_t) { return true; });
  return config;
}

ModelConfig read_qwen3_next(const JsonObject& fields) {
  ModelConfig config = read_any_qwen_hybrid(fields, 2);
  Experts experts = read_experts(fields, {.count = 512, .used = 10, .inner = 512});
  experts.route.normalize = fields.boolean("norm_topk_prob", true);
  experts.shared_inner = fields.integer("shared_expert_intermediate_size", 512);
  experts.shared_gate = true;
  config.experts = experts;
  const int64_t step = fields.integer("decoder_sparse_step", 1);
  if (step < 1) fields.refuse("decoder_sparse_step", "1 or more");
  std::vector<int64_t> dense;
  if (fields.find("mlp_only_layers") != nullptr) dense = fields.counts("mlp_only_layers");
  set_sparse(config,
             [&](int64_t i) { return (i + 1) % step == 0 && std::ranges::find(dense, i) == dense.end(); });
  return config;
}

void rename_any(const ModelConfig& config, TensorNames& names) {
  const Recurrence& r = *config.recurrence;
  const int64_t keys = r.key_heads * r.key_dim, values = r.value_heads * r.value_dim;
  const int64_t d = config.head_dim, heads = config.num_heads * d;
  // Per head, its query and its gate.
  for (const auto& [module, first] : {std::pair{Module::q, int64_t{0}}, {Module::attention_gate, d}}) {
    names.modules[module] = {.name = names.layer + "self_attn.q_proj",
                             .first_row = first,
                             .rows = 2 * heads,
                             .block_rows = d,
                             .block_stride = 2 * d};
  }
  for (const auto& [module, first] : {std::pair{Module::mixer_q_conv, int64_t{0}},
                                      {Module::mixer_k_conv, keys},
                                      {Module::mixer_v_conv, 2 * keys}}) {
    names.modules[module] = {
        .name = names.layer + "linear_attn.conv1d", .first_row = first, .rows = 2 * keys + values};
  }
  rename_module(names, Module::mixer_norm, "linear_attn.norm");
  rename_module(names, Module::mixer_o, "linear_attn.out_proj");
  names.whole_norms.insert(Module::mixer_norm);
  names.state_decay = names.layer + "linear_attn.A_log";
  names.state_step = names.layer + "linear_attn.dt_bias";
  names.ignored_prefixes.push_back("mtp.");
}

void rename_qwen3_5(const ModelConfig& config, TensorNames& names) {
  rename_any(config, names);
  const Recurrence& r = *config.recurrence;
  const int64_t keys = r.key_heads * r.key_dim, values = r.value_heads * r.value_dim;
  for (const auto& [module, first] :
       {std::pair{Module::mixer_q, int64_t{0}}, {Module::mixer_k, keys}, {Module::mixer_v, 2 * keys}}) {
    names.modules[module] = {
        .name = names.layer + "linear_attn.in_proj_qkv", .first_row = first, .rows = 2 * keys + values};
  }
  rename_module(names, Module::mixer_z, "linear_attn.in_proj_z");
  rename_module(names, Module::mixer_b, "linear_attn.in_proj_b");
  rename_module(names, Module::mixer_a, "linear_attn.in_proj_a");
}

void name_shared_expert(TensorNames& names) {
  name_experts(names, {});
  rename_module(names, Module::shared_gate, "mlp.shared_expert.gate_proj");
  rename_module(names, Module::shared_up, "mlp.shared_expert.up_proj");
  rename_module(names, Module::shared_down, "mlp.shared_expert.down_proj");
}

void rename_qwen3_5_moe(const ModelConfig& config, TensorNames& names) {
  rename_qwen3_5(config, names);
  name_shared_expert(names);
}

/// Per key head, what all its value heads have.
void rename_qwen3_next(const ModelConfig& config, TensorNames& names) {
  rename_any(config, names);
  const Recurrence& r = *config.recurrence;
  const int64_t group = r.value_heads / r.key_heads, values = group * r.value_dim;
  const int64_t stride = 2 * r.key_dim + 2 * values;
  const auto place = [&](Module module, const char* name, int64_t first, int64_t rows, int64_t step) {
    names.modules[module] = {.name = names.layer + "linear_attn." + name,
                             .first_row = first,
                             .rows = r.key_heads * step,
                             .block_rows = rows,
                             .block_stride = step};
  };
  place(Module::mixer_q, "in_proj_qkvz", 0, r.key_dim, stride);
  place(Module::mixer_k, "in_proj_qkvz", r.key_dim, r.key_dim, stride);
  place(Module::mixer_v, "in_proj_qkvz", 2 * r.key_dim, values, stride);
  place(Module::mixer_z, "in_proj_qkvz", 2 * r.key_dim + values, values, stride);
  place(Module::mixer_b, "in_proj_ba", 0, group, 2 * group);
  place(Module::mixer_a, "in_proj_ba", group, group, 2 * group);
  name_shared_expert(names);
}

nlohmann::json translate_any_qwen_hybrid(const GgufSettings& settings, const char* model_type, bool experts) {
  nlohmann::json document = translate_common(settings, model_type, {.by_layer = true, .experts = experts});
  document["linear_conv_kernel_dim"] = settings.integer("ssm.conv_kernel");
  document["linear_key_head_dim"] = settings.integer("ssm.state_size");
  document["linear_num_key_heads"] = settings.integer("ssm.group_count");
  const int64_t heads = settings.integer("ssm.time_step_rank"), inner = settings.integer("ssm.inner_size");
  if (heads < 1 || inner % heads != 0)
    settings.refuse("ssm.time_step_rank", heads, "a divisor of ssm.inner_size");
  document["linear_num_value_heads"] = heads;
  document["linear_value_head_dim"] = inner / heads;
  nlohmann::json types = nlohmann::json::array();
  for (int64_t i = 0; i < document["num_hidden_layers"].get<int64_t>(); ++i) {
    types.push_back(settings.has_tensor(fmt::format("blk.{}.ssm_conv1d.weight", i)) ? "linear_attention"
                                                                                    : "full_attention");
  }
  document["layer_types"] = types;
  document["attention_bias"] = false;
  if (experts) {
    translate_experts(settings, document);
    document["norm_topk_prob"] = true;
    if (document["intermediate_size"] == 0) document["intermediate_size"] = document["moe_intermediate_size"];
  }
  return document;
}

nlohmann::json translate_qwen3_next(const GgufSettings& settings) {
  return translate_any_qwen_hybrid(settings, "qwen3_next", true);
}
nlohmann::json translate_qwen3_5(const GgufSettings& settings) {
  nlohmann::json document = translate_any_qwen_hybrid(settings, "qwen3_5_text", false);
  document[kTiledKey] = true;
  return document;
}
nlohmann::json translate_qwen3_5_moe(const GgufSettings& settings) {
  nlohmann::json document = translate_any_qwen_hybrid(settings, "qwen3_5_moe_text", true);
  document[kTiledKey] = true;
  return document;
}

void rename_gguf_qwen_hybrid(const GgufFile&, const ModelConfig& config, TensorNames& names) {
  rename_any(config, names);
  const Recurrence& r = *config.recurrence;
  const int64_t keys = r.key_heads * r.key_dim, values = r.value_heads * r.value_dim;
  for (const Module module : {Module::q, Module::attention_gate}) {
    names.modules[module].name = names.layer + "attn_q";
  }
  for (const Module module : {Module::mixer_q_conv, Module::mixer_k_conv, Module::mixer_v_conv}) {
    names.modules[module].name = names.layer + "ssm_conv1d";
  }
  for (const auto& [module, first] :
       {std::pair{Module::mixer_q, int64_t{0}}, {Module::mixer_k, keys}, {Module::mixer_v, 2 * keys}}) {
    names.modules[module] = {.name = names.layer + "attn_qkv", .first_row = first, .rows = 2 * keys + values};
  }
  for (const auto& [module, name] : {std::pair{Module::k, "attn_k"},
                                     {Module::v, "attn_v"},
                                     {Module::mixer_z, "attn_gate"},
                                     {Module::mixer_norm, "ssm_norm"},
                                     {Module::mixer_o, "ssm_out"},
                                     {Module::post_attention_norm, "post_attention_norm"}}) {
    names.modules[module] = {.name = names.layer + name};
  }
  names.state_decay = names.layer + "ssm_a";
  names.state_step = names.layer + "ssm_dt.bias";
  names.decay_is_stored = true;
  rename_module(names, Module::mixer_b, "ssm_beta");
  rename_module(names, Module::mixer_a, "ssm_alpha");
  if (config.architecture != "qwen3_next") return;
  const int64_t group = r.value_heads / r.key_heads;
  for (const auto& [module, first] : {std::pair{Module::mixer_b, int64_t{0}}, {Module::mixer_a, group}}) {
    names.modules[module] = {.name = names.layer + "ssm_ba",
                             .first_row = first,
                             .rows = 2 * r.value_heads,
                             .block_rows = group,
                             .block_stride = 2 * group};
  }
}

}  // namespace

std::vector<Architecture> qwen_hybrid_family() {
  return {
      {"qwen3_5_text", read_qwen3_5, rename_qwen3_5, "qwen35", translate_qwen3_5, rename_gguf_qwen_hybrid},
      {"qwen3_5_moe_text", read_qwen3_5_moe, rename_qwen3_5_moe, "qwen35moe", translate_qwen3_5_moe,
       rename_gguf_qwen_hybrid},
      {"qwen3_next", read_qwen3_next, rename_qwen3_next, "qwen3next", translate_qwen3_next,
       rename_gguf_qwen_hybrid}};
}

}  // namespace qeval::model
