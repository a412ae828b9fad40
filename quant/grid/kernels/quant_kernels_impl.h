// The quantizer's inner loops, written once over simd.h's Vec and compiled once per CPU path. Included by the
// quant_kernels_*.cc files only; see quant_kernels.h for the contracts. No standard library call below, for
// the reason given in kernels_impl.h.
#pragma once

#include "model/kernels/simd.h"
#include "quant/grid/kernels/quant_kernels.h"

namespace qeval::quant {
namespace {

using model::broadcast;
using model::load;
using model::load_partial;
using model::store;
using model::store_partial;
using model::Vec;

template <typename F>
inline void map(const float* x, int64_t n, float* y, F f) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, f(load(x + i)));
  if (i < n) store_partial(y + i, n - i, f(load_partial(x + i, n - i, 0.0F)));
}

/// The code of a value, still a float. The processor's min and max return their second operand where one is
/// NaN: the value stands second, so that NaN passes through.
struct Coder {
  Vec scale, zero_point, q_min, q_max;
  explicit Coder(const Grid& g)
      : scale(broadcast(g.scale)),
        zero_point(broadcast(static_cast<float>(g.zero_point))),
        q_min(broadcast(static_cast<float>(g.q_min))),
        q_max(broadcast(static_cast<float>(g.q_max))) {}
  Vec operator()(Vec x) const { return min(q_max, max(q_min, round_even(x / scale) + zero_point)); }
};

void fake_quantize(const float* x, int64_t n, const Grid& grid, float* y) {
  const Coder code(grid);
  map(x, n, y, [&](Vec v) { return (code(v) - code.zero_point) * code.scale; });
}

Range range(const float* x, int64_t n) {
  Vec lo = broadcast(x[0]);
  Vec hi = lo;
  Vec probe = broadcast(0.0F);  // becomes NaN with the first x that is not finite
  const Vec zero = broadcast(0.0F);
  int64_t i = 0;
  const auto take = [&](Vec v) {
    lo = min(v, lo);
    hi = max(v, hi);
    probe = probe + v * zero;
  };
  for (; i + Vec::width <= n; i += Vec::width) take(load(x + i));
  if (i < n) take(load_partial(x + i, n - i, x[0]));
  const float sum = horizontal_sum(probe);
  if (!(sum == 0.0F)) return {sum, sum};
  return {0.0F - horizontal_max(zero - lo), horizontal_max(hi)};
}

template <typename Code>
inline void quantize(const float* x, int64_t n, const Grid& grid, int32_t offset, Code* codes) {
  const Coder code(grid);
  const Vec shift = broadcast(static_cast<float>(offset));
  float lanes[Vec::width];
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int64_t count = n - i < Vec::width ? n - i : Vec::width;
    const Vec v = count == Vec::width ? load(x + i) : load_partial(x + i, count, 0.0F);
    store(lanes, code(v) - shift);
    int64_t j = 0;
    for (; j + 8 <= count; j += 8) model::store_eight(lanes + j, codes + i + j);
    for (; j < count; ++j) codes[i + j] = static_cast<Code>(lanes[j]);
  }
}

/// The difference is taken in integers: exact, as it is in float32 for every zero point below 2^24.
template <typename Code>
inline void dequantize(const Code* codes, int64_t n, float scale, int32_t zero_point, float* y) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) model::scale_eight(codes + i, zero_point, scale, y + i);
  for (; i < n; ++i) y[i] = static_cast<float>(codes[i] - zero_point) * scale;
}

void quantize_i8(const float* x, int64_t n, const Grid& grid, int32_t offset, int8_t* codes) {
  quantize(x, n, grid, offset, codes);
}
void quantize_i16(const float* x, int64_t n, const Grid& grid, int32_t offset, int16_t* codes) {
  quantize(x, n, grid, offset, codes);
}
void dequantize_i8(const int8_t* codes, int64_t n, float scale, int32_t zero_point, float* y) {
  dequantize(codes, n, scale, zero_point, y);
}
void dequantize_i16(const int16_t* codes, int64_t n, float scale, int32_t zero_point, float* y) {
  dequantize(codes, n, scale, zero_point, y);
}

inline Vec magnitude(Vec v) {
  return max(v, broadcast(0.0F) - v);
}

void abs_max(const float* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, max(magnitude(load(x + i)), load(y + i)));
  for (; i < n; ++i) {
    const float v = x[i] < 0 ? -x[i] : x[i];
    y[i] = v > y[i] ? v : y[i];
  }
}

constexpr QuantKernels make_quant_kernels(model::CpuPath path) {
  return {path, fake_quantize, range, quantize_i8, quantize_i16, dequantize_i8, dequantize_i16, abs_max};
}

}  // namespace
}  // namespace qeval::quant
