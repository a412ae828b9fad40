#pragma once

// Sums to codes. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/lanes.h"

namespace qeval::quant {
namespace {

#ifdef QEVAL_VECTORS

/// The totals of a vector of columns times their factors, a row at a time.
template <typename Of>
class ColumnScale {
  using Vector = typename Of::Vector;

 public:
  ColumnScale(const Requantization& r, int64_t column)
      : multiplier_(Of::load(r.fast.multiplier + column)),
        shift_(Of::load(r.fast.shift + column)),
        constant_(Of::load(r.constant + column)),
        weight_(r.weight == nullptr ? Of::all32(0) : Of::load(r.weight + column)),
        lift_(shift_count(r.fast.lift)) {
    // 64-bit products of the even and of the odd columns, half a unit added; what counts is above bit 32.
    const Vector one = Of::all64(1), below = Of::all64(31);
    even_half_ = left64(one, add64(lower32(shift_), below));
    odd_half_ = left64(one, add64(odd_lanes(shift_), below));
    odd_multiplier_ = odd_lanes(multiplier_);
  }

  template <bool WEIGHTS>
  Vector scaled(const int32_t* sums, int32_t base) const {
    Vector sum = Of::load(sums);
    if constexpr (WEIGHTS) sum = add32(sum, product32(weight_, Of::all32(base)));
    sum = add32(left32(sum, lift_), constant_);
    const Vector even = add64(even_products(sum, multiplier_), even_half_);
    const Vector odd = add64(even_products(odd_lanes(sum), odd_multiplier_), odd_half_);
    return signed_right32(high_words(even, odd), shift_);
  }

 private:
  Vector multiplier_, shift_, constant_, weight_;
  ShiftCount lift_;
  Vector even_half_, odd_half_, odd_multiplier_;
};

/// Calls put(row, column, first, second) with the numbers of 2 · lanes columns from `column` on. Returns the
/// first column that is left.
template <typename Of, bool WEIGHTS, typename Put>
int64_t scale_columns(const Requantization& r, int64_t column, const Put& put) {
  constexpr int64_t kLanes = sizeof(typename Of::Vector) / sizeof(int32_t);
  for (; column + 2 * kLanes <= r.n; column += 2 * kLanes) {
    const ColumnScale<Of> first(r, column), second(r, column + kLanes);
    const int32_t* sums = r.sums + column;
    for (int64_t i = 0; i < r.rows; ++i, sums += r.ld) {
      const int32_t base = WEIGHTS ? r.bases[i] : 0;
      put(i, column, first.template scaled<WEIGHTS>(sums, base),
          second.template scaled<WEIGHTS>(sums + kLanes, base));
    }
  }
  return column;
}

#endif

/// Calls put as above for the columns that fill vectors, then sink(row, column, number) for the others.
template <typename Put, typename Sink>
void scale_totals(const Requantization& r, [[maybe_unused]] const Put& put, const Sink& sink) {
  int64_t first = 0;
#ifdef QEVAL_VECTORS
  first =
      r.weight == nullptr ? scale_columns<Widest, false>(r, 0, put) : scale_columns<Widest, true>(r, 0, put);
#endif
  for (int64_t i = 0; i < r.rows; ++i) {
    for (int64_t j = first; j < r.n; ++j) {
      // Modulo 2^32: the total itself fits.
      auto sum = static_cast<uint32_t>(r.sums[i * r.ld + j]);
      if (r.weight != nullptr) sum += static_cast<uint32_t>(r.weight[j]) * static_cast<uint32_t>(r.bases[i]);
      sum = (sum << r.fast.lift) + static_cast<uint32_t>(r.constant[j]);
      const int64_t product = static_cast<int64_t>(static_cast<int32_t>(sum)) * r.fast.multiplier[j];
      sink(i, j, shift_rounded(product, r.fast.shift[j] + 32));
    }
  }
}

void requantize_columns(const Requantization& r, int16_t* out, int64_t out_ld) {
#ifdef QEVAL_VECTORS
  const WideCodes to_codes(r.output);
#endif
  scale_totals(
      r,
      [&]<typename Vector>([[maybe_unused]] int64_t i, [[maybe_unused]] int64_t j,
                           [[maybe_unused]] Vector first, [[maybe_unused]] Vector second) {
#ifdef QEVAL_VECTORS
        store(out + i * out_ld + j, to_codes(first, second));
#endif
      },
      [&](int64_t i, int64_t j, int64_t scaled) {
        out[i * out_ld + j] =
            static_cast<int16_t>(std::clamp<int64_t>(scaled + r.output.zero_point, r.output.lo, r.output.hi));
      });
}

void rescale_columns(const Requantization& r, int32_t* out, int64_t out_ld) {
  scale_totals(
      r,
      [&]<typename Vector>([[maybe_unused]] int64_t i, [[maybe_unused]] int64_t j,
                           [[maybe_unused]] Vector first, [[maybe_unused]] Vector second) {
#ifdef QEVAL_VECTORS
        store(out + i * out_ld + j, first);
        store(out + i * out_ld + j + static_cast<int64_t>(sizeof(Vector) / sizeof(int32_t)), second);
#endif
      },
      [&](int64_t i, int64_t j, int64_t scaled) { out[i * out_ld + j] = static_cast<int32_t>(scaled); });
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
