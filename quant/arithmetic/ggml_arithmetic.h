#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/float_arithmetic.h"
#include "model/hadamard.h"
#include "quant/arithmetic/blocks/block_matrix.h"
#include "quant/arithmetic/ggml_rounding.h"

namespace qeval::quant {

/// Some of the roundings of a GGUF file, for a model that may have other weights: to tell what each costs.
struct GgmlParts {
  const model::Model& file;  ///< whose types say what inputs are rounded to; of the other's shape
  /// Whether the input of the layer's linear maps of this module is; of the head's with `layers`.
  std::function<bool(int64_t layer, model::Module)> rounds_input;
  std::function<bool(int64_t layer)> rounds_kv;
  GgmlRow kv_type = GgmlRow::f16;
};

/// A GGUF file as llama.cpp's CPU code computes it: inputs of products rounded to the type that the weights'
/// products read, keys and values stored as a type of their own (llama.cpp's -ctk and -ctv, both), everything
/// else in float32. Keys and values in blocks are rotated by a Hadamard matrix first, where the head's size
/// is a multiple of 64, as there. Products with blocks are those of the stored codes with the
/// input's, exact within a block (blocks/kernels.h); others are float32 sums of the rounded numbers.
class GgmlArithmetic final : public model::FloatArithmetic {
 public:
  /// Throws Error where the file is not GGUF, or holds what ggml has no product or no such keys for: naming
  /// it. `model` must outlive the arithmetic.
  GgmlArithmetic(const model::Model& model, int64_t max_positions, GgmlRow kv_type, std::string name);

  /// Of any model, which must outlive the arithmetic, as the parts' file does: only what the parts say is
  /// rounded, and all products are float32 sums. Throws Error as above, of the parts' file.
  GgmlArithmetic(const model::Model& model, int64_t max_positions, const GgmlParts& parts);

  /// "ggml", and "ggml-TYPE" where keys and values are not halves.
  std::string name() const override { return name_; }
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void store_kv(int64_t layer, const model::Tensor& k, const model::Tensor& v, int64_t first_row,
                int64_t count, const model::KvBlock& block, int64_t at) const override;
  void scores(const model::AttentionTile& tile, const model::Tensor& q) const override;
  /// Where the head's products are those of codes, out has the rows' codes behind their floats.
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

  /// Bits of the inputs of the blocks' products, the fewest.
  int input_bits() const { return input_bits_; }

 protected:
  void project_layers(const model::Tensor& embedded, model::Tensor& out) const override;

 private:
  /// x [heads · dim] to `type`: each head rotated where keys and values of the layer are, rounded, and turned
  /// back.
  void round_heads(int64_t layer, GgmlRow type, float* x, int64_t heads, int64_t dim) const;
  /// The codes of a weight matrix of the model, or null.
  const BlockMatrix* blocks(const model::LinearWeights& weights) const;
  void keep_blocks(const model::LinearWeights& weights);
  GgmlRow input_type(const model::LinearWeights& weights) const { return inputs_.at(&weights); }
  GgmlRow kv_type(int64_t layer) const { return kv_types_[static_cast<size_t>(layer)]; }

  std::string name_;
  std::unordered_map<const model::LinearWeights*, GgmlRow> inputs_;
  std::unordered_map<const model::LinearWeights*, BlockMatrix> blocks_;
  std::vector<GgmlRow> kv_types_;  // of each layer
  int input_bits_ = 32;
};

/// "ggml" of "ggml" and of "ggml-TYPE" with a type that there is, other names as they are.
std::string_view ggml_stem(std::string_view name);
inline constexpr std::string_view kGgmlNote = "ggml-TYPE for other keys and values than f16";
/// "ggml-f16" as "ggml", other names as they are: one name for one arithmetic.
std::string canonical_arithmetic(std::string_view name);
/// The type of keys and values of an arithmetic's name, "ggml" (f16) or "ggml-TYPE"; nothing for other names.
/// Throws Error for a type that there is not.
std::optional<GgmlRow> parse_ggml_arithmetic(std::string_view name);

}  // namespace qeval::quant
