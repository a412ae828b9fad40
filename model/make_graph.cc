#include <cmath>
#include <utility>

#include "model/config.h"
#include "model/graph.h"

namespace qeval::model {
namespace {

/// Writes the operations of one block.
class BlockBuilder {
 public:
  BlockBuilder(const ModelConfig& config, int64_t layer)
      : config_(config),
        layer_(config.layer(layer)),
        index_(layer),
        hidden_(config.hidden_size),
        head_dim_(layer_.head_dim != 0 ? layer_.head_dim : config.head_dim),
        kv_heads_(layer_.num_kv_heads != 0 ? layer_.num_kv_heads : config.num_kv_heads) {}

  BlockGraph build() {
    if (config_.altup) {
      streams();
    } else {
      order();
      if (config_.layer_inputs) layer_input();
      if (config_.layer_scalar) append(ScaleOp{.stored = true, .module = Module::layer_scalar});
    }
    return std::move(graph_);
  }

 private:
  void order() {
    switch (config_.form) {
      case BlockForm::pre:
        norm(Module::input_norm, Value::residual, Value::normed);
        mixer(Value::normed);
        norm(Module::post_attention_norm, Value::residual, Value::normed);
        feed_forward(Value::normed, Value::update);
        add(layer_.sparse ? Module::expert_mix : Module::down, Value::update, config_.mlp_factor);
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
  }

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

  void add(Module module, Value in, float factor = 1) {
    append(AddOp{.module = module, .in = in, .factor = config_.residual_factor * factor});
  }
  void scale(Value in, Value out, float factor) {
    if (in != out || factor != 1) append(ScaleOp{.in = in, .out = out, .factor = factor});
  }
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
    if (config_.experts_beside_mlp && layer_.sparse) {
      norm(Module::post_dense_norm, Value::update, Value::update);
      // The router reads the residual stream by a norm of its own.
      norm(Module::router_norm, Value::residual, Value::normed);
      norm(Module::pre_experts_norm, Value::residual, Value::experts_in);
      experts(Value::normed, Value::experts_in, Value::mlp_update);
      norm(Module::post_experts_norm, Value::mlp_update, Value::mlp_update);
      append(AddOp{.module = Module::expert_mix, .in = Value::mlp_update, .to = Value::update});
    }
    add_normed(of_mlp);
  }

  /// What moves information between tokens, and its update.
  void mixer(Value in) {
    using Mixer = LayerSettings::Mixer;
    if (layer_.mixer != Mixer::attention) {
      // Before the attention, behind which rows that nobody reads are dropped.
      recurrence(in, layer_.mixer == Mixer::both ? Value::mlp_update : Value::update);
    }
    if (layer_.mixer != Mixer::recurrent) {
      if (config_.attention_in != 1) scale(in, Value::mixer_in, config_.attention_in);
      attention(config_.attention_in != 1 ? Value::mixer_in : in);
    }
    if (layer_.mixer == Mixer::both) add(Module::mixer_o, Value::mlp_update, config_.recurrence->out_factor);
    add(layer_.mixer == Mixer::recurrent ? Module::mixer_o : Module::o, Value::update, config_.attention_out);
  }

  void convolve(Module module, Value value, int64_t width, bool silu) {
    const Recurrence& r = *config_.recurrence;
    ConvolveOp op{.module = module,
                  .value = value,
                  .width = width,
                  .taps = r.taps,
                  .bias = r.conv_bias,
                  .silu = silu,
                  .state = graph_.state_size};
    graph_.state_size += op.state_size();
    append(op);
  }

