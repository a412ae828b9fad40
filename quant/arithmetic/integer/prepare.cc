#include "quant/arithmetic/integer/prepare.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/error.h"
#include "base/parallel.h"

namespace qeval::quant {

using model::ModelConfig;

namespace {

size_t index(int64_t i) {
  return static_cast<size_t>(i);
}

/// Builds the layers of one model; the settings it reads are checked as it goes.
class Preparer {
 public:
  Preparer(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges, int64_t max_positions,
           int32_t guard_bits, const std::optional<FirstToken>& first)
      : model_(model),
        config_(model.config),
        source_(model, integer_config(qcfg), ranges, guard_bits),
        positions_(max_positions) {
    if (first) first_.emplace(model, integer_config(first->qcfg), first->ranges, guard_bits);
  }

  PreparedModel prepare() {
    PreparedModel result;
    result.grids = walk(source_);
    if (first_) result.first_grids = walk(*first_);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      for (const model::Operation& operation : config_.graph.block(layer).operations) {
        if (const auto* rotate = std::get_if<model::RotateOp>(&operation)) add_angles(*rotate, result);
      }
    }
    std::vector<IntegerLayer>& layers = result.integers.layers;
    layers.resize(index(config_.num_layers));
    if (first_) {
      IntegerFirst& first = result.integers.first.emplace();
      first.layers.resize(layers.size());
      first.linears.resize(layers.size());
    }
    // Of several layers that are refused, the first is named.
    std::vector<std::exception_ptr> refusals(layers.size());
    parallel_tasks(config_.num_layers, [&](int64_t layer) {
      try {
        layers[index(layer)] = block(layer, source_, result.grids, result);
        for (const model::Operation& operation : config_.graph.block(layer).operations)
          add_products(layer, operation, result, layers[index(layer)]);
        if (first_) first_block(layer, result);
      } catch (const Error&) {
        refusals[index(layer)] = std::current_exception();
      }
      // Float weights are not read again, but for the embedding's rows.
      if (model_.checkpoint) model_.checkpoint->release_pages();
    });
    for (const std::exception_ptr& refusal : refusals) {
      if (refusal) std::rethrow_exception(refusal);
    }
    head(result);
    if (model_.checkpoint) model_.checkpoint->release_pages();
    return result;
  }

 private:
  /// Rotary embeddings that have their tables in common.
  struct AngleKey {
    bool local;
    double beta, original;
    bool operator==(const AngleKey&) const = default;
  };
  static AngleKey angle_key(const model::RotateOp& op) {
    return {op.local, op.position_beta, op.position_original};
  }
  void add_angles(const model::RotateOp& op, PreparedModel& result) {
    const AngleKey key = angle_key(op);
    if (std::ranges::find(angle_keys_, key) != angle_keys_.end()) return;
    angle_keys_.push_back(key);
    result.angles.push_back(
        std::make_unique<AngleTables>(op.local ? *config_.local_rotary : config_.rotary, op, positions_));
  }

  const QuantSpec& weight_spec(int64_t layer, Module module) const {
    return source_.spec({layer, module, Slot::weight});
  }

  IntegerNorm norm(int64_t layer, model::NormOp op, const OperationGrids& grids) const {
    // Ones are exact.
    const QuantSpec spec =
        op.weighted ? weight_spec(layer, op.module) : QuantSpec{.bits = 16, .symmetric = true};
    if (!spec.enabled()) {
      fail("{}.weight: left in float; integer arithmetic accepts 2 to 16 bits",
           module_name(layer, op.module));
    }
    // RMSNorm in the blocks has no eps once quantized (docs/specification.md#points).
    if (op.kind == model::NormKind::rms) op.eps = 0;
    return prepare_norm(op, model_.layers[index(layer)].norm(op.module), spec, grids);
  }

  ModelGrids walk(const GridSource& source) const {
    ModelGrids grids;
    grids.embedded_at = source.stream_reader(0, 0);
    grids.embedded = source.stream(0, 0);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer)
      grids.layers.push_back(source.layer(grids.layers));
    return grids;
  }

