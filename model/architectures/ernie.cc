#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_ernie(const JsonObject& fields) {
  ModelConfig config = read_common(
      fields,
      {.context = 131072, .kv_heads = 2, .head_dim = 128, .theta = 500000.0, .eps = 1e-5, .tied = true});
  config.qkv_bias = config.o_bias = config.mlp_bias = fields.boolean("use_bias", false);
  return config;
}

ModelConfig read_ernie_moe(const JsonObject& fields) {
  ModelConfig config =
      read_common(fields, {.context = 131072, .kv_heads = 4, .theta = 500000.0, .eps = 1e-5, .tied = true});
  config.qkv_bias = config.o_bias = config.mlp_bias = fields.boolean("use_bias", false);
  Experts experts = read_experts(fields, {.count = 64, .used = 6, .inner = 1536});
  experts.route.normalize = true;
  experts.route.least_sum = fields.number("moe_norm_min", 1e-12);
  experts.route.correction = true;
  const int64_t shared = fields.integer("moe_num_shared_experts", 2);
  if (shared < 0 || shared > 1024) fields.refuse("moe_num_shared_experts", "0 to 1024");
  experts.shared_inner = shared * experts.inner;
  experts.shared_bias = config.mlp_bias;
  config.experts = experts;
  const int64_t first = fields.integer("moe_layer_start_index", 1);
  const int64_t end = fields.integer("moe_layer_end_index", -1);
  const int64_t last = end == -1 ? config.num_layers - 1 : end;
  const int64_t interval = fields.integer("moe_layer_interval", 1);
  if (interval < 1) fields.refuse("moe_layer_interval", "1 or more");
  set_sparse(config, [&](int64_t i) { return (i + 1) % interval == 0 && i >= first && i <= last; });
  return config;
}

void rename_ernie_moe(const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
  name_experts(names, {});
  rename_module(names, Module::shared_gate, "mlp.shared_experts.gate_proj");
  rename_module(names, Module::shared_up, "mlp.shared_experts.up_proj");
  rename_module(names, Module::shared_down, "mlp.shared_experts.down_proj");
  names.vectors[Module::router] = names.layer + "mlp.moe_statics.e_score_correction_bias";
}

void rename_ernie(const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
}

nlohmann::json translate_ernie(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "ernie4_5", {.whole_head = true});
  document["use_bias"] = document["attention_bias"];
  return document;
}

nlohmann::json translate_ernie_moe(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "ernie4_5_moe", {.whole_head = true, .experts = true});
  translate_experts(settings, document);
  document["use_bias"] = document["attention_bias"];
  const int64_t shared = document.value("shared_expert_intermediate_size", int64_t{0});
  const auto inner = document["moe_intermediate_size"].get<int64_t>();
  if (shared % inner != 0) {
    settings.refuse("expert_shared_feed_forward_length", shared,
                    fmt::format("a multiple of the experts' size, {}", inner));
  }
  document["moe_num_shared_experts"] = shared / inner;
  document["moe_layer_start_index"] = settings.integer("leading_dense_block_count", 0);
  int64_t last = document["num_hidden_layers"].get<int64_t>() - 1;
  while (last > 0 && !settings.has_tensor(fmt::format("blk.{}.ffn_gate_inp.weight", last))) --last;
  document["moe_layer_end_index"] = last;
  document["moe_layer_interval"] = settings.integer("interleave_moe_layer_step", 1);
  document["moe_norm_min"] = 6.103515625e-5;  // in llama.cpp
  return document;
}

}  // namespace

std::vector<Architecture> ernie_family() {
  return {{"ernie4_5", read_ernie, rename_ernie, "ernie4_5", translate_ernie, pair_rotary_rows},
          {"ernie4_5_moe", read_ernie_moe, rename_ernie_moe, "ernie4_5-moe", translate_ernie_moe,
           pair_rotary_rows}};
}

}  // namespace qeval::model
