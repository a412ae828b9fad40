#include "quant/arithmetic/blocks/read_block.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "model/checkpoint/block_formats.h"
#include "quant/arithmetic/blocks/panel_form.h"

namespace qeval::quant {
namespace {

using model::DType;
using Codes = PanelForm::Codes;

constexpr int32_t kByteOffset = 128;  // of signed bytes
constexpr int32_t kE2m1Offset = 12;   // of E2M1 doubled

/// A form whose codes are entries of the type's table: `block`, its scale 1 and its nibbles 0 … 15, decoded.
PanelForm with_table(PanelForm form, void (*decode)(const uint8_t*, float*), const uint8_t* block) {
  float values[256];
  decode(block, values);
  for (size_t i = 0; i < std::size(form.table); ++i)
    form.table[i] = static_cast<uint8_t>(std::lround(values[i]) + form.offset);
  return form;
}

PanelForm iq4_form(int64_t sub_block) {
  uint8_t block[18] = {0x00, 0x3C};  // a half of 1
  for (uint8_t i = 0; i < 16; ++i) block[2 + i] = i;
  return with_table({.codes = Codes::table, .offset = kByteOffset, .sub_block = sub_block},
                    model::decode_iq4_nl, block);
}

/// Of MXFP4, and with a scale for each 16 elements of NVFP4.
PanelForm e2m1_form(bool pairs) {
  uint8_t block[17] = {128};  // 2^0
  for (uint8_t i = 0; i < 16; ++i) block[1 + i] = i;
  return with_table({.codes = Codes::table,
                     .largest = 2 * kE2m1Offset,
                     .offset = kE2m1Offset,
                     .pairs = pairs,
                     .bf16_scales = !pairs},
                    model::decode_mxfp4, block);
}

void read_nibbles(const uint8_t* from, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = from[i] & 15U;
    codes[16 + i] = static_cast<uint8_t>(from[i] >> 4U);
  }
}

/// Nibbles, and a fifth bit of each.
void read_five_bits(const uint8_t* high, const uint8_t* nibbles, uint8_t* codes) {
  read_nibbles(nibbles, codes);
  const uint32_t bits = model::load_u32(high);
  for (unsigned i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (bits >> i & 1U) << 4U);
}

void read_q2_k(const uint8_t* block, StoredBlock& out) {
  for (int s = 0; s < 16; ++s) {
    out.steps[s] = static_cast<int8_t>(block[s] & 15U);
    out.least[s] = static_cast<uint8_t>(block[s] >> 4U);
    const uint8_t* q = block + 16 + 32 * (s / 8) + 16 * (s % 2);
    const int shift = s % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) out.codes[16 * s + i] = static_cast<uint8_t>(q[i] >> shift & 3);
  }
  out.scale = model::load_u16(block + 80);
  out.minimum = model::load_u16(block + 82);
}

void read_q3_k(const uint8_t* block, StoredBlock& out) {
  const uint8_t *mask = block, *packed = block + 96;
  for (int s = 0; s < 16; ++s) {
    const int low = packed[s % 8] >> (s < 8 ? 0 : 4) & 15, high = packed[8 + s % 4] >> (2 * (s / 4)) & 3;
    out.steps[s] = static_cast<int8_t>((low | high << 4) - 32);
    const uint8_t* q = block + 32 + 32 * (s / 8) + 16 * (s % 2);
    const uint8_t* h = mask + 16 * (s % 2);
    const int shift = s % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      out.codes[16 * s + i] = static_cast<uint8_t>((q[i] >> shift & 3) | (h[i] >> (s / 2) & 1) << 2);
    }
  }
  out.scale = model::load_u16(block + 108);
}

/// Scales and minima of Q4_K and Q5_K, of six bits.
void read_six_bits(const uint8_t* packed, StoredBlock& out) {
  for (int i = 0; i < 4; ++i) {
    out.steps[i] = static_cast<int8_t>(packed[i] & 63);
    out.least[i] = packed[4 + i] & 63U;
    out.steps[4 + i] = static_cast<int8_t>((packed[8 + i] & 15) | (packed[i] >> 6) << 4);
    out.least[4 + i] = static_cast<uint8_t>(packed[8 + i] >> 4 | (packed[4 + i] >> 6) << 4);
  }
}

