// Decoding of the stored number formats to float32.
//
// Plain types: F32, F64 (rounded to nearest), F16, BF16. GGUF blocks, all fields little-endian, `half` being
// F16:
//
// clang-format off
//   Q8_0  32 elements  half d; int8 q[32]                                          x = q·d
//   Q4_0  32           half d; nibbles q[16]                                       x = d·(q − 8)
//   Q4_1  32           half d, m; nibbles q[16]                                    x = d·q + m
//   Q5_0  32           half d; bits h[4]; nibbles q[16]                            x = d·(q + 16h − 16)
//   Q5_1  32           half d, m; bits h[4]; nibbles q[16]                         x = d·(q + 16h) + m
//   Q2_K  256          scales[16] (low nibble s, high m); crumbs q[64]; half d, dm x = (d·s)·q − dm·m
//   Q3_K  256          bits h[32]; crumbs q[64]; scales[12] (6 bits s); half d     x = (d·(s − 32))·(q + 4h − 4)
//   Q4_K  256          half d, dm; scales[12] (6 bits s, 6 bits m); nibbles q[128] x = (d·s)·q − dm·m
//   Q5_K  256          half d, dm; scales[12]; bits h[32]; nibbles q[128]          x = (d·s)·(q + 16h) − dm·m
//   Q6_K  256          nibbles q[128]; crumbs h[64]; int8 s[16]; half d            x = (d·s)·(q + 16h − 32)
// clang-format on
//
// A 32-element block keeps elements 0–15 in the low nibbles and 16–31 in the high ones. The 256-element
// blocks do the same per 32 bytes; sub-blocks with a scale of their own have 16 (Q2_K, Q3_K, Q6_K) or 32
// elements (Q4_K, Q5_K). Every operation is rounded to float32 in the order written, so results equal the
// reference's bit for bit.
//
// The types of table, ternary and binary codes are in block_formats_codes.cc, those with grids in
// block_formats_iq.cc.

#include "model/checkpoint/block_formats.h"

#include <bit>
#include <cassert>
#include <cstring>

#include "model/checkpoint/tensor.h"

namespace qeval::model {
namespace {

void decode_f64(const uint8_t* source, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    double value = 0;
    std::memcpy(&value, source + 8 * i, sizeof value);
    out[i] = static_cast<float>(value);
  }
}

void decode_f16(const uint8_t* source, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = load_half(source + 2 * i);
  }
}

void decode_bf16(const uint8_t* source, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(load_u16(source + 2 * i)) << 16);
  }
}

void decode_q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const auto* q = reinterpret_cast<const int8_t*>(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(q[i]) * d;
}

void decode_q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const Bytes q = load_16(block + 2);
  scale_16_bytes(low_nibbles(q) - 8, d, out);
  scale_16_bytes(high_nibbles(q) - 8, d, out + 16);
}

void decode_q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const Bytes q = load_16(block + 4);
  scale_and_shift_16_bytes(low_nibbles(q), d, m, out);
  scale_and_shift_16_bytes(high_nibbles(q), d, m, out + 16);
}

/// 16 bytes for the bits of the two bytes at `bits`: `value` where one is set, else 0.
inline Bytes where_set(const uint8_t* bits, uint8_t value) {
  constexpr Bytes kEights{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  constexpr Bytes kEach{1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  return equal(look_up(bytes_of(load_u16(bits), 0), kEights) & kEach, kEach) & value;
}

/// 16 bytes: `value` where bit `bit` of the byte is set, else 0.
inline Bytes where_set(Bytes bytes, int bit, uint8_t value) {
  const Bytes wanted = all_bytes(static_cast<uint8_t>(1 << bit));
  return equal(bytes & wanted, wanted) & value;
}

inline Bytes nibbles(Bytes bytes, int upper) {
  return upper != 0 ? high_nibbles(bytes) : low_nibbles(bytes);
}

void decode_q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const Bytes q = load_16(block + 6);
  const Bytes low = low_nibbles(q) | where_set(block + 2, 16);
  const Bytes high = high_nibbles(q) | where_set(block + 4, 16);
  scale_16_bytes(low - 16, d, out);
  scale_16_bytes(high - 16, d, out + 16);
}

void decode_q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const Bytes q = load_16(block + 8);
  scale_and_shift_16_bytes(low_nibbles(q) | where_set(block + 4, 16), d, m, out);
  scale_and_shift_16_bytes(high_nibbles(q) | where_set(block + 6, 16), d, m, out + 16);
}

