// The float kernels, written once over simd.h's Vec and compiled once per CPU path. Included by the
// kernels_*.cc files only; see kernels.h for the contracts. No standard library call below: an inline
// function of the library, compiled here for a newer instruction set, could be the copy the linker keeps for
// the whole program.
#pragma once

#include "model/hadamard.h"
#include "model/kernels/dequantize_impl.h"
#include "model/kernels/kernels.h"
#include "model/kernels/simd.h"

namespace qeval::model {
namespace {

constexpr int64_t kPanel = 2 * Vec::width;
// Rows of the register tile: accumulators 2·rows, two vectors of B and one of A fill the register file.
constexpr int64_t kTileRows = Vec::width == 16 ? 12 : Vec::width == 8 ? 6 : 4;

template <int64_t rows>
inline void gemm_tile(const Gemm& g, const float* a, const float* b, float* c, int64_t ldc, bool accumulate) {
  Vec sum[rows][2];
#pragma GCC unroll 16
  for (int64_t r = 0; r < rows; ++r) {
    sum[r][0] = accumulate ? load(c + r * ldc) : broadcast(0.0F);
    sum[r][1] = accumulate ? load(c + r * ldc + Vec::width) : broadcast(0.0F);
  }
  for (int64_t i = 0; i < g.k; ++i) {
    const Vec b0 = load(b);
    const Vec b1 = load(b + Vec::width);
#pragma GCC unroll 16
    for (int64_t r = 0; r < rows; ++r) {
      const Vec x = broadcast(a[r * g.lda]);
      sum[r][0] = fma(x, b0, sum[r][0]);
      sum[r][1] = fma(x, b1, sum[r][1]);
    }
    a += g.a_step;
    b += g.ldb;
  }
#pragma GCC unroll 16
  for (int64_t r = 0; r < rows; ++r) {
    store(c + r * ldc, sum[r][0]);
    store(c + r * ldc + Vec::width, sum[r][1]);
  }
}

template <int64_t rows>
inline void gemm_row_block(const Gemm& g, int64_t first_row) {
  const float* a = g.a + first_row * g.lda;
  float* c = g.c + first_row * g.ldc;
  for (int64_t j = 0; j < g.n; j += kPanel) {
    const float* b = g.b + j / kPanel * g.panel_stride;
    if (j + kPanel <= g.n) {
      gemm_tile<rows>(g, a, b, c + j, g.ldc, g.accumulate);
      continue;
    }
    float edge[rows * kPanel];
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < kPanel; ++i) {
        edge[r * kPanel + i] = g.accumulate && j + i < g.n ? c[r * g.ldc + j + i] : 0.0F;
      }
    }
    gemm_tile<rows>(g, a, b, edge, kPanel, true);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; j + i < g.n; ++i) c[r * g.ldc + j + i] = edge[r * kPanel + i];
    }
  }
}

/// The rows left over after whole tiles: the same chain per element, in a smaller tile.
template <int64_t rows>
inline void gemm_remainder(const Gemm& g, int64_t first_row) {
  if constexpr (rows > 0) {
    if (g.m - first_row == rows) {
      gemm_row_block<rows>(g, first_row);
    } else {
      gemm_remainder<rows - 1>(g, first_row);
    }
  }
}

void gemm(const Gemm& g) {
  int64_t row = 0;
  for (; row + kTileRows <= g.m; row += kTileRows) gemm_row_block<kTileRows>(g, row);
  gemm_remainder<kTileRows - 1>(g, row);
}

void pack_panel(const float* rows, int64_t ld, int64_t row_count, int64_t k, float* out) {
  int64_t i = 0;
  if (row_count == kPanel) {
    for (; i + kSquare <= k; i += kSquare) {
      for (int64_t r = 0; r < kPanel; r += kSquare)
        transpose(rows + r * ld + i, ld, out + i * kPanel + r, kPanel);
    }
  }
  for (; i < k; ++i) {
    for (int64_t r = 0; r < kPanel; ++r) out[i * kPanel + r] = r < row_count ? rows[r * ld + i] : 0.0F;
  }
}

