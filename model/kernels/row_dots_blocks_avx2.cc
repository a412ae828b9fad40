// Row dots of ggml's blocks (model/checkpoint/block_formats.cc has the fields), to the bits of decoding them
// first: eight rows' codes are turned while they are bytes, and become floats a column at a time. Compiled
// for AVX2, F16C and FMA; no standard library call below, for the reason given in kernels_impl.h.
#include <cstring>

#include <immintrin.h>

#include "model/kernels/row_dots.h"

namespace qeval::model {
namespace {

constexpr int kRun = 32;  // elements whose codes are turned together

inline uint16_t u16(const uint8_t* from) {
  uint16_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
inline __m128i load16(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
inline __m256i load32(const uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline __m256i all(int x) {
  return _mm256_set1_epi8(static_cast<char>(x));
}
/// 32 codes of 16 bytes: the low nibbles, then the high ones.
inline __m256i nibbles(const uint8_t* from) {
  const __m128i x = load16(from);
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), all(15));
}
/// Bits [shift, shift + …) of 32 bytes, masked.
inline __m256i field(const uint8_t* from, int shift, int mask) {
  return _mm256_and_si256(_mm256_srl_epi16(load32(from), _mm_cvtsi32_si128(shift)), all(mask));
}
/// `value` where bit i of the 32 is set, in byte i.
inline __m256i where_set(const uint8_t* bits, int value) {
  int32_t word = 0;
  std::memcpy(&word, bits, sizeof(word));
  const __m256i bytes = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2,
                                         2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i each = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201U));
  const __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), bytes), each);
  return _mm256_and_si256(_mm256_cmpeq_epi8(spread, each), all(value));
}
/// Entries of a table for codes of four bits.
inline __m256i look_up(__m128i table, __m256i codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}
inline __m128i iq4_table() {
  return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

/// Of eight rows' blocks, a half at `at`, and an integer.
inline __m256 halves(const uint8_t* const* b, int64_t at) {
  return _mm256_cvtph_ps(
      _mm_setr_epi16(static_cast<int16_t>(u16(b[0] + at)), static_cast<int16_t>(u16(b[1] + at)),
                     static_cast<int16_t>(u16(b[2] + at)), static_cast<int16_t>(u16(b[3] + at)),
                     static_cast<int16_t>(u16(b[4] + at)), static_cast<int16_t>(u16(b[5] + at)),
                     static_cast<int16_t>(u16(b[6] + at)), static_cast<int16_t>(u16(b[7] + at))));
}
template <typename Of>
inline __m256i integers(const uint8_t* const* b, const Of& of) {
  return _mm256_setr_epi32(of(b[0]), of(b[1]), of(b[2]), of(b[3]), of(b[4]), of(b[5]), of(b[6]), of(b[7]));
}
template <typename Of>
inline __m256 times(__m256 scale, const uint8_t* const* b, const Of& of) {
  return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(integers(b, of)));
}
inline __m256 negative(__m256 x) {
  return _mm256_xor_ps(x, _mm256_set1_ps(-0.0F));
}

// A type: bytes and elements of a block; the codes of a run of 32, as signed bytes; of eight rows, the scale
// of half a run, and what is added where there are minima.

struct Flat {
  static constexpr int kElements = 32;
  static constexpr bool kMinima = false;
};
struct WithMinima : Flat {
  static constexpr bool kMinima = true;
  static __m256 scale(const uint8_t* const* b, int, int) { return halves(b, 0); }
  static __m256 minimum(const uint8_t* const* b, int, int) { return halves(b, 2); }
};
struct Q80 : Flat {
  static constexpr int kBytes = 34;
  static __m256i codes(const uint8_t* b, int) { return load32(b + 2); }
  static __m256 scale(const uint8_t* const* b, int, int) { return halves(b, 0); }
};
struct Q40 : Flat {
  static constexpr int kBytes = 18;
  static __m256i codes(const uint8_t* b, int) { return _mm256_sub_epi8(nibbles(b + 2), all(8)); }
  static __m256 scale(const uint8_t* const* b, int, int) { return halves(b, 0); }
};
struct Q41 : WithMinima {
  static constexpr int kBytes = 20;
  static __m256i codes(const uint8_t* b, int) { return nibbles(b + 4); }
};
struct Q50 : Flat {
  static constexpr int kBytes = 22;
  static __m256i codes(const uint8_t* b, int) {
    return _mm256_sub_epi8(_mm256_or_si256(nibbles(b + 6), where_set(b + 2, 16)), all(16));
  }
  static __m256 scale(const uint8_t* const* b, int, int) { return halves(b, 0); }
};
struct Q51 : WithMinima {
  static constexpr int kBytes = 24;
  static __m256i codes(const uint8_t* b, int) {
    return _mm256_or_si256(nibbles(b + 8), where_set(b + 4, 16));
  }
};
struct Iq4Nl : Flat {
  static constexpr int kBytes = 18;
  static __m256i codes(const uint8_t* b, int) { return look_up(iq4_table(), nibbles(b + 2)); }
  static __m256 scale(const uint8_t* const* b, int, int) { return halves(b, 0); }
};
struct Mxfp4 : Flat {
  static constexpr int kBytes = 17;
  static __m256i codes(const uint8_t* b, int) {
    return look_up(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), nibbles(b + 1));
  }
  static __m256 scale(const uint8_t* const* b, int, int) {
    return _mm256_castsi256_ps(integers(b, [](const uint8_t* own) {
      return static_cast<int32_t>(own[0] < 2 ? 0x00200000U << own[0] : (own[0] - 1U) << 23);
    }));
  }
};

