// GGUF blocks of 4-bit codes for a table of 16 values, and of ternary and binary codes. Fields as in
// block_formats.cc.
//
// clang-format off
//   IQ4_NL  32   half d; nibbles q[16]                                        x = d·t[q]
//   IQ4_XS  256  half d; u16 h; low[4]; nibbles q[128]                        x = (d·(s − 32))·t[q]
//   MXFP4   32   e; nibbles q[16]                                             x = 2^(e − 128)·f[q]
//   NVFP4   64   s[4] (unsigned E4M3); nibbles q[32]                          x = (s/2)·f[q]
//   TQ1_0   256  base 3: q[48], q[4]; half d                                  x = d·(q − 1)
//   TQ2_0   256  crumbs q[64]; half d                                         x = d·(q − 1)
//   Q1_0    128  half d; bits q[16]                                           x = d or −d
//   Q2_0    64   half d; crumbs q[16]                                         x = d·(q − 1)
// clang-format on
//
// IQ4: 32 elements share a scale; 16 bytes hold the first 16 of them in the low nibbles, the others in the
// high ones. The scale s of run b of IQ4_XS is nibble b of `low` below bits 2b and 2b + 1 of h.
// f is E2M1 doubled, hence the halved scales; code 8 is +0. NVFP4 has a scale and 8 bytes for 16 elements;
// scales of 0 and 0x7F are 0, the sign bit is not read.
// TQ2_0 has two runs of 32 bytes for 128 elements: crumb k of byte m is element 32k + m of the run. TQ1_0 has
// runs of 32, 16 and 4 bytes: digit k of byte m is element (bytes)·k + m of the run; digit k of byte q is
// (q·3ᵏ mod 256)·3 / 256, rounded down; five digits a byte, in the last run four. Q1_0 and Q2_0 hold the
// elements in order, the first in the lowest bits.

#include <array>

#include "model/checkpoint/block_formats.h"

namespace qeval::model {
namespace {

alignas(16) constexpr std::array<int8_t, 16> kIq4Values{-127, -104, -83, -65, -49, -35, -22, -10,
                                                        1,    13,   25,  38,  53,  69,  89,  113};
alignas(16) constexpr std::array<int8_t, 16> kDoubledE2m1{0, 1,  2,  3,  4,  6,  8,  12,
                                                          0, -1, -2, -3, -4, -6, -8, -12};

/// Half the value of every unsigned E4M3 byte (bias 7).
constexpr std::array<float, 256> half_scales() {
  std::array<float, 256> halves{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const unsigned exponent = byte >> 3 & 15U, mantissa = byte & 7U;
    if (byte == 0x7F) continue;
    // 2⁻¹⁰·m, or 2^(exponent − 8)·(1 + m/8) = 2^(exponent − 11)·(8 + m)
    float value = static_cast<float>(exponent == 0 ? mantissa : 8 + mantissa) / 1024.0F;
    for (unsigned i = 1; i < exponent; ++i) value *= 2.0F;
    halves[byte] = value;
  }
  return halves;
}
constexpr std::array<float, 256> kHalfScales = half_scales();

/// The table's values for the low and the high nibbles of 16 bytes.
struct LookedUp {
  __m128i low, high;
  LookedUp(const std::array<int8_t, 16>& values, const uint8_t* q) {
    const __m128i codes = load_16(q), table = load_16(values.data());
    low = _mm_shuffle_epi8(table, low_nibbles(codes));
    high = _mm_shuffle_epi8(table, high_nibbles(codes));
  }
};

void decode_32(const std::array<int8_t, 16>& values, const uint8_t* q, float scale, float* out) {
  const LookedUp found(values, q);
  scale_16_bytes(found.low, scale, out);
  scale_16_bytes(found.high, scale, out + 16);
}

}  // namespace

void decode_iq4_nl(const uint8_t* block, float* out) {
  decode_32(kIq4Values, block + 2, load_half(block), out);
}

void decode_iq4_xs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const unsigned high = load_u16(block + 2);
  const uint8_t* low = block + 4;
  for (unsigned run = 0; run < 8; ++run) {
    const unsigned s = (low[run / 2] >> (4 * (run % 2)) & 15U) | (high >> (2 * run) & 3U) << 4;
    const float scale = d * static_cast<float>(static_cast<int>(s) - 32);
    decode_32(kIq4Values, block + 8 + 16 * run, scale, out + 32 * run);
  }
}

void decode_mxfp4(const uint8_t* block, float* out) {
  // 2⁻¹²⁸ and 2⁻¹²⁷ are subnormal.
  const uint32_t e = block[0], bits = e < 2 ? 0x00200000U << e : (e - 1) << 23;
  decode_32(kDoubledE2m1, block + 1, std::bit_cast<float>(bits), out);
}

