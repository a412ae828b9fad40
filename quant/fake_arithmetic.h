#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/float_arithmetic.h"
#include "quant/qcfg.h"
#include "quant/quantized_matrix.h"

namespace qeval::quant {

/// A point ready to be applied: its spec and, where static, its grid.
struct ActivationQuantizer {
  QuantSpec spec;
  Grid grid;

  bool enabled() const { return spec.enabled(); }
  /// Rounds x [n], one row as far as dynamic ranges go.
  void operator()(float* x, int64_t n) const { fake_quantize_row(spec, grid, x, n); }
};

/// The simulation that papers report: float32 throughout, every point of the configuration rounded to its
/// grid and back (QUANTIZATION.md §2). Weights are kept as codes and decoded on their way into the product.
/// RMSNorm in the blocks has no eps; GELU is the erf form where the activation is quantized; residual adds
/// and embedding stay in float, and so do the final norm and the head unless the configuration names them.
/// A dynamic point takes its range per row of the tensor: a token's features, or for the operands and results
/// of the two attention products a token's features of one head (of the visible keys for scores and
/// probabilities).
class FakeArithmetic : public model::FloatArithmetic {
 public:
  /// `ranges` has every range that `qcfg` needs (complete_ranges). `model` must outlive the arithmetic.
  FakeArithmetic(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                 int64_t max_positions);

  std::string name() const override { return "fake"; }
  void norm(int64_t layer, model::NormPoint point, const model::Tensor& residual,
            model::Tensor& out) const override;
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, model::Projection which, std::span<const int32_t> positions,
              model::Tensor& heads) const override;
  void softmax(const model::AttentionTile& tile) const override;
  void mix(const model::AttentionTile& tile, model::Tensor& out) const override;
  void activate(int64_t layer, model::Tensor& gate) const override;
  void multiply(int64_t layer, const model::Tensor& up, model::Tensor& gate) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  /// The operations on a linear's output before another one sees it: its own point, then for v the one of the
  /// mix.
  struct OutputQuantizers {
    ActivationQuantizer first, second;
  };

  const ActivationQuantizer& at(int64_t layer, Module module, Slot slot) const {
    return points_[{layer, module, slot}];
  }
  model::WeightView weight_view(int64_t layer, model::Projection projection) const;
  /// The epilogue of a product, where its output points are static.
  model::Epilogue epilogue(const OutputQuantizers& quantizers) const;
  void quantize_heads(const ActivationQuantizer& quantizer, float* heads, int64_t count) const;
  void quantize_weights(const QuantConfig& qcfg);

  PointMap<ActivationQuantizer> points_;
  std::vector<std::array<QuantizedMatrix, 7>> projections_;  ///< [layers][Projection]; no rows: left in float
  std::vector<std::array<OutputQuantizers, 7>> outputs_;     ///< [layers][Projection]
  std::vector<std::array<std::vector<float>, 2>> norms_;     ///< [layers][NormPoint], dequantized
  std::vector<float> final_norm_;
  QuantizedMatrix head_;
};

/// Everything that decides how a quantized model computes, besides its weights.
struct Quantization {
  QuantConfig qcfg;
  ActRanges ranges;  ///< of every point that needs one; the others' are left out
  /// All that act_dict.json holds: the integer residual takes its last range from the final norm's input.
  ActRanges known_ranges;
  std::string hash;  ///< quantization_hash: the identity of the settings in results
};

/// Whether a model folder holds act_dict.json and default_qcfg.json.
bool is_quantized_checkpoint(const std::filesystem::path& path);

/// Reads the settings of a model: `qcfg` and `act_ranges` where given, else the folder's own files. A missing
/// file or range is an Error that names it.
Quantization load_quantization(const model::Model& model, const std::optional<std::filesystem::path>& qcfg,
                               const std::optional<std::filesystem::path>& act_ranges);

/// SHA-256 over the configuration and those of the known ranges (all that act_dict.json holds or will hold)
/// that an arithmetic computes with: the points' that need one (complete_ranges, whose errors it has), and
/// the final norm's input, which the integers' residual stream ends on.
std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config);

}  // namespace qeval::quant
