#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "model/hadamard.h"
#include "quant/export/graph_builder.h"
#include "quant/export/point_codes.h"
#include "quant/export/weight_codes.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {

namespace {
constexpr const char* kFirstToken = ".first_token";
}  // namespace

std::string GraphBuilder::rounded(const Point& point, const std::string& value) {
  const QuantSpec& spec = quantization_.qcfg[point];
  if (!spec.enabled()) return value;
  const std::string name = point_name(point);
  if (form_ == PointForm::names) {  // several points may stand on one tensor
    return value == name ? value : g_.node("Identity", {value}, name);
  }
  const std::string others = rounded(point, value, spec, quantization_.ranges[point].value(), name);
  if (!quantization_.first || prefix_) return others;  // a prefix stands in the place of what is rounded
  const QuantSpec& first = quantization_.first->qcfg[point];
  const Range range = quantization_.first->ranges[point].value();
  if (first == spec && range == quantization_.ranges[point]) return others;
  const std::string own = rounded(point, value, first, range, name + kFirstToken);
  return g_.node("Where", {"is_first_token", own, others}, name + ".chosen");
}

std::string GraphBuilder::with_constant(const std::string& value, const std::vector<float>& constant,
                                        const std::vector<int64_t>& shape, const std::string& name) {
  return g_.node("Where", {"is_first_token", g_.constant(name, constant, shape), value}, name + ".chosen");
}

std::string GraphBuilder::rounded(const Point& point, const std::string& value, const QuantSpec& spec,
                                  const Range& range, const std::string& name) {
  const PointCodes codes = point_codes(point, spec, make_grid(spec, range));
  std::string x = value;
  if (codes.clip) {
    x = g_.node("Clip",
                {x, g_.scalar(name + ".least", codes.clip->lo), g_.scalar(name + ".most", codes.clip->hi)},
                name + ".clipped");
  }
  const std::string scale = g_.scalar(name + ".scale", codes.scale);
  const std::string zero = g_.codes(name + ".zero_point", codes.type, std::span(&codes.zero_point, 1), {});
  g_.node("QuantizeLinear", {x, scale, zero}, name + ".codes");
  return g_.node("DequantizeLinear", {name + ".codes", scale, zero}, name + ".rounded");
}

std::string GraphBuilder::residual_name(size_t next) const {
  for (int64_t layer = layer_; layer < config_.num_layers; ++layer, next = 0) {
    const std::vector<model::Operation>& operations = config_.graph.block(layer).operations;
    for (; next < operations.size(); ++next) {
      if (const auto* op = std::get_if<model::NormOp>(&operations[next]); op && op->in == Value::residual) {
        return point_name({layer, op->module, Slot::input});
      }
      if (const auto* op = std::get_if<model::LinearOp>(&operations[next]); op && op->in == Value::residual) {
        return point_name({layer, op->module, Slot::input});
      }
      if (const auto* op = std::get_if<model::AddOp>(&operations[next])) {
        return module_name(layer, op->module) + ".residual";
      }
    }
  }
  return point_name({0, config_.graph.final_norm ? Module::final_norm : Module::head, Slot::input});
}

Stand& GraphBuilder::by_head(Value value, int64_t head_dim, int64_t width, const std::string& name) {
  Stand& stand = at(value);
  if (stand.by_head) return stand;
  g_.node("Reshape", {stand.name, shape({0, 0, width / head_dim, head_dim})}, name + ".heads");
  stand.name = g_.node("Transpose", {name + ".heads"}, name, {OnnxGraph::integers("perm", {0, 2, 1, 3})});
  stand.by_head = true;
  return stand;
}

Stand& GraphBuilder::by_row(Value value, int64_t width, const std::string& name) {
  Stand& stand = at(value);
  if (!stand.by_head) return stand;
  g_.node("Transpose", {stand.name}, name + ".tokens", {OnnxGraph::integers("perm", {0, 2, 1, 3})});
  stand.name = g_.node("Reshape", {name + ".tokens", shape({0, 0, width})}, name);
  stand.by_head = false;
  return stand;
}

std::string GraphBuilder::value_name(Value value) const {
  return attention_name(value == Value::q ? "q" : "k");
}

