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
// A type: bytes and elements of a block; the codes of a run of 32, as signed bytes; scales, and what is added
// where there are minima. Of a block of 32: those of eight rows. Of 256: the 8 or 16 of one row.

struct Flat {
  static constexpr int kElements = 32;
  static constexpr bool kMinima = false;
};
struct WithMinima : Flat {
  static constexpr bool kMinima = true;
  static __m256 scale(const uint8_t* const* b) { return halves(b, 0); }
  static __m256 minimum(const uint8_t* const* b) { return halves(b, 2); }
};
struct Q80 : Flat {
  static constexpr int kBytes = 34;
  static __m256i codes(const uint8_t* b, int) { return load32(b + 2); }
  static __m256 scale(const uint8_t* const* b) { return halves(b, 0); }
};
struct Q40 : Flat {
  static constexpr int kBytes = 18;
  static __m256i codes(const uint8_t* b, int) { return _mm256_sub_epi8(nibbles(b + 2), all(8)); }
  static __m256 scale(const uint8_t* const* b) { return halves(b, 0); }
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
  static __m256 scale(const uint8_t* const* b) { return halves(b, 0); }
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
  static __m256 scale(const uint8_t* const* b) { return halves(b, 0); }
};
struct Mxfp4 : Flat {
  static constexpr int kBytes = 17;
  static __m256i codes(const uint8_t* b, int) {
    return look_up(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), nibbles(b + 1));
  }
  static __m256 scale(const uint8_t* const* b) {
    return _mm256_castsi256_ps(integers(b, [](const uint8_t* own) {
      return static_cast<int32_t>(own[0] < 2 ? 0x00200000U << own[0] : (own[0] - 1U) << 23);
    }));
  }
};

/// out [8] ← factor · numbers.
inline void scaled(__m128i eight_bytes, float factor, float* out) {
  const __m256 numbers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight_bytes));
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(factor), numbers));
}
inline void scaled16(__m128i bytes, float factor, float* out) {
  scaled(bytes, factor, out);
  scaled(_mm_srli_si128(bytes, 8), factor, out + 8);
}
inline float half(const uint8_t* from) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(u16(from))));
}
inline uint32_t u32(const uint8_t* from) {
  uint32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

struct Super {
  static constexpr int kElements = 256, kScales = 16;
  static constexpr bool kMinima = false;
};
/// Scales and minima of six bits: bytes 0 – 3 have scales 0 – 3 and bytes 4 – 7 minima 0 – 3 in their low six
/// bits; bytes 8 – 11 the low nibbles of scales 4 – 7 and of minima 4 – 7, whose upper bits are above those
/// six.
struct SixBits : Super {
  static constexpr int kScales = 8;
  static constexpr bool kMinima = true;
  static void scales(const uint8_t* b, float* scale, float* minimum) {
    const uint32_t first = u32(b + 4), second = u32(b + 8), third = u32(b + 12);
    const uint32_t low = 0x3F3F3F3FU, nibble = 0x0F0F0F0FU, upper = 0x30303030U;
    scaled(_mm_set_epi32(0, 0, static_cast<int>((third & nibble) | (first >> 2 & upper)),
                         static_cast<int>(first & low)),
           half(b), scale);
    scaled(_mm_set_epi32(0, 0, static_cast<int>((third >> 4 & nibble) | (second >> 2 & upper)),
                         static_cast<int>(second & low)),
           -half(b + 2), minimum);
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
  static void scales(const uint8_t* b, float* scale, float*) {
    scaled16(load16(b + 192), half(b + 208), scale);
  }
};
struct Q2K : Super {
  static constexpr int kBytes = 84;
  static constexpr bool kMinima = true;
  static __m256i codes(const uint8_t* b, int run) { return field(b + 16 + run / 4 * 32, run % 4 * 2, 3); }
  static void scales(const uint8_t* b, float* scale, float* minimum) {
    const __m128i both = load16(b), mask = _mm_set1_epi8(15);
    scaled16(_mm_and_si128(both, mask), half(b + 80), scale);
    scaled16(_mm_and_si128(_mm_srli_epi16(both, 4), mask), -half(b + 82), minimum);
  }
};
struct Q3K : Super {
  static constexpr int kBytes = 110;
  static __m256i codes(const uint8_t* b, int run) {
    const __m256i third = _mm256_slli_epi16(field(b, run, 1), 2);
    return _mm256_sub_epi8(_mm256_or_si256(field(b + 32 + run / 4 * 32, run % 4 * 2, 3), third), all(4));
  }
  static void scales(const uint8_t* b, float* scale, float*) {
    // Low nibbles of scales 0 – 7, then of 8 – 15 above them; two upper bits of scale s in byte 8 + s % 4.
    const uint32_t first = u32(b + 96), second = u32(b + 100), third = u32(b + 104);
    const uint32_t nibble = 0x0F0F0F0FU, upper = 0x30303030U;
    const __m128i numbers = _mm_set_epi32(static_cast<int>((second >> 4 & nibble) | (third >> 2 & upper)),
                                          static_cast<int>((first >> 4 & nibble) | (third & upper)),
                                          static_cast<int>((second & nibble) | (third << 2 & upper)),
                                          static_cast<int>((first & nibble) | (third << 4 & upper)));
    scaled16(_mm_sub_epi8(numbers, _mm_set1_epi8(32)), half(b + 108), scale);
  }
};
struct Iq4Xs : Super {
  static constexpr int kBytes = 136, kScales = 8;
  static __m256i codes(const uint8_t* b, int run) { return look_up(iq4_table(), nibbles(b + 8 + 16 * run)); }
  static void scales(const uint8_t* b, float* scale, float*) {
    const float d = half(b);
    const int high = u16(b + 2);
    for (int run = 0; run < 8; ++run) {
      const int s = (b[4 + run / 2] >> (4 * (run % 2)) & 15) | (high >> (2 * run) & 3) << 4;
      scale[run] = d * static_cast<float>(s - 32);
    }
  }
};

/// out [columns, 8] ← eight rows of `columns` floats, 16 apart.
inline void turn_floats(const float (&rows)[8][16], int columns, float* out) {
  for (int first = 0; first < columns; first += 8) {
    __m256 r[8], t[8];
    for (int j = 0; j < 8; ++j) r[j] = _mm256_load_ps(rows[j] + first);
    for (int j = 0; j < 8; j += 2) {
      t[j] = _mm256_unpacklo_ps(r[j], r[j + 1]);
      t[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
    }
    for (int j = 0; j < 8; j += 4) {
      r[j] = _mm256_shuffle_ps(t[j], t[j + 2], 0x44);
      r[j + 1] = _mm256_shuffle_ps(t[j], t[j + 2], 0xEE);
      r[j + 2] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0x44);
      r[j + 3] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0xEE);
    }
    for (int j = 0; j < 4; ++j) {
      _mm256_store_ps(out + 8 * (first + j), _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
      _mm256_store_ps(out + 8 * (first + j + 4), _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
    }
  }
}

/// Scales and minima of eight rows' blocks, [sub-blocks, 8].
template <typename Type>
struct Scales {
  alignas(32) float scale[16 * 8];
  alignas(32) float minimum[16 * 8];

  void read(const uint8_t* const* blocks) {
    if constexpr (Type::kElements == kRun) {
      _mm256_store_ps(scale, Type::scale(blocks));
      if constexpr (Type::kMinima) _mm256_store_ps(minimum, Type::minimum(blocks));
    } else {
      alignas(32) float rows[8][16];
      alignas(32) float least[8][16];
      for (int j = 0; j < 8; ++j) Type::scales(blocks[j], rows[j], least[j]);
      turn_floats(rows, Type::kScales, scale);
      if constexpr (Type::kMinima) turn_floats(least, Type::kScales, minimum);
    }
  }
  /// Where those of half a run are.
  static int at(int run, int part) {
    if constexpr (Type::kElements == kRun)
      return 0;
    else
      return 8 * (Type::kScales == 8 ? run : 2 * run + part);
  }
};

/// columns [32, 8] ← 32 bytes of each of eight rows.
inline void turn(__m256i (&rows)[8], int8_t* columns) {
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
  // Four bytes of each of the rows 0 … 3, then of 4 … 7, to four of a column, and columns whole.
  const __m256i by_column = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8,
                                             12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m256i whole = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto put = [&](int quad, __m256i x) __attribute__((always_inline)) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(columns + 32 * quad),
                       _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(x, by_column), whole));
  };
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    put(j, _mm256_permute2x128_si256(rows[j], rows[j + 4], 0x20));
    put(j + 4, _mm256_permute2x128_si256(rows[j], rows[j + 4], 0x31));
  }
}

