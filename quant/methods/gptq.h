#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/linear_algebra.h"
#include "quant/calibrate/calibration.h"
#include "quant/grid/quantized_matrix.h"
#include "quant/methods/editable_model.h"

namespace qeval::quant {

/// H = Σ x xᵀ over rows x of a linear map's input, as they come.
class InputProducts {
 public:
  /// Adds `rows` rows x [inputs()], one behind the other; the first call says how many inputs there are.
  /// float32 sums over the rows of a call, in double over calls; the same for any number of threads.
  void add(const float* x, int64_t rows, int64_t cols);
  /// [inputs, inputs], the lower triangle.
  const RowMatrix& lower() const { return sum_; }

 private:
  RowMatrix sum_;
};

/// What GPTQ needs to know of a linear map's input: in which order the columns are rounded, and how the error
/// of each is made up for by those behind it.
struct GptqFactor {
  std::vector<int64_t> order;  ///< columns, the largest diagonal elements of H first (stable)
  RowMatrix upper;             ///< U with UᵀU = H⁻¹, of H in that order and damped
};

/// The share of the mean diagonal element that is added to H's diagonal.
inline constexpr double kGptqDamping = 0.01;

/// `lower`: H, of which the lower triangle is read. An input that is always 0 gets the damping alone; H = 0
/// is taken for the identity. What is not finite is an Error that names `name`.
GptqFactor gptq_factor(const RowMatrix& lower, const std::string& name);

/// Rounds a matrix by GPTQ (Frantar et al., arXiv 2210.17323) on grids that stay: column after column in the
/// factor's order to the nearest code, e = (w − ŵ) / U_jj, and every column k behind it loses e·U_jk. In
/// double. Precondition: at most 8 bits.
QuantizedMatrix gptq_round(const model::Matrix& matrix, const QuantSpec& spec, const std::vector<Grid>& grids,
                           const GptqFactor& factor);

}  // namespace qeval::quant