void decode_nvfp4(const uint8_t* block, float* out) {
  for (int pair = 0; pair < 2; ++pair) {
    const LookedUp found(kDoubledE2m1, block + 4 + 16 * pair);
    const uint8_t* scales = block + 2 * pair;
    scale_16_bytes(_mm_unpacklo_epi64(found.low, found.high), kHalfScales[scales[0]], out + 32 * pair);
    scale_16_bytes(_mm_unpackhi_epi64(found.low, found.high), kHalfScales[scales[1]], out + 32 * pair + 16);
  }
}

namespace {

/// Values −1, 0, 1 for the leading digit of 16 bytes x, which is 3x / 256 rounded down: 1 from 86 on, 2 from
/// 171.
__m128i leading_digits(__m128i x) {
  const __m128i one = _mm_set1_epi8(86), two = _mm_set1_epi8(static_cast<char>(171));
  const __m128i from_one = _mm_cmpeq_epi8(_mm_max_epu8(x, one), x);  // -1 where so
  const __m128i from_two = _mm_cmpeq_epi8(_mm_max_epu8(x, two), x);
  return _mm_sub_epi8(_mm_set1_epi8(-1), _mm_add_epi8(from_one, from_two));
}

__m128i tripled(__m128i x) {
  return _mm_add_epi8(x, _mm_add_epi8(x, x));
}

}  // namespace

void decode_tq1_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 52);
  const auto run = [&](const uint8_t* q, int bytes) {
    for (int m = 0; m < bytes; m += 16) {
      __m128i x = load_16(q + m);
      for (int k = 0; k < 5; ++k, x = tripled(x)) scale_16_bytes(leading_digits(x), d, out + k * bytes + m);
    }
    out += 5 * bytes;
  };
  run(block, 32);
  run(block + 32, 16);
  __m128i last = _mm_cvtsi32_si128(static_cast<int>(load_u32(block + 48)));
  for (int k = 0; k < 4; ++k, last = tripled(last))
    scale_4_bytes(leading_digits(last), _mm_set1_ps(d), out + 4 * k);
}

void decode_tq2_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 64);
  const __m128i one = _mm_set1_epi8(1);
  for (int half = 0; half < 4; ++half) {  // 16 bytes, half a run
    const __m128i bytes = load_16(block + 16 * half);
    float* x = out + 128 * (half / 2) + 16 * (half % 2);
    scale_16_bytes(_mm_sub_epi8(crumbs(bytes, 0), one), d, x);
    scale_16_bytes(_mm_sub_epi8(crumbs(bytes, 1), one), d, x + 32);
    scale_16_bytes(_mm_sub_epi8(crumbs(bytes, 2), one), d, x + 64);
    scale_16_bytes(_mm_sub_epi8(crumbs(bytes, 3), one), d, x + 96);
  }
}

void decode_q1_0(const uint8_t* block, float* out) {
  const __m128 d = _mm_set1_ps(load_half(block)), sign = _mm_set1_ps(-0.0F);
  const __m128i low = _mm_setr_epi32(1, 2, 4, 8), high = _mm_setr_epi32(16, 32, 64, 128);
  const auto select = [&](__m128i byte, __m128i bits, float* x) {
    const __m128i clear = _mm_cmpeq_epi32(_mm_and_si128(byte, bits), _mm_setzero_si128());
    _mm_storeu_ps(x, _mm_xor_ps(d, _mm_and_ps(_mm_castsi128_ps(clear), sign)));
  };
  for (int i = 0; i < 16; ++i) {
    const __m128i byte = _mm_set1_epi32(block[2 + i]);
    select(byte, low, out + 8 * i);
    select(byte, high, out + 8 * i + 4);
  }
}

void decode_q2_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const __m128i bytes = load_16(block + 2), one = _mm_set1_epi8(1);
  const __m128i first = crumbs(bytes, 0), second = crumbs(bytes, 1), third = crumbs(bytes, 2),
                fourth = crumbs(bytes, 3);
  // Bytes of four vectors to the order of elements.
  const auto write = [&](__m128i pairs, __m128i further, float* x) {
    scale_16_bytes(_mm_sub_epi8(_mm_unpacklo_epi16(pairs, further), one), d, x);
    scale_16_bytes(_mm_sub_epi8(_mm_unpackhi_epi16(pairs, further), one), d, x + 16);
  };
  write(_mm_unpacklo_epi8(first, second), _mm_unpacklo_epi8(third, fourth), out);
  write(_mm_unpackhi_epi8(first, second), _mm_unpackhi_epi8(third, fourth), out + 32);
}

}  // namespace qeval::model
