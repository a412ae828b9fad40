#include "model/graph.h"

#include <algorithm>
#include <array>

namespace qeval::model {
namespace {

constexpr std::array<std::string_view, kBlockModules + kModelModules> kModuleNames{
    "input_layernorm",
    "self_attn.q_a_proj",
    "self_attn.q_a_layernorm",
    "self_attn.kv_a_proj_with_mqa",
    "self_attn.kv_a_layernorm",
    "self_attn.kv_b_proj",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "self_attn.qk_bmm",
    "self_attn.softcap",
    "self_attn.pv_bmm",
    "self_attn.o_proj",
    "post_self_attn_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "mlp.w1",
    "mlp.act_fn",
    "mlp.w3",
    "mlp.w2",
    "post_feedforward_layernorm",
    "post_mlp_layernorm",
    "self_attn.gate_proj",
    "self_attn.v_norm",
    "mlp.router_norm",
    "mlp.router",
    "mlp.experts.w1",
    "mlp.experts.act_fn",
    "mlp.experts.w3",
    "mlp.experts.w2",
    "mlp.experts.mix",
    "mlp.shared_expert.w1",
    "mlp.shared_expert.act_fn",
    "mlp.shared_expert.w3",
    "mlp.shared_expert.w2",
    "mlp.shared_expert_gate",
    "pre_feedforward_layernorm_2",
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "mixer.q_proj",
    "mixer.k_proj",
    "mixer.v_proj",
    "mixer.z_proj",
    "mixer.b_proj",
    "mixer.a_proj",
    "mixer.q_conv",
    "mixer.k_conv",
    "mixer.v_conv",
    "mixer.state",
    "mixer.norm",
    "mixer.o_proj",
    "layer_scalar",
    "per_layer_input_gate",
    "per_layer_input_act_fn",
    "per_layer_projection",
    "post_per_layer_input_norm",
    "laurel.linear_left",
    "laurel.linear_right",
    "laurel.post_laurel_norm",
    "altup",
    "altup.correct_output_scale",
    "model.norm",
    "lm_head",
    "model.embedding_in",
    "model.embedding_out"};

}  // namespace

std::string_view module_name(Module module) {
  return kModuleNames[static_cast<size_t>(module)];
}

Accesses accesses(const Operation& operation) {
  return std::visit(
      Overloaded{
          [](const NormOp& op) {
            return Accesses{{op.in}, op.out};
          },
          [](const LinearOp& op) {
            return Accesses{{op.in}, op.out};
          },
          [](const RotateOp& op) {
            return Accesses{{op.value}, op.value};
          },
          [](const SplitLatentOp&) {
            return Accesses{{Value::kv_latent, Value::kv}, Value::k};
          },
          [](const AttentionOp&) {
            return Accesses{{Value::q, Value::k, Value::v}, Value::mixed};
          },
          [](const ActivateOp&) {
            return Accesses{{Value::gate}, Value::gate};
          },
          [](const MultiplyOp& op) {
            return Accesses{{op.value, op.by}, op.value};
          },
          [](const HadamardOp& op) {
            return Accesses{{op.value}, op.value};
          },
          [](const RouteOp&) {
            return Accesses{{Value::router}, Value::routing};
          },
          [](const DispatchOp& op) {
            return Accesses{{op.in, Value::routing}, Value::dispatched};
          },
          [](const MixExpertsOp& op) {
            std::vector<Value> reads{Value::expert_out, Value::routing};
            if (op.shared) reads.push_back(Value::shared);
            if (op.shared_gate) reads.push_back(Value::shared_gate);
            return Accesses{reads, op.out};
          },
          [](const GateOp& op) {
            return Accesses{{op.value, op.gate}, op.value};
          },
          [](const ScaleOp& op) {
            return Accesses{{op.in}, op.out};
          },
          [](const ClampOp& op) {
            return Accesses{{op.value}, op.value};
          },
          [](const ConvolveOp& op) {
            return Accesses{{op.value}, op.value};
          },
          [](const DeltaRuleOp&) {
            return Accesses{{Value::mixer_q, Value::mixer_k, Value::mixer_v, Value::mixer_a, Value::mixer_b},
                            Value::mixer_out};
          },
          [](const StateSpaceOp&) {
            return Accesses{{Value::mixer_q, Value::mixer_k, Value::mixer_v, Value::mixer_a},
                            Value::mixer_out};
          },
          [](const AltupOp&) {
            return Accesses{{Value::residual, Value::streams, Value::predicted, Value::update},
                            Value::residual};
          },
          [](const AddOp& op) {
            return Accesses{{op.to, op.in}, op.to};
          },
      },
      operation);
}

bool is_read_later(const BlockGraph& block, size_t first, Value value) {
  for (size_t i = first; i < block.operations.size(); ++i) {
    const Accesses access = accesses(block.operations[i]);
    if (std::ranges::find(access.reads, value) != access.reads.end()) return true;
    if (access.writes == value) return false;
  }
  return value == Value::residual;  // the next block reads it, or the final norm
}

namespace {

/// The linear maps that read a norm's result, experts' included; nothing where something else reads it too,
/// or nobody does.
std::vector<Module> readers_of_norm(const std::vector<Operation>& operations, size_t norm) {
  std::vector<Module> readers;
  Value out = accesses(operations[norm]).writes;
  const auto reads = [](const Accesses& access, Value value) {
    return std::ranges::find(access.reads, value) != access.reads.end();
  };
  bool overwritten = false, dispatched = false;
  for (size_t i = norm + 1; i < operations.size() && !(overwritten && !dispatched); ++i) {
    const Accesses access = accesses(operations[i]);
    const auto* linear = std::get_if<LinearOp>(&operations[i]);
    if (dispatched && reads(access, Value::dispatched)) {
      if (linear == nullptr) return {};
      readers.push_back(linear->module);
    } else if (!overwritten && reads(access, out)) {
      if (linear != nullptr) {
        readers.push_back(linear->module);
      } else if (std::holds_alternative<DispatchOp>(operations[i])) {
        dispatched = true;
      } else {
        return {};
      }
    }
    overwritten = overwritten || access.writes == out;
  }
  return readers;
}

/// Whether nothing but the mix stands between what makes values and the output projection's input.
bool values_reach_output(const BlockGraph& block) {
  const auto* attention = block.find<AttentionOp>();
  if (attention == nullptr || attention->heads != attention->kv_heads) return false;
  if (attention->kv_from != 0 || attention->kv_lent) return false;
  return std::ranges::all_of(block.operations, [](const Operation& operation) {
    const auto* norm = std::get_if<NormOp>(&operation);
    const auto* clamp = std::get_if<ClampOp>(&operation);
    return !std::holds_alternative<SplitLatentOp>(operation) && (norm == nullptr || norm->out != Value::v) &&
           (clamp == nullptr || clamp->value != Value::v);
  });
}

}  // namespace

std::vector<ScaleEdge> scale_edges(const BlockGraph& block) {
  std::vector<ScaleEdge> edges;
  const auto& operations = block.operations;
  for (size_t i = 0; i < operations.size(); ++i) {
    const auto* norm = std::get_if<NormOp>(&operations[i]);
    const bool in_front = norm != nullptr && (norm->out == Value::normed || norm->out == Value::experts_in);
    if (!in_front) continue;
    std::vector<Module> readers = readers_of_norm(operations, i);
    if (!readers.empty()) edges.push_back({norm->module, std::move(readers)});
  }
  if (values_reach_output(block)) edges.push_back({Module::v, {Module::o}});
  const bool turned = block.hadamard(Value::gate) != nullptr;
  if (block.reads_product(Module::down) && !turned) edges.push_back({Module::up, {Module::down}});
  if (block.reads_product(Module::shared_down)) edges.push_back({Module::shared_up, {Module::shared_down}});
  return edges;
}

bool is_beyond_dense(const Operation& operation) {
  return std::visit(
      Overloaded{
          [](const auto&) { return false; },
          [](const NormOp& op) { return !op.weighted; },
          [](const LinearOp& op) { return op.experts != 0; },
          [](const AttentionOp& op) { return op.sinks || op.kv_from != 0; },
          [](const ActivateOp& op) {
            return op.limit != 0 || op.sparsity != 0 || op.module != Module::activation;
          },
          [](const MultiplyOp& op) { return op.module != Module::down || op.limit != 0 || op.offset != 0; },
          [](const AddOp& op) { return op.to != Value::residual; },
          [](const RouteOp&) { return true; },
          [](const DispatchOp&) { return true; },
          [](const MixExpertsOp&) { return true; },
          [](const GateOp&) { return true; },
          [](const ScaleOp&) { return true; },
          [](const ClampOp&) { return true; },
          [](const ConvolveOp&) { return true; },
          [](const DeltaRuleOp&) { return true; },
          [](const StateSpaceOp&) { return true; },
          [](const AltupOp&) { return true; },
      },
      operation);
}

std::string_view operation_name(const Operation& operation) {
  return std::visit(
      Overloaded{
          [](const NormOp& op) { return op.weighted ? "norm" : "norm without weights"; },
          [](const LinearOp& op) { return op.experts != 0 ? "linear map of experts" : "linear map"; },
          [](const RotateOp&) { return "rotary embedding"; },
          [](const SplitLatentOp&) { return "latent attention"; },
          [](const AttentionOp& op) {
            return op.sinks          ? "attention with sinks"
                   : op.kv_from != 0 ? "shared keys and values"
                                     : "attention";
          },
          [](const ActivateOp& op) {
            if (op.limit != 0) return "clamped SwiGLU";
            if (op.sparsity != 0) return "sparse activation";
            if (op.module == Module::layer_input_activation) return "inputs of layers";
            if (op.module != Module::activation) return "activation of experts";
            return op.kind == Activation::xielu ? "xIELU" : "activation";
          },
          [](const MultiplyOp& op) { return op.limit != 0 || op.offset != 0 ? "clamped SwiGLU" : "gate"; },
          [](const HadamardOp&) { return "Hadamard rotation"; },
          [](const RouteOp&) { return "router of experts"; },
          [](const DispatchOp&) { return "mixture of experts"; },
          [](const MixExpertsOp&) { return "mixture of experts"; },
          [](const GateOp&) { return "gate of a mixer"; },
          [](const ScaleOp&) { return "scaling by a factor"; },
          [](const ClampOp&) { return "clamp"; },
          [](const ConvolveOp&) { return "convolution"; },
          [](const DeltaRuleOp&) { return "gated delta rule"; },
          [](const StateSpaceOp&) { return "state space (Mamba-2)"; },
          [](const AltupOp&) { return "alternating updates of residual streams"; },
          [](const AddOp&) { return "residual addition"; },
      },
      operation);
}

}  // namespace qeval::model
