#pragma once

// AMX's tiles by their definition in plain C++ (Intel's manual, volume 1, chapter 18, and the instructions'),
// so that kernels run on a CPU that lacks them. What the hardware refuses ends the test. To be included once
// everything else is.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <immintrin.h>

namespace qeval::emulated {

/// Eight tiles of up to 16 rows of 64 bytes, and their shapes.
class Tiles {
 public:
  void configure(const void* from) {
    std::memcpy(&shape_, from, sizeof(shape_));
    require(shape_.palette == 1);
    for (size_t t = 0; t < 8; ++t) require(shape_.rows[t] <= 16 && shape_.row_bytes[t] <= 64);
    tile_ = {};
    configured_ = true;
  }
  void release() { configured_ = false; }
  void zero(size_t t) {
    require(configured_);
    tile_[t] = {};
  }
  void load(size_t t, const void* from, size_t stride) {
    zero(t);
    for (size_t r = 0; r < shape_.rows[t]; ++r)
      std::memcpy(tile_[t][r].data(), static_cast<const uint8_t*>(from) + r * stride, shape_.row_bytes[t]);
  }
  void store(size_t t, void* to, size_t stride) const {
    require(configured_);
    for (size_t r = 0; r < shape_.rows[t]; ++r)
      std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile_[t][r].data(), shape_.row_bytes[t]);
  }
  /// tdpbusd and tdpbssd: sums [rows, columns] += a [rows, inputs] · b [inputs / 4, columns, 4], B signed.
  template <typename A>
  void multiply_bytes(size_t sums, size_t a, size_t b) {
    for_each_sum(sums, a, b, [&](size_t r, size_t j, uint32_t before) {
      uint32_t sum = before;
      for (size_t i = 0; i < shape_.row_bytes[a]; ++i) {
        sum += static_cast<uint32_t>(static_cast<A>(tile_[a][r][i]) *
                                     static_cast<int8_t>(tile_[b][i / 4][4 * j + i % 4]));
      }
      return sum;
    });
  }
  /// tdpbf16ps: the products of the first halves of all words of a row, and of the second ones, apart.
  void multiply_bf16(size_t sums, size_t a, size_t b) {
    for_each_sum(sums, a, b, [&](size_t r, size_t j, uint32_t before) {
      std::array<float, 2> both{};
      for (size_t k = 0; k < shape_.rows[b]; ++k) {
        for (size_t half = 0; half < 2; ++half) {
          both[half] = std::fma(number(a, r, 4 * k + 2 * half), number(b, k, 4 * j + 2 * half), both[half]);
        }
      }
      return std::bit_cast<uint32_t>(std::bit_cast<float>(before) + (both[0] + both[1]));
    });
  }

 private:
  static void require(bool met) {
    if (!met) std::abort();
  }
  /// The bfloat16 at a byte of a row.
  float number(size_t t, size_t row, size_t byte) const {
    uint16_t bits = 0;
    std::memcpy(&bits, &tile_[t][row][byte], sizeof(bits));
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  template <typename Sum>
  void for_each_sum(size_t sums, size_t a, size_t b, const Sum& sum) {
    require(configured_ && sums != a && sums != b && a != b);
    require(shape_.rows[a] == shape_.rows[sums] && shape_.row_bytes[b] == shape_.row_bytes[sums] &&
            shape_.row_bytes[a] == 4 * shape_.rows[b]);
    for (size_t r = 0; r < shape_.rows[sums]; ++r) {
      for (size_t j = 0; j < shape_.row_bytes[sums] / 4U; ++j) {
        uint32_t value = 0;
        std::memcpy(&value, &tile_[sums][r][4 * j], sizeof(value));
        value = sum(r, j, value);
        std::memcpy(&tile_[sums][r][4 * j], &value, sizeof(value));
      }
    }
  }

  struct Shape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shape_{};
  std::array<std::array<std::array<uint8_t, 64>, 16>, 8> tile_{};
  bool configured_ = false;
};

inline Tiles& tiles() {
  thread_local Tiles all;
  return all;
}

}  // namespace qeval::emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_dpbssd
#undef _tile_dpbf16ps
#define _tile_loadconfig(from) qeval::emulated::tiles().configure(from)
#define _tile_release() qeval::emulated::tiles().release()
#define _tile_zero(t) qeval::emulated::tiles().zero(t)
#define _tile_loadd(t, from, stride) qeval::emulated::tiles().load(t, from, stride)
#define _tile_stored(t, to, stride) qeval::emulated::tiles().store(t, to, stride)
#define _tile_dpbusd(sums, a, b) qeval::emulated::tiles().multiply_bytes<uint8_t>(sums, a, b)
#define _tile_dpbssd(sums, a, b) qeval::emulated::tiles().multiply_bytes<int8_t>(sums, a, b)
#define _tile_dpbf16ps(sums, a, b) qeval::emulated::tiles().multiply_bf16(sums, a, b)
