// What the families' readers share.

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/error.h"
#include "model/architectures/architecture.h"
#include "model/config_check.h"

namespace qeval::model {

using nlohmann::json;

namespace {

/// YaRN's g: how much larger attention's logits are made for a stretch by `factor`.
double yarn_scale(double factor, double mscale = 1) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void read_yarn(const JsonObject& rope, bool truncate_read, RopeScaling& scaling, double context) {
  scaling.kind = RopeScaling::Kind::yarn;
  scaling.factor = rope.number("factor", context / scaling.original_max_position_embeddings);
  scaling.beta_fast = rope.number("beta_fast", 32.0);
  scaling.beta_slow = rope.number("beta_slow", 1.0);
  scaling.truncate = !truncate_read || rope.boolean("truncate", true);
  const double mscale = rope.number("mscale", 0.0), all = rope.number("mscale_all_dim", 0.0);
  const double usual = mscale != 0 && all != 0
                           ? yarn_scale(scaling.factor, mscale) / yarn_scale(scaling.factor, all)
                           : yarn_scale(scaling.factor);
  scaling.attention_factor = rope.number("attention_factor", usual);
}

void read_longrope(const JsonObject& rope, int64_t pairs, RopeScaling& scaling, double context) {
  scaling.kind = RopeScaling::Kind::longrope;
  scaling.long_factors = rope.numbers("long_factor");
  scaling.short_factors = rope.numbers("short_factor");
  for (const auto& [key, factors] :
       {std::pair{"long_factor", &scaling.long_factors}, std::pair{"short_factor", &scaling.short_factors}}) {
    const bool positive = std::ranges::all_of(*factors, [](double f) { return f > 0 && std::isfinite(f); });
    if (std::ssize(*factors) != pairs || !positive) {
      rope.refuse(key, fmt::format("{} numbers above 0, one per rotating pair of channels", pairs));
    }
  }
  const double original = scaling.original_max_position_embeddings;
  const double stretch = rope.number("factor", context / original);
  const double usual = stretch <= 1 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original));
  scaling.attention_factor = rope.number("attention_factor", usual);
}

}  // namespace

Activation read_activation(const JsonObject& fields, const char* key, const char* fallback) {
  const std::string name = fields.string(key, fallback);
  if (name == "silu" || name == "swish") return Activation::silu;
  // Functions of transformers that differ in nothing but the name, or in the order of their operations.
  if (name == "gelu" || name == "gelu_python") return Activation::gelu_erf;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  if (name == "relu2") return Activation::relu2;
  if (name == "xielu") return Activation::xielu;
  fields.refuse(key,
                "silu, gelu, gelu_pytorch_tanh, and transformers' other names for them; relu, relu2, xielu");
}

std::optional<int32_t> read_token(const JsonObject& fields, const char* key) {
  const json* value = fields.find(key);
  if (value != nullptr && value->is_array()) value = value->empty() ? nullptr : &value->front();
  if (value == nullptr || (value->is_number_integer() && value->get<int64_t>() == -1)) return std::nullopt;
  const bool in_range = value->is_number_integer() &&
                        (!value->is_number_unsigned() || value->get<uint64_t>() <= INT32_MAX) &&
                        value->get<int64_t>() >= 0 && value->get<int64_t>() <= INT32_MAX;
  if (!in_range) fields.refuse(key, "a token id or a list of them, or -1 or null for none");
  return value->get<int32_t>();
}

double rotary_share(int64_t rotating, int64_t head_dim) {
  const double share = static_cast<double>(rotating) / static_cast<double>(head_dim);
  const bool truncated = static_cast<int64_t>(static_cast<double>(head_dim) * share) < rotating;
  return truncated ? std::nextafter(share, 2.0) : share;
}

