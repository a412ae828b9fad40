#include "quant/arithmetic/ggml_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "base/setting.h"
#include "model/kernels/kernels.h"

namespace qeval::quant {
namespace {

using model::Tensor;

constexpr std::string_view kName = "ggml", kPrefix = "ggml-";
constexpr int64_t kLeastRotation = 64;  // llama.cpp rotates heads of a multiple of so many channels

Tensor ggml_rounded(GgmlRow type, const Tensor& in) {
  Tensor out;
  out.resize(in.rows, in.cols, sizeof(float));
  parallel_ranges(in.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::memcpy(out.row<float>(first), in.row<float>(first),
                static_cast<size_t>((last - first) * in.cols) * sizeof(float));
    for (int64_t r = first; r < last; ++r) round_row(type, out.row<float>(r), in.cols);
  });
  return out;
}

const float* bias_of(const model::LinearWeights& weights) {
  return weights.bias.empty() ? nullptr : weights.bias.data();
}

/// The largest power of two that divides a head's size.
int64_t rotation_order(int64_t dim) {
  return dim & -dim;
}

}  // namespace

std::string_view ggml_stem(std::string_view name) {
  return name.starts_with(kPrefix) && find_kv_type(name.substr(kPrefix.size())) ? kName : name;
}

std::string canonical_arithmetic(std::string_view name) {
  return std::string(name == "ggml-f16" ? kName : name);
}

std::optional<GgmlRow> parse_ggml_arithmetic(std::string_view name) {
  if (name == kName) return GgmlRow::f16;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view type = name.substr(kPrefix.size());
  if (const auto found = find_kv_type(type)) return found;
  fail("{} {}: keys and values of type {}: unknown; accepted: {}", setting("arithmetic"), printable(name),
       printable(type), kGgmlKvTypes);
}

namespace {

/// The types to which inputs of products with a file's weights are rounded.
class InputTypes {
 public:
  /// `name`: the arithmetic's. Throws Error for a folder.
  InputTypes(const model::Model& file, std::string_view name) : name_(name) {
    if (std::error_code code; std::filesystem::is_directory(file.path, code)) {
      fail("{} {}: {} is a folder; accepted: a GGUF file", setting("arithmetic"), name, file.path.string());
    }
  }
  /// Throws Error for weights that ggml does not multiply.
  GgmlRow of(const model::LinearWeights& weights) const {
    const model::DType* dtype = weights.weight.stored.plain_type();
    const std::optional<GgmlRow> type = dtype == nullptr ? std::nullopt : dot_type(*dtype);
    if (!type)
      fail("{} {}: {}: ggml has no product with such weights", setting("arithmetic"), name_,
           weights.weight.name);
    if (weights.weight.cols % block_size(*type) != 0) {
      fail("{} {}: {} has {} columns; accepted: a multiple of {}", setting("arithmetic"), name_,
           weights.weight.name, weights.weight.cols, block_size(*type));
    }
    return *type;
  }

 private:
  std::string_view name_;
};

void check_heads(const model::ModelConfig& config, GgmlRow kv_type, std::string_view name) {
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const auto* op = config.graph.block(i).find<model::AttentionOp>();
    if (op != nullptr &&
        (op->head_dim % block_size(kv_type) != 0 || op->value_dim % block_size(kv_type) != 0)) {
      fail("{} {}: heads of {} and {} channels; accepted with these keys and values: multiples of {}",
           setting("arithmetic"), name, op->head_dim, op->value_dim, block_size(kv_type));
    }
  }
}

}  // namespace

GgmlArithmetic::GgmlArithmetic(const model::Model& model, int64_t max_positions, GgmlRow kv_type,
                               std::string name)
    : FloatArithmetic(model, max_positions),
      name_(std::move(name)),
      kv_types_(static_cast<size_t>(model.config.num_layers), kv_type) {
  const InputTypes types(model, name_);
  const auto add = [&](const model::LinearWeights& weights) {
    return inputs_.emplace(&weights, types.of(weights)).first->second;
  };
  for (const model::LayerWeights& layer : model.layers) {
    layer.visit_linears([&](model::Module, const model::LinearWeights& weights) {
      input_bits_ = std::min(input_bits_, bits(add(weights)));
    });
  }
  add(model.head);
  if (model.layer_projection.weight.rows > 0) add(model.layer_projection);
  check_heads(model.config, kv_type, name_);
  for (const auto& [weights, type] : inputs_) keep_blocks(*weights);
}

