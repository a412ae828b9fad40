#include "model/graph.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/config.h"

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
    "model.norm",
    "lm_head",
    "model.embedding_in",
    "model.embedding_out"};

/// Writes the operations of one block.
class BlockBuilder {
 public:
  BlockBuilder(const ModelConfig& config, int64_t layer)
      : config_(config), layer_(config.layer(layer)), hidden_(config.hidden_size) {}

  BlockGraph build() {
    switch (config_.form) {
      case BlockForm::pre:
        norm(Module::input_norm, Value::residual, Value::normed);
        attention(Value::normed);
        add(Module::o, Value::update);
        norm(Module::post_attention_norm, Value::residual, Value::normed);
        mlp(Value::normed, Value::update);
        add(Module::down, Value::update);
        break;
      case BlockForm::update_norms:
        attention(Value::residual);
        add_normed(Module::post_attention_norm);
        mlp(Value::residual, Value::update);
        add_normed(Module::post_feedforward_norm);
        break;
      case BlockForm::sandwich:
        sandwich(Module::post_attention_norm, Module::pre_feedforward_norm, Module::post_feedforward_norm);
        break;
      case BlockForm::glm_sandwich:
        sandwich(Module::post_self_attn_norm, Module::post_attention_norm, Module::post_mlp_norm);
        break;
      case BlockForm::parallel:
      case BlockForm::parallel_two_norms:
        norm(Module::input_norm, Value::residual, Value::normed);
        attention(Value::normed);
        if (config_.form == BlockForm::parallel_two_norms) {
          norm(Module::post_attention_norm, Value::residual, Value::normed);
        }
        mlp(Value::normed, Value::mlp_update);
        add(Module::o, Value::update);
        add(Module::down, Value::mlp_update);
        break;
      case BlockForm::after_add:
        attention(Value::residual);
        add(Module::o, Value::update);
        norm(Module::input_norm, Value::residual, Value::residual);
        mlp(Value::residual, Value::update);
        add(Module::down, Value::update);
        norm(Module::post_attention_norm, Value::residual, Value::residual);
    }
    return std::move(graph_);
  }

 private:
  template <typename Op>
  void append(Op op) {
    graph_.operations.emplace_back(op);
  }

  void norm(Module module, Value in, Value out) {
    append(NormOp{.module = module,
                  .in = in,
                  .out = out,
                  .kind = config_.norm,
                  .eps = config_.norm_eps,
                  .width = hidden_,
                  .group = hidden_,
                  .bias = config_.norm == NormKind::layer && config_.norm_bias});
  }

  void linear(Module module, Value in, Value out, int64_t rows, int64_t cols, bool bias,
              Operand operand = Operand::none) {
    append(LinearOp{module, in, out, rows, cols, bias, operand});
  }

  void add(Module module, Value in) { append(AddOp{module, in, config_.residual_factor}); }
  void add_normed(Module module) {
    norm(module, Value::update, Value::update);
    add(module, Value::update);
  }

  void sandwich(Module of_attention, Module before_mlp, Module of_mlp) {
    norm(Module::input_norm, Value::residual, Value::normed);
    attention(Value::normed);
    add_normed(of_attention);
    norm(before_mlp, Value::residual, Value::normed);
    mlp(Value::normed, Value::update);
    add_normed(of_mlp);
  }

  void heads_norm(Module module, Value value, int64_t heads, Operand operand) {
    const bool full = config_.qk_norm == QkNorm::full_width;
    append(NormOp{.module = module,
                  .in = value,
                  .out = value,
                  .kind = config_.qk_norm_kind,
                  .eps = config_.norm_eps,
                  .width = heads * config_.head_dim,
                  .group = full ? heads * config_.head_dim : config_.head_dim,
                  .own_weights = config_.qk_norm == QkNorm::head_own,
                  .bias = config_.qk_norm_bias,
                  .operand = operand});
  }