Rotary read_rotary(const JsonObject& top, const JsonObject* rope, const ConfigDefaults& defaults,
                   const ModelConfig& config) {
  Rotary rotary;
  rotary.theta = top.number("rope_theta", defaults.theta);
  double share = top.number("partial_rotary_factor", defaults.rotary_factor.value_or(1.0));
  if (rope != nullptr) {
    rotary.theta = rope->number("rope_theta", rotary.theta);
    share = rope->number("partial_rotary_factor", share);
  }
  if (!(share > 0 && share <= 1)) {
    fail("{}: partial_rotary_factor is {}; accepted: above 0, at most 1", top.where(), share);
  }
  // transformers' code of such a family does not look at it, or fails.
  if (!defaults.rotary_factor && share != 1) {
    fail("{}: partial_rotary_factor is {}; accepted: 1 (the family rotates whole heads)", top.where(), share);
  }
  // Truncated, as Python's int() does.
  rotary.dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * share);
  if (rope == nullptr) return rotary;

  // "type" is the older spelling of "rope_type".
  const char* key =
      rope->find("rope_type") == nullptr && rope->find("type") != nullptr ? "type" : "rope_type";
  const std::string type = rope->string(key, "default");
  const auto context = static_cast<double>(config.max_position_embeddings);
  const char* original = "original_max_position_embeddings";
  RopeScaling& scaling = rotary.scaling;
  scaling.original_max_position_embeddings =
      top.find(original) != nullptr ? top.number(original) : rope->number(original, context);
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    scaling.factor = rope->number("factor");
  } else if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
    scaling.factor = rope->number("factor");
    scaling.low_freq_factor = rope->number("low_freq_factor");
    scaling.high_freq_factor = rope->number("high_freq_factor");
  } else if (type == "dynamic") {
    scaling.kind = RopeScaling::Kind::dynamic;
    scaling.factor = rope->number("factor");
    scaling.original_max_position_embeddings = context;
  } else if (type == "yarn") {
    // Settings per layer type are read without it in transformers.
    const bool per_layer_type =
        &rope->value() != top.find("rope_parameters") && &rope->value() != top.find("rope_scaling");
    read_yarn(*rope, !per_layer_type, scaling, context);
  } else if (type == "longrope") {
    read_longrope(*rope, rotary.dim / 2, scaling, context);
  } else if (type != "default") {
    rope->refuse(key, "default, linear, llama3, dynamic, yarn, longrope");
  }
  if (scaling.kind == RopeScaling::Kind::none || scaling.kind == RopeScaling::Kind::linear) {
    scaling.original_max_position_embeddings = 0;
  }
  return rotary;
}

void read_rope(const JsonObject& fields, const ConfigDefaults& defaults, ModelConfig& config) {
  check_sizes(config, fields.where());  // before anything is derived from head_dim
  const json* parameters = fields.find("rope_parameters");
  if (parameters != nullptr && fields.find("rope_scaling") != nullptr &&
      *parameters != *fields.find("rope_scaling")) {
    fields.refuse("rope_scaling", "null where rope_parameters is given");
  }
  const char* key = parameters == nullptr ? "rope_scaling" : "rope_parameters";
  if (fields.find(key) == nullptr) {
    config.rotary = read_rotary(fields, nullptr, defaults, config);
    return;
  }
  const JsonObject rope = fields.object(key);
  if (rope.find("full_attention") == nullptr && rope.find("sliding_attention") == nullptr) {
    config.rotary = read_rotary(fields, &rope, defaults, config);
    return;
  }
  if (!defaults.ropes_by_type) {
    rope.refuse(rope.find("full_attention") != nullptr ? "full_attention" : "sliding_attention",
                "one set of values for all layers");
  }
  // A type that is not there has its default.
  config.rotary = read_rotary(fields, nullptr, defaults, config);
  if (rope.find("full_attention") != nullptr) {
    const JsonObject full = rope.object("full_attention");
    config.rotary = read_rotary(fields, &full, defaults, config);
  }
  if (rope.find("sliding_attention") != nullptr) {
    const JsonObject sliding = rope.object("sliding_attention");
    config.local_rotary = read_rotary(fields, &sliding, defaults, config);
  }
}

namespace {

/// Of a family that has none.
void refuse_windows(const JsonObject& fields) {
  if (fields.find("sliding_window") != nullptr && fields.boolean("use_sliding_window", true)) {
    fields.refuse("sliding_window", "null");
  }
  if (fields.find("layer_types") == nullptr) return;
  for (const std::string& type : fields.strings("layer_types")) {
    if (type != "full_attention") fields.refuse("layer_types", "full_attention in every layer");
  }
}

}  // namespace