struct Super {
  static constexpr int kElements = 256;
  static constexpr bool kMinima = false;
};
/// Scales and minima of six bits.
struct SixBits : Super {
  static constexpr bool kMinima = true;
  static __m256 scale(const uint8_t* const* b, int run, int) {
    return times(halves(b, 0), b, [run](const uint8_t* own) {
      const uint8_t* p = own + 4;
      return run < 4 ? p[run] & 63 : (p[4 + run] & 15) | p[run - 4] >> 6 << 4;
    });
  }
  static __m256 minimum(const uint8_t* const* b, int run, int) {
    return negative(times(halves(b, 2), b, [run](const uint8_t* own) {
      const uint8_t* p = own + 4;
      return run < 4 ? p[4 + run] & 63 : p[4 + run] >> 4 | p[run] >> 6 << 4;
    }));
  }
};
struct Q4K : SixBits {
  static constexpr int kBytes = 144;
  static __m256i codes(const uint8_t* b, int run) { return field(b + 16 + run / 2 * 32, run % 2 * 4, 15); }
};
struct Q5K : SixBits {
  static constexpr int kBytes = 176;
  static __m256i codes(const uint8_t* b, int run) {
    const __m256i fifth = _mm256_slli_epi16(field(b + 16, run, 1), 4);
    return _mm256_or_si256(field(b + 48 + run / 2 * 32, run % 2 * 4, 15), fifth);
  }
};
struct Q6K : Super {
  static constexpr int kBytes = 210;
  static __m256i codes(const uint8_t* b, int run) {
    const __m256i low = field(b + run / 4 * 64 + run % 2 * 32, run % 4 / 2 * 4, 15);
    const __m256i high = field(b + 128 + run / 4 * 32, run % 4 * 2, 3);
    return _mm256_sub_epi8(_mm256_or_si256(low, _mm256_slli_epi16(high, 4)), all(32));
  }
  static __m256 scale(const uint8_t* const* b, int run, int half) {
    return times(halves(b, 208), b, [&](const uint8_t* own) {
      return static_cast<int>(static_cast<int8_t>(own[192 + 2 * run + half]));
    });
  }
};
struct Q2K : Super {
  static constexpr int kBytes = 84;
  static constexpr bool kMinima = true;
  static __m256i codes(const uint8_t* b, int run) { return field(b + 16 + run / 4 * 32, run % 4 * 2, 3); }
  static __m256 scale(const uint8_t* const* b, int run, int half) {
    return times(halves(b, 80), b, [&](const uint8_t* own) { return own[2 * run + half] & 15; });
  }
  static __m256 minimum(const uint8_t* const* b, int run, int half) {
    return negative(times(halves(b, 82), b, [&](const uint8_t* own) { return own[2 * run + half] >> 4; }));
  }
};
struct Q3K : Super {
  static constexpr int kBytes = 110;
  static __m256i codes(const uint8_t* b, int run) {
    const __m256i third = _mm256_slli_epi16(field(b, run, 1), 2);
    return _mm256_sub_epi8(_mm256_or_si256(field(b + 32 + run / 4 * 32, run % 4 * 2, 3), third), all(4));
  }
  static __m256 scale(const uint8_t* const* b, int run, int half) {
    const int s = 2 * run + half;
    return times(halves(b, 108), b, [s](const uint8_t* own) {
      const uint8_t* p = own + 96;
      return ((p[s % 8] >> (s < 8 ? 0 : 4) & 15) | (p[8 + s % 4] >> (2 * (s / 4)) & 3) << 4) - 32;
    });
  }
};
struct Iq4Xs : Super {
  static constexpr int kBytes = 136;
  static __m256i codes(const uint8_t* b, int run) { return look_up(iq4_table(), nibbles(b + 8 + 16 * run)); }
  static __m256 scale(const uint8_t* const* b, int run, int) {
    return times(halves(b, 0), b, [run](const uint8_t* own) {
      return ((own[4 + run / 2] >> (4 * (run % 2)) & 15) | (u16(own + 2) >> (2 * run) & 3) << 4) - 32;
    });
  }
};