void read_q4_k(const uint8_t* block, StoredBlock& out) {
  out.scale = model::load_u16(block);
  out.minimum = model::load_u16(block + 2);
  read_six_bits(block + 4, out);
  for (int s = 0; s < 8; ++s) {
    const uint8_t* q = block + 16 + 32 * (s / 2);
    for (int i = 0; i < 32; ++i) out.codes[32 * s + i] = static_cast<uint8_t>(q[i] >> (4 * (s % 2)) & 15);
  }
}

void read_q5_k(const uint8_t* block, StoredBlock& out) {
  out.scale = model::load_u16(block);
  out.minimum = model::load_u16(block + 2);
  read_six_bits(block + 4, out);
  const uint8_t *high = block + 16, *quants = block + 48;
  for (int s = 0; s < 8; ++s) {
    const uint8_t* q = quants + 32 * (s / 2);
    for (int i = 0; i < 32; ++i) {
      out.codes[32 * s + i] = static_cast<uint8_t>((q[i] >> (4 * (s % 2)) & 15) | (high[i] >> s & 1) << 4);
    }
  }
}

void read_q6_k(const uint8_t* block, StoredBlock& out) {
  const uint8_t *low = block, *high = block + 128;
  for (int s = 0; s < 16; ++s) {
    out.steps[s] = static_cast<int8_t>(block[192 + s]);
    const int run = s / 2, half = s / 8, within = 16 * (s % 2);
    const uint8_t* q = low + 64 * half + 32 * (run % 2) + within;
    const uint8_t* h = high + 32 * half + within;
    for (int i = 0; i < 16; ++i) {
      out.codes[16 * s + i] =
          static_cast<uint8_t>((q[i] >> (run % 4 / 2 * 4) & 15) | (h[i] >> (2 * (run % 4)) & 3) << 4);
    }
  }
  out.scale = model::load_u16(block + 208);
}

void read_iq4_xs(const uint8_t* block, StoredBlock& out) {
  out.scale = model::load_u16(block);
  const unsigned high = model::load_u16(block + 2);
  for (unsigned run = 0; run < 8; ++run) {
    const unsigned s = (block[4 + run / 2] >> (4 * (run % 2)) & 15U) | (high >> (2 * run) & 3U) << 4U;
    out.steps[run] = static_cast<int8_t>(static_cast<int>(s) - 32);
    read_nibbles(block + 8 + 16 * run, out.codes + 32 * run);
  }
}

// Types whose codes stand for entries of a grid, or are digits: decoded with a scale of 1, their elements are
// whole numbers of unit · step.

constexpr uint16_t kHalfOne = 0x3C00;

/// Steps 2s + 1 of 16 elements each: `s` gives the scale of sub-block k.
template <typename S>
void odd_steps(StoredBlock& out, const S& s) {
  for (unsigned k = 0; k < 16; ++k) out.steps[k] = static_cast<int8_t>(2 * s(k) + 1);
}

/// The steps of a block of 256 elements, its scale, and where the scale's halves are set to 1 in `block`.
void read_grid_scales(DType type, uint8_t* block, StoredBlock& out) {
  const auto take = [&](size_t at) {
    out.scale = model::load_u16(block + at);
    std::memcpy(block + at, &kHalfOne, sizeof(kHalfOne));
  };
  const auto nibble = [&](size_t first) {  // of 16 elements
    return [block, first](unsigned k) { return block[first + k / 2] >> (4 * (k % 2)) & 15U; };
  };
  switch (type) {
    case DType::iq2_xxs:
      take(0);
      return odd_steps(out, [&](unsigned k) { return model::load_u32(block + 6 + 8 * (k / 2)) >> 28U; });
    case DType::iq2_xs:
      take(0);
      return odd_steps(out, nibble(66));
    case DType::iq2_s:
      take(0);
      return odd_steps(out, nibble(74));
    case DType::iq3_xxs:
      take(0);
      return odd_steps(out, [&](unsigned k) { return model::load_u32(block + 66 + 4 * (k / 2)) >> 28U; });
    case DType::iq3_s:
      take(0);
      return odd_steps(out, [&](unsigned k) { return nibble(106)(k / 2); });
    case DType::iq1_s:
      take(0);
      return odd_steps(out,
                       [&](unsigned k) { return model::load_u16(block + 34 + 2 * (k / 2)) >> 12U & 7U; });
    case DType::iq1_m:
      // The half is in the top nibbles of four words, the lowest first.
      out.scale = 0;
      for (size_t i = 0; i < 4; ++i) {
        uint8_t& top = block[49 + 2 * i];
        out.scale = static_cast<uint16_t>(out.scale | (top >> 4U) << (4 * i));
        top = static_cast<uint8_t>((top & 15U) | (kHalfOne >> (4 * i) & 15U) << 4U);
      }
      return odd_steps(
          out, [&](unsigned k) { return model::load_u16(block + 48 + 2 * (k / 4)) >> (3 * (k % 4)) & 7U; });
    default:  // ternary: one scale
      take(type == DType::tq1_0 ? 52 : 64);
      std::fill_n(out.steps, 16, int8_t{1});
  }
}

