// Gemma 3n and 4: layers that differ in head size, keys and values that later layers share, inputs of every
// layer (docs/architectures.md#gemma-3n-and-gemma-4).

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Says that layers have no factor, as a GGUF file may.
constexpr const char* kLayerScalarKey = "qeval_layer_scalar";

/// What both share; layers slide but for every `pattern`-th.
ModelConfig read_any_gemma_mobile(const JsonObject& fields, const ConfigDefaults& sizes, int64_t pattern,
                                  bool last_is_full) {
  ConfigDefaults defaults = sizes;
  defaults.head_dim = 256;
  defaults.activation_key = fields.find("hidden_activation") != nullptr ? "hidden_activation" : "hidden_act";
  defaults.activation = "gelu_pytorch_tanh";
  defaults.tied = true;
  defaults.windows = true;
  defaults.ropes_by_type = true;
  nlohmann::json document = fields.value();
  // Read by the families.
  for (const char* key : {"rope_parameters", "rope_scaling"}) document.erase(key);
  ModelConfig config = read_common(JsonObject(document, fields.where()), defaults);
  config.form = BlockForm::sandwich;
  config.scale_embedding = true;
  config.attention_scale = 1;
  config.qk_norm = QkNorm::head;
  config.v_norm = true;
  read_attention_bias(fields, config);
  std::vector<bool> sliding =
      sliding_layers(fields, config.num_layers, [&](int64_t i) { return (i + 1) % pattern != 0; });
  if (last_is_full && !sliding.empty()) sliding.back() = false;
  set_windows(sliding, read_window(fields, 512).value_or(0), config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].local_rotary = sliding[i];
  if (const int64_t size = fields.integer("hidden_size_per_layer_input", 256); size > 0) {
    config.layer_inputs = LayerInputs{size, fields.integer("vocab_size_per_layer_input", 262144)};
    if (size > 65536) fields.refuse("hidden_size_per_layer_input", "0 to 65536");
    if (config.layer_inputs->vocab_size < 1) fields.refuse("vocab_size_per_layer_input", "1 or more");
  }
  return config;
}

/// The last layers read keys and values of the last layer of their type that has its own.
void share_kv(const JsonObject& fields, int64_t fallback, ModelConfig& config) {
  const int64_t shared = fields.integer("num_kv_shared_layers", fallback);
  if (shared < 0 || shared >= config.num_layers) {
    fields.refuse("num_kv_shared_layers",
                  fmt::format("0 to {}, one less than layers", config.num_layers - 1));
  }
  const int64_t own = config.num_layers - shared;
  for (int64_t i = own; i < config.num_layers; ++i) {
    LayerSettings& layer = config.layers[static_cast<size_t>(i)];
    int64_t from = own - 1;
    while (from >= 0 && config.layers[static_cast<size_t>(from)].local_rotary != layer.local_rotary) --from;
    if (from < 0) {
      fields.refuse("num_kv_shared_layers",
                    "as many as leave a layer with keys and values for every type of layer");
    }
    layer.kv_from = i - from;
    config.layers[static_cast<size_t>(from)].kv_lent = true;
  }
}

/// Rope settings of one type of layer.
Rotary read_rope_of(const JsonObject& fields, const char* type, double theta, double share, int64_t head_dim,
                    const ModelConfig& config) {
  ModelConfig own = config;
  own.head_dim = head_dim;
  const ConfigDefaults defaults{.theta = theta, .rotary_factor = 1.0};
  const bool given = fields.find("rope_parameters") != nullptr;
  const std::optional<JsonObject> all =
      given ? std::optional(fields.object("rope_parameters")) : std::nullopt;
  const bool own_rope = all && all->find(type) != nullptr;
  const std::optional<JsonObject> rope = own_rope ? std::optional(all->object(type)) : std::nullopt;
  const bool proportional = rope ? rope->string("rope_type", "default") == "proportional" : share != 1;
  if (!proportional) {
    return rope ? read_rotary(fields, &*rope, defaults, own)
                : Rotary{.theta = theta, .dim = head_dim, .scaling = {}};
  }
  Rotary rotary{.theta = rope ? rope->number("rope_theta", theta) : theta, .dim = head_dim, .scaling = {}};
  if (rope) share = rope->number("partial_rotary_factor", 1.0);
  if (!(share > 0 && share <= 1)) {
    fail("{}: partial_rotary_factor is {}; accepted: above 0, at most 1", fields.where(), share);
  }
  rotary.turning_pairs = static_cast<int64_t>(share * static_cast<double>(head_dim) / 2);
  if (rotary.turning_pairs < 1) {
    fail("{}: partial_rotary_factor {} of {} channels turns no pair; accepted: at least {}", fields.where(),
         share, head_dim, 2.0 / static_cast<double>(head_dim));
  }
  if (const double factor = rope ? rope->number("factor", 1.0) : 1.0; factor != 1.0) {
    rotary.scaling.kind = RopeScaling::Kind::linear;
    rotary.scaling.factor = factor;
  }
  return rotary;
}