  /// The attention's operands from `in`, the attention and its output projection.
  void attention(Value in) {
    if (config_.latent) {
      latent_operands(in);
    } else {
      operands(in);
    }
    const int64_t value_dim = config_.latent ? config_.latent->value_dim : config_.head_dim;
    const float model_scale = config_.attention_scale != 0
                                  ? config_.attention_scale
                                  : 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
    append(AttentionOp{.heads = config_.num_heads,
                       .kv_heads = config_.num_kv_heads,
                       .head_dim = config_.head_dim,
                       .value_dim = value_dim,
                       .window = layer_.window,
                       .scale = layer_.attention_scale != 0 ? layer_.attention_scale : model_scale,
                       .softcap = config_.score_softcap});
    linear(Module::o, Value::mixed, Value::update, hidden_, config_.num_heads * value_dim, config_.o_bias);
  }

  void operands(Value in) {
    const int64_t d = config_.head_dim;
    const bool normed = config_.qk_norm != QkNorm::none;
    const bool norm_last = normed && (config_.qk_norm_after_rotary || !layer_.rotary);
    const int64_t block = config_.rotation ? config_.rotation->query_key_block : 0;
    // Whatever changes a tensor last hands it to the attention.
    const auto last = [block](bool is_last, Operand operand) {
      return is_last && block == 0 ? operand : Operand::none;
    };
    const bool plain = !normed && !layer_.rotary;
    linear(Module::q, in, Value::q, config_.num_heads * d, hidden_, config_.qkv_bias,
           last(plain, Operand::query));
    linear(Module::k, in, Value::k, config_.num_kv_heads * d, hidden_, config_.qkv_bias,
           last(plain, Operand::key));
    linear(Module::v, in, Value::v, config_.num_kv_heads * d, hidden_, config_.qkv_bias, Operand::value);
    const auto norms = [&] {
      heads_norm(Module::q_norm, Value::q, config_.num_heads, last(norm_last, Operand::query));
      heads_norm(Module::k_norm, Value::k, config_.num_kv_heads, last(norm_last, Operand::key));
    };
    if (normed && !config_.qk_norm_after_rotary) norms();
    if (layer_.rotary) {
      rotate(Value::q, config_.num_heads * d, d, 0, last(!norm_last, Operand::query), config_.position_beta);
      rotate(Value::k, config_.num_kv_heads * d, d, 0, last(!norm_last, Operand::key), 0);
    }
    if (normed && config_.qk_norm_after_rotary) norms();
    if (block == 0) return;
    append(HadamardOp{Value::q, config_.num_heads * d, block, Operand::query});
    append(HadamardOp{Value::k, config_.num_kv_heads * d, block, Operand::key});
  }

  void rotate(Value value, int64_t width, int64_t head_dim, int64_t first, Operand operand, double beta) {
    append(RotateOp{value, width, head_dim, first, layer_.local_rotary, operand, beta,
                    config_.position_original});
  }

  void latent_operands(Value in) {
    const LatentAttention& l = *config_.latent;
    const int64_t heads = config_.num_heads, d = l.nope + l.rope;
    const auto norm = [&](Module module, Value from, Value to, int64_t width) {
      append(NormOp{.module = module, .in = from, .out = to, .eps = l.eps, .width = width, .group = width});
    };
    linear(Module::q_latent, in, Value::q_latent, l.q_rank, hidden_, config_.qkv_bias);
    linear(Module::kv_latent, in, Value::kv_latent, l.kv_rank + l.rope, hidden_, config_.qkv_bias);
    norm(Module::q_latent_norm, Value::q_latent, Value::q_latent, l.q_rank);
    norm(Module::kv_latent_norm, Value::kv_latent, Value::kv_normed, l.kv_rank);
    linear(Module::q, Value::q_latent, Value::q, heads * d, l.q_rank, false);
    linear(Module::kv, Value::kv_normed, Value::kv, heads * (l.nope + l.value_dim), l.kv_rank, false);
    rotate(Value::q, heads * d, d, l.nope, Operand::query, 0);
    rotate(Value::kv_latent, l.kv_rank + l.rope, l.kv_rank + l.rope, l.kv_rank, Operand::none, 0);
    append(SplitLatentOp{heads, l.nope, l.rope, l.value_dim});
  }