void GraphBuilder::add(const model::NormOp& op) {
  const std::string layout = module_name(layer_, op.module);
  const Stand in = op.group < op.width ? by_head(op.in, op.group, op.width, layout + ".by_head")
                   : at(op.in).by_head ? by_row(op.in, op.width, layout + ".by_row")
                                       : at(op.in);
  std::string out = norm(op, in.name);
  if (const auto operand = operand_point(layer_, op.operand)) out = rounded(*operand, out);
  at(op.out) = {out, in.by_head};
}

std::string GraphBuilder::norm_weights(const model::NormOp& op, const std::string& weights) {
  if (!op.own_weights || op.group == op.width) return weights;
  return g_.node("Reshape", {weights, shape({op.width / op.group, 1, op.group})}, weights + ".by_head");
}

std::string GraphBuilder::norm(const model::NormOp& op, const std::string& in) {
  const model::NormWeights& stored = model_.norm(layer_, op.module);
  const std::string name = module_name(layer_, op.module);
  const std::string out = point_name(point(op.module, Slot::output));
  const std::string x = rounded(point(op.module, Slot::input), in);
  const QuantSpec& spec = quantization_.qcfg[point(op.module, Slot::weight)];
  const std::string weight = spec.enabled() && form_ == PointForm::nodes
                                 ? add_quantized_norm(g_, name + ".weight", stored.weight, spec)
                                 : g_.constant(name + ".weight", stored.weight, {std::ssize(stored.weight)});
  const auto bias = [&] { return g_.constant(name + ".bias", stored.bias, {std::ssize(stored.bias)}); };
  if (op.kind == model::NormKind::layer) {
    const bool apart = op.own_weights && op.group < op.width;
    std::vector<std::string> inputs{x, apart ? ones(op.group) : weight};
    if (!stored.bias.empty() && !apart) inputs.push_back(bias());
    const std::vector attributes{OnnxGraph::integer("axis", -1),
                                 OnnxGraph::real("epsilon", static_cast<float>(op.eps))};
    if (!apart) {
      g_.node("LayerNormalization", inputs, out, attributes);
    } else {
      g_.node("LayerNormalization", inputs, name + ".normed", attributes);
      g_.node("Mul", {name + ".normed", norm_weights(op, weight)},
              stored.bias.empty() ? out : name + ".weighted");
      if (!stored.bias.empty()) g_.node("Add", {name + ".weighted", norm_weights(op, bias())}, out);
    }
  } else if (op.module == Module::final_norm) {
    g_.node("Mul", {x, x}, name + ".squares");
    g_.node("ReduceMean", {name + ".squares", axis(-1)}, name + ".mean");
    g_.node("Add", {name + ".mean", scalar(static_cast<float>(op.eps))}, name + ".variance");
    g_.node("Sqrt", {name + ".variance"}, name + ".deviation");
    g_.node("Div", {x, name + ".deviation"}, name + ".normed");
    g_.node("Mul", {name + ".normed", weight}, out);
  } else {
    // What an accelerator's L2 normalization computes (docs/specification.md#points).
    g_.node("LpNormalization", {x}, name + ".direction",
            {OnnxGraph::integer("axis", -1), OnnxGraph::integer("p", 2)});
    g_.node("Mul", {name + ".direction", scalar(std::sqrt(static_cast<float>(op.group)))}, name + ".normed");
    g_.node("Mul", {name + ".normed", norm_weights(op, weight)}, out);
  }
  return rounded(point(op.module, Slot::output), out);
}

std::string GraphBuilder::ones(int64_t count) {
  return g_.constant(fmt::format("ones.{}", count), std::vector<float>(static_cast<size_t>(count), 1.0F),
                     {count});
}

std::string GraphBuilder::weight_of(Module module, const model::Matrix& matrix) {
  const QuantSpec& spec = quantization_.qcfg[point(module, Slot::weight)];
  const std::string name = module_name(layer_, module) + ".weight";
  if (!spec.enabled() || form_ == PointForm::names) return add_matrix(g_, name, matrix, true);
  return add_quantized_matrix(g_, name, quantized_weight(matrix, spec));
}