/// quads[q] ← bytes [4q, 4q + 4) of each of eight rows.
inline void turn(__m256i (&rows)[8], __m256i (&quads)[8]) {
  __m256i t[8];
  for (int j = 0; j < 8; j += 2) {
    t[j] = _mm256_unpacklo_epi32(rows[j], rows[j + 1]);
    t[j + 1] = _mm256_unpackhi_epi32(rows[j], rows[j + 1]);
  }
  for (int j = 0; j < 8; j += 4) {
    rows[j] = _mm256_unpacklo_epi64(t[j], t[j + 2]);
    rows[j + 1] = _mm256_unpackhi_epi64(t[j], t[j + 2]);
    rows[j + 2] = _mm256_unpacklo_epi64(t[j + 1], t[j + 3]);
    rows[j + 3] = _mm256_unpackhi_epi64(t[j + 1], t[j + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    quads[j] = _mm256_permute2x128_si256(rows[j], rows[j + 4], 0x20);
    quads[j + 4] = _mm256_permute2x128_si256(rows[j], rows[j + 4], 0x31);
  }
}

/// Eight rows by a run of 32 columns, added to their chains.
template <typename Type>
inline __m256 add_run(const uint8_t* const* blocks, int run, const float* x, __m256 sums) {
  __m256i rows[8], quads[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) rows[j] = Type::codes(blocks[j], run);
  turn(rows, quads);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256 scale = Type::scale(blocks, run, half);
    __m256 minimum = _mm256_setzero_ps();
    if constexpr (Type::kMinima) minimum = Type::minimum(blocks, run, half);
    const auto add = [&](int column, __m256i codes) __attribute__((always_inline)) {
      __m256 w = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(codes));
      if constexpr (Type::kMinima) w = _mm256_add_ps(w, minimum);
      sums = _mm256_fmadd_ps(_mm256_broadcast_ss(x + column), w, sums);
    };
#pragma GCC unroll 4
    for (int q = 4 * half; q < 4 * half + 4; ++q) {
      add(4 * q, _mm256_srai_epi32(_mm256_slli_epi32(quads[q], 24), 24));
      add(4 * q + 1, _mm256_srai_epi32(_mm256_slli_epi32(quads[q], 16), 24));
      add(4 * q + 2, _mm256_srai_epi32(_mm256_slli_epi32(quads[q], 8), 24));
      add(4 * q + 3, _mm256_srai_epi32(quads[q], 24));
    }
  }
  return sums;
}

/// `groups` times eight rows side by side, so that their chains hide each other's latency.
template <typename Type, int groups>
inline void side_by_side(const RowDots& d, int64_t first) {
  const uint8_t* blocks[8 * groups];
  for (int j = 0; j < 8 * groups; ++j) blocks[j] = static_cast<const uint8_t*>(d.rows[first + j]);
  __m256 sums[groups];
  for (int g = 0; g < groups; ++g) sums[g] = _mm256_loadu_ps(d.sums + first + 8 * g);
  for (int64_t i = 0; i < d.k; i += Type::kElements) {
    for (int run = 0; run < Type::kElements / kRun; ++run) {
      const float* x = d.x + i + kRun * run;
      for (int g = 0; g < groups; ++g) sums[g] = add_run<Type>(blocks + 8 * g, run, x, sums[g]);
    }
    for (int j = 0; j < 8 * groups; ++j) {
      for (int line = 0; line < Type::kBytes; line += 64)
        _mm_prefetch(blocks[j] + d.ahead + line, _MM_HINT_T0);
      blocks[j] += Type::kBytes;
    }
  }
  for (int g = 0; g < groups; ++g) _mm256_storeu_ps(d.sums + first + 8 * g, sums[g]);
}

template <typename Type>
void row_dots_of(const RowDots& d) {
  int64_t row = 0;
  for (; row + 32 <= d.count; row += 32) side_by_side<Type, 4>(d, row);
  for (; row < d.count; row += kRowDots) side_by_side<Type, 1>(d, row);
}

}  // namespace

RowDotsKernel block_row_dots(DType type) {
  switch (type) {
    case DType::q8_0:
      return row_dots_of<Q80>;
    case DType::q4_0:
      return row_dots_of<Q40>;
    case DType::q4_1:
      return row_dots_of<Q41>;
    case DType::q5_0:
      return row_dots_of<Q50>;
    case DType::q5_1:
      return row_dots_of<Q51>;
    case DType::q2_k:
      return row_dots_of<Q2K>;
    case DType::q3_k:
      return row_dots_of<Q3K>;
    case DType::q4_k:
      return row_dots_of<Q4K>;
    case DType::q5_k:
      return row_dots_of<Q5K>;
    case DType::q6_k:
      return row_dots_of<Q6K>;
    case DType::iq4_nl:
      return row_dots_of<Iq4Nl>;
    case DType::iq4_xs:
      return row_dots_of<Iq4Xs>;
    case DType::mxfp4:
      return row_dots_of<Mxfp4>;
    default:
      return nullptr;
  }
}

}  // namespace qeval::model