/// Head sizes of full layers: per_layer_config, or one for all of them.
void read_heads(const JsonObject& fields, ModelConfig& config) {
  const bool keys_are_values = fields.boolean("attention_k_eq_v", false);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    LayerSettings& layer = config.layers[static_cast<size_t>(i)];
    if (!layer.local_rotary) layer.keys_as_values = keys_are_values;
    if (fields.has("per_layer_config")) {
      if (fields.find("per_layer_config") == nullptr) continue;
      const JsonObject all = fields.object("per_layer_config");
      const std::string key = std::to_string(i);
      if (all.find(key) == nullptr) continue;
      const JsonObject own = all.object(key);
      layer.head_dim = own.integer("head_dim", config.head_dim);
      layer.num_kv_heads = own.integer("num_key_value_heads", config.num_kv_heads);
    } else if (!layer.local_rotary) {
      layer.head_dim = fields.integer("global_head_dim", 512);
      if (keys_are_values)
        layer.num_kv_heads = fields.integer("num_global_key_value_heads", config.num_kv_heads);
    }
    const int64_t kv_heads = layer.num_kv_heads != 0 ? layer.num_kv_heads : config.num_kv_heads;
    if (layer.head_dim < 0 || layer.head_dim > 8192) fields.refuse("global_head_dim", "1 to 8192");
    if (kv_heads < 1 || config.num_heads % kv_heads != 0) {
      fail("{}: layer {} has {} key/value heads; accepted: a divisor of num_attention_heads, {}",
           fields.where(), i, kv_heads, config.num_heads);
    }
  }
}

/// The head size of all layers of a type.
int64_t head_dim_of(const JsonObject& fields, bool local, const ModelConfig& config) {
  int64_t found = 0;
  for (const LayerSettings& layer : config.layers) {
    if (layer.local_rotary != local) continue;
    const int64_t own = layer.head_dim != 0 ? layer.head_dim : config.head_dim;
    if (found != 0 && own != found) fields.refuse("per_layer_config", "one head_dim per type of layer");
    found = own;
  }
  return found != 0 ? found : config.head_dim;
}

ModelConfig read_gemma4(const JsonObject& fields) {
  ModelConfig config = read_any_gemma_mobile(fields, {.context = 131072, .kv_heads = 4}, 6, true);
  read_heads(fields, config);
  config.rotary =
      read_rope_of(fields, "full_attention", 1e6, 0.25, head_dim_of(fields, false, config), config);
  config.local_rotary =
      read_rope_of(fields, "sliding_attention", 10000.0, 1, head_dim_of(fields, true, config), config);
  share_kv(fields, 0, config);
  config.logit_softcap = static_cast<float>(fields.number("final_logit_softcapping", 0.0));
  config.layer_scalar = fields.boolean(kLayerScalarKey, true);
  if (fields.boolean("use_double_wide_mlp", false)) {
    for (LayerSettings& layer : config.layers) {
      if (layer.kv_from != 0) layer.intermediate_size = 2 * config.intermediate_size;
    }
  }
  if (fields.boolean("enable_moe_block", false)) {
    config.experts = read_experts(fields, {});
    config.experts->route.normalize = config.experts->route.expert_scale = true;
    config.experts_beside_mlp = true;
    set_sparse(config, [](int64_t) { return true; });
  }
  return config;
}

/// Weights of keys and values in layers that share others' are never read.
void ignore_shared_kv(const ModelConfig& config, TensorNames& names) {
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (config.layer(i).kv_from == 0) continue;
    for (const char* part : {"k_proj.", "v_proj.", "k_norm."}) {
      names.ignored_parts.push_back(fmt::format(fmt::runtime(names.layer), i) + "self_attn." + part);
    }
  }
}

void rename_gemma4(const ModelConfig& config, TensorNames& names) {
  ignore_shared_kv(config, names);
  names.vectors[Module::layer_scalar] = names.layer + "layer_scalar";
  if (!config.experts) return;
  rename_module(names, Module::router, "router.proj");
  names.modules[Module::router_norm] = {
      .name = names.layer + "router.scale",
      .bare = true,
      .factor = static_cast<float>(std::pow(static_cast<double>(config.hidden_size), -0.5))};
  names.vectors[Module::expert_mix] = names.layer + "router.per_expert_scale";
  stack_experts(config, {.gate_up = "experts.gate_up_proj", .down = "experts.down_proj", .bare = true},
                names);
}

