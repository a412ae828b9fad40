#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/parallel.h"
#include "model/kernels/gemm.h"
#include "quant/grid/quantizer.h"

namespace qeval::quant {

/// A weight matrix [rows, cols] as integer codes: one byte each up to 8 bits, two above. A code is stored as
/// q − offset with offset = 2^(bits−1) on asymmetric grids (0 on symmetric ones), so that it is signed and
/// fits; zero points are stored less the same offset. weight = (code − zero_point) · scale.
struct QuantizedMatrix {
  QuantSpec spec;
  int64_t rows = 0, cols = 0;
  int64_t group = 0;                 ///< inputs that share a grid: cols, or the spec's group size
  bool per_tensor = true;            ///< one grid for all rows
  AlignedBuffer codes;               ///< [rows, cols] of int8_t or int16_t
  std::vector<float> scales;         ///< [1] or [rows, cols / group]
  std::vector<int32_t> zero_points;  ///< the same

  bool wide() const { return spec.bits > 8; }
  int64_t grid_index(int64_t row, int64_t col) const {
    return per_tensor ? 0 : row * (cols / group) + col / group;
  }
  /// What codes and zero points are stored less.
  int32_t code_offset() const { return spec.symmetric ? 0 : 1 << (spec.bits - 1); }
  int64_t byte_count() const { return rows * cols * (wide() ? 2 : 1); }
};

/// The smallest and largest elements that share a grid: of the whole matrix, of each row, or of each group of
/// each row. A value that is not finite is an Error that names the matrix.
std::vector<Range> weight_ranges(const model::Matrix& matrix, const QuantSpec& spec);

/// Which range of a weight's elements its grid spans.
enum class WeightRange : uint8_t {
  minmax,  ///< the smallest and the largest
  mse,     ///< of f·[lo, hi], f = 1, 0.99 … 0.21, the first whose rounding has the least squared error
  output   ///< of f = 1, 0.95 … 0.5, the first that changes the map's output on calibration text least
};
WeightRange parse_weight_range(std::string_view name);
std::string_view name(WeightRange range);
inline constexpr std::string_view kWeightRangeNames = "minmax, mse, output";

/// The grids that codes are stored with: those of weight_ranges(), searched where `range` is mse (`output`
/// needs to know inputs: quant/methods/awq.h). One whose zero point no layout of codes has room for, because
/// its range excludes 0 by far, is widened down to 0, or up to it. [1], [rows] or [rows, cols / group];
/// errors as weight_ranges().
std::vector<Grid> weight_grids(const model::Matrix& matrix, const QuantSpec& spec, WeightRange range);
/// One of them: the grid of a range whose zero point is one of the codes.
Grid storable_grid(const QuantSpec& spec, Range range);

/// A matrix without codes yet on these grids.
QuantizedMatrix on_grids(const model::Matrix& matrix, const QuantSpec& spec, const std::vector<Grid>& grids);

/// Rounds a matrix to nearest on the grids given.
QuantizedMatrix quantize_matrix(const model::Matrix& matrix, const QuantSpec& spec,
                                const std::vector<Grid>& grids);

/// Quantizes a matrix on the grids of its own smallest and largest elements: of the whole, of each row, or of
/// each group. Precondition: spec.enabled(). A value that is not finite is an Error that names the matrix.
QuantizedMatrix quantize_matrix(const model::Matrix& matrix, const QuantSpec& spec);

/// The dequantized matrix as an operand of the product.
model::WeightView view(const QuantizedMatrix& matrix, const float* bias = nullptr);

}  // namespace qeval::quant
