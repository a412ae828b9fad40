// Products of stored rows with one input, written once over simd.h's Vec of eight floats. No standard library
// call below, for the reason given in kernels_impl.h.
//
// A type of rows, say Rows, has its Number; Rows::widen, of one; and Rows::columns(rows, i, use), which calls
// use(j, column i + j of eight rows) for j = 0 … Rows::step − 1 in this order.
#pragma once

#include "model/kernels/row_dots.h"
#include "model/kernels/simd.h"

namespace qeval::model {
namespace {

/// `groups` times eight rows side by side: their chains are independent, so that they hide each other's
/// latency.
template <typename Rows, int groups>
inline void row_dots_side_by_side(const RowDots& d, int64_t first) {
  using Number = typename Rows::Number;
  const Number* rows[8 * groups];
  for (int j = 0; j < 8 * groups; ++j) rows[j] = static_cast<const Number*>(d.rows[first + j]);
  Vec sums[groups];
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) sums[g] = load(d.sums + first + 8 * g);
  int64_t i = 0;
  constexpr int64_t kLine = 64 / sizeof(Number);
  for (; i + Rows::step <= d.k; i += Rows::step) {
    // So many rows side by side are no pattern that a processor foresees.
    if (i % kLine == 0) {
      for (int j = 0; j < 8 * groups; ++j)
        __builtin_prefetch(reinterpret_cast<const char*>(rows[j] + i) + d.ahead, 0, 2);
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      Rows::columns(rows + 8 * g, i,
                    [&](int64_t j, Vec column) { sums[g] = fma(broadcast(d.x[i + j]), column, sums[g]); });
    }
  }
  for (; i < d.k; ++i) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      float column[8];
      for (int j = 0; j < 8; ++j) column[j] = Rows::widen(rows[8 * g + j][i]);
      sums[g] = fma(broadcast(d.x[i]), load(column), sums[g]);
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g) store(d.sums + first + 8 * g, sums[g]);
}

template <typename Rows>
inline void row_dots_of(const RowDots& d) {
  int64_t row = 0;
  for (; row + 32 <= d.count; row += 32) row_dots_side_by_side<Rows, 4>(d, row);
  for (; row < d.count; row += kRowDots) row_dots_side_by_side<Rows, 1>(d, row);
}

template <typename F32Rows, typename F16Rows, typename Bf16Rows>
inline void row_dots_by_type(const RowDots& d) {
  switch (d.type) {
    case DType::f32:
      return row_dots_of<F32Rows>(d);
    case DType::f16:
      return row_dots_of<F16Rows>(d);
    case DType::bf16:
      return row_dots_of<Bf16Rows>(d);
    default:
      return block_row_dots(d.type)(d);
  }
}

}  // namespace
}  // namespace qeval::model
