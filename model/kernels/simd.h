// A vector of floats for the CPU path that the including translation unit is compiled for. Included by the
// kernels_*.cc files only. Everything is in an anonymous namespace: code compiled for a newer instruction set
// must never be merged by the linker with the same function elsewhere.
//
// What each of simd_*.h defines:
//   Vec               Vec::width floats, with + − · / in float32
//   load, store, broadcast
//   max, min          the second operand where one is NaN
//   fma(a, b, c)      a · b + c, rounded once (portable: twice)
//   round_even        to an integer, half to even
//   where_equal(a, b, x)   x where a = b, else 0
//   power_of_two(n)   2ⁿ for an integer n in the range of normal exponents
//   square_root       of one float
//   transpose         of kSquare rows of kSquare floats
//   Codes             Vec::width int32: widen_codes (of bytes), all_codes, load_codes, difference (as floats)
//   Table16, Table256 values of a table for Vec::width bytes
//   widen_eight_f16   eight IEEE halves to floats
//   store_eight       eight integers that are held in floats, as codes of 8 or 16 bits
//   scale_eight       (code − zero_point) · scale of eight codes
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include "model/kernels/simd_x86.h"
#elif defined(QEVAL_NEON)
#include "model/kernels/simd_neon.h"
#else
#include "model/kernels/simd_portable.h"
#endif

namespace qeval::model {
namespace {

/// The first `count` < width elements; the others are `fill`.
inline Vec load_partial(const float* p, int64_t count, float fill) {
  float lanes[Vec::width];
  for (int64_t i = 0; i < Vec::width; ++i) lanes[i] = i < count ? p[i] : fill;
  return load(lanes);
}

inline void store_partial(float* p, int64_t count, Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

/// Pairwise, always in the same order.
inline float horizontal_sum(Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  for (int64_t half = Vec::width / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

inline float horizontal_max(Vec x) {
  float lanes[Vec::width];
  store(lanes, x);
  float largest = lanes[0];
  for (int64_t i = 1; i < Vec::width; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

/// exp(x) to about 1 ulp, on [−87, 88]; smaller arguments give exp(−87) ≈ 1.6e-38, larger ones exp(88), NaN
/// gives NaN.
/// x = n·ln 2 + r, |r| ≤ ln 2 / 2; a Taylor polynomial of degree 7 for exp(r); ln 2 in two parts (Cody and
/// Waite).
inline Vec exp(Vec x) {
  x = min(broadcast(88.0F), max(broadcast(-87.0F), x));  // x second: min and max then hand on a NaN
  const Vec n = round_even(x * broadcast(1.44269504088896341F));
  Vec r = fma(n, broadcast(-0.693359375F), x);
  r = fma(n, broadcast(2.12194440e-4F), r);
  Vec p = broadcast(1.0F / 5040);
  p = fma(p, r, broadcast(1.0F / 720));
  p = fma(p, r, broadcast(1.0F / 120));
  p = fma(p, r, broadcast(1.0F / 24));
  p = fma(p, r, broadcast(1.0F / 6));
  p = fma(p, r, broadcast(0.5F));
  p = fma(p, r, broadcast(1.0F));
  p = fma(p, r, broadcast(1.0F));
  return p * power_of_two(n);
}

}  // namespace
}  // namespace qeval::model
