#pragma once

// Pieces that the vector kernels share. Compiled once per CPU path; no floating point.

#include "quant/arithmetic/integer/run/vector_path.h"

#ifdef QEVAL_VECTORS

#include <cstdint>

#include "quant/arithmetic/integer/fixed_point.h"

namespace qeval::quant {
namespace {

using WideVector = Widest::Vector;

inline Eight load(const void* from) {
  return Bits256::load(from);
}

/// x / 2^shift, half up, of |x| < 2^62 in 64-bit lanes; 0 ≤ shift ≤ 62. There is no arithmetic shift of
/// 64-bit lanes before AVX-512: 2^62 makes them positive for the time of a logical one.
template <typename Of>
class RoundingShift {
  using Vector = typename Of::Vector;

 public:
  explicit RoundingShift(int32_t shift)
      : count_(shift_count(shift)),
        before_(Of::all64((INT64_C(1) << 62) + (shift == 0 ? 0 : INT64_C(1) << (shift - 1)))),
        after_(Of::all64(INT64_C(1) << (62 - shift))) {}

  Vector operator()(Vector x) const { return sub64(right64(add64(x, before_), count_), after_); }

 private:
  ShiftCount count_;
  Vector before_, after_;
};

/// rescale() of 64-bit lanes within the bound of the factor.
template <typename Of>
class LaneRescale {
  using Vector = typename Of::Vector;

 public:
  explicit LaneRescale(const Rescale& factor)
      : pre_(factor.pre_shift), post_(factor.shift), multiplier_(Of::all64(factor.multiplier)) {}

  Vector operator()(Vector x) const { return post_(even_products(pre_(x), multiplier_)); }
  /// The same of what fits 32 bits already, by a factor without a first shift.
  Vector narrow(Vector x) const { return post_(even_products(x, multiplier_)); }

 private:
  RoundingShift<Of> pre_, post_;
  Vector multiplier_;
};

/// What 32-bit lanes hold, raised by a zero point and clamped to 16-bit codes.
class LaneCodes {
 public:
  explicit LaneCodes(const CodeRange& codes)
      : zero_point_(Bits256::all32(codes.zero_point)),
        lo_(all_codes(static_cast<int16_t>(codes.lo))),
        hi_(all_codes(static_cast<int16_t>(codes.hi))) {}

  EightCodes operator()(Eight x) const { return clamp_codes(narrow(add32(x, zero_point_)), lo_, hi_); }

 private:
  Eight zero_point_;
  EightCodes lo_, hi_;
};

/// The same of two vectors, the one's lanes before the other's.
class WideCodes {
 public:
  static constexpr int64_t kCount = sizeof(WideVector) / sizeof(int16_t);

  explicit WideCodes(const CodeRange& codes)
      : zero_point_(Widest::all32(codes.zero_point)),
        lo_(Widest::all16(static_cast<int16_t>(codes.lo))),
        hi_(Widest::all16(static_cast<int16_t>(codes.hi))) {}

  WideVector operator()(WideVector x, WideVector y) const {
    // To saturate before the clamp changes nothing.
    return clamp16(narrow(add32(x, zero_point_), add32(y, zero_point_)), lo_, hi_);
  }

 private:
  WideVector zero_point_, lo_, hi_;
};

/// Sums by one fast() factor.
template <typename Of>
class LaneScale {
  using Vector = typename Of::Vector;

 public:
  explicit LaneScale(const Rescale& factor)
      : multiplier_(Of::all64(factor.multiplier)),
        half_(Of::all64(INT64_C(1) << (factor.shift + factor.lift() - 1))),
        lift_(shift_count(factor.lift())),
        count_(shift_count(factor.shift + factor.lift() - 32)) {}

  Vector operator()(Vector sums) const {
    sums = left32(sums, lift_);
    const Vector even = add64(even_products(sums, multiplier_), half_);
    const Vector odd = add64(even_products(odd_lanes(sums), multiplier_), half_);
    return signed_right32(high_words(even, odd), count_);
  }

 private:
  Vector multiplier_, half_;
  ShiftCount lift_, count_;
};

/// Codes of sums by one fast() factor.
class LaneRequantize {
 public:
  LaneRequantize(const Rescale& factor, const CodeRange& codes)
      : scale_(factor), scale8_(factor), to_codes_(codes), to_codes8_(codes) {}

  /// out [n] ← codes. sums<Bits…>(i) are those of the elements from i on, as many as the vector has lanes.
  /// Returns how many were done: less than eight are left.
  template <typename Sums>
  int64_t operator()(int64_t n, int16_t* out, const Sums& sums) const {
    constexpr int64_t kCount = WideCodes::kCount;
    int64_t i = 0;
    for (; i + kCount <= n; i += kCount) {
      store(out + i, to_codes_(scale_(sums.template operator()<Widest>(i)),
                               scale_(sums.template operator()<Widest>(i + kCount / 2))));
    }
    for (; i + 8 <= n; i += 8)
      store_codes(out + i, to_codes8_(scale8_(sums.template operator()<Bits256>(i))));
    return i;
  }

 private:
  LaneScale<Widest> scale_;
  LaneScale<Bits256> scale8_;
  WideCodes to_codes_;
  LaneCodes to_codes8_;
};

}  // namespace
}  // namespace qeval::quant

#endif