GgmlArithmetic::GgmlArithmetic(const model::Model& model, int64_t max_positions, const GgmlParts& parts)
    : FloatArithmetic(model, max_positions), name_("ggml, in part") {
  const InputTypes types(parts.file, kName);
  const auto add = [&](const model::LinearWeights& weights, const model::LinearWeights& own, bool rounds) {
    inputs_.emplace(&weights, rounds ? types.of(own) : GgmlRow::f32);
  };
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    for (const auto& [module, weights] : model.layers[i].linears)
      add(weights, parts.file.layers[i].linear(module), parts.rounds_input(layer, module));
    for (const auto& [module, experts] : model.layers[i].experts) {
      const std::vector<model::LinearWeights>& own = parts.file.layers[i].experts.at(module);
      for (size_t e = 0; e < experts.size(); ++e) add(experts[e], own[e], parts.rounds_input(layer, module));
    }
    kv_types_.push_back(parts.rounds_kv(layer) ? parts.kv_type : GgmlRow::f32);
  }
  add(model.head, parts.file.head, parts.rounds_input(std::ssize(model.layers), model::Module::head));
  // What is made of the embedding for the layers belongs to no layer.
  if (model.layer_projection.weight.rows > 0)
    add(model.layer_projection, parts.file.layer_projection,
        parts.rounds_input(std::ssize(model.layers), model::Module::head));
  check_heads(model.config, parts.kv_type, kName);
}

void GgmlArithmetic::keep_blocks(const model::LinearWeights& weights) {
  if (auto made = BlockMatrix::make(weights.weight)) blocks_.emplace(&weights, std::move(*made));
}

const BlockMatrix* GgmlArithmetic::blocks(const model::LinearWeights& weights) const {
  const auto found = blocks_.find(&weights);
  return found == blocks_.end() ? nullptr : &found->second;
}

void GgmlArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  std::vector<Target> left(targets.begin(), targets.end());
  while (!left.empty()) {
    const model::LinearWeights& first = weights(layer, *left.front().op);
    const GgmlRow type = input_type(first);
    const bool coded = blocks(first) != nullptr;
    const auto others = std::stable_partition(left.begin(), left.end(), [&](const Target& target) {
      const model::LinearWeights& own = weights(layer, *target.op);
      return input_type(own) == type && (blocks(own) != nullptr) == coded;
    });
    const std::span<const Target> alike(left.begin(), others);
    if (coded) {
      Tensor buffer;
      const BlockRows rows = encode_rows(type, in, buffer);
      std::vector<BlockTarget> products;
      for (const Target& target : alike) {
        const model::LinearWeights& own = weights(layer, *target.op);
        target.out->resize(in.rows, own.weight.rows, sizeof(float));
        products.push_back({blocks(own), bias_of(own), target.out->row<float>(0), rows});
      }
      quant::multiply(products);
    } else if (type == GgmlRow::f32) {
      FloatArithmetic::linear(layer, in, alike);
    } else {
      FloatArithmetic::linear(layer, ggml_rounded(type, in), alike);
    }
    left.erase(left.begin(), others);
  }
}

void GgmlArithmetic::expert_linear(int64_t layer, const Tensor& in, const model::Routing& routing,
                                   std::span<const Target> targets) const {
  for (const Target& target : targets) {
    // A file keeps all experts of a module in one tensor, of one type.
    const std::vector<model::LinearWeights>& experts = weights(layer).experts.at(target.op->module);
    const GgmlRow type = input_type(experts.front());
    if (blocks(experts.front()) == nullptr) {
      FloatArithmetic::expert_linear(layer, ggml_rounded(type, in), routing, {&target, 1});
      continue;
    }
    Tensor buffer;
    const BlockRows rows = encode_rows(type, in, buffer);
    target.out->resize(in.rows, target.op->rows, sizeof(float));
    std::vector<BlockTarget> products;
    for (size_t e = 0; e < experts.size(); ++e) {
      const int64_t first = routing.first[e], count = routing.first[e + 1] - first;
      if (count == 0) continue;
      products.push_back({blocks(experts[e]),
                          bias_of(experts[e]),
                          target.out->row<float>(first),
                          {rows.layout, count, rows.data + first * rows.ld, rows.ld}});
    }
    quant::multiply(products);
  }
}

