#pragma once

// What products of block codes need of a CPU: a vector of 32-bit lanes, one for each of a few columns.
// Compiled once per CPU path, everything in an anonymous namespace; no standard library call, for the reason
// given in model/kernels/kernels_impl.h. Another architecture is one more of these structs, and nothing else.

#if defined(__AVX2__)
#include "quant/arithmetic/blocks/lanes_x86.h"
#elif defined(QEVAL_NEON)
#include "quant/arithmetic/blocks/lanes_neon.h"
#else

#include <cstdint>
#include <cstring>

#include "model/checkpoint/block_formats.h"

namespace qeval::quant {
namespace {

struct Lanes {
  static constexpr int64_t kCount = 8, kVectors = 1, kRows = 2;
  struct Int {
    int32_t lane[kCount];
  };
  struct Float {
    float lane[kCount];
  };
  template <typename To, typename F>
  static To each(const F& f) {
    To out;
    for (int64_t i = 0; i < kCount; ++i) out.lane[i] = f(i);
    return out;
  }
  template <typename F>
  static Int each_byte(const F& f) {
    uint8_t bytes[4 * kCount];
    for (int64_t i = 0; i < 4 * kCount; ++i) bytes[i] = f(i);
    return load(bytes);
  }
  template <typename T>
  static T part(const Int& x, int64_t i) {
    T out;
    std::memcpy(&out, reinterpret_cast<const char*>(x.lane) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return out;
  }

  static Int load(const void* from) {
    Int out;
    std::memcpy(out.lane, from, sizeof(out.lane));
    return out;
  }
  static Int all(int32_t x) {
    return each<Int>([&](int64_t) { return x; });
  }
  static Int low_nibbles(const Int& x) {
    return each<Int>([&](int64_t i) { return x.lane[i] & 0x0F0F0F0F; });
  }
  static Int high_nibbles(const Int& x) {
    return each<Int>([&](int64_t i) { return x.lane[i] >> 4 & 0x0F0F0F0F; });
  }
  static Int table(const uint8_t* sixteen) {
    return each_byte([&](int64_t i) { return sixteen[i % 16]; });
  }
  static Int look_up(const Int& table, const Int& nibbles) {
    return each_byte([&](int64_t i) { return part<uint8_t>(table, part<uint8_t>(nibbles, i)); });
  }
  static Int widen(const int8_t* from) {
    return each<Int>([&](int64_t i) { return from[i]; });
  }
  static Int widen_pairs(const uint8_t* from) {
    return each<Int>([&](int64_t i) { return from[2 * i] | from[2 * i + 1] << 16; });
  }
  static Int add(const Int& a, const Int& b) {
    return each<Int>([&](int64_t i) { return a.lane[i] + b.lane[i]; });
  }
  static Int multiply(const Int& a, const Int& b) {
    return each<Int>([&](int64_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Int pair_products(const Int& a, const Int& b) {
    return each<Int>([&](int64_t i) {
      return part<int16_t>(a, 2 * i) * part<int16_t>(b, 2 * i) +
             part<int16_t>(a, 2 * i + 1) * part<int16_t>(b, 2 * i + 1);
    });
  }
  static constexpr bool kSignedBytes = false;
  static Int quad_products(const Int& sums, const Int& codes, const Int& x) {
    return each<Int>([&](int64_t i) {
      int32_t sum = sums.lane[i];
      for (int64_t t = 4 * i; t < 4 * i + 4; ++t) sum += part<uint8_t>(codes, t) * part<int8_t>(x, t);
      return sum;
    });
  }
#define QEVAL_QUAD_PRODUCTS

  static Float load(const float* from) {
    return each<Float>([&](int64_t i) { return from[i]; });
  }
  static void store(float* to, const Float& x) {
    std::memcpy(to, x.lane, sizeof(x.lane));
  }
  static Float all(float x) {
    return each<Float>([&](int64_t) { return x; });
  }
  static Float to_float(const Int& x) {
    return each<Float>([&](int64_t i) { return static_cast<float>(x.lane[i]); });
  }
  static Float add(const Float& a, const Float& b) {
    return each<Float>([&](int64_t i) { return a.lane[i] + b.lane[i]; });
  }
  static Float subtract(const Float& a, const Float& b) {
    return each<Float>([&](int64_t i) { return a.lane[i] - b.lane[i]; });
  }
  static Float multiply(const Float& a, const Float& b) {
    return each<Float>([&](int64_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Float widen_f16(const uint8_t* from) {
    return each<Float>([&](int64_t i) { return model::load_half(from + 2 * i); });
  }
  static Float widen_bf16(const uint8_t* from) {
    return each<Float>([&](int64_t i) {
      const uint32_t bits = static_cast<uint32_t>(model::load_u16(from + 2 * i)) << 16U;
      return __builtin_bit_cast(float, bits);
    });
  }
};

}  // namespace
}  // namespace qeval::quant

#endif
