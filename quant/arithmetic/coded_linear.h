#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "model/weights.h"
#include "quant/arithmetic/integer/integer_model.h"
#include "quant/arithmetic/integer/run/kernels.h"

namespace qeval::quant {

/// Rows of an input as codes, and what products of stretches of `segment` columns read of them.
class CodedInput {
 public:
  /// x [rows, cols] on the grids of `rounding`. Precondition: has_row_codes(rounding).
  CodedInput(const model::ActivationRounding& rounding, const float* x, int64_t rows, int64_t cols,
             int64_t segment);

 private:
  friend class CodedLinear;
  int64_t rows_, cols_, segment_;
  AlignedBuffer codes_;               ///< int16_t [rows, cols], 0 … 255: + 128
  AlignedBuffer bytes_;               ///< [rows, byte_stride] of each segment
  std::vector<int64_t> bytes_first_;  ///< of each segment
  std::vector<int64_t> sums_;         ///< [segments, rows]
  std::vector<float> scales_;         ///< [rows]
  std::vector<int32_t> zero_points_;  ///< [rows], + 128
};

/// A linear map whose weights are stored as integers of at most 8 bits, and whose input is rounded to such:
/// products of codes, added up exactly in 32 bits, times the scales. The codes are laid out for the kernels,
/// a second time in memory.
class CodedLinear {
 public:
  /// Nothing where codes or grids of weights or input are none of these: FP8, tables of values, columns in
  /// groups in another order, zero points beyond 8 bits, groups of activations.
  static std::optional<CodedLinear> make(const model::LinearWeights& weights,
                                         const IntegerKernels& kernels = integer_kernels());

  int64_t rows() const { return weights_->weight.rows; }
  /// Columns that are added up in integers: those that share a scale, as many as 32 bits hold.
  int64_t segment() const { return segment_; }

  /// out [rows of the input, count] (row stride ld) ← outputs [first, first + count), bias included: the
  /// exact sum of a segment times its scales in double, added up over the segments and rounded to float32
  /// once, then one addition for the bias. `in` has this segment(); first is a multiple of kPanel. On the
  /// calling thread.
  void multiply(const CodedInput& in, int64_t first, int64_t count, int64_t first_row, int64_t row_count,
                float* out, int64_t ld) const;

  /// A map of a group that shares its input. out: [rows of the input, linear->rows()], contiguous.
  struct Target {
    const CodedLinear* linear;
    float* out;
  };
  /// All of an input's products, in parallel. All have the input's segment.
  static void multiply(const CodedInput& in, std::span<const Target> targets);

 private:
  struct Segment {
    IntegerMatrix matrix;
    std::vector<int32_t> sums;   ///< [rows]: Σ (code − zero point)
    std::vector<double> scales;  ///< [rows]
  };

  CodedLinear(const model::LinearWeights& weights, const IntegerKernels& kernels)
      : weights_(&weights), kernels_(&kernels) {}

  const model::LinearWeights* weights_;
  const IntegerKernels* kernels_;
  int64_t segment_ = 0;
  std::vector<Segment> segments_;
};

}  // namespace qeval::quant
