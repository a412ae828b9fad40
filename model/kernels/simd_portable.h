// Vectors of four floats without a processor's intrinsics: the vector types of GCC and Clang. simd.h says
// what each operation does.
#pragma once

#include <cstdint>
#include <cstring>

namespace qeval::model {
namespace {

using Floats4 [[gnu::vector_size(16)]] = float;
using Codes [[gnu::vector_size(16)]] = int32_t;

struct Vec {
  static constexpr int64_t width = 4;
  Floats4 v;
};
inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x.v, p, sizeof x.v);
  return x;
}
inline void store(float* p, Vec x) {
  std::memcpy(p, &x.v, sizeof x.v);
}
inline Vec broadcast(float x) {
  return {Floats4{x, x, x, x}};
}
inline Vec operator+(Vec a, Vec b) {
  return {a.v + b.v};
}
inline Vec operator-(Vec a, Vec b) {
  return {a.v - b.v};
}
inline Vec operator*(Vec a, Vec b) {
  return {a.v * b.v};
}
inline Vec operator/(Vec a, Vec b) {
  return {a.v / b.v};
}
inline Vec max(Vec a, Vec b) {
  return {a.v > b.v ? a.v : b.v};
}
inline Vec min(Vec a, Vec b) {
  return {a.v < b.v ? a.v : b.v};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {a.v * b.v + c.v};
}
inline Vec round_even(Vec a) {
  return {Floats4{__builtin_rintf(a.v[0]), __builtin_rintf(a.v[1]), __builtin_rintf(a.v[2]),
                  __builtin_rintf(a.v[3])}};
}
inline Vec where_equal(Vec a, Vec b, Vec x) {
  return {a.v == b.v ? x.v : Floats4{}};
}
inline Vec power_of_two(Vec n) {
  const Codes bits = (__builtin_convertvector(n.v, Codes) + 127) << 23;
  Vec power;
  std::memcpy(&power.v, &bits, sizeof bits);
  return power;
}

inline Codes widen_codes(const uint8_t* p) {
  return Codes{p[0], p[1], p[2], p[3]};
}
inline Codes all_codes(int32_t x) {
  return Codes{x, x, x, x};
}
inline Codes load_codes(const int32_t* p) {
  return Codes{p[0], p[1], p[2], p[3]};
}
inline Vec difference(Codes a, Codes b) {
  return {__builtin_convertvector(a - b, Floats4)};
}
struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  Vec operator()(const uint8_t* p) const {
    return {Floats4{table[p[0]], table[p[1]], table[p[2]], table[p[3]]}};
  }
};
using Table16 = Table256;

inline float square_root(float x) {
  return __builtin_sqrtf(x);
}

constexpr int64_t kSquare = 1;
inline void transpose(const float* in, int64_t /*ld*/, float* out, int64_t /*ld_out*/) {
  *out = *in;
}

inline float bits_to_float(uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float widen_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000U) << 16;
  const uint32_t exponent = (h >> 10) & 0x1FU;
  const uint32_t mantissa = h & 0x3FFU;
  if (exponent == 0) {  // zero and subnormals: mantissa · 2⁻²⁴
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return bits_to_float(sign | 0x7F800000U | (mantissa << 13));
  return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}
inline void widen_eight_f16(const uint16_t* x, float* y) {
  for (int i = 0; i < 8; ++i) y[i] = widen_f16(x[i]);
}

template <typename Code>
inline void store_eight(const float* codes, Code* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<Code>(codes[i]);
}
template <typename Code>
inline void scale_eight(const Code* codes, int32_t zero_point, float scale, float* y) {
  for (int i = 0; i < 8; ++i) y[i] = static_cast<float>(codes[i] - zero_point) * scale;
}

}  // namespace
}  // namespace qeval::model