std::string GraphBuilder::product(Module module, const std::string& x, const model::LinearWeights& linear) {
  const std::string out = point_name(point(module, Slot::output));
  const std::string weight = weight_of(module, linear.weight);
  if (linear.bias.empty()) {
    g_.node("MatMul", {x, weight}, out);
  } else {
    const std::string name = module_name(layer_, module);
    g_.node("MatMul", {x, weight}, name + ".product");
    g_.node("Add", {name + ".product", g_.constant(name + ".bias", linear.bias, {std::ssize(linear.bias)})},
            out);
  }
  return rounded(point(module, Slot::output), out);
}

void GraphBuilder::add(const model::LinearOp& op) {
  const std::string x = rounded(point(op.module, Slot::input), at(op.in).name);
  at(op.out) = {product(op.module, x, model_.layers[static_cast<size_t>(layer_)].linear(op.module)), false,
                operand_point(layer_, op.operand)};
}

void GraphBuilder::add(const model::RotateOp& op) {
  const std::optional<Point> operand = operand_point(layer_, op.operand);
  const std::string name = operand ? point_name(*operand) : value_name(op.value) + ".rotated";
  Stand& stand = by_head(op.value, op.head_dim, op.width, value_name(op.value));
  const int64_t half = (op.local ? *config_.local_rotary : config_.rotary).dim / 2;
  const int64_t rest = op.head_dim - op.first - 2 * half;
  std::vector<int64_t> sizes;
  std::vector<std::string> parts, turned;
  const auto part = [&](int64_t size, const char* before, const char* after) {
    sizes.push_back(size);
    parts.push_back(name + before);
    turned.push_back(name + after);
  };
  if (op.first > 0) part(op.first, ".front", ".front");
  const size_t first = parts.size();
  part(half, ".first", ".turned_first");
  part(half, ".second", ".turned_second");
  if (rest > 0) part(rest, ".rest", ".rest");
  g_.node("Split", {stand.name, shape(sizes)}, parts, {OnnxGraph::integer("axis", -1)});
  const std::string local = op.local ? "local_" : "";
  const auto times = [&](const std::string& x, const char* factor) {
    return g_.node("Mul", {x, local + factor}, x + "." + factor);
  };
  const std::string &a = parts[first], &b = parts[first + 1];
  g_.node("Sub", {times(a, "cosines"), times(b, "sines")}, turned[first]);
  g_.node("Add", {times(b, "cosines"), times(a, "sines")}, turned[first + 1]);
  const bool grows = op.position_beta != 0;
  stand.name = g_.node("Concat", turned, grows ? name + ".turned" : name, {OnnxGraph::integer("axis", -1)});
  if (grows) stand.name = g_.node("Mul", {stand.name, "position_factors"}, name);
  if (operand) stand.name = rounded(*operand, stand.name);
}

void GraphBuilder::add(const model::SplitLatentOp&) {}  // refused before

std::string GraphBuilder::repeat_heads(const model::AttentionOp& op, const std::string& x,
                                       const std::string& name) {
  std::vector<int64_t> heads;
  for (int64_t h = 0; h < op.heads; ++h) heads.push_back(h / op.group());
  const std::string indices = g_.constant("kv_head_of", heads, {std::ssize(heads)});
  return g_.node("Gather", {x, indices}, name, {OnnxGraph::integer("axis", 1)});
}

std::string GraphBuilder::attention_operand(Value value, int64_t head_dim, int64_t heads,
                                            const std::string& name) {
  Stand& stand = at(value);
  const std::optional<Point> operand = std::exchange(stand.operand, std::nullopt);
  by_head(value, head_dim, heads * head_dim, operand ? point_name(*operand) : name);
  if (operand) stand.name = rounded(*operand, stand.name);
  return stand.name;
}

