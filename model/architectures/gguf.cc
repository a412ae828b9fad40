// What the families' translations of GGUF metadata share.

#include "model/architectures/gguf.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/checkpoint/layout.h"

namespace qeval::model {

using nlohmann::json;

namespace {

/// What the inverse frequencies are divided by, one number per rotating pair.
std::vector<double> frequency_factors(const GgufSettings& settings, const char* name, int64_t rotating) {
  const TensorView& tensor = settings.file().require(name);
  const int64_t pairs = rotating / 2;
  if (tensor.shape != std::vector<int64_t>{pairs} || tensor.dtype != DType::f32) {
    fail("{}: tensor {}: {} {}; accepted: F32 [{}]", settings.where(), name, info(tensor.dtype).name,
         shape_text(tensor.shape), pairs);
  }
  std::vector<float> factors(static_cast<size_t>(pairs));
  decode(tensor.dtype, tensor.bytes.data(), pairs, factors.data());
  return {factors.begin(), factors.end()};
}

/// Files of Llama 3.1 and later hold frequency factors instead of the scaling's parameters: 1, `factor`, or
/// between them. Those that the published models have are recovered, so that they are called what they are.
bool is_llama3(const std::vector<double>& factors, double theta, double length) {
  const double largest = *std::ranges::max_element(factors);
  for (size_t i = 0; i < factors.size(); ++i) {
    const double exponent = static_cast<double>(i) / static_cast<double>(factors.size());
    const double position = length / (2.0 * M_PI * std::pow(theta, exponent));  // L/λ
    const double mix = std::clamp((position - 1.0) / (4.0 - 1.0), 0.0, 1.0);
    const double expected = 1.0 / ((1.0 - mix) / largest + mix);
    if (!(std::abs(factors[i] - expected) <= 1e-4 * expected)) return false;
  }
  return true;
}

struct RopeReader {
  const GgufSettings& settings;
  const GgufForm& form;
  int64_t rotating;
  json rope;
  double theta = settings.number("rope.freq_base", 10000.0);
  /// As llama.cpp has it: a file that names no type means linear, the older name counts where the newer one
  /// is absent, and a factor of 0 is none.
  std::string type = settings.string("rope.scaling.type", "linear");
  double factor = stretch();
  double attention = settings.number("rope.scaling.attn_factor", 1.0);
  double original =
      settings.number("rope.scaling.original_context_length", settings.number("context_length"));

  double stretch() const {
    if (type == "none") return 1.0;
    const double given = settings.number("rope.scaling.factor", settings.number("rope.scale_linear", 1.0));
    return given == 0.0 ? 1.0 : given;
  }

  /// Any factors at all, as "longrope" has them.
  void divide(std::vector<double> longer, std::vector<double> shorter) {
    for (std::vector<double>* factors : {&longer, &shorter}) {
      for (double& f : *factors) f *= factor;
    }
    rope["rope_type"] = "longrope";
    rope["long_factor"] = longer;
    rope["short_factor"] = shorter;
    rope["original_max_position_embeddings"] = original;
    rope["attention_factor"] = attention;
  }

  void yarn() {
    const double log = factor <= 1 ? 0.0 : 0.1 * std::log(factor);
    const double multiplier =
        form.yarn_settings ? settings.number("rope.scaling.yarn_log_multiplier", 0.0) : 0.0;
    rope["rope_type"] = "yarn";
    rope["factor"] = factor;
    rope["original_max_position_embeddings"] = original;
    rope["beta_fast"] = form.yarn_settings ? settings.number("rope.scaling.yarn_beta_fast", 32.0) : 32.0;
    rope["beta_slow"] = form.yarn_settings ? settings.number("rope.scaling.yarn_beta_slow", 1.0) : 1.0;
    rope["attention_factor"] = attention * (log + 1) / (multiplier * log + 1);
  }

