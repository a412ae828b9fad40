// Codes to floats, written once and compiled once per CPU path: see kernels.h for the contract, and
// kernels_impl.h for what must not be called here.
#pragma once

#include "model/kernels/kernels.h"
#include "model/kernels/simd.h"

namespace qeval::model {
namespace {

/// y[i] ← value(codes + i) for n codes; the last ones are read from a copy.
template <typename Value>
inline void each_vector(const uint8_t* codes, int64_t n, float* y, const Value& value) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, value(codes + i));
  if (i == n) return;
  uint8_t last[Vec::width] = {};
  std::memcpy(last, codes + i, static_cast<size_t>(n - i));
  store_partial(y + i, n - i, value(last));
}

/// Calls run(codes, n, group, y) for each stretch of one group.
template <typename Run>
inline void each_group(const CodeRow& row, const Run& run) {
  int64_t at = 0;
  for (int64_t group = 0; at < row.n; ++group) {
    const int64_t whole = group == 0 ? row.first : row.group;
    const int64_t n = whole < row.n - at ? whole : row.n - at;
    run(row.codes + at, n, group, row.out + at);
    at += n;
  }
}

template <typename Table>
inline void look_up(const CodeRow& row) {
  const Table table(row.values);
  each_group(row, [&](const uint8_t* codes, int64_t n, int64_t group, float* y) {
    const Vec scale = broadcast(row.scales[group]);
    each_vector(codes, n, y, [&](const uint8_t* p) { return table(p) * scale; });
  });
}

void dequantize(const CodeRow& row) {
  if (row.values != nullptr) {
    if (row.value_count == 16)
      look_up<Table16>(row);
    else
      look_up<Table256>(row);
    return;
  }
  each_group(row, [&](const uint8_t* codes, int64_t n, int64_t group, float* y) {
    const Vec scale = broadcast(row.scales[group]);
    const Codes zero = all_codes(row.zeros[group]);
    each_vector(codes, n, y, [&](const uint8_t* p) { return difference(widen_codes(p), zero) * scale; });
  });
}

void dequantize_each(const uint8_t* codes, int64_t n, const int32_t* zeros, const float* scales, float* y) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width)
    store(y + i, difference(widen_codes(codes + i), load_codes(zeros + i)) * load(scales + i));
  for (; i < n; ++i) y[i] = static_cast<float>(codes[i] - zeros[i]) * scales[i];
}

}  // namespace
}  // namespace qeval::model