  IntegerFirstLinear first_linear(int64_t layer, Module module, const OperationGrids& grids) const {
    IntegerFirstLinear linear = prepare_first_linear(
        model_.layers[index(layer)].linear(module), weight_spec(layer, module), grids.rounded_in, grids.made);
    if (grids.stream) {
      linear.stream = prepare_read(*grids.stream, grids.rounded_in);
    } else {
      linear.input_table = regrid(grids.in, grids.rounded_in);
    }
    linear.output_table = regrid(grids.made, grids.out);
    return linear;
  }

  void first_block(int64_t layer, PreparedModel& result) const {
    IntegerFirst& first = *result.integers.first;
    first.layers[index(layer)] = block(layer, *first_, *result.first_grids, result);
    for (const model::Operation& operation : config_.graph.block(layer).operations) {
      const auto* op = std::get_if<model::LinearOp>(&operation);
      if (op == nullptr) continue;
      const OperationGrids& grids = result.first_grids->layers[index(layer)].modules.at(op->module);
      first.linears[index(layer)][op->module] = first_linear(layer, op->module, grids);
    }
  }

  /// What multiplies weights or keys: linear maps and the attention.
  void add_products(int64_t i, const model::Operation& operation, const PreparedModel& prepared,
                    IntegerLayer& layer) const {
    const LayerGrids& grids = prepared.grids.layers[index(i)];
    if (const auto* linear_op = std::get_if<model::LinearOp>(&operation)) {
      const model::LayerWeights& weights = model_.layers[index(i)];
      const Module module = linear_op->module;
      if (linear_op->experts == 0) {
        layer.linears[module] = linear(i, module, weights.linear(module), grids.modules.at(module));
        return;
      }
      for (const model::LinearWeights& expert : weights.experts.at(module))
        layer.experts[module].push_back(linear(i, module, expert, grids.modules.at(module)));
    } else if (const auto* attention = std::get_if<model::AttentionOp>(&operation)) {
      const AttentionGrids* first =
          prepared.first_grids ? &prepared.first_grids->layers[index(i)].attention : nullptr;
      layer.attention = prepare_attention(*attention, positions_, grids.attention, first,
                                          module_name(i, Module::qk_product));
    }
  }

  IntegerMatrix linear(int64_t layer, Module module, const model::LinearWeights& weights,
                       const OperationGrids& grids) const {
    IntegerMatrix matrix = prepare_linear(weights, weight_spec(layer, module), grids.rounded_in, grids.made);
    if (grids.stream) {
      matrix.stream = prepare_read(*grids.stream, grids.rounded_in);
    } else {
      matrix.input_table = regrid(grids.in, grids.rounded_in);
    }
    matrix.output_table = regrid(grids.made, grids.out);
    return matrix;
  }

  CodeTable activation(int64_t layer, const model::ActivateOp& op, const GridSource& source,
                       const OperationGrids& grids) const {
    const Point point{layer, op.module, Slot::input2};
    const bool rounds = op.kind == model::Activation::silu && source.spec(point).enabled();
    const bool erf = op.kind == model::Activation::gelu_tanh && rounded_gelu_is_erf(config_);
    return prepare_activation(erf ? model::Activation::gelu_erf : op.kind, grids,
                              rounds ? std::optional(source.required(point)) : std::nullopt,
                              model_.layers[index(layer)].xielu);
  }

  IntegerRouter router(int64_t layer, const model::RouteOp& op, const LayerGrids& grids) const {
    const auto& vectors = model_.layers[index(layer)].vectors;
    return prepare_router(op, grids.router, grids.mix.weights,
                          op.correction ? &vectors.at(Module::router) : nullptr,
                          op.expert_scale ? &vectors.at(Module::expert_mix) : nullptr,
                          point_name({layer, Module::expert_mix, Slot::input}));
  }