  void mlp(Value in, Value out) {
    const int64_t inner = config_.intermediate_size;
    linear(Module::gate, in, Value::gate, inner, hidden_, config_.mlp_bias);
    if (config_.gated_mlp) linear(Module::up, in, Value::up, inner, hidden_, config_.mlp_bias);
    append(ActivateOp{config_.activation, inner});
    if (config_.gated_mlp) append(MultiplyOp{inner});
    const int64_t block = config_.rotation ? config_.rotation->down_block : 0;
    if (block != 0) append(HadamardOp{Value::gate, inner, block});
    linear(Module::down, Value::gate, out, hidden_, inner, config_.mlp_bias);
  }

  const ModelConfig& config_;
  const LayerSettings layer_;
  const int64_t hidden_;
  BlockGraph graph_;
};

/// One visitor from lambdas.
template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace

std::string_view module_name(Module module) {
  return kModuleNames[static_cast<size_t>(module)];
}

Graph make_graph(const ModelConfig& config) {
  Graph graph;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    graph.blocks.push_back(BlockBuilder(config, layer).build());
  }
  if (config.final_norm) {
    graph.final_norm = NormOp{.module = Module::final_norm,
                              .in = Value::residual,
                              .out = Value::normed,
                              .kind = config.norm,
                              .eps = config.norm_eps,
                              .width = config.hidden_size,
                              .group = config.hidden_size,
                              .bias = config.norm == NormKind::layer && config.norm_bias};
  }
  return graph;
}

Accesses accesses(const Operation& operation) {
  return std::visit(Overloaded{
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
                        [](const MultiplyOp&) {
                          return Accesses{{Value::gate, Value::up}, Value::gate};
                        },
                        [](const HadamardOp& op) {
                          return Accesses{{op.value}, op.value};
                        },
                        [](const AddOp& op) {
                          return Accesses{{Value::residual, op.in}, Value::residual};
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

std::vector<ScaleEdge> scale_edges(const BlockGraph& block) {
  std::vector<ScaleEdge> edges;
  const auto& operations = block.operations;
  for (size_t i = 0; i < operations.size(); ++i) {
    const auto* norm = std::get_if<NormOp>(&operations[i]);
    if (norm == nullptr || norm->out != Value::normed) continue;
    ScaleEdge edge{norm->module, {}};
    for (size_t j = i + 1; j < operations.size(); ++j) {
      const auto* linear = std::get_if<LinearOp>(&operations[j]);
      if (linear != nullptr && linear->in == norm->out) edge.consumers.push_back(linear->module);
      if (accesses(operations[j]).writes == norm->out) break;
    }
    edges.push_back(std::move(edge));
  }
  const AttentionOp& attention = block.attention();
  const bool plain_values = block.find<SplitLatentOp>() == nullptr;
  if (plain_values && attention.heads == attention.kv_heads) edges.push_back({Module::v, {Module::o}});
  const bool turned = block.hadamard(Value::gate) != nullptr;
  if (block.find<MultiplyOp>() != nullptr && !turned) edges.push_back({Module::up, {Module::down}});
  return edges;
}

std::string_view operation_name(const Operation& operation) {
  return std::visit(
      Overloaded{
          [](const NormOp&) { return "norm"; },
          [](const LinearOp&) { return "linear map"; },
          [](const RotateOp&) { return "rotary embedding"; },
          [](const SplitLatentOp&) { return "latent attention"; },
          [](const AttentionOp&) { return "attention"; },
          [](const ActivateOp& op) { return op.kind == Activation::xielu ? "xIELU" : "activation"; },
          [](const MultiplyOp&) { return "gate"; },
          [](const HadamardOp&) { return "Hadamard rotation"; },
          [](const AddOp&) { return "residual addition"; },
      },
      operation);
}

}  // namespace qeval::model