/// y[i] = f(x[i]); the tail goes through the same vector code, so that every element is computed alike.
template <typename F>
inline void map(const float* x, int64_t n, float* y, F f) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, f(load(x + i)));
  if (i < n) store_partial(y + i, n - i, f(load_partial(x + i, n - i, 0.0F)));
}

template <typename F>
inline void map2(const float* x, int64_t n, float* y, F f) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, f(load(x + i), load(y + i)));
  if (i < n) {
    store_partial(y + i, n - i, f(load_partial(x + i, n - i, 0.0F), load_partial(y + i, n - i, 0.0F)));
  }
}

inline float row_max(const float* x, int64_t n) {
  Vec largest = broadcast(x[0]);
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) largest = max(largest, load(x + i));
  if (i < n) largest = max(largest, load_partial(x + i, n - i, x[0]));
  return horizontal_max(largest);
}

/// Σ term(x[i]), lanes first.
template <typename F>
inline float row_sum(const float* x, int64_t n, F term) {
  Vec sum = broadcast(0.0F);
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) sum = sum + term(load(x + i));
  float tail = 0.0F;
  if (i < n) {
    float lanes[Vec::width];
    store(lanes, term(load_partial(x + i, n - i, 0.0F)));
    for (int64_t j = 0; j < n - i; ++j) tail += lanes[j];
  }
  return horizontal_sum(sum) + tail;
}

void softmax(float* x, int64_t n, float scale) {
  const Vec s = broadcast(scale);
  const Vec shift = broadcast(row_max(x, n) * scale);
  // The sum is row_sum's of what is stored.
  Vec lanes = broadcast(0.0F);
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) {
    const Vec e = exp(load(x + i) * s - shift);
    lanes = lanes + e;
    store(x + i, e);
  }
  float tail = 0.0F;
  if (i < n) {
    store_partial(x + i, n - i, exp(load_partial(x + i, n - i, 0.0F) * s - shift));
    for (; i < n; ++i) tail += x[i];
  }
  // Divided, not multiplied by the inverse: one rounding less, so that calibrated ranges lie as close to the
  // true ones as float32 can.
  const Vec sum = broadcast(horizontal_sum(lanes) + tail);
  map(x, n, x, [&](Vec v) { return v / sum; });
}

inline float sum_of_squares(const float* x, int64_t n) {
  return row_sum(x, n, [](Vec v) { return v * v; });
}

inline void scale_rows(const float* x, const float* w, float factor, int64_t n, float* y) {
  const Vec f = broadcast(factor);
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, load(x + i) * f * load(w + i));
  for (; i < n; ++i) y[i] = x[i] * factor * w[i];
}

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* y) {
  const float mean_square = sum_of_squares(x, n) / static_cast<float>(n);
  scale_rows(x, w, 1.0F / square_root(mean_square + eps), n, y);
}

void l2_norm(const float* x, const float* w, int64_t n, float* y) {
  const float norm = square_root(sum_of_squares(x, n));
  const float divisor = norm > 1e-12F ? norm : 1e-12F;
  scale_rows(x, w, square_root(static_cast<float>(n)) / divisor, n, y);
}

void layer_norm(const float* x, const float* w, const float* b, float eps, int64_t n, float* y) {
  // The moments in double: float sums would cost the last bits of every element of the row.
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(x[i]);
  const double mean = total / static_cast<double>(n);
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(x[i]) - mean;
    squares += difference * difference;
  }
  const auto variance = static_cast<float>(squares / static_cast<double>(n));
  const Vec m = broadcast(static_cast<float>(mean));
  const Vec factor = broadcast(1.0F / square_root(variance + eps));
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) {
    const Vec bias = b != nullptr ? load(b + i) : broadcast(0.0F);
    store(y + i, fma((load(x + i) - m) * factor, load(w + i), bias));
  }
  if (i < n) {
    const Vec bias = b != nullptr ? load_partial(b + i, n - i, 0.0F) : broadcast(0.0F);
    const Vec normed = (load_partial(x + i, n - i, 0.0F) - m) * factor;
    store_partial(y + i, n - i, fma(normed, load_partial(w + i, n - i, 0.0F), bias));
  }
}