void GgmlArithmetic::round_heads(int64_t layer, GgmlRow type, float* x, int64_t heads, int64_t dim) const {
  if (block_size(kv_type(layer)) == 1 || dim % kLeastRotation != 0) return round_row(type, x, heads * dim);
  const int64_t order = rotation_order(dim);
  const model::HadamardMatrix h{.order = order};
  const float factor = 1 / std::sqrt(static_cast<float>(order));
  const auto turn = [&](float* block) {  // its own inverse
    model::multiply_hadamard(h, block, nullptr);
    for (int64_t i = 0; i < order; ++i) block[i] *= factor;
  };
  for (float* block = x; block < x + heads * dim; block += order) {
    turn(block);
    round_row(type, block, order);
    turn(block);
  }
}

void GgmlArithmetic::store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row,
                              int64_t count, const model::KvBlock& block, int64_t at) const {
  const model::AttentionOp& op = config().graph.block(layer).attention();
  const auto copy = [&](const Tensor& from, int64_t dim) {
    Tensor out;
    out.resize(count, from.cols, sizeof(float));
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(out.row<float>(r), from.row<float>(first_row + r),
                  static_cast<size_t>(from.cols) * sizeof(float));
      round_heads(layer, kv_type(layer), out.row<float>(r), op.kv_heads, dim);
    }
    return out;
  };
  FloatArithmetic::store_kv(layer, copy(k, op.head_dim), copy(v, op.value_dim), 0, count, block, at);
}

void GgmlArithmetic::scores(const model::AttentionTile& tile, const Tensor& q) const {
  // Of keys in blocks the product reads queries in blocks of 8 bits. (Beside halves queries stay floats, as
  // where a prompt is computed.)
  const int64_t source = tile.layer - tile.op->kv_from;  // whose keys these are
  if (block_size(kv_type(source)) == 1) return FloatArithmetic::scores(tile, q);
  thread_local Tensor own;
  const int64_t width = tile.op->group() * tile.op->head_dim, start = tile.kv_head * width;
  own.resize(tile.query_count, q.cols, sizeof(float));
  for (int64_t i = 0; i < tile.query_count; ++i) {
    float* row = own.row<float>(i) + start;
    std::memcpy(row, q.row<float>(tile.first_row + i) + start, static_cast<size_t>(width) * sizeof(float));
    round_heads(source, GgmlRow::q8_0, row, tile.op->group(), tile.op->head_dim);
  }
  model::AttentionTile here = tile;
  here.first_row = 0;
  FloatArithmetic::scores(here, own);
}

void GgmlArithmetic::project_layers(const Tensor& embedded, Tensor& out) const {
  const model::LinearWeights& projection = model().layer_projection;
  const GgmlRow type = input_type(projection);
  const BlockMatrix* matrix = blocks(projection);
  if (matrix == nullptr) return FloatArithmetic::project_layers(ggml_rounded(type, embedded), out);
  Tensor buffer;
  const BlockTarget target{matrix, bias_of(projection), out.row<float>(0),
                           encode_rows(type, embedded, buffer)};
  quant::multiply({&target, 1});
}

void GgmlArithmetic::finish(const Tensor& residual, Tensor& out) const {
  FloatArithmetic::finish(residual, out);
  const GgmlRow type = input_type(model().head);
  if (blocks(model().head) == nullptr) {
    if (type != GgmlRow::f32) out = ggml_rounded(type, out);
    return;
  }
  const BlockRowLayout layout(type, out.cols);
  Tensor both;
  both.first_rows = out.first_rows;
  both.resize(out.rows, out.cols + layout.stride / static_cast<int64_t>(sizeof(float)), sizeof(float));
  parallel_ranges(out.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      auto* row = both.row<float>(r);
      std::copy_n(out.row<float>(r), out.cols, row);
      encode_row(layout, row, reinterpret_cast<std::byte*>(row + out.cols));
    }
  });
  out = std::move(both);
}

void GgmlArithmetic::logits(const Tensor& normed, int64_t first, int64_t count, float* logits) const {
  const model::LinearWeights& head = model().head;
  const BlockMatrix* matrix = blocks(head);
  if (matrix == nullptr) return FloatArithmetic::logits(normed, first, count, logits);
  const BlockRows rows{BlockRowLayout(input_type(head), matrix->cols()), normed.rows,
                       reinterpret_cast<const std::byte*>(normed.row<float>(0) + matrix->cols()),
                       normed.cols * static_cast<int64_t>(sizeof(float))};
  matrix->multiply(rows, 0, normed.rows, first, count, logits, count);
  if (const float* bias = bias_of(head)) {
    for (int64_t r = 0; r < normed.rows; ++r) model::kernels().add(bias + first, count, logits + r * count);
  }
  finish_logits(logits, normed.rows * count);
}

}  // namespace qeval::quant
