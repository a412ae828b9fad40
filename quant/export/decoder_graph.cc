#include "quant/export/decoder_graph.h"

#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/rotary.h"
#include "quant/editable_model.h"
#include "quant/export/point_codes.h"
#include "quant/export/weight_codes.h"

namespace qeval::quant {
namespace {

using model::ModelConfig;

class DecoderGraph {
 public:
  DecoderGraph(OnnxGraph& graph, const model::Model& model, const Quantization& quantization, PointForm form)
      : g_(graph), model_(model), config_(model.config), quantization_(quantization), form_(form) {}

  void build(int64_t max_positions) {
    g_.input("input_ids", onnx::TensorProto::INT64, {"batch", "sequence"});
    std::string residual = embed(max_positions);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) residual = block(layer, residual);
    head(norm(0, Module::final_norm, residual));
    g_.output("logits", onnx::TensorProto::FLOAT, {"batch", "sequence", std::to_string(config_.vocab_size)});
  }

 private:
  std::string scalar(float value) { return g_.scalar(fmt::format("constant.{:.9g}", value), value); }
  std::string shape(const std::vector<int64_t>& dims) {
    return g_.constant(fmt::format("shape.{}", fmt::join(dims, "_")), dims, {std::ssize(dims)});
  }
  std::string axis(int64_t value) {
    return g_.constant(fmt::format("axis.{}", value), std::span(&value, 1), {1});
  }