/// What frequency factors of full layers come to: 1 for pairs that turn, next to infinity for the others.
nlohmann::json translate_proportional(const GgufSettings& settings, int64_t head_dim) {
  nlohmann::json rope{{"rope_type", "proportional"},
                      {"rope_theta", settings.number("rope.freq_base", 10000.0)},
                      {"partial_rotary_factor", 1.0}};
  if (!settings.has_tensor("rope_freqs.weight")) return rope;
  const TensorView& tensor = settings.file().require("rope_freqs.weight");
  if (tensor.dtype != DType::f32 || tensor.element_count() != head_dim / 2) {
    fail("{}: tensor rope_freqs.weight: {} numbers of type {}; accepted: {} of F32", settings.where(),
         tensor.element_count(), info(tensor.dtype).name, head_dim / 2);
  }
  std::vector<float> factors(static_cast<size_t>(head_dim / 2));
  decode(tensor.dtype, tensor.bytes.data(), std::ssize(factors), factors.data());
  constexpr float kNever = 1e29F;
  const auto still = std::ranges::find_if(factors, [](float f) { return f != 1.0F; });
  if (!std::all_of(still, factors.end(), [](float f) { return f >= kNever; })) {
    fail("{}: tensor rope_freqs.weight; accepted: ones, then 1e30", settings.where());
  }
  rope["partial_rotary_factor"] = rotary_share(still - factors.begin(), head_dim / 2);
  return rope;
}

nlohmann::json translate_gemma4(const GgufSettings& settings) {
  nlohmann::json document = translate_common(
      settings, "gemma4_text", {.windows = GgufForm::Windows::known, .by_layer = true, .experts = true});
  document["hidden_activation"] = "gelu_pytorch_tanh";
  translate_windows(settings, settings.integer("attention.sliding_window"), 6, document);
  const auto full_dim = document["head_dim"].get<int64_t>();
  const auto layers = document["num_hidden_layers"].get<int64_t>();
  document["head_dim"] = settings.integer("attention.key_length_swa");
  const std::vector<int64_t> kv_heads = settings.by_layer("attention.head_count_kv", layers);
  const std::vector<int64_t> inner = settings.by_layer("feed_forward_length", layers);
  const int64_t shared = settings.integer("attention.shared_kv_layers", 0);
  nlohmann::json per_layer = nlohmann::json::object();
  bool keys_are_values = false;
  for (int64_t i = 0; i < layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool full = document["layer_types"][at] == "full_attention";
    per_layer[std::to_string(i)] = {{"head_dim", full ? full_dim : document["head_dim"].get<int64_t>()},
                                    {"num_key_value_heads", kv_heads[at]}};
    const bool lacks_values = !settings.has_tensor(fmt::format("blk.{}.attn_v.weight", i));
    if (full && i < layers - shared && lacks_values) keys_are_values = true;
    const int64_t usual = inner.front();
    const bool wide = i >= layers - shared && inner[at] == 2 * usual;
    if (inner[at] != usual && !wide) {
      settings.refuse("feed_forward_length", inner[at],
                      fmt::format("{}, or twice that in layers that share keys and values", usual));
    }
    if (wide) document["use_double_wide_mlp"] = true;
  }
  document["intermediate_size"] = inner.front();
  document["num_key_value_heads"] = kv_heads.front();
  document["per_layer_config"] = per_layer;
  document["attention_k_eq_v"] = keys_are_values;
  document["num_kv_shared_layers"] = shared;
  document["hidden_size_per_layer_input"] = settings.integer("embedding_length_per_layer_input", 0);
  if (settings.has_tensor("per_layer_token_embd.weight")) {
    document["vocab_size_per_layer_input"] =
        settings.file().require("per_layer_token_embd.weight").shape.front();
  }
  document["final_logit_softcapping"] = settings.number("final_logit_softcapping", 30.0);
  const double base = settings.number("rope.freq_base", 10000.0);
  document["rope_parameters"] = {
      {"full_attention", translate_proportional(settings, full_dim)},
      {"sliding_attention",
       {{"rope_type", "default"}, {"rope_theta", settings.number("rope.freq_base_swa", base)}}}};
  document[kLayerScalarKey] = settings.has_tensor("blk.0.layer_output_scale.weight");
  document["enable_moe_block"] = settings.has_tensor("blk.0.ffn_gate_inp.weight");
  if (settings.integer("expert_count", 0) > 0) {
    document["num_experts"] = settings.integer("expert_count");
    document["num_experts_per_tok"] = settings.integer("expert_used_count");
    document["moe_intermediate_size"] = settings.integer("expert_feed_forward_length");
  }
  return document;
}

