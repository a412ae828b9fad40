// GGUF blocks whose codes stand for entries of a grid. Fields as in block_formats.cc; 256 elements each.
//
// clang-format off
//   IQ2_XXS  half d; u32 a[8][2]                                         x = ((d·(½ + s))/4)·(±g)
//   IQ2_XS   half d; u16 q[32]; nibbles s[8]                             x = ((d·(½ + s))/4)·(±g)
//   IQ2_S    half d; q[32]; signs[32]; crumbs h[8]; nibbles s[8]         x = ((d·(½ + s))/4)·(±g)
//   IQ3_XXS  half d; q[64]; u32 a[8]                                     x = ((d·(½ + s))/2)·(±g)
//   IQ3_S    half d; q[64]; bits h[8]; signs[32]; nibbles s[4]           x = (d·(1 + 2s))·(±g)
//   IQ1_S    half d; q[32]; u16 h[8]                                     x = (d·(1 + 2s))·(g ± ⅛)
//   IQ1_M    q[32]; nibbles h[16]; u16 s[4]                              x = (d·(1 + 2s))·(g ± ⅛)
// clang-format on
//
// Elements come in 8 runs b of 4 groups l of 8; a group is an entry of the grid (IQ3: two of 4 values),
// chosen by a byte q with further bits from h. Signs: bit j set makes value j of a group negative; seven bits
// lack the eighth, which makes the number of ones even.
//   IQ2_XXS  byte l of a[b][0] is q; a[b][1] holds 7 bits of signs per group and s in its top nibble
//   IQ2_XS   9 bits of entry below 7 bits of signs; nibble l/2 of s[b]
//   IQ2_S    crumb l of h[b]; nibble l/2 of s[b]
//   IQ3_XXS  a[b] as a[b][1] of IQ2_XXS
//   IQ3_S    bit k of h[b] for entry k of the run; nibble b of s
//   IQ1_S    h[b]: 3 bits per group, s in the next three, and the sign of ⅛ in the top bit
//   IQ1_M    nibble 4b + l of h: 3 bits, and the sign of ⅛ above; s[k/4] has 3 bits for 16 elements k, and in
//            its top nibble a quarter of the bits of the half d, s[0] the lowest

#include "model/checkpoint/block_formats.h"
#include "model/checkpoint/iq_grids.h"

namespace qeval::model {
namespace {

constexpr int kRuns = 8, kGroups = 4;

/// A byte of all ones for every bit that is set: what to negate of eight bytes.
constexpr std::array<uint64_t, 256> spread_bits() {
  std::array<uint64_t, 256> masks{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    for (unsigned j = 0; j < 8; ++j) masks[bits] |= (bits >> j & 1U) != 0 ? uint64_t{0xFF} << (8 * j) : 0;
  }
  return masks;
}
constexpr std::array<uint64_t, 256> kNegated = spread_bits();

/// The eighth sign for seven.
unsigned even_signs(uint32_t seven) {
  return (seven & 127U) | (static_cast<unsigned>(std::popcount(seven & 127U)) & 1U) << 7;
}

uint64_t two_entries(const auto& grid, unsigned first, unsigned second) {
  return grid[first] | static_cast<uint64_t>(grid[second]) << 32;
}

/// A group: `values` with the signs of `signs`, times the scale.
void write_group(uint64_t values, unsigned signs, float scale, float* out) {
  const Bytes negated = bytes_of(kNegated[signs], 0);
  Floats4 wide[4];
  widen_16_bytes((bytes_of(values, 0) ^ negated) - negated, wide);
  for (int i = 0; i < 2; ++i) store_4(out + 4 * i, wide[i] * scale);
}

/// A group of IQ1: values and `delta`, times the scale.
void write_shifted_group(uint64_t values, float delta, float scale, float* out) {
  Floats4 wide[4];
  widen_16_bytes(bytes_of(values, 0), wide);
  for (int i = 0; i < 2; ++i) store_4(out + 4 * i, scale * (wide[i] + delta));
}

/// What is added to values of IQ1, by the bit that says its sign: a branch on random bits costs more than the
/// rest.
constexpr std::array<float, 2> kDeltas{0.125F, -0.125F};

float odd_scale(float d, unsigned s) {
  return d * static_cast<float>(2 * s + 1);
}

float half_scale(float d, unsigned s) {
  return d * (0.5F + static_cast<float>(s));
}

}  // namespace

void decode_iq2_xxs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int b = 0; b < kRuns; ++b) {
    const uint32_t entries = load_u32(block + 2 + 8 * b), rest = load_u32(block + 6 + 8 * b);
    const float scale = half_scale(d, rest >> 28) * 0.25F;
    for (int l = 0; l < kGroups; ++l, out += 8)
      write_group(kIq2XxsGrid[entries >> (8 * l) & 255U], even_signs(rest >> (7 * l)), scale, out);
  }
}

