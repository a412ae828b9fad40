#pragma once

// Softmax in fixed point. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>

#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/lanes.h"

namespace qeval::quant {
namespace {

// The cubic of 2^−f/2^19, f below 2^16: with x = f/2^16 · ln 2/8, 1 − x·(1 − x/2·(1 − x/3)). All of it fits
// 16 bits, with 2^16 − 1 for 1, so that vectors compute sixteen at a time.
constexpr uint32_t kThird = 1893;   ///< ln 2/8 / 3 · 2^16
constexpr uint32_t kSecond = 2839;  ///< ln 2/8 / 2 · 2^16

#ifdef QEVAL_VECTORS

/// 2^−y of the differences to `largest`, two vectors at a time, and their sum.
class LanePowers {
 public:
  static constexpr int64_t kCount = sizeof(WideVector) / sizeof(int16_t);

  LanePowers(const ExpTable& exp, int32_t largest)
      : top_(Of::all32(largest)),
        limit_(Of::all32(static_cast<int32_t>(exp.limit))),
        high_(Of::all32(static_cast<int32_t>(exp.high))),
        low_(Of::all32(static_cast<int32_t>(exp.low))),
        half_(Of::all32(1 << (exp.fraction_bits - 20))),
        whole_shift_(shift_count(exp.fraction_bits)),
        fraction_shift_(shift_count(exp.fraction_bits - 19)),
        powers_(Of::table(exp.powers.data())),
        slopes_(Of::table(exp.slopes.data())) {}

  void operator()(const int16_t* codes, uint32_t* out) {
    const WideVector first = exponent(codes);
    const WideVector second = exponent(codes + kCount / 2);
    const WideVector fraction = right32(first, fraction_shift_);
    const WideVector fraction2 = right32(second, fraction_shift_);
    // The first half in the even 16-bit lanes, the other in the odd ones.
    const WideVector f = lower_halves(fraction, fraction2);
    const WideVector one = Of::all16(-1);
    const WideVector third = sub16(one, high_product16(f, Of::all16(kThird)));
    const WideVector inner = high_product16(high_product16(f, third), Of::all16(kSecond));
    const WideVector slope = high_product16(f, sub16(one, inner));
    finish(first, fraction, lower16(slope), out);
    finish(second, fraction2, upper16(slope), out + kCount / 2);
  }
  uint64_t sum() const {
    // Modulo 2^64, which loses nothing: `both_` also added up 2^32 times the odd lanes.
    const auto odd = static_cast<uint64_t>(sum64(odd_));
    return static_cast<uint64_t>(sum64(both_)) - (odd << 32) + odd;
  }

 private:
  using Of = Widest;

  /// y, whose 16-bit products leave the upper halves of the lanes 0.
  WideVector exponent(const int16_t* codes) const {
    const WideVector below = min32(sub32(top_, Of::widen(codes)), limit_);
    return add32(add32(product32(below, high_), high_product16(below, low_)), half_);
  }
  void finish(WideVector y, WideVector fraction, WideVector slope, uint32_t* out) {
    const WideVector index = upper16(fraction);  // of which the table reads three bits
    const WideVector drop = right32(product32(look_up(slopes_, index), slope), shift_count(4));
    const WideVector powers = right32(sub32(look_up(powers_, index), drop), right32(y, whole_shift_));
    both_ = add64(both_, powers);
    odd_ = add64(odd_, odd_lanes(powers));
    store(out, powers);
  }

