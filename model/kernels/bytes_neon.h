#pragma once

#include <bit>

#include <arm_neon.h>

namespace qeval::model {

inline Bytes look_up(Bytes table, Bytes codes) {
  return std::bit_cast<Bytes>(vqtbl1q_u8(std::bit_cast<uint8x16_t>(table), std::bit_cast<uint8x16_t>(codes)));
}

inline void widen_16_bytes(Bytes bytes, Floats4* out) {
  const auto x = std::bit_cast<int8x16_t>(bytes);
  const int16x8_t halves[] = {vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)};
  for (int i = 0; i < 2; ++i) {
    out[2 * i] = std::bit_cast<Floats4>(vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves[i]))));
    out[2 * i + 1] = std::bit_cast<Floats4>(vcvtq_f32_s32(vmovl_high_s16(halves[i])));
  }
}

}  // namespace qeval::model