  /// `value`, which a point names, as the operations after the point see it.
  std::string rounded(const Point& point, const std::string& value) {
    const QuantSpec& spec = quantization_.qcfg[point];
    if (!spec.enabled()) return value;
    const std::string name = point_name(point);
    if (form_ == PointForm::names) {
      return rounds_again(point) ? g_.node("Identity", {value}, name) : value;
    }
    const PointCodes codes = point_codes(point, spec, make_grid(spec, quantization_.ranges[point].value()));
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

  std::string embed(int64_t max_positions) {
    const std::string table = add_matrix(g_, "model.embed_tokens.weight", model_.embedding, false);
    std::string name = point_name({0, Module::input_norm, Slot::input});
    if (config_.scale_embedding) {
      g_.node("Gather", {table, "input_ids"}, "embedding");
      g_.node("Mul", {"embedding", scalar(std::sqrt(static_cast<float>(config_.hidden_size)))}, name);
    } else {
      g_.node("Gather", {table, "input_ids"}, name);
    }
    // What all layers share: the sequence's length, its part of the rotary table, and the mask.
    g_.node("Shape", {"input_ids"}, "length", {OnnxGraph::integer("start", 1), OnnxGraph::integer("end", 2)});
    const model::RotaryTable rotary(config_.rotary, max_positions);
    for (const bool sine : {false, true}) {
      const std::string table_name = sine ? "rotary.sines" : "rotary.cosines";
      g_.external(table_name, onnx::TensorProto::FLOAT, {max_positions, rotary.half()},
                  [&](TensorFile& file) {
                    for (int64_t p = 0; p < max_positions; ++p) {
                      const float* row = sine ? rotary.sines(p) : rotary.cosines(p);
                      file.write(std::as_bytes(std::span(row, static_cast<size_t>(rotary.half()))));
                    }
                  });
      g_.node("Slice", {table_name, axis(0), "length", axis(0)}, sine ? "sines" : "cosines");
    }
    g_.node("Concat", {"length", "length"}, "square", {OnnxGraph::integer("axis", 0)});
    // Added to a score it gives exactly this, so that its exponential is 0; an infinity would not survive
    // every runtime.
    g_.node("Expand", {scalar(std::numeric_limits<float>::lowest()), "square"}, "lowest");
    g_.node("Trilu", {"lowest", g_.constant("mask.diagonal", std::array<int64_t, 1>{1}, {})}, "mask",
            {OnnxGraph::integer("upper", 1)});
    return name;
  }

  std::string norm(int64_t layer, Module module, const std::string& residual) {
    const model::NormWeights& stored = norm_of(model_, layer, module);
    const std::string name = module_name(layer, module);
    const std::string out = point_name({layer, module, Slot::output});
    const std::string x = rounded({layer, module, Slot::input}, residual);
    const QuantSpec& spec = quantization_.qcfg[{layer, module, Slot::weight}];
    const std::string weight =
        spec.enabled() && form_ == PointForm::nodes
            ? add_quantized_norm(g_, name + ".weight", stored.weight, spec)
            : g_.constant(name + ".weight", stored.weight, {std::ssize(stored.weight)});
    if (config_.norm == model::NormKind::layer) {
      std::vector<std::string> inputs{x, weight};
      if (!stored.bias.empty()) {
        inputs.push_back(g_.constant(name + ".bias", stored.bias, {std::ssize(stored.bias)}));
      }
      g_.node(
          "LayerNormalization", inputs, out,
          {OnnxGraph::integer("axis", -1), OnnxGraph::real("epsilon", static_cast<float>(config_.norm_eps))});
    } else if (module == Module::final_norm) {
      g_.node("Mul", {x, x}, name + ".squares");
      g_.node("ReduceMean", {name + ".squares", axis(-1)}, name + ".mean");
      g_.node("Add", {name + ".mean", scalar(static_cast<float>(config_.norm_eps))}, name + ".variance");
      g_.node("Sqrt", {name + ".variance"}, name + ".deviation");
      g_.node("Div", {x, name + ".deviation"}, name + ".normed");
      g_.node("Mul", {name + ".normed", weight}, out);
    } else {
      // What an accelerator's L2 normalization computes (QUANTIZATION.md's RMSNorm without eps).
      g_.node("LpNormalization", {x}, name + ".direction",
              {OnnxGraph::integer("axis", -1), OnnxGraph::integer("p", 2)});
      g_.node("Mul", {name + ".direction", scalar(std::sqrt(static_cast<float>(config_.hidden_size)))},
              name + ".normed");
      g_.node("Mul", {name + ".normed", weight}, out);
    }
    return rounded({layer, module, Slot::output}, out);
  }

  std::string weight_of(int64_t layer, Module module, const model::Matrix& matrix) {
    const QuantSpec& spec = quantization_.qcfg[{layer, module, Slot::weight}];
    const std::string name = module_name(layer, module) + ".weight";
    if (!spec.enabled() || form_ == PointForm::names) return add_matrix(g_, name, matrix, true);
    return add_quantized_matrix(g_, name, quantize_matrix(matrix, spec));
  }

  /// x · Wᵀ + b, rounded; `x` as the projection reads it.
  std::string product(int64_t layer, Module module, const std::string& x,
                      const model::LinearWeights& linear) {
    const std::string out = point_name({layer, module, Slot::output});
    const std::string weight = weight_of(layer, module, linear.weight);
    if (linear.bias.empty()) {
      g_.node("MatMul", {x, weight}, out);
    } else {
      const std::string name = module_name(layer, module);
      g_.node("MatMul", {x, weight}, name + ".product");
      g_.node("Add", {name + ".product", g_.constant(name + ".bias", linear.bias, {std::ssize(linear.bias)})},
              out);
    }
    return rounded({layer, module, Slot::output}, out);
  }

  std::string linear(int64_t layer, Module module, const std::string& in) {
    return product(layer, module, rounded({layer, module, Slot::input}, in),
                   model_.layers[static_cast<size_t>(layer)].linear(module));
  }

  /// [batch, sequence, heads · head_dim] → [batch, heads, sequence, head_dim]
  std::string split_heads(const std::string& x, int64_t heads, const std::string& name) {
    g_.node("Reshape", {x, shape({0, 0, heads, config_.head_dim})}, name + ".heads");
    return g_.node("Transpose", {name + ".heads"}, name, {OnnxGraph::integers("perm", {0, 2, 1, 3})});
  }

  std::string rotate(const std::string& x, const std::string& name) {
    const int64_t half = config_.rotary.dim / 2;
    const int64_t rest = config_.head_dim - config_.rotary.dim;
    std::vector<int64_t> sizes{half, half};
    std::vector<std::string> parts{name + ".first", name + ".second"};
    std::vector<std::string> turned{name + ".turned_first", name + ".turned_second"};
    if (rest > 0) {
      sizes.push_back(rest);
      parts.push_back(name + ".rest");
      turned.push_back(name + ".rest");
    }
    g_.node("Split", {x, shape(sizes)}, parts, {OnnxGraph::integer("axis", -1)});
    const auto times = [&](const std::string& part, const char* factor) {
      return g_.node("Mul", {part, factor}, part + "." + factor);
    };
    g_.node("Sub", {times(parts[0], "cosines"), times(parts[1], "sines")}, turned[0]);
    g_.node("Add", {times(parts[1], "cosines"), times(parts[0], "sines")}, turned[1]);
    return g_.node("Concat", turned, name, {OnnxGraph::integer("axis", -1)});
  }

  /// Key/value heads [batch, kv_heads, …] repeated for the query heads that share them.
  std::string repeat_heads(const std::string& x, const std::string& name) {
    const int64_t group = config_.num_heads / config_.num_kv_heads;
    std::vector<int64_t> heads;
    for (int64_t h = 0; h < config_.num_heads; ++h) heads.push_back(h / group);
    const std::string indices = g_.constant("kv_head_of", heads, {std::ssize(heads)});
    return g_.node("Gather", {x, indices}, name, {OnnxGraph::integer("axis", 1)});
  }

  std::string attend(int64_t layer, const std::string& normed) {
    const std::string q = linear(layer, Module::q, normed);
    const std::string k = linear(layer, Module::k, normed);
    const std::string v = linear(layer, Module::v, normed);
    const std::string name = fmt::format("model.layers.{}.self_attn", layer);
    const auto point = [&](Module module, Slot slot) { return Point{layer, module, slot}; };

    const Point q_point = point(Module::qk_product, Slot::input);
    const Point k_point = point(Module::qk_product, Slot::input2);
    const Point v_point = point(Module::pv_product, Slot::input2);
    const std::string queries =
        rounded(q_point, rotate(split_heads(q, config_.num_heads, name + ".q"), point_name(q_point)));
    const std::string keys =
        rounded(k_point, rotate(split_heads(k, config_.num_kv_heads, name + ".k"), point_name(k_point)));
    const std::string values = rounded(v_point, split_heads(v, config_.num_kv_heads, point_name(v_point)));
    g_.node("Transpose", {repeat_heads(keys, name + ".keys")}, name + ".keys_transposed",
            {OnnxGraph::integers("perm", {0, 1, 3, 2})});

    const Point s_point = point(Module::qk_product, Slot::output);
    const Point p_point = point(Module::pv_product, Slot::input);
    const std::string scores =
        rounded(s_point, g_.node("MatMul", {queries, name + ".keys_transposed"}, point_name(s_point)));
    g_.node("Mul", {scores, scalar(1.0F / std::sqrt(static_cast<float>(config_.head_dim)))},
            name + ".scaled");
    g_.node("Add", {name + ".scaled", "mask"}, name + ".masked");
    std::string p =
        g_.node("Softmax", {name + ".masked"}, point_name(p_point), {OnnxGraph::integer("axis", -1)});
    p = hidden(p_point, rounded(p_point, p));
    const Point o_point = point(Module::pv_product, Slot::output);
    const std::string mixed =
        rounded(o_point, g_.node("MatMul", {p, repeat_heads(values, name + ".values")}, point_name(o_point)));
    g_.node("Transpose", {mixed}, name + ".mixed", {OnnxGraph::integers("perm", {0, 2, 1, 3})});
    g_.node("Reshape", {name + ".mixed", shape({0, 0, config_.num_heads * config_.head_dim})},
            name + ".context");
    return linear(layer, Module::o, name + ".context");
  }

  /// Probabilities after their point. Those of later tokens are 0 whatever the grid: where it has no 0, they
  /// are masked once more.
  std::string hidden(const Point& point, const std::string& p) {
    const QuantSpec& spec = quantization_.qcfg[point];
    if (!spec.enabled() || form_ == PointForm::names) return p;
    const Grid grid = make_grid(spec, quantization_.ranges[point].value());
    if (point_codes(point, spec, grid).has_zero) return p;
    const std::string name = point_name(point);
    g_.node("Equal", {"mask", scalar(0.0F)}, name + ".visible");
    return g_.node("Where", {name + ".visible", p, scalar(0.0F)}, name + ".hidden");
  }

  std::string activate(int64_t layer, const std::string& gate) {
    const auto point = [&](Slot slot) { return Point{layer, Module::activation, slot}; };
    const std::string x = rounded(point(Slot::input), gate);
    const std::string out = point_name(point(Slot::output));
    if (config_.activation == model::Activation::silu) {
      const std::string sigmoid = g_.node("Sigmoid", {x}, point_name(point(Slot::input2)));
      g_.node("Mul", {x, rounded(point(Slot::input2), sigmoid)}, out);
    } else {
      const bool quantized = quantization_.qcfg[point(Slot::input)].enabled() ||
                             quantization_.qcfg[point(Slot::output)].enabled();
      const bool tanh = config_.activation == model::Activation::gelu_tanh && !quantized;
      g_.node("Gelu", {x}, out, {OnnxGraph::text("approximate", tanh ? "tanh" : "none")});
    }
    return rounded(point(Slot::output), out);
  }

  std::string block(int64_t layer, const std::string& residual) {
    const bool last = layer + 1 == config_.num_layers;
    const std::string attended = attend(layer, norm(layer, Module::input_norm, residual));
    const std::string middle =
        g_.node("Add", {residual, attended}, point_name({layer, Module::post_attention_norm, Slot::input}));
    const std::string normed = norm(layer, Module::post_attention_norm, middle);
    const std::string gate = activate(layer, linear(layer, Module::gate, normed));
    const std::string up = linear(layer, Module::up, normed);
    const std::string product_name = point_name({layer, Module::down, Slot::input});
    const std::string down = linear(layer, Module::down, g_.node("Mul", {gate, up}, product_name));
    return g_.node("Add", {middle, down},
                   last ? point_name({0, Module::final_norm, Slot::input})
                        : point_name({layer + 1, Module::input_norm, Slot::input}));
  }

  void head(const std::string& normed) {
    const std::string x = rounded({0, Module::head, Slot::input}, normed);
    const Point out{0, Module::head, Slot::output};
    const bool quantized = quantization_.qcfg[{0, Module::head, Slot::weight}].enabled();
    std::string logits;
    if (config_.tie_word_embeddings && (!quantized || form_ == PointForm::names) &&
        model_.head.bias.empty()) {
      g_.node("Transpose", {"model.embed_tokens.weight"}, "lm_head.weight",
              {OnnxGraph::integers("perm", {1, 0})});
      logits = rounded(out, g_.node("MatMul", {x, "lm_head.weight"}, point_name(out)));
    } else {
      logits = product(0, Module::head, x, model_.head);
    }
    g_.node("Identity", {logits}, "logits");
  }

  OnnxGraph& g_;
  const model::Model& model_;
  const ModelConfig& config_;
  const Quantization& quantization_;
  PointForm form_;
};

}  // namespace

bool rounds_again(const Point& point) {
  if (point.slot != Slot::input) return false;
  return (is_linear(point.module) && point.module != Module::down) || point.module == Module::activation;
}

void refuse_dynamic_points(const QuantConfig& qcfg, const ModelConfig& config) {
  for (const Point& point : all_points(config)) {
    if (qcfg[point].enabled() && qcfg[point].dynamic) {
      fail("{}: takes its range at run time, which an export cannot; accepted: static ranges",
           point_name(point));
    }
  }
}

void add_decoder(OnnxGraph& graph, const model::Model& model, const Quantization& quantization,
                 int64_t max_positions, PointForm form) {
  require_papers_block(model.config, "export");
  refuse_dynamic_points(quantization.qcfg, model.config);
  DecoderGraph(graph, model, quantization, form).build(max_positions);
}

}  // namespace qeval::quant
