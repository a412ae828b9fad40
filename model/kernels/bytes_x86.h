#pragma once

#include <bit>

#include <immintrin.h>

namespace qeval::model {

inline Bytes look_up(Bytes table, Bytes codes) {
  return std::bit_cast<Bytes>(_mm_shuffle_epi8(std::bit_cast<__m128i>(table), std::bit_cast<__m128i>(codes)));
}

inline void widen_16_bytes(Bytes bytes, Floats4* out) {
  auto rest = std::bit_cast<__m128i>(bytes);
  for (int i = 0; i < 4; ++i, rest = _mm_srli_si128(rest, 4))
    out[i] = _mm_cvtepi32_ps(_mm_cvtepi8_epi32(rest));
}

}  // namespace qeval::model