  /// All but add_products().
  IntegerLayer block(int64_t i, const GridSource& source, const ModelGrids& of_model,
                     const PreparedModel& prepared) const {
    const LayerGrids& grids = of_model.layers[index(i)];
    IntegerLayer layer;
    for (const model::Operation& operation : config_.graph.block(i).operations) {
      if (const auto* norm_op = std::get_if<model::NormOp>(&operation)) {
        layer.norms[norm_op->module] = norm(i, *norm_op, grids.modules.at(norm_op->module));
      } else if (const auto* rotate = std::get_if<model::RotateOp>(&operation)) {
        const OperationGrids& g = grids.rotations.at(rotate->value);
        const auto angles =
            static_cast<size_t>(std::ranges::find(angle_keys_, angle_key(*rotate)) - angle_keys_.begin());
        IntegerRotary rotary = prepare_rotary(g.in, g.out, prepared.angles[angles]->bits());
        rotary.angles = angles;
        layer.rotations[rotate->value] = rotary;
      } else if (const auto* activate = std::get_if<model::ActivateOp>(&operation)) {
        layer.activations[activate->module] =
            activation(i, *activate, source, grids.activations.at(activate->module));
      } else if (const auto* multiply = std::get_if<model::MultiplyOp>(&operation)) {
        const ProductGrids& g = grids.products.at(multiply->module);
        layer.products[multiply->module] = prepare_product(g.gate, g.up, g.out);
      } else if (const auto* hadamard = std::get_if<model::HadamardOp>(&operation)) {
        const IntegerHadamard made = prepare_hadamard(hadamard->block, grids.hadamards.at(hadamard->value));
        if (made.source == RotationSource::products) {
          layer.products.at(Module::down).exact = true;
          layer.products.at(Module::down).wide = made.wide;
        }
        layer.hadamards[hadamard->value] = made;
      } else if (std::holds_alternative<model::ScaleOp>(operation)) {
        layer.negates = model_.layers[index(i)].vectors.at(Module::layer_scalar).front() < 0;
      } else if (const auto* sum = std::get_if<model::AddOp>(&operation);
                 sum != nullptr && sum->to != model::Value::residual) {
        layer.sums[sum->module] = prepare_sum(grids.sums.at(sum->module), sum->factor);
      } else if (const auto* add = std::get_if<model::AddOp>(&operation)) {
        const AddGrids& g = grids.adds.at(add->module);
        layer.adds[add->module] =
            prepare_add(g.stream, g.update, add->factor, g.next, point_name({i, add->module, Slot::output}));
      } else if (const auto* route = std::get_if<model::RouteOp>(&operation)) {
        layer.router = router(i, *route, grids);
      } else if (const auto* mix = std::get_if<model::MixExpertsOp>(&operation)) {
        layer.mix = prepare_mix(*mix, config_.experts->route.used, grids.mix);
      }
    }
    return layer;
  }

  void head(PreparedModel& result) const {
    const model::NormWeights& norm = model_.final_norm;
    float bound = 0;
    float bias = 0;
    for (const float w : norm.weight) bound = std::max(bound, std::abs(w));
    for (const float b : norm.bias) bias = std::max(bias, std::abs(b));
    bound = bound * std::sqrt(static_cast<float>(config_.hidden_size)) + bias;
    const PointGrid widest = make_point_grid({.bits = 16, .symmetric = true}, {-bound, bound});
    result.integers.final_norm = final_norm(source_, widest, result.grids);
    if (first_) {
      result.integers.first->final_norm = final_norm(*first_, widest, *result.first_grids);
      if (result.first_grids->normed != result.grids.normed) {
        fail(
            "{}: position 0 has a range of its own; integer arithmetic accepts one range of the head's input",
            point_name({0, Module::head, Slot::input}));
      }
    }
    result.integers.head =
        prepare_head(model_.head, weight_spec(0, Module::head), result.grids.normed, result.logit_scale);
  }

  IntegerNorm final_norm(const GridSource& source, const PointGrid& widest, ModelGrids& of_model) const {
    OperationGrids grids;
    grids.out = source.optional({0, Module::head, Slot::input}, widest);
    grids.made = source.optional({0, Module::final_norm, Slot::output}, grids.out);
    grids.stream = source.stream({0, Module::final_norm, Slot::input});
    grids.rounded_in = source.optional({0, Module::final_norm, Slot::input}, grids.stream->grid);
    of_model.stream = *grids.stream;
    of_model.normed = grids.out;
    return prepare_norm(*config_.graph.final_norm, model_.final_norm, weight_spec(0, Module::final_norm),
                        grids);
  }