ModelConfig read_common(const JsonObject& fields, const ConfigDefaults& defaults) {
  ModelConfig config;
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.intermediate_size = fields.integer("intermediate_size");
  config.num_layers = fields.integer("num_hidden_layers");
  config.num_heads = fields.integer("num_attention_heads");
  // Absent is the default, null is as many as heads.
  const bool given = fields.has("num_key_value_heads");
  config.num_kv_heads = fields.integer(
      "num_key_value_heads", given || defaults.kv_heads == 0 ? config.num_heads : defaults.kv_heads);
  config.max_position_embeddings = fields.integer(
      "max_position_embeddings", defaults.context != 0 ? std::optional(defaults.context) : std::nullopt);
  config.bos_token_id = read_token(fields, "bos_token_id");
  config.eos_token_id = read_token(fields, "eos_token_id");
  if (fields.find("head_dim") != nullptr) {
    config.head_dim = fields.integer("head_dim");
  } else if (defaults.head_dim != 0 && !fields.has("head_dim")) {
    config.head_dim = defaults.head_dim;
  } else {
    if (config.num_heads < 1 || config.hidden_size % config.num_heads != 0) {
      fields.refuse("num_attention_heads", "a divisor of hidden_size where head_dim is not given");
    }
    config.head_dim = config.hidden_size / config.num_heads;
  }
  fields.require_false({"use_bidirectional_attention"});
  for (const char* key : kBlockSwitches) {
    if (std::ranges::find(defaults.reads, std::string_view(key)) == defaults.reads.end()) {
      fields.require_false({key});
    }
  }
  if (!defaults.windows) refuse_windows(fields);
  read_rope(fields, defaults, config);
  config.norm_eps = fields.number(defaults.eps_key, defaults.eps);
  config.activation = read_activation(fields, defaults.activation_key, defaults.activation);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", defaults.tied);
  return config;
}

std::optional<int64_t> read_window(const JsonObject& fields, std::optional<int64_t> fallback) {
  if (!fields.has("sliding_window")) return fallback;
  if (fields.find("sliding_window") == nullptr) return std::nullopt;
  const int64_t window = fields.integer("sliding_window");
  if (window < 1) fields.refuse("sliding_window", "1 or more, or null");
  return window;
}

std::optional<std::vector<bool>> read_layer_types(const JsonObject& fields, int64_t layers) {
  if (fields.find("layer_types") == nullptr) return std::nullopt;
  std::vector<bool> sliding;
  for (const std::string& type : fields.strings("layer_types")) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.refuse("layer_types", "full_attention and sliding_attention");
    }
    sliding.push_back(type == "sliding_attention");
  }
  if (std::ssize(sliding) != layers)
    fields.refuse("layer_types", fmt::format("a list of {}, one per layer", layers));
  return sliding;
}

void set_windows(const std::vector<bool>& sliding, int64_t window, ModelConfig& config) {
  config.layers.resize(sliding.size());
  for (size_t i = 0; i < sliding.size(); ++i) {
    if (sliding[i]) config.layers[i].window = window;
  }
}

void read_attention_bias(const JsonObject& fields, ModelConfig& config, bool fallback) {
  config.qkv_bias = config.o_bias = fields.boolean("attention_bias", fallback);
}

TensorNames unified_names() {
  TensorNames names;
  for (int64_t m = 0; m < kBlockModules; ++m) {
    const auto module = static_cast<Module>(m);
    names.modules[module].name = names.layer + std::string(module_name(module));
  }
  for (const auto& [module, name] :
       {std::pair{Module::expert_gate, "w1"}, {Module::expert_up, "w3"}, {Module::expert_down, "w2"}}) {
    rename_module(names, module, fmt::format("mlp.experts.{{}}.{}", name));
  }
  names.vectors = {{Module::qk_product, names.layer + "self_attn.sinks"},
                   {Module::router, names.layer + "mlp.router.correction"},
                   {Module::expert_mix, names.layer + "mlp.experts.scale"},
                   {Module::layer_scalar, names.layer + "layer_scalar"},
                   {Module::output_scale, names.layer + std::string(module_name(Module::output_scale))}};
  const std::string state = names.layer + std::string(module_name(Module::mixer_state));
  names.state_decay = state + ".decay";
  names.state_step = state + ".step_bias";
  names.state_skip = state + ".skip";
  names.decay_is_stored = true;
  names.modules[Module::final_norm].name = "norm";
  names.modules[Module::embedding_in].name = "embedding_in";
  names.modules[Module::embedding_out].name = "embedding_out";
  names.positions = "embed_positions";
  return names;
}

