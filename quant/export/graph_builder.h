// What the parts of the decoder's graph share. Included by decoder_graph.cc and block_operations.cc only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/weights.h"
#include "quant/arithmetic/prefix.h"
#include "quant/export/decoder_graph.h"

namespace qeval::quant {

using model::ModelConfig;
using model::Value;

/// A value of a block as it stands while its operations are added.
struct Stand {
  std::string name;
  bool by_head = false;            ///< [batch, heads, sequence, head_dim], else [batch, sequence, channels]
  std::optional<Point> operand{};  ///< where the attention has yet to round it
};

/// Adds a model's operations to a graph, one after the other.
class GraphBuilder {
 public:
  GraphBuilder(OnnxGraph& graph, const model::Model& model, const Quantization& quantization, PointForm form)
      : g_(graph), model_(model), config_(model.config), quantization_(quantization), form_(form) {
    if (quantization.prefix) prefix_ = rounded_prefix(quantization);
  }

  void build(int64_t max_positions);

 private:
  std::string scalar(float value) { return g_.scalar(fmt::format("constant.{:.9g}", value), value); }
  std::string shape(const std::vector<int64_t>& dims) {
    return g_.constant(fmt::format("shape.{}", fmt::join(dims, "_")), dims, {std::ssize(dims)});
  }
  std::string axis(int64_t value) {
    return g_.constant(fmt::format("axis.{}", value), std::span(&value, 1), {1});
  }
  Stand& at(Value value) { return values_[static_cast<size_t>(value)]; }
  Point point(Module module, Slot slot) const { return {layer_, module, slot}; }
  /// "model.layers.3.self_attn.q": a tensor of this block's attention that is no point.
  std::string attention_name(std::string_view what) const {
    return fmt::format("model.layers.{}.self_attn.{}", layer_, what);
  }

  /// `value`, which a point names, as the operations after the point see it.
  std::string rounded(const Point& point, const std::string& value);
  /// The same by one class of positions' grid; `name` is what its nodes' begin with.
  std::string rounded(const Point& point, const std::string& value, const QuantSpec& spec, const Range& range,
                      const std::string& name);
  /// `value`, whose row at position 0 is `constant` instead, in a shape that fits the value's.
  std::string with_constant(const std::string& value, const std::vector<float>& constant,
                            const std::vector<int64_t>& shape, const std::string& name);
  /// Whether a row is at position 0, [sequence, 1].
  void add_first_token(int64_t max_positions);
  /// Name of the residual stream behind operation `next` − 1 of this block: the point of the first that reads
  /// it, where that is a norm or a linear map.
  std::string residual_name(size_t next) const;

  // ---- around the blocks (decoder_graph.cc)
  /// Rows [offset, offset + max_positions) of a table of positions, cut to the sequence's length.
  std::string positions_table(const std::string& table, const std::string& name, int64_t width,
                              int64_t max_positions, const std::function<void(TensorFile&)>& fill);
  /// The sequence's length, [1].
  std::string length();
  std::string embed(int64_t max_positions);
  std::string learned_positions(int64_t max_positions);
  /// What all layers share of rotary embeddings: the sequence's part of the tables.
  void add_tables(int64_t max_positions);
  static std::string mask_name(int64_t window);
  /// One mask for each window that layers have, added to the scores.
  void add_masks();
  void head(const std::string& normed);

  // ---- operations of block layer_ (block_operations.cc)
  /// A value with its heads apart, named `name` where it was not so before.
  Stand& by_head(Value value, int64_t head_dim, int64_t width, const std::string& name);
  /// A value as whole rows.
  Stand& by_row(Value value, int64_t width, const std::string& name);
  /// The name of q or k (or of what else is rotated) that is no point.
  std::string value_name(Value value) const;
  void add(const model::NormOp& op);
  /// Weights of a norm as its normed channels read them: [group], or [heads, 1, group] where each head has
  /// its own.
  std::string norm_weights(const model::NormOp& op, const std::string& weights);
  std::string norm(const model::NormOp& op, const std::string& in);
  std::string ones(int64_t count);
  std::string weight_of(Module module, const model::Matrix& matrix);
  /// x · Wᵀ + b, rounded; `x` as the projection reads it.
  std::string product(Module module, const std::string& x, const model::LinearWeights& linear);
  void add(const model::LinearOp& op);
  void add(const model::RotateOp& op);
  void add(const model::SplitLatentOp&);
  /// Key/value heads [batch, kv_heads, …] repeated for the query heads that share them.
  std::string repeat_heads(const model::AttentionOp& op, const std::string& x, const std::string& name);
  /// An operand of the attention, its heads apart and rounded.
  std::string attention_operand(Value value, int64_t head_dim, int64_t heads, const std::string& name);
  void add(const model::AttentionOp& op);
  /// cap · tanh(x / cap)
  std::string soft_cap(const std::string& x, float cap, const std::string& name);
  /// Probabilities after their point. Those of tokens that are not seen are 0 whatever the grid: where it has
  /// no 0, they are masked once more.
  std::string hidden(const Point& point, const std::string& p, const std::string& mask);
  void add(const model::ActivateOp& op);
  void add(const model::MultiplyOp&);
  void add(const model::HadamardOp& op);
  /// Entries ±1 [order, order] as a constant that all layers share.
  std::string signs(const std::string& name, const std::vector<int8_t>& entries, int64_t order);
  void add(const model::AddOp& op, size_t next);
  void block();

  OnnxGraph& g_;
  const model::Model& model_;
  const ModelConfig& config_;
  const Quantization& quantization_;
  PointForm form_;
  std::optional<Prefix> prefix_;  ///< rounded
  int64_t layer_ = 0;
  std::array<Stand, model::kValues> values_;
  bool has_length_ = false;
};

}  // namespace qeval::quant