void rename_gguf_gemma4(const GgufFile& file, const ModelConfig& config, TensorNames& names) {
  ignore_shared_kv(config, names);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (config.layer(i).kv_from == 0) continue;
    for (const char* part : {"attn_k.", "attn_v.", "attn_k_norm."})
      names.ignored_parts.push_back(fmt::format("blk.{}.{}", i, part));
  }
  names.layer_embedding = "per_layer_token_embd";
  names.layer_projection = "per_layer_model_proj";
  names.layer_projection_norm = "per_layer_proj_norm";
  for (const auto& [module, name] : {std::pair{Module::layer_input_gate, "inp_gate"},
                                     {Module::layer_input_projection, "proj"},
                                     {Module::layer_input_norm, "post_norm"},
                                     {Module::pre_experts_norm, "pre_ffw_norm_2"},
                                     {Module::post_dense_norm, "post_ffw_norm_1"},
                                     {Module::post_experts_norm, "post_ffw_norm_2"}}) {
    rename_module(names, module, name);
  }
  names.vectors[Module::layer_scalar] = names.layer + "layer_output_scale.weight";
  if (!config.experts) return;
  names.modules[Module::router_norm] = {
      .name = names.layer + "ffn_gate_inp.scale",
      .bare = true,
      .factor = static_cast<float>(std::pow(static_cast<double>(config.hidden_size), -0.5))};
  names.vectors[Module::expert_mix] = names.layer + "ffn_down_exps.scale";
  if (file.find("blk.0.ffn_gate_up_exps.weight") == nullptr) return;
  stack_experts(config, {.gate_up = "ffn_gate_up_exps", .down = "ffn_down_exps"}, names);
}

/// Φ⁻¹: how many deviations above the mean a share of normal values lies below.
double normal_quantile(double share) {
  double low = -40, high = 40;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < share ? low : high) = middle;
  }
  return (low + high) / 2;
}

ModelConfig read_gemma3n(const JsonObject& fields) {
  nlohmann::json document = fields.value();
  std::vector<int64_t> inner;
  if (document.contains("intermediate_size") && document["intermediate_size"].is_array()) {
    inner = fields.counts("intermediate_size");
    if (inner.empty()) fields.refuse("intermediate_size", "a number, or one per layer");
    document["intermediate_size"] = inner.front();
  }
  ModelConfig config = read_any_gemma_mobile(JsonObject(document, fields.where()),
                                             {.context = 32768, .kv_heads = 2}, 5, false);
  config.rotary = read_rope_of(fields, "full_attention", 1e6, 1, config.head_dim, config);
  config.local_rotary = read_rope_of(fields, "sliding_attention", 10000.0, 1, config.head_dim, config);
  share_kv(fields, 15, config);
  config.logit_softcap = static_cast<float>(
      fields.number("final_logit_softcapping", fields.has("final_logit_softcapping") ? 0.0 : 30.0));
  if (!config.layer_inputs) fields.refuse("hidden_size_per_layer_input", "1 or more");
  config.altup = Altup{.streams = fields.integer("altup_num_inputs", 4),
                       .active = fields.integer("altup_active_idx", 0),
                       .rank = fields.integer("laurel_rank", 64),
                       .scales_output = fields.boolean("altup_correct_scale", true)};
  if (config.altup->streams < 2 || config.altup->streams > 64) fields.refuse("altup_num_inputs", "2 to 64");
  if (config.altup->active != 0) fields.refuse("altup_active_idx", "0");
  if (config.altup->rank < 1 || config.altup->rank > 65536) fields.refuse("laurel_rank", "1 to 65536");
  const auto layers = static_cast<size_t>(config.num_layers);
  std::vector<double> sparsity(layers, 0.0);
  if (fields.find("activation_sparsity_pattern") != nullptr) {
    sparsity = fields.numbers("activation_sparsity_pattern");
  } else if (layers > 10) {
    std::fill_n(sparsity.begin(), 10, 0.95);
  }
  if (sparsity.size() != layers) fields.refuse("activation_sparsity_pattern", "a list of one per layer");
  if (!inner.empty() && inner.size() != layers) fields.refuse("intermediate_size", "a list of one per layer");
  for (size_t i = 0; i < layers; ++i) {
    if (!inner.empty()) config.layers[i].intermediate_size = inner[i];
    if (!(sparsity[i] >= 0 && sparsity[i] < 1)) {
      fields.refuse("activation_sparsity_pattern", "numbers of at least 0 and below 1");
    }
    if (sparsity[i] > 0)
      config.layers[i].activation_sparsity = static_cast<float>(normal_quantile(sparsity[i]));
  }
  return config;
}

void rename_gemma3n(const ModelConfig& config, TensorNames& names) {
  ignore_shared_kv(config, names);
  names.vectors[Module::output_scale] = names.layer + "altup.correct_output_scale";
}

}  // namespace

std::vector<Architecture> gemma_mobile_family() {
  return {{"gemma3n_text", read_gemma3n, rename_gemma3n},
          {"gemma4_text", read_gemma4, rename_gemma4, "gemma4", translate_gemma4, rename_gguf_gemma4}};
}

}  // namespace qeval::model
