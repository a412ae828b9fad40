#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace qeval::quant {

// Integer arithmetic only: this header is compiled into the run-time objects that may not hold a single
// floating-point instruction. Right shifts of negative numbers are arithmetic (C++20).

/// The codes of an activation as they are stored, all in int16_t: up to 8 bits 0 … 2^b − 1, above 8 bits
/// −2^(b−1) … 2^(b−1) − 1, whatever the point's own codes are. value = (code − zero_point) · scale; the zero
/// point may lie outside the codes.
struct CodeRange {
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 0;
  bool operator==(const CodeRange&) const = default;

  /// At most 8 bits.
  bool narrow() const { return lo >= 0 && hi <= 255; }
};

/// x · factor in fixed point: round(round(x / 2^pre_shift) · multiplier / 2^shift), half up. The first shift
/// brings x into 32 bits (make_rescale knows its bound), the multiplier has 31 significant bits.
struct Rescale {
  int32_t multiplier = 0;
  int32_t shift = 1;  ///< 1 … 62
  int32_t pre_shift = 0;
  int32_t room = 0;  ///< x · 2^room fits 32 bits
  bool operator==(const Rescale&) const = default;

  /// Where x fits 32 bits and shift can be made 32 or more by raising x first: vectors compute it in one
  /// multiplication, of whose result they need the high word.
  bool fast() const { return pre_shift == 0 && shift + room >= 32; }
  int32_t lift() const { return std::max(0, 32 - shift); }
};

inline int32_t modulo32(int64_t x) {
  return static_cast<int32_t>(static_cast<uint32_t>(x));
}

/// x / 2^shift, half up.
inline int64_t shift_rounded(int64_t x, int32_t shift) {
  return shift == 0 ? x : (x + (int64_t{1} << (shift - 1))) >> shift;
}

/// x · factor as a 64-bit integer. |x| beyond the bound that the factor was made for saturates.
inline int64_t rescale(int64_t x, const Rescale& factor) {
  const int64_t reduced = std::clamp<int64_t>(shift_rounded(x, factor.pre_shift), INT32_MIN, INT32_MAX);
  return shift_rounded(reduced * factor.multiplier, factor.shift);
}

/// x · factor as a code: requantization.
inline int16_t requantize(int64_t x, const Rescale& factor, const CodeRange& codes) {
  return static_cast<int16_t>(std::clamp<int64_t>(rescale(x, factor) + codes.zero_point, codes.lo, codes.hi));
}

/// ⌊√x⌋ by Newton's iteration from above.
inline uint64_t integer_sqrt(uint64_t x) {
  if (x == 0) return 0;
  uint64_t root = uint64_t{1} << ((std::bit_width(x) + 1) / 2);
  for (;;) {
    const uint64_t next = (root + x / root) / 2;
    if (next >= root) return root;
    root = next;
  }
}

}  // namespace qeval::quant