TensorNames hugging_face_names(const ModelConfig& config) {
  TensorNames names = unified_names();
  rename_module(names, Module::gate, "mlp.gate_proj");
  rename_module(names, Module::up, "mlp.up_proj");
  rename_module(names, Module::down, "mlp.down_proj");
  names.norm_plus_one = config.norm_weight_plus_one;
  names.decay_is_stored = false;
  return names;
}

void rename_module(TensorNames& names, Module module, const std::string& name) {
  names.modules[module].name = names.layer + name;
}

void fuse_qkv(const ModelConfig& config, const std::string& name, TensorNames& names, bool transposed) {
  const int64_t q = config.num_heads * config.head_dim, kv = config.num_kv_heads * config.head_dim;
  int64_t first = 0;
  for (const auto& [module, rows] : {std::pair{Module::q, q}, {Module::k, kv}, {Module::v, kv}}) {
    names.modules[module] = {
        .name = names.layer + name, .first_row = first, .rows = q + 2 * kv, .transposed = transposed};
    first += rows;
  }
}

void fuse_gate_up(const ModelConfig& config, const std::string& name, TensorNames& names) {
  const int64_t inner = config.intermediate_size;
  names.modules[Module::gate] = {.name = names.layer + name, .first_row = 0, .rows = 2 * inner};
  names.modules[Module::up] = {.name = names.layer + name, .first_row = inner, .rows = 2 * inner};
}

void name_experts(TensorNames& names, const ExpertNames& own) {
  rename_module(names, Module::router, own.block + "." + own.router);
  for (const auto& [module, name] : {std::pair{Module::expert_gate, own.gate},
                                     {Module::expert_up, own.up},
                                     {Module::expert_down, own.down}}) {
    rename_module(names, module, own.block + ".experts.{}." + name);
  }
}

void stack_experts(const ModelConfig& config, const StackedExperts& own, TensorNames& names) {
  const int64_t inner = config.experts->inner;
  TensorPlace place{.name = names.layer + own.gate_up,
                    .rows = 2 * inner,
                    .transposed = own.transposed,
                    .stacked = true,
                    .bare = own.bare};
  if (own.alternating) {
    place.block_rows = 1;
    place.block_stride = 2;
  }
  names.modules[Module::expert_gate] = place;
  place.first_row = own.alternating ? 1 : inner;
  names.modules[Module::expert_up] = place;
  names.modules[Module::expert_down] = {
      .name = names.layer + own.down, .transposed = own.transposed, .stacked = true, .bare = own.bare};
}

Experts read_experts(const JsonObject& fields, const ExpertDefaults& defaults) {
  Experts experts;
  experts.route.experts =
      first_integer(fields, {"num_experts", "num_local_experts", "moe_num_experts"}, defaults.count);
  experts.route.used =
      first_integer(fields, {"num_experts_per_tok", "moe_k", "top_k_experts"}, defaults.used);
  experts.inner =
      fields.integer(defaults.inner_key, defaults.inner != 0 ? std::optional(defaults.inner) : std::nullopt);
  constexpr int64_t kMostChannels = int64_t{1} << 20;  // check_config's bound, before anything is sized by it
  if (experts.inner < 1 || experts.inner > kMostChannels) {
    fields.refuse(defaults.inner_key, fmt::format("1 to {}", kMostChannels));
  }
  return experts;
}

void set_mixers(const JsonObject& fields, const char* key, std::initializer_list<std::string_view> recurrent,
                ModelConfig& config) {
  const std::vector<std::string> types = fields.strings(key);
  std::string known = "full_attention";
  for (const std::string_view name : recurrent) known += fmt::format(", {}", name);
  if (std::ssize(types) != config.num_layers) {
    fields.refuse(key, fmt::format("a list of {}, one per layer", config.num_layers));
  }
  config.layers.resize(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    const bool recurs = std::ranges::find(recurrent, types[i]) != recurrent.end();
    if (!recurs && types[i] != "full_attention" && types[i] != "attention") fields.refuse(key, known);
    if (recurs) config.layers[i].mixer = LayerSettings::Mixer::recurrent;
  }
}

