#pragma once

#include "model/weights.h"
#include "quant/arithmetic/integer/angles.h"
#include "quant/arithmetic/integer/integer_model.h"
#include "quant/arithmetic/integer/model_grids.h"
#include "quant/grid/qcfg.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {

/// A zero point further out than this overflows 64-bit sums of products in the worst case.
inline constexpr int32_t kFarthestZeroPoint = 1 << 23;

// Load time: from float weights and the quantization settings to integers. The only part of the integer
// arithmetic, with the embedding look-up and the logits' scale, that may compute in floating point.

/// The configuration as integers compute it: the weights that a configuration may leave in float are rounded
/// all the same, the head's to 8 bits per channel, the final norm's to 16.
QuantConfig integer_config(QuantConfig qcfg);

/// A prepared model, and what the two ends of the seam need.
struct PreparedModel {
  IntegerModel integers;
  ModelGrids grids;
  std::optional<ModelGrids> first_grids;             ///< of position 0, where it has its own
  std::vector<std::unique_ptr<AngleTables>> angles;  ///< IntegerRotary::angles
  double logit_scale = 0;                            ///< of the head's 32-bit results
};

/// Throws Error naming the first operation of the model that has no integer form.
void require_integer_form(const model::ModelConfig& config);

/// See IntegerArithmetic for what is refused.
PreparedModel prepare_model(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                            int64_t max_positions, int32_t guard_bits = kStreamGuardBits,
                            const std::optional<FirstToken>& first = std::nullopt);

/// Weights and bias of a linear map whose input has the codes of `input` and whose output goes to `output`.
IntegerMatrix prepare_linear(const model::LinearWeights& weights, const QuantSpec& spec,
                             const PointGrid& input, const PointGrid& output);
/// The same map of rows at position 0.
IntegerFirstLinear prepare_first_linear(const model::LinearWeights& weights, const QuantSpec& spec,
                                        const PointGrid& input, const PointGrid& output);
/// The same with 32-bit outputs of one scale, which is returned through `scale`.
IntegerMatrix prepare_head(const model::LinearWeights& weights, const QuantSpec& spec, const PointGrid& input,
                           double& scale);

/// Fills the panels of `matrix`, whose shape, storage and zero points are set, as grouped quads (PanelLayout)
/// with the group that costs least. False, and nothing done, where that would take much more memory than
/// pairs.
bool pack_grouped_quads(const QuantizedMatrix& codes, IntegerMatrix& matrix);
/// Fills the panels of `matrix`, whose shape, storage and zero points are set, in `layout`; in pairs where
/// grouped quads would take too much memory. Grouped quads have the zero points off: has_zero_points is false
/// then.
void pack_panels(const QuantizedMatrix& codes, PanelLayout layout, IntegerMatrix& matrix);

/// How the residual stream is read on another grid than its own.
StreamRead prepare_read(const StreamGrid& stream, const PointGrid& codes);
/// A norm between its grids; op.eps = 0: none.
IntegerNorm prepare_norm(const model::NormOp& op, const model::NormWeights& weights, const QuantSpec& spec,
                         const OperationGrids& grids);
/// An addition of factor · update to the stream that is read next. Steps too far apart for the factors are an
/// Error that begins with `point`, the update's name.
IntegerAdd prepare_add(const StreamGrid& stream, const PointGrid& update, float factor,
                       const StreamGrid& next, const std::string& point);
/// `angle_bits`: fractional bits of the cosines and sines.
IntegerSum prepare_sum(const SumGrids& grids, float factor);
IntegerRotary prepare_rotary(const PointGrid& input, const PointGrid& output,
                             int32_t angle_bits = kAngleBits);
/// How rows choose their experts. `correction` and `scales` as the float model has them, or nullptr. Numbers
/// that shares have no room for are an Error that begins with `point`.
IntegerRouter prepare_router(const model::RouteOp& op, const PointGrid& logits, const PointGrid& weights,
                             const std::vector<float>* correction, const std::vector<float>* scales,
                             const std::string& point);
IntegerMix prepare_mix(const model::MixExpertsOp& op, int64_t used, const MixGrids& grids);
IntegerProduct prepare_product(const PointGrid& gate, const PointGrid& up, const PointGrid& output);
/// A rotation of blocks of `block` channels. Sums that exceed 64 bits are an Error that names the point.
IntegerHadamard prepare_hadamard(int64_t block, const HadamardGrids& grids);
/// The exponential of score codes that are `step` apart.
ExpTable prepare_exp(double step);
/// `keys`: the longest path that is attended to.
/// `first`: the grids of position 0, where it has its own. Keys or values of another width than the others'
/// are an Error that begins with `point`.
IntegerAttention prepare_attention(const model::AttentionOp& op, int64_t keys, const AttentionGrids& grids,
                                   const AttentionGrids* first = nullptr, const std::string& point = "");
/// An activation from codes of `gate`, rounded to `input` first, to those of `output`. `sigmoid`: what SiLU's
/// sigmoid is rounded to, where it is; `xielu`: that activation's numbers.
CodeTable prepare_activation(model::Activation kind, const OperationGrids& grids,
                             const std::optional<PointGrid>& sigmoid,
                             const std::optional<model::XieluWeights>& xielu);

}  // namespace qeval::quant