  WideVector top_, limit_, high_, low_, half_;
  ShiftCount whole_shift_, fraction_shift_;
  WideVector powers_, slopes_;
  WideVector both_ = Of::all32(0);
  WideVector odd_ = Of::all32(0);
};

int32_t largest_code(const int16_t* row, int64_t n) {
  int32_t largest = row[0];
  int64_t i = 0;
  if (n >= 16) {
    Eight most = load(row);
    for (; i + 16 <= n; i += 16) most = max16(most, load(row + i));
    int16_t parts[16];
    store(parts, most);
    largest = *std::max_element(parts, parts + 16);
  }
  for (; i < n; ++i) largest = std::max<int32_t>(largest, row[i]);
  return largest;
}

uint64_t exponentials(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers) {
  constexpr int64_t kCount = LanePowers::kCount;
  const int32_t largest = largest_code(row, n);
  LanePowers lanes(exp, largest);
  int64_t i = 0;
  for (; i + kCount <= n; i += kCount) lanes(row + i, powers + i);
  const int64_t left = n - i;
  if (left == 0) return lanes.sum();
  int16_t codes[kCount];
  uint32_t results[kCount];
  std::copy(row + i, row + n, codes);
  std::fill(codes + left, codes + kCount, static_cast<int16_t>(largest));
  lanes(codes, results);
  std::copy(results, results + left, powers + i);
  return lanes.sum() - (static_cast<uint64_t>(kCount - left) << kExpBits);
}

#else

uint32_t power(const ExpTable& exp, uint32_t difference) {
  const uint32_t below = std::min(difference, exp.limit);
  const uint32_t y = below * exp.high + ((below * exp.low) >> 16) + (uint32_t{1} << (exp.fraction_bits - 20));
  const uint32_t fraction = y >> (exp.fraction_bits - 19);
  const uint32_t index = fraction >> 16 & 7;
  const uint32_t f = fraction & 0xFFFF;
  const uint32_t third = 0xFFFF - ((f * kThird) >> 16);
  const uint32_t second = 0xFFFF - ((((f * third) >> 16) * kSecond) >> 16);
  const uint32_t slope = (f * second) >> 16;
  return (exp.powers[index] - ((exp.slopes[index] * slope) >> 4)) >> (y >> exp.fraction_bits);
}

uint64_t exponentials(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers) {
  const int32_t largest = *std::max_element(row, row + n);
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    powers[i] = power(exp, static_cast<uint32_t>(largest - row[i]));
    sum += powers[i];
  }
  return sum;
}

#endif

int64_t shares(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift, const CodeRange& codes,
               int16_t* row) {
  const uint64_t half = UINT64_C(1) << (shift - 1);
  int64_t i = 0;
  int64_t sum = 0;
#ifdef QEVAL_VECTORS
  using Of = Widest;
  constexpr int64_t kCount = WideCodes::kCount;
  const WideVector factor = Of::all64(reciprocal);
  const WideVector halves = Of::all64(static_cast<int64_t>(half));
  const ShiftCount count = shift_count(shift - 32);
  const WideCodes to_codes(codes);
  const WideVector ones = Of::all16(1);
  const auto share = [&](const uint32_t* from) {
    const WideVector power = Of::load(from);
    const WideVector even = add64(even_products_unsigned(power, factor), halves);
    const WideVector odd = add64(even_products_unsigned(odd_lanes(power), factor), halves);
    return right32(high_words(even, odd), count);
  };
  while (i + kCount <= n) {
    // 2^14 pairs of codes at most before a lane of 32 bits could overflow.
    WideVector pairs = Of::all32(0);
    const int64_t end = std::min(n, i + (kCount << 14));
    for (; i + kCount <= end; i += kCount) {
      const WideVector some = to_codes(share(powers + i), share(powers + i + kCount / 2));
      store(row + i, some);
      pairs = add32(pairs, pair_products(some, ones));
    }
    sum += sum32(pairs);
  }
#endif
  // Shares fit 31 bits, so that codes may be clamped in 32.
  for (; i < n; ++i) {
    const auto code = static_cast<int32_t>((static_cast<uint64_t>(powers[i]) * reciprocal + half) >> shift);
    row[i] = static_cast<int16_t>(std::clamp(code + codes.zero_point, codes.lo, codes.hi));
    sum += row[i];
  }
  return sum;
}

}  // namespace
}  // namespace qeval::quant