int64_t read_expansion(const JsonObject& fields) {
  const int64_t factor = fields.integer("mamba_expand", 2);
  if (factor < 1 || factor > 1024) fields.refuse("mamba_expand", "1 to 1024");
  return factor;
}

Recurrence read_mamba(const JsonObject& fields, int64_t inner) {
  Recurrence r{.kind = Recurrence::Kind::state_space,
               .taps = fields.integer("mamba_d_conv", 4),
               .conv_bias = fields.boolean("mamba_conv_bias", true),
               .in_bias = fields.boolean("mamba_proj_bias", false),
               .key_heads = fields.integer("mamba_n_groups", 1),
               .value_heads = fields.integer("mamba_n_heads", 128),
               .key_dim = fields.integer("mamba_d_state", 256),
               .most_step = std::numeric_limits<float>::infinity()};
  if (r.value_heads < 1 || inner < 1 || inner % r.value_heads != 0) {
    fields.refuse("mamba_n_heads", fmt::format("a divisor of the mixer's {} channels", inner));
  }
  r.value_dim = inner / r.value_heads;
  const json* head = fields.find("mamba_d_head");
  if (head != nullptr && head->is_number() && fields.integer("mamba_d_head") != r.value_dim) {
    fields.refuse("mamba_d_head", fmt::format("the mixer's {} channels over {} heads, {}", inner,
                                              r.value_heads, r.value_dim));
  }
  if (fields.find("time_step_limit") != nullptr) {
    const json& limit = fields.array("time_step_limit");
    // Infinity has no form in JSON: some write {"__float__": "Infinity"}.
    const auto read = [&](const json& value, bool upper) {
      if (value.is_number()) return value.get<float>();
      if (!upper || !value.is_object())
        fields.refuse("time_step_limit", "two numbers, or Infinity as the second");
      return std::numeric_limits<float>::infinity();
    };
    if (limit.size() != 2) fields.refuse("time_step_limit", "two numbers");
    r.least_step = read(limit[0], false);
    r.most_step = read(limit[1], true);
    if (!(r.least_step <= r.most_step)) fields.refuse("time_step_limit", "two numbers in ascending order");
  }
  return r;
}

void name_mamba(const ModelConfig& config, const MambaNames& own, TensorNames& names) {
  const Recurrence& r = *config.recurrence;
  const int64_t values = r.value_heads * r.value_dim, keys = r.key_heads * r.key_dim;
  const int64_t all = 2 * values + 2 * keys + r.value_heads;
  int64_t first = 0;
  for (const auto& [module, rows] : {std::pair{Module::mixer_z, values},
                                     {Module::mixer_v, values},
                                     {Module::mixer_k, keys},
                                     {Module::mixer_q, keys},
                                     {Module::mixer_a, r.value_heads}}) {
    names.modules[module] = {.name = names.layer + own.in, .first_row = first, .rows = all};
    first += rows;
  }
  for (const auto& [module, row] : {std::pair{Module::mixer_v_conv, int64_t{0}},
                                    {Module::mixer_k_conv, values},
                                    {Module::mixer_q_conv, values + keys}}) {
    names.modules[module] = {.name = names.layer + own.conv, .first_row = row, .rows = values + 2 * keys};
  }
  names.modules[Module::mixer_norm] = {.name = names.layer + own.norm};
  rename_module(names, Module::mixer_o, own.out);
  names.state_decay = names.layer + own.decay;
  names.state_step = names.layer + own.step;
  names.state_skip = names.layer + own.skip;
}

int64_t first_integer(const JsonObject& fields, std::initializer_list<const char*> keys,
                      std::optional<int64_t> fallback) {
  for (const char* key : keys) {
    if (fields.find(key) != nullptr) return fields.integer(key);
  }
  return fallback ? *fallback : fields.integer(*keys.begin());
}

}  // namespace qeval::model
