#pragma once

// Sixteen bytes at a time, for codes that are stored packed: the vector types of GCC and Clang, whose
// operators every CPU has, and two operations by the processor's intrinsics (bytes_x86.h, bytes_neon.h):
//
//   look_up(table, codes)       table[code] of each byte, codes 0 … 15
//   widen_16_bytes(bytes, out)  signed bytes as floats, in order

#include <bit>
#include <cstdint>
#include <cstring>

namespace qeval::model {

using Bytes [[gnu::vector_size(16)]] = uint8_t;
using Floats4 [[gnu::vector_size(16)]] = float;

}  // namespace qeval::model

#if defined(__x86_64__)
#include "model/kernels/bytes_x86.h"
#elif defined(__aarch64__)
#include "model/kernels/bytes_neon.h"
#endif

namespace qeval::model {

inline Bytes load_16(const void* source) {
  Bytes bytes;
  std::memcpy(&bytes, source, sizeof bytes);
  return bytes;
}

inline void store_16(void* target, Bytes bytes) {
  std::memcpy(target, &bytes, sizeof bytes);
}

inline Bytes all_bytes(uint8_t value) {
  return Bytes{} + value;
}

/// Two halves of eight bytes, as numbers of 64 bits whose lowest byte is the first.
inline Bytes bytes_of(uint64_t first, uint64_t second) {
  using Halves [[gnu::vector_size(16)]] = uint64_t;
  return std::bit_cast<Bytes>(Halves{first, second});
}

/// Each byte shifted. What its neighbour lost comes in: of the result the lowest 8 − count bits count, or of
/// shift_left the highest.
inline Bytes shift_right(Bytes bytes, int count) {
  using Words [[gnu::vector_size(16)]] = uint16_t;
  return std::bit_cast<Bytes>(std::bit_cast<Words>(bytes) >> static_cast<uint16_t>(count));
}
inline Bytes shift_left(Bytes bytes, int count) {
  using Words [[gnu::vector_size(16)]] = uint16_t;
  return std::bit_cast<Bytes>(std::bit_cast<Words>(bytes) << static_cast<uint16_t>(count));
}

inline Bytes low_nibbles(Bytes bytes) {
  return bytes & 15;
}

inline Bytes high_nibbles(Bytes bytes) {
  return shift_right(bytes, 4) & 15;
}

/// Crumb `crumb` (0 … 3, the lowest first) of each byte.
inline Bytes crumbs(Bytes bytes, int crumb) {
  return shift_right(bytes, 2 * crumb) & 3;
}

/// All ones where the bytes are equal, else 0.
inline Bytes equal(Bytes a, Bytes b) {
  return std::bit_cast<Bytes>(a == b);
}

/// The bytes of a and of b in turn: of their first halves, of their second ones.
inline Bytes interleave_first(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes interleave_second(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

inline void store_4(float* target, Floats4 x) {
  std::memcpy(target, &x, sizeof x);
}

/// out[i] = scale · values[i], i = 0 … 15, for signed bytes.
inline void scale_16_bytes(Bytes values, float scale, float* out) {
  Floats4 wide[4];
  widen_16_bytes(values, wide);
  for (int i = 0; i < 4; ++i) store_4(out + 4 * i, wide[i] * scale);
}

/// out[i] = scale · values[i] + offset, both operations rounded.
inline void scale_and_shift_16_bytes(Bytes values, float scale, float offset, float* out) {
  Floats4 wide[4];
  widen_16_bytes(values, wide);
  for (int i = 0; i < 4; ++i) store_4(out + 4 * i, scale * wide[i] + offset);
}

}  // namespace qeval::model
