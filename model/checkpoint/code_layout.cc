#include "model/checkpoint/code_layout.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

namespace qeval::model {
namespace {

uint32_t load_word(const std::byte* data, int64_t i) {
  uint32_t word = 0;
  std::memcpy(&word, data + 4 * i, sizeof word);
  return word;
}

template <int bits>
constexpr uint32_t kMask = (1U << bits) - 1;

/// Spreads 8 codes, the first in the lowest bits, over the bytes of the result: in halves, three times.
template <int bits>
uint64_t spread(uint64_t x) {
  constexpr uint64_t kFour = (1ULL << (4 * bits)) - 1;
  constexpr uint64_t kTwo = ((1ULL << (2 * bits)) - 1) * 0x0000000100000001ULL;
  constexpr uint64_t kOne = ((1ULL << bits) - 1) * 0x0001000100010001ULL;
  x = (x & kFour) | (x >> (4 * bits) & kFour) << 32;
  x = (x & kTwo) | (x >> (2 * bits) & kTwo) << 16;
  return (x & kOne) | (x >> bits & kOne) << 8;
}

/// 32 codes of a dense stream of `bits` words. Words, not bytes: what was just stored as words would have to
/// leave the store buffer first.
template <int bits>
void unpack_block(const uint32_t (&words)[bits], uint8_t* out) {
#pragma GCC unroll 4
  for (int eight = 0; eight < 4; ++eight) {
    const int word = 8 * bits * eight / 32, shift = 8 * bits * eight % 32;
    uint64_t x = words[word] >> shift;
    if (word + 1 < bits) x |= static_cast<uint64_t>(words[word + 1]) << (32 - shift);
    if (word + 2 < bits && shift != 0) x |= static_cast<uint64_t>(words[word + 2]) << ((64 - shift) % 64);
    x = spread<bits>(x);
    std::memcpy(out + 8 * eight, &x, sizeof x);
  }
}

/// Code i of the stream that begins at `source`; reads no byte that has no bit of it.
template <int bits>
uint8_t code_at(const uint8_t* source, int64_t i) {
  const int64_t bit = i * bits;
  const int shift = static_cast<int>(bit % 8);
  uint32_t value = source[bit / 8];
  if (shift + bits > 8) value |= static_cast<uint32_t>(source[bit / 8 + 1]) << 8;
  return static_cast<uint8_t>(value >> shift & kMask<bits>);
}

template <int bits>
void unpack_stream(const uint8_t* source, int64_t first, int64_t count, uint8_t* out) {
  int64_t i = 0;
  for (; i < count && (first + i) % 8 != 0; ++i) out[i] = code_at<bits>(source, first + i);
  const uint8_t* p = source + (first + i) / 8 * bits;
  if constexpr (bits == 8) {
    std::memcpy(out + i, p, static_cast<size_t>(count - i));
    return;
  } else if constexpr (bits == 4) {
    const int64_t pairs = (count - i) / 2;
    for (int64_t j = 0; j < pairs; ++j) {
      out[i + 2 * j] = p[j] & 15U;
      out[i + 2 * j + 1] = static_cast<uint8_t>(p[j] >> 4U);
    }
    i += 2 * pairs;
  } else {
    for (; i + 32 <= count; i += 32, p += 4 * bits) {
      uint32_t words[bits];
      std::memcpy(words, p, sizeof words);
      unpack_block<bits>(words, out + i);
    }
    for (; i + 8 <= count; i += 8, p += bits) {
      uint64_t x = 0;
      std::memcpy(&x, p, bits);
      x = spread<bits>(x);
      std::memcpy(out + i, &x, sizeof x);
    }
  }
  for (; i < count; ++i) out[i] = code_at<bits>(source, first + i);
}

template <int bits>
void unpack_words(const uint8_t* source, int64_t first, int64_t count, uint8_t* out) {
  constexpr int64_t kPerWord = 32 / bits;
  const auto* words = reinterpret_cast<const std::byte*>(source);
  int64_t i = 0;
  for (; i < count && (first + i) % kPerWord != 0; ++i)
    out[i] = static_cast<uint8_t>(word_code(words, bits, first + i));
  for (int64_t w = (first + i) / kPerWord; i + kPerWord <= count; i += kPerWord, ++w) {
    const uint32_t word = load_word(words, w);
    for (int64_t j = 0; j < kPerWord; ++j)
      out[i + j] = static_cast<uint8_t>(word >> (bits * j) & kMask<bits>);
  }
  for (; i < count; ++i) out[i] = static_cast<uint8_t>(word_code(words, bits, first + i));
}

/// A plane of a planar block: its width and where its bits go in the code.
struct Plane {
  int width, shift;
};

constexpr std::array<Plane, 3> planes_of(int bits) {
  std::array<Plane, 3> planes{};
  int shift = 0;
  size_t used = 0;
  for (const int width : {4, 2, 1}) {
    if (((bits - shift) & width) == 0 || shift + width > bits) continue;
    planes[used++] = {width, shift};
    shift += width;
  }
  return planes;
}

/// Adds a plane of `width` bits, in as many words, to 32 codes.
template <int width>
void add_plane(const uint32_t* words, int shift, uint64_t (&codes)[4]) {
#pragma GCC unroll 4
  for (int eight = 0; eight < 4; ++eight)
    codes[eight] |= spread<width>(words[eight * width / 4] >> (8 * width * eight % 32)) << shift;
}

template <int bits>
void unpack_planes(const uint32_t* words, int64_t count, uint8_t* out) {
  uint64_t codes[4] = {};
  constexpr std::array<Plane, 3> kPlanes = planes_of(bits);
  for (const Plane& plane : kPlanes) {
    if (plane.width == 4) add_plane<4>(words, plane.shift, codes);
    if (plane.width == 2) add_plane<2>(words, plane.shift, codes);
    if (plane.width == 1) add_plane<1>(words, plane.shift, codes);
    words += plane.width;
  }
  std::memcpy(out, codes, static_cast<size_t>(count));
}

template <int bits, bool planar>
void unpack_columns(const Codes& codes, int64_t row, int64_t rows, int64_t col, int64_t count, uint8_t* out,
                    int64_t stride) {
  constexpr bool planes = planar && 32 % bits != 0;
  assert(col % kCodeBlock == 0);
  for (int64_t block = 0; block < count; block += kCodeBlock) {
    const int64_t n = std::min(kCodeBlock, count - block);
    // A plane has bits of all 32 codes.
    const int64_t words = planes ? bits : (n * bits + 31) / 32;
    const std::byte* first = codes.data + ((col + block) / kCodeBlock * bits * codes.stride + row) * 4;
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* target = out + r * stride + block;
      if constexpr (bits == 4) {  // a word is 8 whole codes
        if (n == kCodeBlock) {
          for (int64_t w = 0; w < bits; ++w) {
            const uint64_t eight = spread<bits>(load_word(first, w * codes.stride + r));
            std::memcpy(target + 8 * w, &eight, sizeof eight);
          }
          continue;
        }
      }
      uint32_t own[bits];
      for (int64_t w = 0; w < words; ++w) own[w] = load_word(first, w * codes.stride + r);
      if constexpr (planes) {
        unpack_planes<bits>(own, n, target);
      } else if (bits != 8 && n == kCodeBlock) {
        if constexpr (bits != 8) unpack_block<bits>(own, target);
      } else {
        unpack_stream<bits>(reinterpret_cast<const uint8_t*>(own), 0, n, target);
      }
    }
  }
}

/// Transposes 8 × 8 bytes.
void transpose(uint64_t (&m)[8]) {
  const auto swap = [&](int a, int b, int shift, uint64_t mask) {
    const uint64_t t = ((m[a] >> shift) ^ m[b]) & mask;
    m[b] ^= t;
    m[a] ^= t << shift;
  };
  for (int i = 0; i < 4; ++i) swap(i, i + 4, 32, 0x00000000FFFFFFFFULL);
  for (const int i : {0, 1, 4, 5}) swap(i, i + 2, 16, 0x0000FFFF0000FFFFULL);
  for (const int i : {0, 2, 4, 6}) swap(i, i + 1, 8, 0x00FF00FF00FF00FFULL);
}

void unpack_awq(const Codes& codes, int64_t row, int64_t rows, int64_t col, int64_t count, uint8_t* out,
                int64_t stride) {
  for (int64_t group = row / 8; group * 8 < row + rows; ++group) {
    for (int64_t c = 0; c < count; c += 8) {
      const int64_t n = std::min<int64_t>(8, count - c);
      uint64_t m[8] = {};
      for (int64_t i = 0; i < n; ++i)
        m[i] = spread<4>(load_word(codes.data, (col + c + i) * codes.stride + group));
      transpose(m);
      for (int k = 0; k < 8; ++k) {
        const int64_t r = group * 8 + kAwqOrder[k] - row;
        if (r < 0 || r >= rows) continue;
        std::memcpy(out + r * stride + c, &m[k], static_cast<size_t>(n));
      }
    }
  }
}

void unpack_high_first(const Codes& codes, int64_t row, int64_t col, int64_t count, uint8_t* out) {
  const auto* source = reinterpret_cast<const uint8_t*>(codes.data);
  int64_t at = row * codes.cols + col, i = 0;
  if (at % 2 != 0 && count > 0) {
    out[i++] = source[at / 2] & 15U;
    ++at;
  }
  const uint8_t* p = source + at / 2;
  const int64_t pairs = (count - i) / 2;
  for (int64_t j = 0; j < pairs; ++j) {
    out[i + 2 * j] = static_cast<uint8_t>(p[j] >> 4U);
    out[i + 2 * j + 1] = p[j] & 15U;
  }
  if (i + 2 * pairs < count) out[count - 1] = static_cast<uint8_t>(p[pairs] >> 4U);
}

template <int bits>
void unpack_width(const Codes& codes, int64_t row, int64_t rows, int64_t col, int64_t count, uint8_t* out,
                  int64_t stride) {
  switch (codes.layout) {
    case CodeLayout::rows_stream:
    case CodeLayout::rows_words:
      for (int64_t r = 0; r < rows; ++r) {
        const auto* source = reinterpret_cast<const uint8_t*>(codes.data + (row + r) * codes.stride);
        if (codes.layout == CodeLayout::rows_stream || 32 % bits == 0)
          unpack_stream<bits>(source, col, count, out + r * stride);
        else
          unpack_words<bits>(source, col, count, out + r * stride);
      }
      break;
    case CodeLayout::columns_stream:
      return unpack_columns<bits, false>(codes, row, rows, col, count, out, stride);
    case CodeLayout::columns_planes:
      return unpack_columns<bits, true>(codes, row, rows, col, count, out, stride);
    case CodeLayout::rows_high_first:
      for (int64_t r = 0; r < rows; ++r) unpack_high_first(codes, row + r, col, count, out + r * stride);
      break;
    case CodeLayout::awq:
      return unpack_awq(codes, row, rows, col, count, out, stride);
  }
}

}  // namespace

