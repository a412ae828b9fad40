#pragma once

// Sums to codes. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/lanes.h"

namespace qeval::quant {
namespace {

/// Calls sink(column, total · factor) one at a time from column `j` on, and before that sink8 with eight
/// columns at a time as far as there are vectors.
template <typename Sink, typename Sink8>
void rescale_totals(const Requantization& r, const Sink& sink, [[maybe_unused]] const Sink8& sink8) {
  int64_t j = 0;
#ifdef __AVX2__
  const __m256i factor = _mm256_set1_epi32(r.weight_factor);
  const __m256i one = _mm256_set1_epi64x(1);
  const __m256i below = _mm256_set1_epi64x(31);
  const __m256i low_word = _mm256_set1_epi64x(UINT32_MAX);
  const __m128i lift = _mm_cvtsi32_si128(r.fast.lift);
  for (; j + 8 <= r.n; j += 8) {
    __m256i sum = load(r.sums + j);
    if (r.weight != nullptr) sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(load(r.weight + j), factor));
    sum = _mm256_add_epi32(_mm256_sll_epi32(sum, lift), load(r.constant + j));
    const __m256i multiplier = load(r.fast.multiplier + j);
    const __m256i shift = load(r.fast.shift + j);
    // 64-bit products of the even and of the odd columns, half a unit added; what counts is above bit 32.
    const __m256i even_half =
        _mm256_sllv_epi64(one, _mm256_add_epi64(_mm256_and_si256(shift, low_word), below));
    const __m256i odd_half = _mm256_sllv_epi64(one, _mm256_add_epi64(odd_lanes(shift), below));
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(sum, multiplier), even_half);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(odd_lanes(sum), odd_lanes(multiplier)), odd_half);
    sink8(j, _mm256_srav_epi32(_mm256_blend_epi32(odd_lanes(even), odd, 0xAA), shift));
  }
#endif
  for (; j < r.n; ++j) {
    // Modulo 2^32: the total itself fits.
    auto sum = static_cast<uint32_t>(r.sums[j]);
    if (r.weight != nullptr) {
      sum -= static_cast<uint32_t>(r.weight[j]) * static_cast<uint32_t>(r.weight_factor);
    }
    sum = (sum << r.fast.lift) + static_cast<uint32_t>(r.constant[j]);
    const int64_t product = static_cast<int64_t>(static_cast<int32_t>(sum)) * r.fast.multiplier[j];
    sink(j, shift_rounded(product, r.fast.shift[j] + 32));
  }
}

#ifdef __AVX2__
using Eight = __m256i;
#else
using Eight = int64_t;
#endif

void requantize_row(const Requantization& r, int16_t* out) {
#ifdef __AVX2__
  const LaneCodes to_codes(r.output);
#endif
  rescale_totals(
      r,
      [&](int64_t j, int64_t scaled) {
        out[j] =
            static_cast<int16_t>(std::clamp<int64_t>(scaled + r.output.zero_point, r.output.lo, r.output.hi));
      },
      [&]([[maybe_unused]] int64_t j, [[maybe_unused]] Eight scaled) {
#ifdef __AVX2__
        store(out + j, to_codes(scaled));
#endif
      });
}

void rescale_row(const Requantization& r, int32_t* out) {
  rescale_totals(
      r, [&](int64_t j, int64_t scaled) { out[j] = static_cast<int32_t>(scaled); },
      [&]([[maybe_unused]] int64_t j, [[maybe_unused]] Eight scaled) {
#ifdef __AVX2__
        store(out + j, scaled);
#endif
      });
}

void requantize_uniform(const UniformRequantization& r, int16_t* out, int64_t out_ld) {
#ifdef __AVX2__
  const LaneRequantize to_codes(r.factor, r.output);
  const __m128i raise = _mm_cvtsi32_si128(r.raise);
#endif
  for (int64_t i = 0; i < r.rows; ++i) {
    const int32_t* sums = r.sums + i * r.ld;
    const int32_t base = r.bases == nullptr ? 0 : r.bases[i];
    int16_t* codes = out + i * out_ld;
    int64_t j = 0;
#ifdef __AVX2__
    // Most sums are not raised: those of attention, and of projections without a bias.
    if (r.raise == 0) {
      j = to_codes(r.n, codes, [&]<typename Of>(int64_t at) {
        return add32(add32(Of::load(sums + at), Of::all32(base)), Of::load(r.constant + at));
      });
    } else {
      j = to_codes(r.n, codes, [&]<typename Of>(int64_t at) {
        return add32(left32(add32(Of::load(sums + at), Of::all32(base)), raise), Of::load(r.constant + at));
      });
    }
#endif
    for (; j < r.n; ++j) {
      const uint32_t sum = ((static_cast<uint32_t>(sums[j]) + static_cast<uint32_t>(base)) << r.raise) +
                           static_cast<uint32_t>(r.constant[j]);
      codes[j] = requantize(static_cast<int32_t>(sum), r.factor, r.output);
    }
  }
}

}  // namespace
}  // namespace qeval::quant