void decode_q2_k(const uint8_t* block, float* out) {
  const uint8_t *scales = block, *quants = block + 16;
  const float d = load_half(block + 80), dm = load_half(block + 82);
  for (int sub = 0; sub < 16; ++sub) {  // 16 elements each; 8 sub-blocks share 32 bytes of crumbs
    const float scale = d * static_cast<float>(scales[sub] & 15);
    const float minimum = dm * static_cast<float>(scales[sub] >> 4);
    const Bytes q = load_16(quants + 32 * (sub / 8) + 16 * (sub % 2));
    scale_and_shift_16_bytes(crumbs(q, sub % 8 / 2), scale, -minimum, out + 16 * sub);
  }
}

void decode_q3_k(const uint8_t* block, float* out) {
  const uint8_t *mask = block, *quants = block + 32, *packed = block + 96;
  const float d = load_half(block + 108);
  for (int sub = 0; sub < 16; ++sub) {
    const int low = (packed[sub % 8] >> (sub < 8 ? 0 : 4)) & 15;
    const int high = (packed[8 + sub % 4] >> (2 * (sub / 4))) & 3;
    const float scale = d * static_cast<float>((low | (high << 4)) - 32);
    const Bytes q = load_16(quants + 32 * (sub / 8) + 16 * (sub % 2));
    const Bytes third_bit = where_set(load_16(mask + 16 * (sub % 2)), sub / 2, 4);
    scale_16_bytes((crumbs(q, sub % 8 / 2) | third_bit) - 4, scale, out + 16 * sub);
  }
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K. Bytes 0–3 hold scales 0–3 and bytes 4–7 minima 0–3 in
/// their low six bits; bytes 8–11 the low nibbles of scales 4–7 and, above them, of minima 4–7, whose two
/// upper bits are the two upper bits of bytes 0–7.
struct SixBitScales {
  float scale[8], minimum[8];
  explicit SixBitScales(const uint8_t* packed) {
    for (int i = 0; i < 4; ++i) {
      scale[i] = static_cast<float>(packed[i] & 63);
      minimum[i] = static_cast<float>(packed[4 + i] & 63);
      scale[4 + i] = static_cast<float>((packed[8 + i] & 15) | ((packed[i] >> 6) << 4));
      minimum[4 + i] = static_cast<float>((packed[8 + i] >> 4) | ((packed[4 + i] >> 6) << 4));
    }
  }
};

void decode_q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dm = load_half(block + 2);
  const SixBitScales scales(block + 4);
  for (int pair = 0; pair < 4; ++pair) {
    const uint8_t* q = block + 16 + 32 * pair;
    float* x = out + 64 * pair;
    const float scale0 = d * scales.scale[2 * pair], minimum0 = dm * scales.minimum[2 * pair];
    const float scale1 = d * scales.scale[2 * pair + 1], minimum1 = dm * scales.minimum[2 * pair + 1];
    for (int i = 0; i < 32; ++i) x[i] = scale0 * static_cast<float>(q[i] & 15) - minimum0;
    for (int i = 0; i < 32; ++i) x[32 + i] = scale1 * static_cast<float>(q[i] >> 4) - minimum1;
  }
}

void decode_q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dm = load_half(block + 2);
  const SixBitScales scales(block + 4);
  const uint8_t *high = block + 16, *quants = block + 48;
  for (int sub = 0; sub < 8; ++sub) {
    const float scale = d * scales.scale[sub], minimum = dm * scales.minimum[sub];
    for (int i = 0; i < 32; i += 16) {
      const Bytes q = load_16(quants + 32 * (sub / 2) + i);
      const Bytes value = nibbles(q, sub % 2) | where_set(load_16(high + i), sub, 16);
      scale_and_shift_16_bytes(value, scale, -minimum, out + 32 * sub + i);
    }
  }
}