  void recurrence(Value in, Value out) {
    const Recurrence& r = *config_.recurrence;
    const auto project = [&](Module module, Value value, int64_t rows, size_t factor) {
      linear(module, in, value, rows, hidden_, r.in_bias);
      return std::pair{value, r.factors[factor]};
    };
    if (r.kind == Recurrence::Kind::convolution) {
      project(Module::mixer_k, Value::mixer_k, hidden_, 2);
      project(Module::mixer_q, Value::mixer_q, hidden_, 3);
      project(Module::mixer_v, Value::mixer_v, hidden_, 1);
      append(MultiplyOp{
          .width = hidden_, .module = Module::mixer_v_conv, .value = Value::mixer_v, .by = Value::mixer_k});
      convolve(Module::mixer_v_conv, Value::mixer_v, hidden_, false);
      append(MultiplyOp{
          .width = hidden_, .module = Module::mixer_o, .value = Value::mixer_v, .by = Value::mixer_q});
      linear(Module::mixer_o, Value::mixer_v, out, hidden_, hidden_, r.out_bias);
      return;
    }
    if (r.in_factor != 1) {
      scale(in, Value::mixer_in, r.in_factor);
      in = Value::mixer_in;
    }
    const bool delta = r.kind == Recurrence::Kind::delta_rule;
    const int64_t keys = r.key_heads * r.key_dim, values = r.value_heads * r.value_dim;
    std::vector<std::pair<Value, float>> parts{project(Module::mixer_z, Value::mixer_z, values, 0),
                                               project(Module::mixer_v, Value::mixer_v, values, 1),
                                               project(Module::mixer_k, Value::mixer_k, keys, 2),
                                               project(Module::mixer_q, Value::mixer_q, keys, 3),
                                               project(Module::mixer_a, Value::mixer_a, r.value_heads, 4)};
    if (delta) project(Module::mixer_b, Value::mixer_b, r.value_heads, 4);
    for (const auto& [value, factor] : parts) scale(value, value, factor);
    convolve(Module::mixer_q_conv, Value::mixer_q, keys, true);
    convolve(Module::mixer_k_conv, Value::mixer_k, keys, true);
    convolve(Module::mixer_v_conv, Value::mixer_v, values, true);
    if (delta) {
      append(
          DeltaRuleOp{r.key_heads, r.value_heads, r.key_dim, r.value_dim, graph_.state_size, r.tiled_heads});
    } else {
      append(StateSpaceOp{r.value_heads, r.key_heads, r.value_dim, r.key_dim, r.least_step, r.most_step,
                          graph_.state_size});
    }
    graph_.state_size += r.value_heads * r.key_dim * r.value_dim;
    const GateOp gate{.value = Value::mixer_out, .gate = Value::mixer_z, .silu = true};
    if (r.norm != Recurrence::Norm::before_gate) append(gate);
    if (r.norm != Recurrence::Norm::none) {
      append(NormOp{.module = Module::mixer_norm,
                    .in = Value::mixer_out,
                    .out = Value::mixer_out,
                    .eps = config_.norm_eps,
                    .width = values,
                    .group = r.norm_group,
                    .own_weights = r.norm_own_weights});
    }
    if (r.norm == Recurrence::Norm::before_gate) append(gate);
    linear(Module::mixer_o, Value::mixer_out, out, hidden_, values, r.out_bias);
  }

  void feed_forward(Value in, Value out) {
    if (layer_.sparse) {
      experts(in, in, out);
    } else {
      mlp(in, out);
    }
  }

  /// Routed experts, and the shared one where there is one.
  void experts(Value router_in, Value in, Value out) {
    const Experts& e = *config_.experts;
    const bool shared = e.shared_inner != 0;
    linear(Module::router, router_in, Value::router, e.route.experts, hidden_, e.router_bias);
    if (shared && e.shared_gate) {
      linear(Module::shared_expert_gate, in, Value::shared_gate, 1, hidden_, false);
    }
    if (shared) {
      linear(Module::shared_gate, in, Value::gate, e.shared_inner, hidden_, e.shared_bias);
      linear(Module::shared_up, in, Value::up, e.shared_inner, hidden_, e.shared_bias);
      append(ActivateOp{
          .kind = config_.activation, .width = e.shared_inner, .module = Module::shared_activation});
      append(MultiplyOp{.width = e.shared_inner, .module = Module::shared_down});
      linear(Module::shared_down, Value::gate, Value::shared, hidden_, e.shared_inner, e.shared_bias);
    }
    append(e.route);
    append(DispatchOp{in});
    const auto expert_linear = [&](Module module, Value from, Value to, int64_t rows, int64_t cols) {
      append(LinearOp{.module = module,
                      .in = from,
                      .out = to,
                      .rows = rows,
                      .cols = cols,
                      .bias = e.expert_bias,
                      .experts = e.route.experts});
    };
    expert_linear(Module::expert_gate, Value::dispatched, Value::gate, e.inner, hidden_);
    expert_linear(Module::expert_up, Value::dispatched, Value::up, e.inner, hidden_);
    append(ActivateOp{.kind = config_.activation,
                      .width = e.inner,
                      .module = Module::expert_activation,
                      .limit = e.limit,
                      .slope = e.slope});
    append(
        MultiplyOp{.width = e.inner, .module = Module::expert_down, .limit = e.limit, .offset = e.up_offset});
    expert_linear(Module::expert_down, Value::gate, Value::expert_out, hidden_, e.inner);
    append(
        MixExpertsOp{.out = out, .width = hidden_, .shared = shared, .shared_gate = shared && e.shared_gate});
  }