  const model::Model& model_;
  const ModelConfig& config_;
  GridSource source_;
  std::optional<GridSource> first_;
  int64_t positions_;
  std::vector<AngleKey> angle_keys_;
};

}  // namespace

namespace {

/// Whether integers have the operation, whatever its settings.
bool has_integer_form(const model::Operation& operation) {
  if (!model::is_beyond_dense(operation)) return !std::holds_alternative<model::SplitLatentOp>(operation);
  if (const auto* activate = std::get_if<model::ActivateOp>(&operation)) {
    return activate->limit == 0 && activate->sparsity == 0;
  }
  if (const auto* multiply = std::get_if<model::MultiplyOp>(&operation))
    return multiply->limit == 0 && multiply->offset == 0;
  if (const auto* attention = std::get_if<model::AttentionOp>(&operation)) return !attention->sinks;
  if (const auto* scale = std::get_if<model::ScaleOp>(&operation)) return is_layer_factor(*scale);
  return std::holds_alternative<model::NormOp>(operation) ||
         std::holds_alternative<model::AddOp>(operation) ||
         std::holds_alternative<model::LinearOp>(operation) ||
         std::holds_alternative<model::RouteOp>(operation) ||
         std::holds_alternative<model::DispatchOp>(operation) ||
         std::holds_alternative<model::MixExpertsOp>(operation);
}

}  // namespace

void require_integer_form(const ModelConfig& config) {
  const auto refuse = [&](std::string_view what, std::string_view accepted = "float and fake arithmetic") {
    fail("{} model: integer arithmetic has no {}; accepted: {}", config.architecture, what, accepted);
  };
  if (config.embedding_size != 0) refuse("projection from an embedding of another width than the model's");
  for (const model::BlockGraph& block : config.graph.blocks) {
    for (const model::Operation& operation : block.operations) {
      if (!has_integer_form(operation)) refuse(operation_name(operation), "float arithmetic");
      if (const auto* norm = std::get_if<model::NormOp>(&operation);
          norm != nullptr && norm->out == model::Value::residual) {
        refuse("norm of the residual stream that takes its place");
      }
      if (const auto* rotate = std::get_if<model::RotateOp>(&operation);
          rotate != nullptr && rotate->position_beta != 0 && config.rotary.dim != rotate->head_dim) {
        refuse("scaling by position of channels that do not rotate");
      }
      if (const auto* add = std::get_if<model::AddOp>(&operation); add != nullptr && !(add->factor > 0)) {
        refuse(fmt::format("residual addition with the factor {}", add->factor));
      }
      if (const auto* attention = std::get_if<model::AttentionOp>(&operation);
          attention != nullptr && !(attention->scale > 0)) {
        refuse(fmt::format("attention with the scale {}", attention->scale));
      }
    }
  }
  if (!config.graph.final_norm) refuse("head without a final norm");
}

QuantConfig integer_config(QuantConfig qcfg) {
  QuantSpec& norm = qcfg[{0, Module::final_norm, Slot::weight}];
  if (!norm.enabled()) norm = {.bits = 16, .symmetric = true};
  QuantSpec& head = qcfg[{0, Module::head, Slot::weight}];
  if (!head.enabled()) head = {.bits = 8, .symmetric = true, .per_channel = true};
  return qcfg;
}

PreparedModel prepare_model(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                            int64_t max_positions, int32_t guard_bits,
                            const std::optional<FirstToken>& first) {
  require_integer_form(model.config);
  if (first) {
    require_operations(model.config, "integer arithmetic with ranges of position 0",
                       [](const model::Operation& operation) { return !model::is_beyond_dense(operation); });
  }
  return Preparer(model, qcfg, ranges, max_positions, guard_bits, first).prepare();
}

}  // namespace qeval::quant
