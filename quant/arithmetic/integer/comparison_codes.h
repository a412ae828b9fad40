#pragma once

#include "base/parallel.h"
#include "model/arithmetic.h"
#include "quant/arithmetic/integer/model_grids.h"
#include "quant/grid/kernels/quant_kernels.h"

namespace qeval::quant {

// Values of the simulation as the integers have them, for ComparingArithmetic.

inline constexpr int64_t kCodeRows = 16;

inline void to_codes(const PointGrid& grid, const float* values, int64_t n, int16_t* codes) {
  quant_kernels().quantize_i16(values, n, grid.grid, grid.offset, codes);
}

/// The codes of a tensor, each row on the grid that grid_of(row) gives.
template <typename GridOf>
model::Tensor to_codes(const GridOf& grid_of, const model::Tensor& values) {
  model::Tensor codes;
  codes.resize(values.rows, values.cols, sizeof(int16_t));
  codes.first_rows = values.first_rows;
  parallel_ranges(values.rows, kCodeRows, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      to_codes(grid_of(r), values.row<float>(r), values.cols, codes.row<int16_t>(r));
  });
  return codes;
}

template <typename GridOf>
model::Tensor to_stream(const GridOf& grid_of, const model::Tensor& values) {
  model::Tensor codes;
  codes.resize(values.rows, values.cols, sizeof(int32_t));
  codes.first_rows = values.first_rows;
  parallel_ranges(values.rows, kCodeRows, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const StreamGrid& grid = grid_of(r);
      for (int64_t i = 0; i < values.cols; ++i) codes.row<int32_t>(r)[i] = grid.code(values.row<float>(r)[i]);
    }
  });
  return codes;
}

/// What an operation reads, as the integers have it; grids_of(row) are an OperationGrids.
template <typename GridsOf>
model::Tensor read_codes(const GridsOf& grids_of, const model::Tensor& values) {
  if (values.rows > 0 && grids_of(0).stream)
    return to_stream([&](int64_t r) -> const StreamGrid& { return *grids_of(r).stream; }, values);
  return to_codes([&](int64_t r) -> const PointGrid& { return grids_of(r).in; }, values);
}

}  // namespace qeval::quant