void decode_iq2_xs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t *codes = block + 2, *scales = block + 66;
  for (int b = 0; b < kRuns; ++b) {
    const float scale[2] = {half_scale(d, scales[b] & 15U) * 0.25F, half_scale(d, scales[b] >> 4) * 0.25F};
    for (int l = 0; l < kGroups; ++l, out += 8) {
      const unsigned q = load_u16(codes + 8 * b + 2 * l);
      write_group(kIq2XsGrid[q & 511U], even_signs(q >> 9), scale[l / 2], out);
    }
  }
}

void decode_iq2_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t *q = block + 2, *signs = block + 34, *high = block + 66, *scales = block + 74;
  for (int b = 0; b < kRuns; ++b) {
    const float scale[2] = {half_scale(d, scales[b] & 15U) * 0.25F, half_scale(d, scales[b] >> 4) * 0.25F};
    for (int l = 0; l < kGroups; ++l, out += 8) {
      const unsigned entry = q[4 * b + l] | (high[b] >> (2 * l) & 3U) << 8;
      write_group(kIq2SGrid[entry], signs[4 * b + l], scale[l / 2], out);
    }
  }
}

void decode_iq3_xxs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t* q = block + 2;
  for (int b = 0; b < kRuns; ++b) {
    const uint32_t rest = load_u32(block + 66 + 4 * b);
    const float scale = half_scale(d, rest >> 28) * 0.5F;
    for (int l = 0; l < kGroups; ++l, q += 2, out += 8)
      write_group(two_entries(kIq3XxsGrid, q[0], q[1]), even_signs(rest >> (7 * l)), scale, out);
  }
}

void decode_iq3_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t *q = block + 2, *high = block + 66, *signs = block + 74, *scales = block + 106;
  for (int b = 0; b < kRuns; ++b) {
    const float scale = odd_scale(d, scales[b / 2] >> (4 * (b % 2)) & 15U);
    for (int l = 0; l < kGroups; ++l, q += 2, out += 8) {
      const unsigned first = q[0] | (high[b] >> (2 * l) & 1U) << 8;
      const unsigned second = q[1] | (high[b] >> (2 * l + 1) & 1U) << 8;
      write_group(two_entries(kIq3SGrid, first, second), signs[4 * b + l], scale, out);
    }
  }
}

void decode_iq1_s(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const uint8_t* q = block + 2;
  for (int b = 0; b < kRuns; ++b) {
    const unsigned high = load_u16(block + 34 + 2 * b);
    const float scale = odd_scale(d, high >> 12 & 7U), delta = kDeltas[high >> 15];
    for (int l = 0; l < kGroups; ++l, ++q, out += 8)
      write_shifted_group(kIq1SGrid[*q | (high >> (3 * l) & 7U) << 8], delta, scale, out);
  }
}

void decode_iq1_m(const uint8_t* block, float* out) {
  const uint8_t *q = block, *high = block + 32, *scales = block + 48;
  unsigned half = 0;
  for (int i = 0; i < 4; ++i) half |= static_cast<unsigned>(load_u16(scales + 2 * i) >> 12) << (4 * i);
  const float d = half_to_float(static_cast<uint16_t>(half));
  for (int k = 0; k < 2 * kRuns; ++k) {  // 16 elements, two groups
    const float scale = odd_scale(d, load_u16(scales + k / 4 * 2) >> (3 * (k % 4)) & 7U);
    for (int l = 0; l < 2; ++l, ++q, out += 8) {
      const unsigned nibble = high[k] >> (4 * l) & 15U;
      write_shifted_group(kIq1SGrid[*q | (nibble & 7U) << 8], kDeltas[nibble >> 3], scale, out);
    }
  }
}

}  // namespace qeval::model