void decode_q6_k(const uint8_t* block, float* out) {
  const uint8_t *low = block, *high = block + 128;
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
  const float d = load_half(block + 208);
  for (int sub = 0; sub < 16; ++sub) {
    // Elements come in runs of 32: four runs per 64 bytes of nibbles (low, low, high, high) and 32 bytes of
    // crumbs.
    const int run = sub / 2, half = sub / 8, within = 16 * (sub % 2);
    const Bytes q = load_16(low + 64 * half + 32 * (run % 2) + within);
    const Bytes h = load_16(high + 32 * half + within);
    const float scale = d * static_cast<float>(scales[sub]);
    const Bytes value = nibbles(q, run % 4 / 2) | shift_left(crumbs(h, run % 4), 4);
    scale_16_bytes(value - 32, scale, out + 16 * sub);
  }
}

template <void (*kDecodeBlock)(const uint8_t*, float*)>
void decode_blocks(DType dtype, const uint8_t* source, int64_t count, float* out) {
  const DTypeInfo& type = info(dtype);
  assert(count % type.block_size == 0);
  for (int64_t i = 0; i < count; i += type.block_size) {
    kDecodeBlock(source, out + i);
    source += type.block_bytes;
  }
}

}  // namespace

void decode(DType dtype, const std::byte* source, int64_t count, float* destination) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(source);
  switch (dtype) {
    case DType::f32:
      if (count > 0) std::memcpy(destination, bytes, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::f64:
      return decode_f64(bytes, count, destination);
    case DType::f16:
      return decode_f16(bytes, count, destination);
    case DType::bf16:
      return decode_bf16(bytes, count, destination);
    case DType::q8_0:
      return decode_blocks<decode_q8_0>(dtype, bytes, count, destination);
    case DType::q4_0:
      return decode_blocks<decode_q4_0>(dtype, bytes, count, destination);
    case DType::q4_1:
      return decode_blocks<decode_q4_1>(dtype, bytes, count, destination);
    case DType::q5_0:
      return decode_blocks<decode_q5_0>(dtype, bytes, count, destination);
    case DType::q5_1:
      return decode_blocks<decode_q5_1>(dtype, bytes, count, destination);
    case DType::q2_k:
      return decode_blocks<decode_q2_k>(dtype, bytes, count, destination);
    case DType::q3_k:
      return decode_blocks<decode_q3_k>(dtype, bytes, count, destination);
    case DType::q4_k:
      return decode_blocks<decode_q4_k>(dtype, bytes, count, destination);
    case DType::q5_k:
      return decode_blocks<decode_q5_k>(dtype, bytes, count, destination);
    case DType::q6_k:
      return decode_blocks<decode_q6_k>(dtype, bytes, count, destination);
    case DType::q1_0:
      return decode_blocks<decode_q1_0>(dtype, bytes, count, destination);
    case DType::q2_0:
      return decode_blocks<decode_q2_0>(dtype, bytes, count, destination);
    case DType::iq1_s:
      return decode_blocks<decode_iq1_s>(dtype, bytes, count, destination);
    case DType::iq1_m:
      return decode_blocks<decode_iq1_m>(dtype, bytes, count, destination);
    case DType::iq2_xxs:
      return decode_blocks<decode_iq2_xxs>(dtype, bytes, count, destination);
    case DType::iq2_xs:
      return decode_blocks<decode_iq2_xs>(dtype, bytes, count, destination);
    case DType::iq2_s:
      return decode_blocks<decode_iq2_s>(dtype, bytes, count, destination);
    case DType::iq3_xxs:
      return decode_blocks<decode_iq3_xxs>(dtype, bytes, count, destination);
    case DType::iq3_s:
      return decode_blocks<decode_iq3_s>(dtype, bytes, count, destination);
    case DType::iq4_nl:
      return decode_blocks<decode_iq4_nl>(dtype, bytes, count, destination);
    case DType::iq4_xs:
      return decode_blocks<decode_iq4_xs>(dtype, bytes, count, destination);
    case DType::tq1_0:
      return decode_blocks<decode_tq1_0>(dtype, bytes, count, destination);
    case DType::tq2_0:
      return decode_blocks<decode_tq2_0>(dtype, bytes, count, destination);
    case DType::mxfp4:
      return decode_blocks<decode_mxfp4>(dtype, bytes, count, destination);
    case DType::nvfp4:
      return decode_blocks<decode_nvfp4>(dtype, bytes, count, destination);
    case DType::i64:
    case DType::i32:
    case DType::i8:
    case DType::u8:
    case DType::f8_e4m3:
    case DType::f8_e8m0:
      break;
  }
  assert(!"codes are not decoded");
}

}  // namespace qeval::model
