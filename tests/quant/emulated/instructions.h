#pragma once

// AVX-512, VNNI and AMX instructions that the integer kernels use, by their definitions in plain C++: so that
// those kernels' code runs on a CPU that lacks them. To be included once everything else is; the macros make
// kernels_impl.h compile its stronger paths.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace qeval::quant::emulated {

template <typename T, size_t N>
struct alignas(sizeof(T) * N) Lanes {
  std::array<T, N> lane;
};
/// A register by its bits.
using Register512 = Lanes<int32_t, 16>;

template <typename To, typename From>
To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline int32_t wrap(int64_t x) {
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(x)));
}

/// vpmaddwd: 16-bit products added up in pairs. vpdpwssd with `sums`.
template <typename Register>
Register pairs(const Register& sums, const Register& a, const Register& b) {
  constexpr size_t kLanes = sizeof(Register) / 4;
  const auto s = as<Lanes<int32_t, kLanes>>(sums);
  const auto x = as<Lanes<int16_t, 2 * kLanes>>(a), y = as<Lanes<int16_t, 2 * kLanes>>(b);
  Lanes<int32_t, kLanes> out;
  for (size_t i = 0; i < kLanes; ++i) {
    out.lane[i] = wrap(int64_t{s.lane[i]} + int64_t{x.lane[2 * i]} * y.lane[2 * i] +
                       int64_t{x.lane[2 * i + 1]} * y.lane[2 * i + 1]);
  }
  return as<Register>(out);
}

/// vpdpbusd: unsigned by signed bytes, four to a lane, without saturation.
template <typename Register>
Register quads(const Register& sums, const Register& a, const Register& b) {
  constexpr size_t kLanes = sizeof(Register) / 4;
  const auto s = as<Lanes<int32_t, kLanes>>(sums);
  const auto x = as<Lanes<uint8_t, 4 * kLanes>>(a);
  const auto y = as<Lanes<int8_t, 4 * kLanes>>(b);
  Lanes<int32_t, kLanes> out;
  for (size_t i = 0; i < kLanes; ++i) {
    int64_t sum = s.lane[i];
    for (size_t t = 0; t < 4; ++t) sum += x.lane[4 * i + t] * y.lane[4 * i + t];
    out.lane[i] = wrap(sum);
  }
  return as<Register>(out);
}

/// vpmaddubsw: unsigned by signed bytes, two to a 16-bit lane, saturated.
inline Register512 byte_pairs(const Register512& a, const Register512& b) {
  const auto x = as<Lanes<uint8_t, 64>>(a);
  const auto y = as<Lanes<int8_t, 64>>(b);
  Lanes<int16_t, 32> out;
  for (size_t i = 0; i < out.lane.size(); ++i) {
    const int32_t sum = x.lane[2 * i] * y.lane[2 * i] + x.lane[2 * i + 1] * y.lane[2 * i + 1];
    out.lane[i] = static_cast<int16_t>(std::clamp(sum, INT16_MIN, INT16_MAX));
  }
  return as<Register512>(out);
}

template <typename T>
Register512 sum(const Register512& a, const Register512& b) {
  constexpr size_t kLanes = 64 / sizeof(T);
  const auto x = as<Lanes<T, kLanes>>(a), y = as<Lanes<T, kLanes>>(b);
  Lanes<T, kLanes> out;
  for (size_t i = 0; i < kLanes; ++i) out.lane[i] = static_cast<T>(int64_t{x.lane[i]} + y.lane[i]);
  return as<Register512>(out);
}

template <typename T>
Register512 all(T value) {
  Lanes<T, 64 / sizeof(T)> out;
  out.lane.fill(value);
  return as<Register512>(out);
}

inline Register512 load(const void* from) {
  Register512 out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

inline Register512 widen(const __m256i& bytes) {
  const auto x = as<Lanes<int8_t, 32>>(bytes);
  Lanes<int16_t, 32> out;
  std::ranges::copy(x.lane, out.lane.begin());
  return as<Register512>(out);
}

/// vpsraw by a constant, and vpmovwb: the lower bytes of 16-bit lanes.
inline Register512 shifted_right(const Register512& x, int count) {
  auto lanes = as<Lanes<int16_t, 32>>(x);
  for (int16_t& lane : lanes.lane) lane = static_cast<int16_t>(lane >> count);
  return as<Register512>(lanes);
}
inline __m256i lower_bytes(const Register512& x) {
  const auto lanes = as<Lanes<uint16_t, 32>>(x);
  Lanes<uint8_t, 32> out;
  for (size_t i = 0; i < out.lane.size(); ++i) out.lane[i] = static_cast<uint8_t>(lanes.lane[i]);
  return as<__m256i>(out);
}

/// vpermw: 16-bit lanes of x in the order given.
inline Register512 permuted(const Register512& order, const Register512& x) {
  const auto from = as<Lanes<uint16_t, 32>>(order), lanes = as<Lanes<uint16_t, 32>>(x);
  Lanes<uint16_t, 32> out;
  for (size_t i = 0; i < out.lane.size(); ++i) out.lane[i] = lanes.lane[from.lane[i] % 32];
  return as<Register512>(out);
}

}  // namespace qeval::quant::emulated

// NOLINTBEGIN(bugprone-reserved-identifier): these stand for the compiler's own names
#ifdef QEVAL_EMULATE_AVX512
#define __AVX512BW__ 1
#define __m512i qeval::quant::emulated::Register512
#define _mm512_loadu_si512(from) qeval::quant::emulated::load(from)
#define _mm512_storeu_si512(to, x) std::memcpy(to, &(x), 64)
#define _mm512_setzero_si512() qeval::quant::emulated::all<int32_t>(0)
#define _mm512_set1_epi32(x) qeval::quant::emulated::all<int32_t>(x)
#define _mm512_set1_epi16(x) qeval::quant::emulated::all<int16_t>(x)
#define _mm512_add_epi32(a, b) qeval::quant::emulated::sum<int32_t>(a, b)
#define _mm512_add_epi16(a, b) qeval::quant::emulated::sum<int16_t>(a, b)
#define _mm512_madd_epi16(a, b) qeval::quant::emulated::pairs(qeval::quant::emulated::all<int32_t>(0), a, b)
#define _mm512_maddubs_epi16(a, b) qeval::quant::emulated::byte_pairs(a, b)
#define _mm512_permutexvar_epi16(order, x) qeval::quant::emulated::permuted(order, x)
#define _mm512_srai_epi16(x, count) qeval::quant::emulated::shifted_right(x, count)
#define _mm512_cvtepi16_epi8(x) qeval::quant::emulated::lower_bytes(x)
#define _mm512_cvtepi8_epi16(x) qeval::quant::emulated::widen(x)
#define _mm512_dpwssd_epi32(sums, a, b) qeval::quant::emulated::pairs(sums, a, b)
#define _mm512_dpbusd_epi32(sums, a, b) qeval::quant::emulated::quads(sums, a, b)
#endif

#ifdef QEVAL_EMULATE_AVX512_VNNI
#define __AVX512VNNI__ 1
#endif

#ifdef QEVAL_EMULATE_AMX
#define __AMX_INT8__ 1
#include "tests/model/emulated/tiles.h"
#endif

#ifdef QEVAL_EMULATE_AVX_VNNI
#define __AVXVNNI__ 1
#define _mm256_dpwssd_avx_epi32(sums, a, b) qeval::quant::emulated::pairs<__m256i>(sums, a, b)
#define _mm256_dpbusd_avx_epi32(sums, a, b) qeval::quant::emulated::quads<__m256i>(sums, a, b)
#endif
// NOLINTEND(bugprone-reserved-identifier)