void rotate(float* head, const float* cosines, const float* sines, int64_t half) {
  int64_t i = 0;
  for (; i + Vec::width <= half; i += Vec::width) {
    const Vec c = load(cosines + i);
    const Vec s = load(sines + i);
    const Vec x = load(head + i);
    const Vec y = load(head + half + i);
    store(head + i, x * c - y * s);
    store(head + half + i, y * c + x * s);
  }
  for (; i < half; ++i) {
    const float x = head[i];
    const float y = head[half + i];
    head[i] = x * cosines[i] - y * sines[i];
    head[half + i] = y * cosines[i] + x * sines[i];
  }
}

void add(const float* x, int64_t n, float* y) {
  map2(x, n, y, [](Vec a, Vec b) { return b + a; });
}

void multiply(const float* x, int64_t n, float* y) {
  map2(x, n, y, [](Vec a, Vec b) { return b * a; });
}

void silu(const float* x, int64_t n, float* y) {
  const Vec one = broadcast(1.0F);
  const Vec zero = broadcast(0.0F);
  map(x, n, y, [&](Vec v) { return v / (one + exp(zero - v)); });
}

void sigmoid(const float* x, int64_t n, float* y) {
  const Vec one = broadcast(1.0F);
  const Vec zero = broadcast(0.0F);
  map(x, n, y, [&](Vec v) { return one / (one + exp(zero - v)); });
}

void gelu_tanh(const float* x, int64_t n, float* y) {
  // 0.5·x·(1 + tanh u) = x / (1 + exp(−2u)), u = √(2/π)·(x + 0.044715·x³)
  const Vec one = broadcast(1.0F);
  map(x, n, y, [&](Vec v) {
    const Vec u = broadcast(0.7978845608028654F) * (v + broadcast(0.044715F) * v * v * v);
    return v / (one + exp(broadcast(-2.0F) * u));
  });
}

inline Vec magnitude(Vec v) {
  return max(v, broadcast(0.0F) - v);
}

/// erfc(t) for t ≥ 0 as exp(−t²) · P(u) / (1 + 2t), u = (t − 3.75) / (t + 3.75), the substitution of Shepherd
/// and Laframboise (1981); P of degree 10, our own fit, relative error below 1e-8 on [0, 12].
inline Vec erfc_positive(Vec t) {
  constexpr float kCoefficients[] = {1.019923133e-03F,  2.088973531e-03F,  -1.010898221e-02F,
                                     2.806189470e-02F,  -5.864646286e-02F, 9.237840027e-02F,
                                     -1.088034958e-01F, 8.226998150e-02F,  3.585199825e-03F,
                                     -1.402404308e-01F, 1.237512589e+00F};
  const Vec center = broadcast(3.75F);
  const Vec u = (t - center) / (t + center);
  Vec p = broadcast(kCoefficients[0]);
  for (int i = 1; i < 11; ++i) p = fma(p, u, broadcast(kCoefficients[i]));
  return exp(broadcast(0.0F) - t * t) * p / fma(broadcast(2.0F), t, broadcast(1.0F));
}

void gelu_erf(const float* x, int64_t n, float* y) {
  const Vec half = broadcast(0.5F);
  const Vec zero = broadcast(0.0F);
  map(x, n, y, [&](Vec v) {
    // Φ(v) = 1 − e for v ≥ 0 and e below, e = erfc(|v|/√2) / 2: without a branch, v·Φ(v) = max(v, 0) − |v|·e.
    const Vec t = magnitude(v);
    const Vec e = half * erfc_positive(min(t, broadcast(1e4F)) * broadcast(0.70710678118654752F));
    return max(zero, v) - t * e;
  });
}

LogitTile logit_tile(const float* x, int64_t n) {
  LogitTile tile;
  tile.max = row_max(x, n);
  const Vec shift = broadcast(tile.max);
  tile.sum = row_sum(x, n, [&](Vec v) { return exp(v - shift); });
  int64_t i = 0;
  while (i + 1 < n && x[i] != tile.max) ++i;
  tile.arg_max = static_cast<int32_t>(i);
  return tile;
}

void widen_f16(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) widen_eight_f16(x + i, y + i);
  if (i == n) return;
  uint16_t last[8] = {};
  float wide[8];
  const auto left = static_cast<size_t>(n - i);
  std::memcpy(last, x + i, left * sizeof *last);
  widen_eight_f16(last, wide);
  std::memcpy(y + i, wide, left * sizeof *wide);
}

