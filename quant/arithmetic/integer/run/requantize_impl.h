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
#ifdef QEVAL_VECTORS
  const Eight factor = Bits256::all32(r.weight_factor);
  const Eight one = Bits256::all64(1);
  const Eight below = Bits256::all64(31);
  const ShiftCount lift = shift_count(r.fast.lift);
  for (; j + 8 <= r.n; j += 8) {
    Eight sum = load(r.sums + j);
    if (r.weight != nullptr) sum = sub32(sum, product32(load(r.weight + j), factor));
    sum = add32(left32(sum, lift), load(r.constant + j));
    const Eight multiplier = load(r.fast.multiplier + j);
    const Eight shift = load(r.fast.shift + j);
    // 64-bit products of the even and of the odd columns, half a unit added; what counts is above bit 32.
    const Eight even_half = left64(one, add64(lower32(shift), below));
    const Eight odd_half = left64(one, add64(odd_lanes(shift), below));
    const Eight even = add64(even_products(sum, multiplier), even_half);
    const Eight odd = add64(even_products(odd_lanes(sum), odd_lanes(multiplier)), odd_half);
    sink8(j, signed_right32(high_words(even, odd), shift));
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

#ifndef QEVAL_VECTORS
using Eight = int64_t;
#endif

void requantize_row(const Requantization& r, int16_t* out) {
#ifdef QEVAL_VECTORS
  const LaneCodes to_codes(r.output);
#endif
  rescale_totals(
      r,
      [&](int64_t j, int64_t scaled) {
        out[j] =
            static_cast<int16_t>(std::clamp<int64_t>(scaled + r.output.zero_point, r.output.lo, r.output.hi));
      },
      [&]([[maybe_unused]] int64_t j, [[maybe_unused]] Eight scaled) {
#ifdef QEVAL_VECTORS
        store_codes(out + j, to_codes(scaled));
#endif
      });
}

void rescale_row(const Requantization& r, int32_t* out) {
  rescale_totals(
      r, [&](int64_t j, int64_t scaled) { out[j] = static_cast<int32_t>(scaled); },
      [&]([[maybe_unused]] int64_t j, [[maybe_unused]] Eight scaled) {
#ifdef QEVAL_VECTORS
        store(out + j, scaled);
#endif
      });
}

void requantize_uniform(const UniformRequantization& r, int16_t* out, int64_t out_ld) {
#ifdef QEVAL_VECTORS
  const LaneRequantize to_codes(r.factor, r.output);
  const ShiftCount raise = shift_count(r.raise);
#endif
  for (int64_t i = 0; i < r.rows; ++i) {
    const int32_t* sums = r.sums + i * r.ld;
    const int32_t base = r.bases == nullptr ? 0 : r.bases[i];
    int16_t* codes = out + i * out_ld;
    int64_t j = 0;
#ifdef QEVAL_VECTORS
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