  /// x += norm(projection(act(gate x) · e)), e being the layer's own input.
  void layer_input(Value in = Value::residual) {
    const int64_t n = config_.layer_inputs->size;
    linear(Module::layer_input_gate, in, Value::gate, n, hidden_, false);
    append(ActivateOp{.kind = config_.activation, .width = n, .module = Module::layer_input_activation});
    append(MultiplyOp{.width = n,
                      .module = Module::layer_input_projection,
                      .by = Value::layer_inputs,
                      .first = index_ * n});
    linear(Module::layer_input_projection, Value::gate, Value::update, hidden_, n, false);
    norm(Module::layer_input_norm, Value::update, Value::update);
    if (!config_.altup) append(AddOp{.module = Module::layer_input_norm, .in = Value::update});
  }

  /// Gemma 3n (docs/architectures.md#gemma-3n-and-gemma-4).
  void streams() {
    const Altup& a = *config_.altup;
    const auto altup = [&](AltupOp::Step step) {
      append(AltupOp{step, a.streams, a.active, hidden_, config_.norm_eps});
    };
    if (index_ == 0) altup(AltupOp::Step::split);
    altup(AltupOp::Step::predict);
    scale(Value::residual, Value::predicted, 1);
    norm(Module::input_norm, Value::residual, Value::normed);
    attention(Value::normed);
    add_normed(Module::post_attention_norm);
    linear(Module::laurel_left, Value::normed, Value::laurel, a.rank, hidden_, false);
    linear(Module::laurel_right, Value::laurel, Value::update, hidden_, a.rank, false);
    add_normed(Module::laurel_norm);
    append(AddOp{.module = Module::input_norm, .in = Value::normed});
    scale(Value::residual, Value::residual, std::sqrt(0.5F));
    norm(Module::pre_feedforward_norm, Value::residual, Value::normed);
    mlp(Value::normed, Value::update);
    add_normed(Module::post_feedforward_norm);
    altup(AltupOp::Step::correct);
    Value gated = Value::residual;
    if (a.scales_output) {
      gated = Value::normed;
      append(ScaleOp{
          .out = gated, .stored = true, .module = Module::output_scale, .numbers = config_.hidden_size});
    }
    layer_input(gated);
    altup(AltupOp::Step::add);
    if (index_ == config_.num_layers - 1) altup(AltupOp::Step::merge);
  }