uint32_t stream_code(const std::byte* data, int bits, int64_t i, int64_t step) {
  const int64_t bit = i * bits, word = bit / 32;
  const auto shift = static_cast<int>(bit % 32);
  uint64_t value = load_word(data, word * step);
  if (shift + bits > 32) value |= static_cast<uint64_t>(load_word(data, (word + 1) * step)) << 32;
  return static_cast<uint32_t>(value >> shift) & ((1U << bits) - 1);
}

uint32_t word_code(const std::byte* data, int bits, int64_t i, int64_t step) {
  const int64_t per_word = 32 / bits;
  return load_word(data, i / per_word * step) >> (i % per_word * bits) & ((1U << bits) - 1);
}

uint32_t plane_code(const std::byte* data, int bits, int64_t i) {
  if (32 % bits == 0) return stream_code(data, bits, i);
  const int64_t j = i % kCodeBlock;
  int64_t word = i / kCodeBlock * bits;
  uint32_t code = 0;
  for (const Plane& plane : planes_of(bits)) {
    if (plane.width == 0) break;
    const int64_t bit = j * plane.width;
    const uint32_t part = load_word(data, word + bit / 32) >> (bit % 32) & ((1U << plane.width) - 1);
    code |= part << plane.shift;
    word += plane.width;
  }
  return code;
}

void unpack(const Codes& codes, int64_t row, int64_t rows, int64_t col, int64_t count, uint8_t* out,
            int64_t stride) {
  using Unpack = void (*)(const Codes&, int64_t, int64_t, int64_t, int64_t, uint8_t*, int64_t);
  static constexpr std::array<Unpack, 8> kByBits{unpack_width<1>, unpack_width<2>, unpack_width<3>,
                                                 unpack_width<4>, unpack_width<5>, unpack_width<6>,
                                                 unpack_width<7>, unpack_width<8>};
  kByBits.at(static_cast<size_t>(codes.bits - 1))(codes, row, rows, col, count, out, stride);
  if (!codes.is_signed) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < count; ++c) out[r * stride + c] ^= 0x80U;
  }
}

}  // namespace qeval::model
