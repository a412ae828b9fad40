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
  Bytes low, high;
  LookedUp(const std::array<int8_t, 16>& values, const uint8_t* q) {
    const Bytes codes = load_16(q), table = load_16(values.data());
    low = look_up(table, low_nibbles(codes));
    high = look_up(table, high_nibbles(codes));
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
    const auto low = std::bit_cast<std::array<uint64_t, 2>>(found.low),
               high = std::bit_cast<std::array<uint64_t, 2>>(found.high);
    for (size_t i = 0; i < 2; ++i)
      scale_16_bytes(bytes_of(low[i], high[i]), kHalfScales[scales[i]], out + 32 * pair + 16 * i);
  }
}

namespace {

/// Values −1, 0, 1 for the leading digit of 16 bytes x, which is 3x / 256 rounded down: 1 from 86 on, 2 from
/// 171.
Bytes leading_digits(Bytes x) {
  return std::bit_cast<Bytes>(x < 86) - std::bit_cast<Bytes>(x >= 171);  // -1 where so
}

}  // namespace

void decode_tq1_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 52);
  const auto run = [&](const uint8_t* q, int bytes) {
    for (int m = 0; m < bytes; m += 16) {
      Bytes x = load_16(q + m);
      for (int k = 0; k < 5; ++k, x = x + x + x) scale_16_bytes(leading_digits(x), d, out + k * bytes + m);
    }
    out += 5 * bytes;
  };
  run(block, 32);
  run(block + 32, 16);
  Bytes last = bytes_of(load_u32(block + 48), 0);
  for (int k = 0; k < 4; ++k, last = last + last + last) {
    Floats4 wide[4];
    widen_16_bytes(leading_digits(last), wide);
    store_4(out + 4 * k, wide[0] * d);
  }
}

void decode_tq2_0(const uint8_t* block, float* out) {
  const float d = load_half(block + 64);
  for (int half = 0; half < 4; ++half) {  // 16 bytes, half a run
    const Bytes bytes = load_16(block + 16 * half);
    float* x = out + 128 * (half / 2) + 16 * (half % 2);
    scale_16_bytes(crumbs(bytes, 0) - 1, d, x);
    scale_16_bytes(crumbs(bytes, 1) - 1, d, x + 32);
    scale_16_bytes(crumbs(bytes, 2) - 1, d, x + 64);
    scale_16_bytes(crumbs(bytes, 3) - 1, d, x + 96);
  }
}

void decode_q1_0(const uint8_t* block, float* out) {
  using Four [[gnu::vector_size(16)]] = uint32_t;
  const Four d = Four{} + std::bit_cast<uint32_t>(load_half(block));
  constexpr Four kLow{1, 2, 4, 8}, kHigh{16, 32, 64, 128};
  const auto select = [&](uint32_t byte, Four bits, float* x) {
    const auto clear = std::bit_cast<Four>((bits & byte) == 0);
    store_4(x, std::bit_cast<Floats4>(d ^ (clear & 0x80000000U)));
  };
  for (int i = 0; i < 16; ++i) {
    select(block[2 + i], kLow, out + 8 * i);
    select(block[2 + i], kHigh, out + 8 * i + 4);
  }
}

void decode_q2_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const Bytes bytes = load_16(block + 2);
  // Bytes of four vectors to the order of elements.
  const Bytes even[] = {interleave_first(crumbs(bytes, 0), crumbs(bytes, 2)),
                        interleave_second(crumbs(bytes, 0), crumbs(bytes, 2))};
  const Bytes odd[] = {interleave_first(crumbs(bytes, 1), crumbs(bytes, 3)),
                       interleave_second(crumbs(bytes, 1), crumbs(bytes, 3))};
  for (int i = 0; i < 2; ++i) {
    scale_16_bytes(interleave_first(even[i], odd[i]) - 1, d, out + 32 * i);
    scale_16_bytes(interleave_second(even[i], odd[i]) - 1, d, out + 32 * i + 16);
  }
}

}  // namespace qeval::model
