#include "quant/methods/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/kernels/matmul.h"

namespace qeval::quant {
namespace {

// Rows that are rounded by one task, and columns whose errors reach the columns behind them in one product.
constexpr int64_t kRoundedRows = 64, kRoundedColumns = 128;

}  // namespace

void InputProducts::add(const float* x, int64_t rows, int64_t cols) {
  if (sum_.size() == 0) sum_ = RowMatrix::Zero(cols, cols);
  constexpr int64_t kStripe = 64;
  parallel_tasks((cols + kStripe - 1) / kStripe, [&](int64_t stripe) {
    const int64_t first = stripe * kStripe, count = std::min(kStripe, cols - first);
    const int64_t width = first + count;  // up to the diagonal
    std::vector<float> products(static_cast<size_t>(count * width));
    model::matmul_block({x + first, count, rows, 1, cols}, model::row_major(x, rows, width, cols),
                        products.data(), width);
    for (int64_t i = 0; i < count; ++i) {
      double* sum = sum_.row(first + i).data();
      for (int64_t j = 0; j < width; ++j)
        sum[j] += static_cast<double>(products[static_cast<size_t>(i * width + j)]);
    }
  });
}

GptqFactor gptq_factor(const RowMatrix& lower, const std::string& name) {
  const int64_t n = lower.rows();
  GptqFactor factor;
  factor.order.resize(static_cast<size_t>(n));
  std::iota(factor.order.begin(), factor.order.end(), int64_t{0});
  const Eigen::VectorXd diagonal = lower.diagonal();
  if (!diagonal.allFinite()) fail("{}: calibration met a value that is not finite", name);
  std::ranges::stable_sort(factor.order, std::greater{}, [&](int64_t j) { return diagonal[j]; });
  const double damping = kGptqDamping * diagonal.mean();

  // From the last column to the first: where that is L·Lᵀ, H⁻¹ is UᵀU with U = L⁻¹ read the same way. No
  // inverse of H is needed.
  RowMatrix reversed(n, n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = factor.order[static_cast<size_t>(n - 1 - i)];
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t col = factor.order[static_cast<size_t>(n - 1 - j)];
      reversed(i, j) = lower(std::max(row, col), std::min(row, col));
    }
    reversed(i, i) += damping > 0 ? damping : 1.0;
  }
  const Eigen::LLT<Eigen::Ref<RowMatrix>, Eigen::Lower> cholesky(reversed);
  if (cholesky.info() != Eigen::Success) {
    fail(
        "{}: the products of its calibration inputs have no Cholesky factor: values too large to be told "
        "apart",
        name);
  }
  RowMatrix inverse = RowMatrix::Identity(n, n);
  reversed.triangularView<Eigen::Lower>().solveInPlace(inverse);
  factor.upper = inverse.reverse();
  return factor;
}

QuantizedMatrix gptq_round(const model::Matrix& matrix, const QuantSpec& spec, const std::vector<Grid>& grids,
                           const GptqFactor& factor) {
  QuantizedMatrix result = on_grids(matrix, spec, grids);
  const int64_t n = matrix.cols;
  const RowMatrix& upper = factor.upper;
  const int32_t offset = result.code_offset();
  parallel_tasks((matrix.rows + kRoundedRows - 1) / kRoundedRows, [&](int64_t task) {
    const int64_t first = task * kRoundedRows, rows = std::min(kRoundedRows, matrix.rows - first);
    std::vector<float> row(static_cast<size_t>(n));
    RowMatrix w(rows, n);
    for (int64_t r = 0; r < rows; ++r) {
      matrix.decode_rows(first + r, 1, row.data());
      for (int64_t j = 0; j < n; ++j)
        w(r, j) = static_cast<double>(row[static_cast<size_t>(factor.order[static_cast<size_t>(j)])]);
    }
    RowMatrix errors(rows, kRoundedColumns);
    for (int64_t begin = 0; begin < n; begin += kRoundedColumns) {
      const int64_t end = std::min(begin + kRoundedColumns, n);
      for (int64_t r = 0; r < rows; ++r) {
        int8_t* codes = result.codes.as<int8_t>() + (first + r) * n;
        for (int64_t j = begin; j < end; ++j) {
          const int64_t column = factor.order[static_cast<size_t>(j)];
          const Grid& grid = grids[static_cast<size_t>(result.grid_index(first + r, column))];
          const auto scale = static_cast<double>(grid.scale);
          // std::nearbyint rounds half to even; the clamp keeps it within what the sum has room for.
          const double steps = std::clamp(std::nearbyint(w(r, j) / scale), -1e9, 1e9);
          const auto code = static_cast<int32_t>(
              std::clamp<int64_t>(static_cast<int64_t>(steps) + grid.zero_point, grid.q_min, grid.q_max));
          codes[column] = static_cast<int8_t>(code - offset);
          const double error = (w(r, j) - (code - grid.zero_point) * scale) / upper(j, j);
          errors(r, j - begin) = error;
          w.row(r).segment(j, end - j) -= error * upper.row(j).segment(j, end - j);
        }
      }
      if (end == n) break;
      w.rightCols(n - end).noalias() -=
          errors.leftCols(end - begin) * upper.block(begin, end, end - begin, n - end);
    }
  });
  return result;
}

}  // namespace qeval::quant
