// GLM 4.5 and 4.6: a sigmoid router whose choice is corrected, in groups, and a shared expert.

#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_glm4_moe(const JsonObject& fields) {
  ModelConfig config = read_common(
      fields,
      {.context = 131072, .kv_heads = 8, .rotary_factor = 0.5, .eps = 1e-5, .reads = {"use_qk_norm"}});
  config.qkv_bias = fields.boolean("attention_bias", false);
  if (fields.boolean("use_qk_norm", false)) config.qk_norm = QkNorm::head;
  Experts experts =
      read_experts(fields, {.count = fields.integer("n_routed_experts", 128), .used = 8, .inner = 1408});
  RouteOp& route = experts.route;
  route.scores = RouteOp::Scores::sigmoid;
  route.correction = true;
  route.normalize = fields.boolean("norm_topk_prob", true);
  route.added_sum = 1e-20;
  route.factor = static_cast<float>(fields.number("routed_scaling_factor", 1.0));
  route.groups = fields.integer("n_group", 1);
  route.used_groups = fields.integer("topk_group", 1);
  const int64_t shared = fields.integer("n_shared_experts", 1);
  if (shared < 1 || shared > 1024) fields.refuse("n_shared_experts", "1 to 1024");
  experts.shared_inner = shared * experts.inner;
  config.experts = experts;
  const int64_t dense = fields.integer("first_k_dense_replace", 1);
  set_sparse(config, [&](int64_t i) { return i >= dense; });
  return config;
}

void rename_glm4_moe(const ModelConfig& config, TensorNames& names) {
  name_experts(names, {});
  rename_module(names, Module::shared_gate, "mlp.shared_experts.gate_proj");
  rename_module(names, Module::shared_up, "mlp.shared_experts.up_proj");
  rename_module(names, Module::shared_down, "mlp.shared_experts.down_proj");
  names.vectors[Module::router] = names.layer + "mlp.gate.e_score_correction_bias";
  // What predicts further tokens stands behind the last layer.
  names.ignored_parts.push_back(fmt::format(fmt::runtime(names.layer), config.num_layers));
}

nlohmann::json translate_glm4_moe(const GgufSettings& settings) {
  nlohmann::json document = translate_common(settings, "glm4_moe", {.experts = true});
  document["use_qk_norm"] = settings.has_tensor("blk.0.attn_q_norm.weight");
  document["n_routed_experts"] = settings.integer("expert_count");
  document["num_experts_per_tok"] = settings.integer("expert_used_count");
  document["moe_intermediate_size"] = settings.integer("expert_feed_forward_length");
  document["n_shared_experts"] = settings.integer("expert_shared_count");
  document["first_k_dense_replace"] = settings.integer("leading_dense_block_count", 0);
  document["routed_scaling_factor"] = settings.number("expert_weights_scale", 1.0);
  document["norm_topk_prob"] = settings.boolean("expert_weights_norm", false);
  constexpr int64_t kSigmoid = 2;
  if (const int64_t function = settings.integer("expert_gating_func", kSigmoid); function != kSigmoid)
    settings.refuse("expert_gating_func", function, "2 (sigmoid)");
  if (const int64_t groups = settings.integer("expert_group_count", 1); groups > 1)
    settings.refuse("expert_group_count", groups, "1");
  return document;
}

}  // namespace

std::vector<Architecture> glm4_moe_family() {
  return {{"glm4_moe", read_glm4_moe, rename_glm4_moe, "glm4moe", translate_glm4_moe,
           rename_gguf_post_attention_norm}};
}

}  // namespace qeval::model