  void divide_by_freqs() {
    const std::vector<double> factors = frequency_factors(settings, "rope_freqs.weight", rotating);
    if (factor != 1) {
      fail("{}: tensor rope_freqs.weight beside linear rope scaling; accepted: one of them",
           settings.where());
    }
    const bool ones = std::ranges::all_of(factors, [](double f) { return f == 1.0; });
    constexpr double kLength = 8192;  // of every published model
    if (attention == 1 && ones) return;
    if (attention == 1 && is_llama3(factors, theta, kLength)) {
      rope["rope_type"] = "llama3";
      rope["factor"] = *std::ranges::max_element(factors);
      rope["low_freq_factor"] = 1.0;
      rope["high_freq_factor"] = 4.0;
      rope["original_max_position_embeddings"] = kLength;
      return;
    }
    divide(factors, factors);
  }

  json read() {
    for (const char* known : {"none", "linear", "yarn", "longrope", ""}) {
      if (type == known) break;
      if (*known == 0) settings.refuse("rope.scaling.type", printable(type), "none, linear, yarn, longrope");
    }
    rope = {{"rope_type", "default"}, {"rope_theta", theta}};
    const bool freqs = settings.has_tensor("rope_freqs.weight");
    const bool by_length = settings.has_tensor("rope_factors_long.weight");
    if (type == "yarn") {
      if (freqs || by_length)
        fail("{}: tensors of frequency factors beside yarn; accepted: one of them", settings.where());
      yarn();
    } else if (freqs) {
      divide_by_freqs();
    } else if (by_length) {
      divide(frequency_factors(settings, "rope_factors_long.weight", rotating),
             frequency_factors(settings, "rope_factors_short.weight", rotating));
    } else if (attention != 1) {
      const std::vector<double> ones(static_cast<size_t>(rotating / 2), 1.0);
      divide(ones, ones);
    } else if (factor != 1) {
      rope["rope_type"] = "linear";
      rope["factor"] = factor;
    }
    return rope;
  }
};

/// A token id of the vocabulary, or null: the tokenizer warns of others.
json token(const GgufSettings& settings, const char* key, int64_t vocab_size) {
  if (settings.file().find_value(key) == nullptr) return nullptr;
  const int64_t id = settings.file().integer(key);
  return id < 0 || id >= vocab_size ? json() : json(id);
}

int64_t vocab_size(const GgufSettings& settings) {
  return settings.has("vocab_size") ? settings.integer("vocab_size")
                                    : settings.file().require("token_embd.weight").shape.front();
}

/// Before anything goes through the layers.
void check_layers(const GgufSettings& settings, int64_t layers) {
  if (layers < 1 || layers > 4096) settings.refuse("block_count", layers, "1 to 4096");
}

/// Of the first block with attention.
bool has_attention_bias(const GgufSettings& settings, const GgufForm& form) {
  if (settings.has_tensor("blk.0.attn_qkv.bias")) return true;
  int64_t layer = 0;
  const int64_t layers = form.by_layer ? settings.integer("block_count") : 1;
  while (layer + 1 < layers && !settings.has_tensor(fmt::format("blk.{}.attn_q.weight", layer))) ++layer;
  return settings.has_tensor(fmt::format("blk.{}.attn_q.bias", layer));
}

void refuse_unsupported(const GgufSettings& settings, const GgufForm& form) {
  if (const int64_t experts = settings.integer("expert_count", 0); experts > 1 && !form.experts) {
    settings.refuse("expert_count", experts, "0 (no mixture of experts)");
  }
  if (const int64_t layers = settings.integer("nextn_predict_layers", 0); layers > 0) {
    settings.refuse("nextn_predict_layers", layers, "0");
  }
  if (!settings.boolean("attention.causal", true)) settings.refuse("attention.causal", "false", "true");
  const int64_t window = settings.integer("attention.sliding_window", 0);
  if (form.windows == GgufForm::Windows::refused && window > 0) {
    settings.refuse("attention.sliding_window", window, "0");
  }
  // Converters write "parallel" for files that merely do not say; a sequential block has a second norm.
  const bool second_norm = settings.has_tensor("blk.0.ffn_norm.weight");
  if (!form.parallel && settings.boolean("use_parallel_residual", false) && !second_norm) {
    settings.refuse("use_parallel_residual", "true", "false");
  }
}

}  // namespace

GgufSettings::GgufSettings(const GgufFile& file)
    : file_(file), prefix_(file.string("general.architecture") + ".") {}

double GgufSettings::number(const std::string& key, std::optional<double> fallback) const {
  const GgufValue* value = file_.find_value(prefix_ + key);
  if (value == nullptr && fallback) return *fallback;
  if (value != nullptr && std::holds_alternative<int64_t>(*value)) return static_cast<double>(integer(key));
  return file_.number(prefix_ + key);
}

std::vector<int64_t> GgufSettings::by_layer(const std::string& key, int64_t layers) const {
  const GgufValue* value = file_.find_value(prefix_ + key);
  if (value == nullptr || !std::holds_alternative<std::vector<int64_t>>(*value)) {
    return std::vector<int64_t>(static_cast<size_t>(layers), integer(key));
  }
  const auto& list = std::get<std::vector<int64_t>>(*value);
  if (std::ssize(list) != layers) {
    refuse(key, fmt::format("a list of {}", list.size()), fmt::format("one per layer, {}", layers));
  }
  return list;
}

int64_t GgufSettings::largest(const std::string& key, int64_t fallback) const {
  const GgufValue* value = file_.find_value(prefix_ + key);
  if (value == nullptr || !std::holds_alternative<std::vector<int64_t>>(*value))
    return integer(key, fallback);
  const auto& list = std::get<std::vector<int64_t>>(*value);
  const int64_t found = list.empty() ? 0 : *std::ranges::max_element(list);
  return found == 0 ? fallback : found;
}

void GgufSettings::fail_setting(const std::string& key, const std::string& value,
                                std::string_view accepted) const {
  fail("{}: {}{} is {}; accepted: {}", where(), prefix_, key, value, accepted);
}

std::vector<bool> GgufSettings::sliding_pattern(int64_t layers, int64_t fallback) const {
  const std::string key = "attention.sliding_window_pattern";
  const GgufValue* value = file_.find_value(prefix_ + key);
  std::vector<bool> sliding;
  if (value != nullptr && std::holds_alternative<std::vector<int64_t>>(*value)) {
    for (const int64_t slides : std::get<std::vector<int64_t>>(*value)) sliding.push_back(slides != 0);
    if (std::ssize(sliding) != layers) {
      refuse(key, fmt::format("a list of {}", sliding.size()), fmt::format("one per layer, {}", layers));
    }
    return sliding;
  }
  const int64_t pattern = integer(key, fallback);
  if (pattern < 0) refuse(key, pattern, "0 (all slide) or more");
  for (int64_t i = 0; i < layers; ++i) sliding.push_back(pattern == 0 || i % pattern < pattern - 1);
  return sliding;
}

json translate_common(const GgufSettings& settings, const char* model_type, const GgufForm& form) {
  refuse_unsupported(settings, form);
  if (form.by_layer) check_layers(settings, settings.integer("block_count"));
  const int64_t hidden = settings.integer("embedding_length");
  const int64_t heads = settings.integer("attention.head_count");
  if (heads < 1) settings.refuse("attention.head_count", heads, "1 or more");
  const int64_t head_dim = settings.integer("attention.key_length", hidden / heads);
  constexpr int64_t kMostChannels = 8192;  // check_sizes' bound, before anything is sized by it
  if (head_dim < 2 || head_dim > kMostChannels) {
    settings.refuse("attention.key_length", head_dim, fmt::format("2 to {}", kMostChannels));
  }
  const int64_t rotating = settings.integer("rope.dimension_count", head_dim);
  if (form.whole_head && rotating != head_dim) {
    settings.refuse("rope.dimension_count", rotating, fmt::format("the head size, {}", head_dim));
  }
  const int64_t value_dim = settings.integer("attention.value_length", head_dim);
  if (!form.latent && value_dim != head_dim) {
    settings.refuse("attention.value_length", value_dim, fmt::format("attention.key_length, {}", head_dim));
  }
  if (rotating < 2 || rotating > head_dim) {
    settings.refuse("rope.dimension_count", rotating, fmt::format("2 to the head size, {}", head_dim));
  }
  const int64_t vocabulary = vocab_size(settings);
  json document{{"model_type", model_type},
                {"vocab_size", vocabulary},
                {"hidden_size", hidden},
                {"intermediate_size", form.by_layer ? settings.largest("feed_forward_length", 0)
                                                    : settings.integer("feed_forward_length")},
                {"num_hidden_layers", settings.integer("block_count")},
                {"num_attention_heads", heads},
                {"num_key_value_heads", form.by_layer ? settings.largest("attention.head_count_kv", heads)
                                                      : settings.integer("attention.head_count_kv", heads)},
                {"head_dim", head_dim},
                {"max_position_embeddings", settings.integer("context_length")},
                {form.eps_key, settings.number(form.layer_norm ? "attention.layer_norm_epsilon"
                                                               : "attention.layer_norm_rms_epsilon")},
                {"tie_word_embeddings", !settings.has_tensor("output.weight")},
                {"attention_bias", has_attention_bias(settings, form)},
                {"bos_token_id", token(settings, "tokenizer.ggml.bos_token_id", vocabulary)},
                {"eos_token_id", token(settings, "tokenizer.ggml.eos_token_id", vocabulary)},
                {"rope_parameters", RopeReader{settings, form, rotating, {}}.read()}};
  // Said of whole heads, too: families differ in what they take for granted.
  if (!form.latent) document["rope_parameters"]["partial_rotary_factor"] = rotary_share(rotating, head_dim);
  return document;
}

void translate_experts(const GgufSettings& settings, json& document) {
  document["num_experts"] = settings.integer("expert_count");
  document["num_experts_per_tok"] = settings.integer("expert_used_count");
  const double scale = settings.number("expert_weights_scale", 0.0);
  if (scale != 0 && scale != 1) settings.refuse("expert_weights_scale", scale, "1");
  json dense = json::array();
  const auto layers = document["num_hidden_layers"].get<int64_t>();
  check_layers(settings, layers);
  for (int64_t i = 0; i < layers; ++i) {
    const auto size = [&](const char* tensor, const char* key) {
      const TensorView* view = settings.file().find(fmt::format("blk.{}.{}.weight", i, tensor));
      if (view != nullptr && view->shape.size() >= 2) document[key] = view->shape[view->shape.size() - 2];
      return view != nullptr;
    };
    if (!size("ffn_up_exps", "moe_intermediate_size")) dense.push_back(i);
    size("ffn_up_shexp", "shared_expert_intermediate_size");
  }
  if (!document.contains("moe_intermediate_size")) {
    fail("{}: tensor blk.0.ffn_up_exps.weight is missing; {}.expert_count is {}", settings.where(),
         settings.file().string("general.architecture"), settings.integer("expert_count"));
  }
  if (document["moe_intermediate_size"].get<int64_t>() < 1) {
    fail("{}: the experts' tensors hold no rows; accepted: 1 or more", settings.where());
  }
  document["mlp_only_layers"] = dense;
}

void translate_mamba(const GgufSettings& settings, json& document) {
  document["mamba_d_conv"] = settings.integer("ssm.conv_kernel");
  document["mamba_d_state"] = settings.integer("ssm.state_size");
  document["mamba_n_heads"] = settings.integer("ssm.time_step_rank");
  document["mamba_n_groups"] = settings.integer("ssm.group_count");
  for (int64_t i = 0; i < document["num_hidden_layers"].get<int64_t>(); ++i) {
    if (!settings.has_tensor(fmt::format("blk.{}.ssm_in.weight", i))) continue;
    document["mamba_conv_bias"] = settings.has_tensor(fmt::format("blk.{}.ssm_conv1d.bias", i));
    break;
  }
}

void name_gguf_mamba(const ModelConfig& config, TensorNames& names) {
  name_mamba(config, {"ssm_in", "ssm_conv1d", "ssm_norm", "ssm_out", "ssm_a", "ssm_dt.bias", "ssm_d"}, names);
  names.decay_is_stored = true;
}

bool translate_windows(const GgufSettings& settings, int64_t default_window, int64_t default_pattern,
                       json& document) {
  const int64_t window = settings.integer("attention.sliding_window", default_window);
  if (window < 0) settings.refuse("attention.sliding_window", window, "0 (none) or more");
  document["sliding_window"] = window == 0 ? json() : json(window);
  const auto layers = document["num_hidden_layers"].get<int64_t>();
  check_layers(settings, layers);
  json types = json::array();
  for (const bool slides : settings.sliding_pattern(layers, default_pattern)) {
    types.push_back(slides && window > 0 ? "sliding_attention" : "full_attention");
  }
  document["layer_types"] = types;
  return window > 0;
}

TensorNames gguf_names(const GgufFile& file, const ModelConfig& config) {
  TensorNames names = unified_names();
  names.decay_is_stored = false;
  names.root = "";
  names.layer = "blk.{}.";
  names.embedding = "token_embd";
  names.positions = "position_embd";
  names.head = "output";
  names.modules[Module::final_norm].name = "output_norm";
  // The settings were made from them.
  names.ignored_suffixes = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
  const bool two_norms = config.form != BlockForm::update_norms && config.form != BlockForm::sandwich;
  for (const auto& [module, name] :
       {std::pair{Module::input_norm, "attn_norm"},
        {Module::post_self_attn_norm, "post_attention_norm"},
        {Module::post_attention_norm, two_norms ? "ffn_norm" : "post_attention_norm"},
        {Module::pre_feedforward_norm, "ffn_norm"},
        {Module::post_feedforward_norm, "post_ffw_norm"},
        {Module::post_mlp_norm, "post_ffw_norm"},
        {Module::q_latent, "attn_q_a"},
        {Module::q_latent_norm, "attn_q_a_norm"},
        {Module::kv_latent, "attn_kv_a_mqa"},
        {Module::kv_latent_norm, "attn_kv_a_norm"},
        {Module::kv, "attn_kv_b"},
        {Module::q, config.latent ? "attn_q_b" : "attn_q"},
        {Module::k, "attn_k"},
        {Module::v, "attn_v"},
        {Module::q_norm, "attn_q_norm"},
        {Module::k_norm, "attn_k_norm"},
        {Module::o, "attn_output"},
        {Module::gate, config.gated_mlp ? "ffn_gate" : "ffn_up"},
        {Module::up, "ffn_up"},
        {Module::down, "ffn_down"},
        {Module::router, "ffn_gate_inp"},
        {Module::shared_expert_gate, "ffn_gate_inp_shexp"},
        {Module::shared_gate, "ffn_gate_shexp"},
        {Module::shared_up, "ffn_up_shexp"},
        {Module::shared_down, "ffn_down_shexp"}}) {
    rename_module(names, module, name);
  }
  for (const auto& [module, name] : {std::pair{Module::expert_gate, "ffn_gate_exps"},
                                     {Module::expert_up, "ffn_up_exps"},
                                     {Module::expert_down, "ffn_down_exps"}}) {
    names.modules[module] = {.name = names.layer + name, .stacked = true};
  }
  names.vectors[Module::router] = names.layer + "exp_probs_b.bias";
  names.vectors[Module::qk_product] = names.layer + "attn_sinks.weight";
  if (file.find("blk.0.attn_qkv.weight") != nullptr) fuse_qkv(config, "attn_qkv", names);
  return names;
}

void fuse_gguf_gate_up(const GgufFile&, const ModelConfig& config, TensorNames& names) {
  fuse_gate_up(config, "ffn_up", names);
}

void rename_gguf_post_attention_norm(const GgufFile&, const ModelConfig&, TensorNames& names) {
  rename_module(names, Module::post_attention_norm, "post_attention_norm");
}

void pair_rotary_rows(const GgufFile&, const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
}

const Architecture* find_gguf_architecture(std::string_view name) {
  for (const Architecture& architecture : architectures()) {
    if (!architecture.gguf_name.empty() && architecture.gguf_name == name) return &architecture;
  }
  return nullptr;
}

std::string known_gguf_architectures() {
  std::string names;
  for (const Architecture& architecture : architectures()) {
    if (architecture.gguf_name.empty()) continue;
    names += (names.empty() ? "" : ", ") + std::string(architecture.gguf_name);
  }
  return names;
}

}  // namespace qeval::model