void read_grid(DType type, const uint8_t* stored, StoredBlock& out) {
  const PanelForm& form = *panel_form(type);
  uint8_t block[128];
  std::memcpy(block, stored, static_cast<size_t>(model::info(type).block_bytes));
  read_grid_scales(type, block, out);
  float values[256];
  model::decode(type, reinterpret_cast<const std::byte*>(block), 256, values);
  for (size_t s = 0; s < 16; ++s) {
    const float one = form.unit * static_cast<float>(out.steps[s]);
    for (size_t i = 16 * s; i < 16 * s + 16; ++i)
      out.codes[i] = static_cast<uint8_t>(static_cast<int32_t>(values[i] / one) + form.offset);  // exact
  }
}

/// Part `part` of 32 elements of Q1_0 and Q2_0: −1, 0, 1, 2 in order, the first in the lowest bits.
void read_bits(DType type, const uint8_t* block, int64_t part, StoredBlock& out) {
  out.scale = model::load_u16(block);
  if (type == DType::q1_0) {
    const uint32_t bits = model::load_u32(block + 2 + 4 * part);
    for (unsigned i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>((bits >> i & 1U) << 1U);
  } else {
    const uint8_t* q = block + 2 + 8 * part;
    for (int i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>(q[i / 4] >> (2 * (i % 4)) & 3);
  }
}

/// Part `part` of 32 elements of NVFP4.
void read_nvfp4(const uint8_t* stored, int64_t part, StoredBlock& out) {
  uint8_t ones[36];  // the scales, with codes of 1
  std::memcpy(ones, stored, 4);
  std::memset(ones + 4, 0x11, 32);
  float scales[64];
  model::decode_nvfp4(ones, scales);
  out.scale = model::narrow_f16(scales[32 * part]);  // of four bits, and within a half's exponents
  out.minimum = model::narrow_f16(scales[32 * part + 16]);
  const uint8_t* q = stored + 4 + 16 * part;
  for (int i = 0; i < 32; ++i) {
    const int byte = q[8 * (i / 16) + i % 8];
    out.codes[i] = static_cast<uint8_t>(i % 16 < 8 ? byte & 15 : byte >> 4);
  }
}

}  // namespace

const PanelForm* panel_form(DType dtype) {
  static const PanelForm q8_0{.offset = kByteOffset};
  static const PanelForm q4_0{.codes = Codes::nibbles, .largest = 15, .offset = 8};
  static const PanelForm q4_1{.codes = Codes::nibbles, .largest = 15, .minima = true};
  static const PanelForm q5_0{.largest = 31, .offset = 16};
  static const PanelForm q5_1{.largest = 31, .minima = true};
  static const PanelForm q2_k{.codes = Codes::nibbles, .largest = 3, .minima = true, .sub_block = 16};
  static const PanelForm q3_k{.codes = Codes::nibbles, .largest = 7, .offset = 4, .sub_block = 16};
  static const PanelForm q4_k{.codes = Codes::nibbles, .largest = 15, .minima = true, .sub_block = 32};
  static const PanelForm q5_k{.largest = 31, .minima = true, .sub_block = 32};
  static const PanelForm q6_k{.largest = 63, .offset = 32, .sub_block = 16};
  static const PanelForm bits{.codes = Codes::nibbles, .largest = 3, .offset = 1};
  static const PanelForm digits{.codes = Codes::nibbles, .largest = 3, .offset = 1, .sub_block = 16};
  static const PanelForm iq3_s{.largest = 31, .offset = 16, .sub_block = 16};
  static const PanelForm iq3_xxs{.largest = 63, .offset = 32, .sub_block = 16, .unit = 0.5F};  // even entries
  static const PanelForm iq2{.largest = 127, .offset = 64, .sub_block = 16, .unit = 0.125F};
  static const PanelForm iq1{.largest = 31, .offset = 16, .sub_block = 16, .unit = 0.125F};
  static const PanelForm iq4_nl = iq4_form(0), iq4_xs = iq4_form(32), mxfp4 = e2m1_form(false),
                         nvfp4 = e2m1_form(true);
  switch (dtype) {
    case DType::q8_0:
      return &q8_0;
    case DType::q4_0:
      return &q4_0;
    case DType::q4_1:
      return &q4_1;
    case DType::q5_0:
      return &q5_0;
    case DType::q5_1:
      return &q5_1;
    case DType::q2_k:
      return &q2_k;
    case DType::q3_k:
      return &q3_k;
    case DType::q4_k:
      return &q4_k;
    case DType::q5_k:
      return &q5_k;
    case DType::q6_k:
      return &q6_k;
    case DType::iq4_nl:
      return &iq4_nl;
    case DType::iq4_xs:
      return &iq4_xs;
    case DType::mxfp4:
      return &mxfp4;
    case DType::nvfp4:
      return &nvfp4;
    case DType::q1_0:
    case DType::q2_0:
      return &bits;
    case DType::tq1_0:
    case DType::tq2_0:
      return &digits;
    case DType::iq3_s:
      return &iq3_s;
    case DType::iq3_xxs:
      return &iq3_xxs;
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
      return &iq2;
    case DType::iq1_s:
    case DType::iq1_m:
      return &iq1;
    default:
      return nullptr;
  }
}

void read_block(DType type, const uint8_t* block, int64_t part, StoredBlock& out) {
  switch (type) {
    case DType::q8_0:
      out.scale = model::load_u16(block);
      for (int i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>(block[2 + i] ^ kByteOffset);
      return;
    case DType::q4_0:
    case DType::iq4_nl:
      out.scale = model::load_u16(block);
      return read_nibbles(block + 2, out.codes);
    case DType::q4_1:
      out.scale = model::load_u16(block);
      out.minimum = model::load_u16(block + 2);
      return read_nibbles(block + 4, out.codes);
    case DType::q5_0:
      out.scale = model::load_u16(block);
      return read_five_bits(block + 2, block + 6, out.codes);
    case DType::q5_1:
      out.scale = model::load_u16(block);
      out.minimum = model::load_u16(block + 2);
      return read_five_bits(block + 4, block + 8, out.codes);
    case DType::mxfp4:
      // 2^(e − 128), of which the two least are subnormal.
      out.scale = static_cast<uint16_t>(block[0] < 2 ? 0x20U << block[0] : (block[0] - 1U) << 7U);
      return read_nibbles(block + 1, out.codes);
    case DType::q2_k:
      return read_q2_k(block, out);
    case DType::q3_k:
      return read_q3_k(block, out);
    case DType::q4_k:
      return read_q4_k(block, out);
    case DType::q5_k:
      return read_q5_k(block, out);
    case DType::q6_k:
      return read_q6_k(block, out);
    case DType::iq4_xs:
      return read_iq4_xs(block, out);
    case DType::nvfp4:
      return read_nvfp4(block, part, out);
    case DType::q1_0:
    case DType::q2_0:
      return read_bits(type, block, part, out);
    case DType::tq1_0:
    case DType::tq2_0:
    case DType::iq3_s:
    case DType::iq3_xxs:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq1_s:
    case DType::iq1_m:
      return read_grid(type, block, out);
    default:
      assert(!"a type that has a panel form");
  }
}

}  // namespace qeval::quant
