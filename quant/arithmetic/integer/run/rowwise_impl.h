#pragma once

// Operations on one row of codes. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/lanes.h"

namespace qeval::quant {
namespace {

void read_stream(const StreamFormat& format, int64_t n, const int32_t* stream, int32_t* d) {
  const int32_t shift = format.guard_bits;
  const int32_t half = shift == 0 ? 0 : 1 << (shift - 1);
  const int32_t lo = format.codes.lo - format.codes.zero_point;
  const int32_t hi = format.codes.hi - format.codes.zero_point;
  for (int64_t i = 0; i < n; ++i) d[i] = std::clamp((stream[i] + half) >> shift, lo, hi);
}

void hadamard(const model::HadamardMatrix& matrix, int32_t* x, int32_t* scratch) {
  model::multiply_hadamard(matrix, x, scratch);
}

int64_t sum_of_squares(const int32_t* e, int64_t n) {
  int64_t sum = 0;
  int64_t i = 0;
#ifdef __AVX2__
  __m256i sums = _mm256_setzero_si256();
  for (; i + 8 <= n; i += 8) {
    const __m256i x = load(e + i);
    const __m256i odd = odd_lanes(x);
    sums = _mm256_add_epi64(sums, _mm256_add_epi64(_mm256_mul_epi32(x, x), _mm256_mul_epi32(odd, odd)));
  }
  sum = sum64(sums);
#endif
  for (; i < n; ++i) sum += static_cast<int64_t>(e[i]) * e[i];
  return sum;
}

void scale_norm(const IntegerNorm& norm, int64_t first, const int32_t* e, int64_t n, int32_t reciprocal,
                int32_t shift, int16_t* out) {
  int64_t i = 0;
  const bool has_bias = !norm.bias.empty();
  const int32_t* weights = norm.weight.data() + first;
  const int64_t* biases = has_bias ? norm.bias.data() + first : nullptr;
#ifdef __AVX2__
  if (norm.factor.shift >= 32) {
    const __m256i factor = _mm256_set1_epi64x(reciprocal);
    const RoundingShift to_unit(shift);
    const LaneRescale to_output(norm.factor);
    const LaneCodes to_codes(norm.output);
    const __m256i no_bias = _mm256_setzero_si256();
    const auto scaled = [&](__m256i x, __m256i weight, __m256i bias) {
      const __m256i unit = to_unit(_mm256_mul_epi32(x, factor));
      return to_output(_mm256_add_epi64(_mm256_mul_epi32(unit, weight), bias));
    };
    for (; i + 8 <= n; i += 8) {
      const __m256i x = load(e + i);
      const __m256i weight = load(weights + i);
      __m256i even_bias = no_bias;
      __m256i odd_bias = no_bias;
      if (has_bias) {
        const __m256i low = load(biases + i);
        const __m256i high = load(biases + i + 4);
        const __m256i evens = _mm256_unpacklo_epi64(low, high);  // 0 4 2 6
        const __m256i odds = _mm256_unpackhi_epi64(low, high);   // 1 5 3 7
        even_bias = _mm256_permute4x64_epi64(evens, 0xD8);
        odd_bias = _mm256_permute4x64_epi64(odds, 0xD8);
      }
      const __m256i even = scaled(x, weight, even_bias);
      const __m256i odd = scaled(odd_lanes(x), odd_lanes(weight), odd_bias);
      store(out + i, to_codes(interleave(even, odd)));
    }
  }
#endif
  for (; i < n; ++i) {
    const int64_t unit = shift_rounded(static_cast<int64_t>(e[i]) * reciprocal, shift);
    const int64_t scaled = unit * weights[i] + (has_bias ? biases[i] : 0);
    out[i] = requantize(scaled, norm.factor, norm.output);
  }
}

void add_row(const IntegerAdd& add, const int16_t* update, int64_t n, int32_t* stream) {
  const int32_t shift = add.bits - add.output.guard_bits;
  int64_t i = 0;
#ifdef __AVX2__
  const LaneRescale keep(add.keep);
  const LaneRescale join(add.join);
  const RoundingShift last(shift);
  const __m256i zero_point = _mm256_set1_epi32(add.update_zero_point);
  const __m256i lo = _mm256_set1_epi64x(add.output.lo);
  const __m256i hi = _mm256_set1_epi64x(add.output.hi);
  const auto joined = [&](__m256i x, __m256i u) {
    const __m256i y = last(_mm256_add_epi64(keep.narrow(x), join.narrow(u)));
    const __m256i raised = _mm256_blendv_epi8(y, lo, _mm256_cmpgt_epi64(lo, y));
    return _mm256_blendv_epi8(raised, hi, _mm256_cmpgt_epi64(raised, hi));
  };
  if (add.keep.pre_shift == 0 && add.join.pre_shift == 0) {
    for (; i + 8 <= n; i += 8) {
      const __m256i x = load(stream + i);
      const __m256i u = _mm256_sub_epi32(load_codes(update + i), zero_point);
      store(stream + i, interleave(joined(x, u), joined(odd_lanes(x), odd_lanes(u))));
    }
  }
#endif
  for (; i < n; ++i) {
    const int64_t sum = rescale(stream[i], add.keep) + rescale(update[i] - add.update_zero_point, add.join);
    stream[i] =
        static_cast<int32_t>(std::clamp<int64_t>(shift_rounded(sum, shift), add.output.lo, add.output.hi));
  }
}

void multiply_row(const IntegerProduct& product, const int16_t* up, int64_t n, int16_t* gate) {
  int64_t i = 0;
#ifdef __AVX2__
  if (product.factor.fast()) {
    const LaneRequantize to_codes(product.factor, product.output);
    i = to_codes(n, gate, [&]<typename Of>(int64_t at) {
      return product32(sub32(Of::widen(gate + at), Of::all32(product.gate_zero_point)),
                       sub32(Of::widen(up + at), Of::all32(product.up_zero_point)));
    });
  }
#endif
  for (; i < n; ++i) {
    const int64_t exact =
        static_cast<int64_t>(gate[i] - product.gate_zero_point) * (up[i] - product.up_zero_point);
    gate[i] = requantize(exact, product.factor, product.output);
  }
}

void rotate_head(const IntegerRotary& rotary, const int32_t* cosines, const int32_t* sines, int64_t half,
                 int64_t head_dim, int16_t* head) {
  int64_t i = 0;
#ifdef __AVX2__
  if (rotary.rotated.shift >= 32) {
    const LaneRescale to_output(rotary.rotated);
    const __m256i zero_point = _mm256_set1_epi32(rotary.zero_point);
    const LaneCodes to_codes(rotary.output);
    const auto put = [&](int16_t* to, __m256i even, __m256i odd) {
      store(to, to_codes(interleave(to_output(even), to_output(odd))));
    };
    for (; i + 8 <= half; i += 8) {
      const __m256i x = _mm256_sub_epi32(load_codes(head + i), zero_point);
      const __m256i y = _mm256_sub_epi32(load_codes(head + i + half), zero_point);
      const __m256i c = load(cosines + i);
      const __m256i s = load(sines + i);
      const __m256i x1 = odd_lanes(x), y1 = odd_lanes(y), c1 = odd_lanes(c), s1 = odd_lanes(s);
      put(head + i, _mm256_sub_epi64(_mm256_mul_epi32(x, c), _mm256_mul_epi32(y, s)),
          _mm256_sub_epi64(_mm256_mul_epi32(x1, c1), _mm256_mul_epi32(y1, s1)));
      put(head + i + half, _mm256_add_epi64(_mm256_mul_epi32(y, c), _mm256_mul_epi32(x, s)),
          _mm256_add_epi64(_mm256_mul_epi32(y1, c1), _mm256_mul_epi32(x1, s1)));
    }
  }
#endif
  for (; i < half; ++i) {
    const int64_t first = head[i] - rotary.zero_point;
    const int64_t second = head[i + half] - rotary.zero_point;
    head[i] = requantize(first * cosines[i] - second * sines[i], rotary.rotated, rotary.output);
    head[i + half] = requantize(second * cosines[i] + first * sines[i], rotary.rotated, rotary.output);
  }
  for (i = 2 * half; i < head_dim; ++i) {
    head[i] = requantize(head[i] - rotary.zero_point, rotary.passed, rotary.output);
  }
}

int64_t row_sum(const int16_t* codes, int64_t n) {
  int64_t sum = 0;
  int64_t i = 0;
#ifdef __AVX2__
  const __m256i ones = _mm256_set1_epi16(1);
  // Pairs add up to 2^16 in magnitude: 32 bits hold 2^15 of them in a lane.
  while (i + 16 <= n) {
    const int64_t end = std::min(n, i + 16 * 16384);
    __m256i sums = _mm256_setzero_si256();
    for (; i + 16 <= end; i += 16) sums = _mm256_add_epi32(sums, _mm256_madd_epi16(load(codes + i), ones));
    alignas(32) int32_t parts[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sums);
    for (const int32_t part : parts) sum += part;
  }
#endif
  for (; i < n; ++i) sum += codes[i];
  return sum;
}

}  // namespace
}  // namespace qeval::quant