  void heads_norm(Module module, Value value, int64_t heads, Operand operand) {
    const bool full = config_.qk_norm == QkNorm::full_width;
    append(NormOp{.module = module,
                  .in = value,
                  .out = value,
                  .kind = config_.qk_norm_kind,
                  .eps = config_.norm_eps,
                  .width = heads * head_dim_,
                  .group = full ? heads * head_dim_ : head_dim_,
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
    const int64_t value_dim = config_.latent ? config_.latent->value_dim : head_dim_;
    const float model_scale = config_.attention_scale != 0 ? config_.attention_scale
                                                           : 1.0F / std::sqrt(static_cast<float>(head_dim_));
    append(AttentionOp{.heads = config_.num_heads,
                       .kv_heads = kv_heads_,
                       .head_dim = head_dim_,
                       .value_dim = value_dim,
                       .window = layer_.window,
                       .scale = layer_.attention_scale != 0 ? layer_.attention_scale : model_scale,
                       .softcap = config_.score_softcap,
                       .sinks = config_.attention_sinks,
                       .kv_from = layer_.kv_from,
                       .kv_lent = layer_.kv_lent});
    if (config_.attention_gate) append(GateOp{});
    linear(Module::o, Value::mixed, Value::update, hidden_, config_.num_heads * value_dim, config_.o_bias);
  }

  void operands(Value in) {
    const int64_t d = head_dim_;
    const bool normed = config_.qk_norm != QkNorm::none;
    const bool own_keys = layer_.kv_from == 0;
    const bool norm_last = normed && (config_.qk_norm_after_rotary || !layer_.rotary);
    const int64_t block = config_.rotation ? config_.rotation->query_key_block : 0;
    // Whatever changes a tensor last hands it to the attention.
    const auto last = [block](bool is_last, Operand operand) {
      return is_last && (block == 0 || operand == Operand::value) ? operand : Operand::none;
    };
    const bool plain = !normed && !layer_.rotary;
    linear(Module::q, in, Value::q, config_.num_heads * d, hidden_, config_.qkv_bias,
           last(plain, Operand::query));
    if (own_keys) {
      linear(Module::k, in, Value::k, kv_heads_ * d, hidden_, config_.qkv_bias, last(plain, Operand::key));
      linear(Module::v, in, Value::v, kv_heads_ * d, hidden_, config_.qkv_bias,
             last(!config_.v_norm, Operand::value));
    }
    if (config_.attention_gate) {
      linear(Module::attention_gate, in, Value::attention_gate, config_.num_heads * d, hidden_,
             config_.qkv_bias);
    }
    const auto norms = [&] {
      heads_norm(Module::q_norm, Value::q, config_.num_heads, last(norm_last, Operand::query));
      if (own_keys) heads_norm(Module::k_norm, Value::k, kv_heads_, last(norm_last, Operand::key));
    };
    if (normed && !config_.qk_norm_after_rotary) norms();
    if (config_.v_norm && own_keys) {
      append(NormOp{.module = Module::v_norm,
                    .in = Value::v,
                    .out = Value::v,
                    .eps = config_.norm_eps,
                    .width = kv_heads_ * d,
                    .group = d,
                    .operand = Operand::value,
                    .weighted = false});
    }
    if (config_.qkv_clip != 0) {
      for (const Value value : {Value::q, Value::k, Value::v}) append(ClampOp{value, config_.qkv_clip});
    }
    if (config_.key_factor != 1) scale(Value::k, Value::k, config_.key_factor);
    if (layer_.rotary) {
      rotate(Value::q, config_.num_heads * d, d, 0, last(!norm_last, Operand::query), config_.position_beta);
      if (own_keys) rotate(Value::k, kv_heads_ * d, d, 0, last(!norm_last, Operand::key), 0);
    }
    if (normed && config_.qk_norm_after_rotary) norms();
    if (block == 0) return;
    append(HadamardOp{Value::q, config_.num_heads * d, block, Operand::query});
    if (own_keys) append(HadamardOp{Value::k, kv_heads_ * d, block, Operand::key});
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
    const int64_t inner =
        layer_.intermediate_size != 0 ? layer_.intermediate_size : config_.intermediate_size;
    linear(Module::gate, in, Value::gate, inner, hidden_, config_.mlp_bias);
    if (config_.gated_mlp) linear(Module::up, in, Value::up, inner, hidden_, config_.mlp_bias);
    scale(Value::gate, Value::gate, config_.gate_factor);
    append(ActivateOp{.kind = config_.activation, .width = inner, .sparsity = layer_.activation_sparsity});
    if (config_.gated_mlp) append(MultiplyOp{.width = inner});
    const int64_t block = config_.rotation ? config_.rotation->down_block : 0;
    if (block != 0) append(HadamardOp{Value::gate, inner, block});
    linear(Module::down, Value::gate, out, hidden_, inner, config_.mlp_bias);
  }

  const ModelConfig& config_;
  const LayerSettings layer_;
  const int64_t index_, hidden_, head_dim_, kv_heads_;
  BlockGraph graph_;
};

}  // namespace

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

}  // namespace qeval::model