void widen_bf16(const uint16_t* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(y + i, &bits, sizeof bits);
  }
}

// Sixteen numbers, whatever the registers of the path hold. By reference only: how they are passed depends on
// those.
using Sixteen [[gnu::vector_size(64)]] = float;
using SixteenBits [[gnu::vector_size(64)]] = int32_t;
constexpr int64_t kColumns = HadamardMatrix::kColumns;
static_assert(sizeof(Sixteen) == kColumns * sizeof(float), "masks are padded to whole vectors");

/// x ← x, negated where a mask is −1.
inline void negate(const SixteenBits& mask, Sixteen& x) {
  SixteenBits bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits ^= mask & INT32_MIN;
  std::memcpy(&x, &bits, sizeof bits);
}

/// x ← (a + b, a − b) of the elements `half` apart, in their places: a − b as a + (−b), which is the same.
inline void sums_and_differences(int32_t half, const Sixteen& swapped, Sixteen& x) {
  const SixteenBits lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  negate((lane & half) != 0, x);
  x += swapped;
}

/// The first four steps of a Sylvester matrix, in registers.
inline void hadamard_sixteen(float* p) {
  Sixteen x;
  std::memcpy(&x, p, sizeof x);
  sums_and_differences(1, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14),
                       x);
  sums_and_differences(2, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13),
                       x);
  sums_and_differences(4, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11),
                       x);
  sums_and_differences(8, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7),
                       x);
  std::memcpy(p, &x, sizeof x);
}

/// out ← in · B for kGroups neighbours [base]: so many independent sums hide the latency of an addition.
template <int64_t kGroups>
inline void multiply_base(int64_t base, const int32_t* masks, const float* in, float* out) {
  const int64_t padded = (base + kColumns - 1) / kColumns * kColumns;
  for (int64_t j = 0; j < base; j += kColumns) {
    Sixteen sums[kGroups] = {};
    for (int64_t i = 0; i < base; ++i) {
      SixteenBits mask;
      std::memcpy(&mask, masks + i * padded + j, sizeof mask);
#pragma GCC unroll 4
      for (int64_t g = 0; g < kGroups; ++g) {
        Sixteen term = in[g * base + i] - Sixteen{};
        negate(mask, term);
        sums[g] += term;
      }
    }
    const int64_t count = base - j < kColumns ? base - j : kColumns;
    for (int64_t g = 0; g < kGroups; ++g) {
      float columns[kColumns];
      std::memcpy(columns, &sums[g], sizeof columns);
      // Paley's orders are multiples of four.
      for (int64_t c = 0; c < count; c += 4)
        std::memcpy(out + g * base + j + c, columns + c, 4 * sizeof(float));
    }
  }
}

/// The sums of the template of the same name in model/hadamard.h, in its order.
void multiply_hadamard(int64_t order, int64_t base, const int32_t* masks, float* x, float* scratch) {
  int64_t half = base;
  if (base == 1 && order >= kColumns) {
    for (int64_t i = 0; i < order; i += kColumns) hadamard_sixteen(x + i);
    half = kColumns;
  }
  for (; half < order; half *= 2) {
    for (int64_t first = 0; first < order; first += 2 * half) {
      float* __restrict a = x + first;
      float* __restrict b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const float sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
  if (base == 1) return;
  std::memcpy(scratch, x, static_cast<size_t>(order) * sizeof(float));
  int64_t i = 0;
  for (; i + 4 * base <= order; i += 4 * base) multiply_base<4>(base, masks, scratch + i, x + i);
  for (; i < order; i += base) multiply_base<1>(base, masks, scratch + i, x + i);
}

constexpr Kernels make_kernels(CpuPath path) {
  return {
      path,       kPanel,    gemm,       pack_panel, softmax,        rms_norm, l2_norm,  layer_norm,
      rotate,     add,       silu,       sigmoid,    gelu_tanh,      gelu_erf, multiply, multiply_hadamard,
      logit_tile, widen_f16, widen_bf16, dequantize, dequantize_each};
}

}  // namespace
}  // namespace qeval::model
