// Codes to floats, written once and compiled once per CPU path: see kernels.h for the contract, and
// kernels_impl.h for what must not be called here.
#pragma once

#include "model/kernels/kernels.h"
#include "model/kernels/simd.h"

namespace qeval::model {
namespace {

#if defined(__AVX512F__)
using Codes32 = __m512i;  // Vec::width codes as int32
inline Codes32 widen_codes(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Codes32 all_codes(int32_t x) {
  return _mm512_set1_epi32(x);
}
inline Codes32 load_zeros(const int32_t* p) {
  return _mm512_loadu_si512(p);
}
inline Vec difference(Codes32 a, Codes32 b) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(a, b))};
}
struct Table16 {
  __m512 values;
  explicit Table16(const float* table) : values(_mm512_loadu_ps(table)) {}
  Vec operator()(const uint8_t* p) const { return {_mm512_permutexvar_ps(widen_codes(p), values)}; }
};
struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  // Loads one by one are faster than a gather.
  __m256 half(const uint8_t* p) const {
    return _mm256_setr_ps(table[p[0]], table[p[1]], table[p[2]], table[p[3]], table[p[4]], table[p[5]],
                          table[p[6]], table[p[7]]);
  }
  Vec operator()(const uint8_t* p) const {
    return {_mm512_insertf32x8(_mm512_castps256_ps512(half(p)), half(p + 8), 1)};
  }
};
#elif defined(__AVX2__)
using Codes32 = __m256i;
inline Codes32 widen_codes(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Codes32 all_codes(int32_t x) {
  return _mm256_set1_epi32(x);
}
inline Codes32 load_zeros(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Vec difference(Codes32 a, Codes32 b) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(a, b))};
}
struct Table16 {
  __m256 low, high;
  explicit Table16(const float* table) : low(_mm256_loadu_ps(table)), high(_mm256_loadu_ps(table + 8)) {}
  Vec operator()(const uint8_t* p) const {
    const __m256i codes = widen_codes(p);
    const __m256 of_high = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));  // bit 3 as the sign
    return {_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes),
                             of_high)};
  }
};
struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  // Loads one by one are faster than a gather.
  Vec operator()(const uint8_t* p) const {
    return {_mm256_setr_ps(table[p[0]], table[p[1]], table[p[2]], table[p[3]], table[p[4]], table[p[5]],
                           table[p[6]], table[p[7]])};
  }
};
#else
using Codes32 = __m128i;
inline Codes32 widen_codes(const uint8_t* p) {
  int32_t four = 0;
  std::memcpy(&four, p, sizeof four);
  return _mm_cvtepu8_epi32(_mm_cvtsi32_si128(four));
}
inline Codes32 all_codes(int32_t x) {
  return _mm_set1_epi32(x);
}
inline Codes32 load_zeros(const int32_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline Vec difference(Codes32 a, Codes32 b) {
  return {_mm_cvtepi32_ps(_mm_sub_epi32(a, b))};
}
struct Table256 {
  const float* table;
  explicit Table256(const float* values) : table(values) {}
  Vec operator()(const uint8_t* p) const {
    return {_mm_setr_ps(table[p[0]], table[p[1]], table[p[2]], table[p[3]])};
  }
};
using Table16 = Table256;
#endif

/// y[i] ← value(codes + i) for n codes; the last ones are read from a copy.
template <typename Value>
inline void each_vector(const uint8_t* codes, int64_t n, float* y, const Value& value) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width) store(y + i, value(codes + i));
  if (i == n) return;
  uint8_t last[Vec::width] = {};
  std::memcpy(last, codes + i, static_cast<size_t>(n - i));
  store_partial(y + i, n - i, value(last));
}

/// Calls run(codes, n, group, y) for each stretch of one group.
template <typename Run>
inline void each_group(const CodeRow& row, const Run& run) {
  int64_t at = 0;
  for (int64_t group = 0; at < row.n; ++group) {
    const int64_t whole = group == 0 ? row.first : row.group;
    const int64_t n = whole < row.n - at ? whole : row.n - at;
    run(row.codes + at, n, group, row.out + at);
    at += n;
  }
}

template <typename Table>
inline void look_up(const CodeRow& row) {
  const Table table(row.values);
  each_group(row, [&](const uint8_t* codes, int64_t n, int64_t group, float* y) {
    const Vec scale = broadcast(row.scales[group]);
    each_vector(codes, n, y, [&](const uint8_t* p) { return table(p) * scale; });
  });
}

void dequantize(const CodeRow& row) {
  if (row.values != nullptr) {
    if (row.value_count == 16)
      look_up<Table16>(row);
    else
      look_up<Table256>(row);
    return;
  }
  each_group(row, [&](const uint8_t* codes, int64_t n, int64_t group, float* y) {
    const Vec scale = broadcast(row.scales[group]);
    const Codes32 zero = all_codes(row.zeros[group]);
    each_vector(codes, n, y, [&](const uint8_t* p) { return difference(widen_codes(p), zero) * scale; });
  });
}

void dequantize_each(const uint8_t* codes, int64_t n, const int32_t* zeros, const float* scales, float* y) {
  int64_t i = 0;
  for (; i + Vec::width <= n; i += Vec::width)
    store(y + i, difference(widen_codes(codes + i), load_zeros(zeros + i)) * load(scales + i));
  for (; i < n; ++i) y[i] = static_cast<float>(codes[i] - zeros[i]) * scales[i];
}

}  // namespace
}  // namespace qeval::model