/// `groups` times eight rows by a run of 32 columns, added to their chains; chains side by side hide one
/// another's latency.
template <typename Type, int groups>
inline void add_run(const uint8_t* const* blocks, const Scales<Type>* scales, int run, const float* x,
                    __m256 (&sums)[groups]) {
  alignas(32) int8_t columns[groups][kRun * 8];
  for (int g = 0; g < groups; ++g) {
    __m256i rows[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) rows[j] = Type::codes(blocks[8 * g + j], run);
    turn(rows, columns[g]);
  }
  for (int part = 0; part < 2; ++part) {
    const int at = Scales<Type>::at(run, part);
    __m256 scale[groups], minimum[groups];
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      scale[g] = _mm256_load_ps(scales[g].scale + at);
      if constexpr (Type::kMinima) minimum[g] = _mm256_load_ps(scales[g].minimum + at);
    }
    for (int column = 16 * part; column < 16 * part + 16; ++column) {
      const __m256 input = _mm256_broadcast_ss(x + column);
#pragma GCC unroll 4
      for (int g = 0; g < groups; ++g) {
        const __m256i codes =
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns[g] + 8 * column)));
        __m256 w = _mm256_mul_ps(scale[g], _mm256_cvtepi32_ps(codes));
        if constexpr (Type::kMinima) w = _mm256_add_ps(w, minimum[g]);
        sums[g] = _mm256_fmadd_ps(input, w, sums[g]);
      }
    }
  }
}

/// `groups` times eight rows side by side.
template <typename Type, int groups>
inline void side_by_side(const RowDots& d, int64_t first) {
  const uint8_t* blocks[8 * groups];
  for (int j = 0; j < 8 * groups; ++j) blocks[j] = static_cast<const uint8_t*>(d.rows[first + j]);
  __m256 sums[groups];
  for (int g = 0; g < groups; ++g) sums[g] = _mm256_loadu_ps(d.sums + first + 8 * g);
  for (int64_t i = 0; i < d.k; i += Type::kElements) {
    Scales<Type> scales[groups];
    for (int g = 0; g < groups; ++g) scales[g].read(blocks + 8 * g);
    for (int run = 0; run < Type::kElements / kRun; ++run)
      add_run<Type, groups>(blocks, scales, run, d.x + i + kRun * run, sums);
    for (int j = 0; j < 8 * groups; ++j) {
      for (int line = 0; line < Type::kBytes; line += 64)
        _mm_prefetch(blocks[j] + d.ahead + line, _MM_HINT_T1);
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