void GraphBuilder::add(const model::AttentionOp& op) {
  const std::string queries = attention_operand(Value::q, op.head_dim, op.heads, attention_name("queries"));
  std::string keys = attention_operand(Value::k, op.head_dim, op.kv_heads, attention_name("keys_by_head"));
  std::string values =
      attention_operand(Value::v, op.value_dim, op.kv_heads, attention_name("values_by_head"));
  if (prefix_) {
    const auto layer = static_cast<size_t>(layer_);
    keys = with_constant(keys, prefix_->keys[layer], {1, op.kv_heads, 1, op.head_dim},
                         attention_name("prefix_keys"));
    values = with_constant(values, prefix_->values[layer], {1, op.kv_heads, 1, op.value_dim},
                           attention_name("prefix_values"));
  }
  g_.node("Transpose", {repeat_heads(op, keys, attention_name("keys"))}, attention_name("keys_transposed"),
          {OnnxGraph::integers("perm", {0, 1, 3, 2})});

  const Point s_point = point(Module::qk_product, Slot::output);
  const Point p_point = point(Module::pv_product, Slot::input);
  const std::string scores =
      rounded(s_point, g_.node("MatMul", {queries, attention_name("keys_transposed")}, point_name(s_point)));
  std::string scaled = g_.node("Mul", {scores, scalar(op.scale)}, attention_name("scaled"));
  if (op.softcap != 0) {
    const Point capped = point(Module::softcap, Slot::output);
    scaled = rounded(capped, soft_cap(scaled, op.softcap, point_name(capped)));
  }
  const std::string mask = mask_name(op.window);
  g_.node("Add", {scaled, mask}, attention_name("masked"));
  std::string p =
      g_.node("Softmax", {attention_name("masked")}, point_name(p_point), {OnnxGraph::integer("axis", -1)});
  p = hidden(p_point, rounded(p_point, p), mask);
  const Point o_point = point(Module::pv_product, Slot::output);
  const std::string mixed = rounded(
      o_point,
      g_.node("MatMul", {p, repeat_heads(op, values, attention_name("values"))}, point_name(o_point)));
  g_.node("Transpose", {mixed}, attention_name("mixed"), {OnnxGraph::integers("perm", {0, 2, 1, 3})});
  at(Value::mixed) = {g_.node("Reshape", {attention_name("mixed"), shape({0, 0, op.heads * op.value_dim})},
                              attention_name("context"))};
}

std::string GraphBuilder::soft_cap(const std::string& x, float cap, const std::string& name) {
  g_.node("Div", {x, scalar(cap)}, name + ".shares");
  g_.node("Tanh", {name + ".shares"}, name + ".tanh");
  return g_.node("Mul", {name + ".tanh", scalar(cap)}, name);
}

std::string GraphBuilder::hidden(const Point& point, const std::string& p, const std::string& mask) {
  const QuantSpec& spec = quantization_.qcfg[point];
  if (!spec.enabled() || form_ == PointForm::names) return p;
  const Grid grid = make_grid(spec, quantization_.ranges[point].value());
  if (point_codes(point, spec, grid).has_zero) return p;
  const std::string name = point_name(point);
  g_.node("Equal", {mask, scalar(0.0F)}, name + ".visible");
  return g_.node("Where", {name + ".visible", p, scalar(0.0F)}, name + ".hidden");
}

void GraphBuilder::add(const model::ActivateOp& op) {
  const auto at_slot = [&](Slot slot) { return point(Module::activation, slot); };
  const std::string x = rounded(at_slot(Slot::input), at(Value::gate).name);
  const std::string out = point_name(at_slot(Slot::output));
  switch (op.kind) {
    case model::Activation::silu: {
      const std::string sigmoid = g_.node("Sigmoid", {x}, point_name(at_slot(Slot::input2)));
      g_.node("Mul", {x, rounded(at_slot(Slot::input2), sigmoid)}, out);
      break;
    }
    case model::Activation::gelu_erf:
    case model::Activation::gelu_tanh: {
      const bool quantized = quantization_.qcfg[at_slot(Slot::input)].enabled() ||
                             quantization_.qcfg[at_slot(Slot::output)].enabled();
      const bool erf = op.kind == model::Activation::gelu_erf || (quantized && rounded_gelu_is_erf(config_));
      g_.node("Gelu", {x}, out, {OnnxGraph::text("approximate", erf ? "none" : "tanh")});
      break;
    }
    case model::Activation::relu:
      g_.node("Relu", {x}, out);
      break;
    case model::Activation::relu2: {
      const std::string positive =
          g_.node("Relu", {x}, module_name(layer_, Module::activation) + ".positive");
      g_.node("Mul", {positive, positive}, out);
      break;
    }
    case model::Activation::xielu:
      break;  // refused before
  }
  at(Value::gate) = {rounded(at_slot(Slot::output), out)};
}

void GraphBuilder::add(const model::MultiplyOp&) {
  const bool turned = config_.graph.block(layer_).hadamard(Value::gate) != nullptr;
  at(Value::gate) = {g_.node("Mul", {at(Value::gate).name, at(Value::up).name},
                             turned ? module_name(layer_, Module::down) + ".product"
                                    : point_name(point(Module::down, Slot::input)))};
}

std::string GraphBuilder::signs(const std::string& name, const std::vector<int8_t>& entries, int64_t order) {
  return g_.constant(fmt::format("{}.{}", name, order), std::vector<float>(entries.begin(), entries.end()),
                     {order, order});
}

void GraphBuilder::add(const model::HadamardOp& op) {
  // x · (S ⊗ B) = Sᵀ · X · B, X the block's channels as a matrix: two small products of ±1.
  const model::HadamardMatrix whole = model::make_hadamard(op.block);
  const int64_t power = op.block / whole.base_order;
  Stand& stand = at(op.value);
  const Point point = hadamard_point(layer_, op);
  const std::string name = point_name(point);
  const int64_t width = stand.by_head ? config_.head_dim : op.width;
  std::vector<int64_t> apart(stand.by_head ? 3 : 2, 0), together = apart;
  together.push_back(width);
  apart.insert(apart.end(), {width / op.block, power, whole.base_order});
  std::string x = g_.node("Reshape", {stand.name, shape(apart)}, name + ".blocks");
  if (power > 1) {
    std::vector<int8_t> sylvester(static_cast<size_t>(power * power));
    for (int64_t i = 0; i < power * power; ++i) {
      const auto common = static_cast<uint64_t>((i / power) & (i % power));
      sylvester[static_cast<size_t>(i)] = std::popcount(common) % 2 == 0 ? 1 : -1;
    }
    x = g_.node("MatMul", {signs("hadamard.sylvester", sylvester, power), x}, name + ".sylvester");
  }
  if (whole.base_order > 1) {
    x = g_.node("MatMul", {x, signs("hadamard.paley", whole.base, whole.base_order)}, name + ".paley");
  }
  x = g_.node("Mul", {x, scalar(1.0F / std::sqrt(static_cast<float>(op.block)))}, name + ".turned");
  stand.name = g_.node("Reshape", {x, shape(together)}, name);
  // What the down projection reads, it rounds.
  if (op.operand != model::Operand::none) stand.name = rounded(point, stand.name);
}

void GraphBuilder::add(const model::AddOp& op, size_t next) {
  std::string update = at(op.in).name;
  if (op.factor != 1.0F) {
    update = g_.node("Mul", {update, scalar(op.factor)}, module_name(layer_, op.module) + ".scaled");
  }
  at(Value::residual) = {g_.node("Add", {at(Value::residual).name, update}, residual_name(next))};
}

void GraphBuilder::block() {
  const std::vector<model::Operation>& operations = config_.graph.block(layer_).operations;
  const auto is_activation = [](const model::Operation& operation) {
    return std::holds_alternative<model::ActivateOp>(operation);
  };
  for (size_t i = 0; i < operations.size(); ++i) {
    const model::Operation& operation = operations[i];
    if (is_activation(operation)) continue;  // stands beside the linear map whose output it changes
    std::visit(
        [&]<typename Op>(const Op& op) {
          if constexpr (std::is_same_v<Op, model::AddOp>) {
            add(op, i + 1);
          } else if constexpr (requires(GraphBuilder & builder) { builder.add(op); }) {
            add(op);
          }  // others are refused before
        },
        operation);
    const auto* linear = std::get_if<model::LinearOp>(&operation);
    if (linear == nullptr || linear->out != Value::gate) continue;
    const auto next =
        std::find_if(operations.begin() + static_cast<int64_t>(i), operations.end(), is_activation);
    if (next != operations.end()) add(std::get<model::ActivateOp>(*next));
  }
}

}  // namespace qeval::quant
