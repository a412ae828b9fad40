// Packings of codes, against packings made here bit by bit.

#include "model/checkpoint/code_layout.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace qeval::model {
namespace {

/// Codes of `bits` bits, [rows, cols].
std::vector<uint8_t> some_codes(int bits, int64_t rows, int64_t cols) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<uint8_t>((i * 2654435761U >> 13U) & ((1U << bits) - 1));
  return codes;
}

void set_bit(std::vector<uint32_t>& words, int64_t word, int64_t bit, uint32_t value) {
  words[static_cast<size_t>(word)] |= (value & 1U) << bit;
}

/// Every part of the matrix that begins at a block must unpack to its codes.
void expect_unpacked(const Codes& stored, const std::vector<uint8_t>& codes, int64_t rows, int64_t cols,
                     std::vector<int64_t> columns) {
  for (const int64_t row : {int64_t{0}, int64_t{3}}) {
    for (const int64_t col : columns) {
      for (const int64_t count : {int64_t{1}, (cols - col) / 2, cols - col}) {
        std::vector<uint8_t> out(static_cast<size_t>(rows * 200), 0xEE);
        unpack(stored, row, rows - row, col, count, out.data(), 200);
        for (int64_t r = row; r < rows; ++r) {
          for (int64_t i = 0; i < count; ++i) {
            ASSERT_EQ(out[static_cast<size_t>((r - row) * 200 + i)],
                      codes[static_cast<size_t>(r * cols + col + i)])
                << r << " " << col + i << " of " << count;
          }
          ASSERT_EQ(out[static_cast<size_t>((r - row) * 200 + count)], 0xEE);
        }
      }
    }
  }
}

TEST(CodeLayouts, RowsDenselyAndByWords) {
  constexpr int64_t kRows = 9, kCols = 75;
  for (int bits = 1; bits <= 8; ++bits) {
    SCOPED_TRACE(bits);
    const std::vector<uint8_t> codes = some_codes(bits, kRows, kCols);
    const int64_t per_word = 32 / bits;
    for (const bool dense : {true, false}) {
      const int64_t words = dense ? (kCols * bits + 31) / 32 : (kCols + per_word - 1) / per_word;
      std::vector<uint32_t> packed(static_cast<size_t>(kRows * words));
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t c = 0; c < kCols; ++c) {
          for (int b = 0; b < bits; ++b) {
            const int64_t bit = dense ? c * bits + b : c / per_word * 32 + c % per_word * bits + b;
            set_bit(packed, r * words + bit / 32, bit % 32,
                    static_cast<uint32_t>(codes[static_cast<size_t>(r * kCols + c)]) >> b);
          }
        }
      }
      const auto* data = reinterpret_cast<const std::byte*>(packed.data());
      expect_unpacked({.layout = dense ? CodeLayout::rows_stream : CodeLayout::rows_words,
                       .bits = bits,
                       .data = data,
                       .cols = kCols,
                       .stride = words * 4},
                      codes, kRows, kCols, {0, 1, 7, 32, 74});
      for (int64_t c = 0; c < kCols; ++c) {
        EXPECT_EQ(dense ? stream_code(data, bits, c) : word_code(data, bits, c),
                  codes[static_cast<size_t>(c)]);
      }
    }
  }
}

TEST(CodeLayouts, ColumnsDenselyAndInPlanes) {
  constexpr int64_t kRows = 9, kCols = 96;
  for (int bits = 2; bits <= 8; ++bits) {
    SCOPED_TRACE(bits);
    const std::vector<uint8_t> codes = some_codes(bits, kRows, kCols);
    for (const bool planar : {false, true}) {
      // Of a planar block, the planes by their widths: 3 = 2+1, 5 = 4+1, 6 = 4+2, 7 = 4+2+1.
      std::vector<int> widths;
      for (int left = bits, width = 4; planar && 32 % bits != 0 && left > 0; width /= 2) {
        if (left < width) continue;
        widths.push_back(width);
        left -= width;
      }
      if (widths.empty()) widths = {bits};
      std::vector<uint32_t> packed(static_cast<size_t>(kCols / 32 * bits * kRows)), line;
      for (int64_t r = 0; r < kRows; ++r) {
        std::vector<uint32_t> own(static_cast<size_t>(kCols / 32 * bits));
        for (int64_t c = 0; c < kCols; ++c) {
          int64_t first = c / 32 * bits, shift = 0;
          for (const int width : widths) {
            for (int b = 0; b < width; ++b) {
              const int64_t bit = c % 32 * width + b;
              set_bit(own, first + bit / 32, bit % 32,
                      static_cast<uint32_t>(codes[static_cast<size_t>(r * kCols + c)]) >> (shift + b));
            }
            first += width;
            shift += width;
          }
        }
        for (size_t w = 0; w < own.size(); ++w) packed[w * kRows + static_cast<size_t>(r)] = own[w];
        if (r == 0) line = own;
      }
      expect_unpacked({.layout = planar ? CodeLayout::columns_planes : CodeLayout::columns_stream,
                       .bits = bits,
                       .data = reinterpret_cast<const std::byte*>(packed.data()),
                       .cols = kCols,
                       .stride = kRows},
                      codes, kRows, kCols, {0, 32, 64});
      const auto* data = reinterpret_cast<const std::byte*>(line.data());
      for (int64_t c = 0; c < kCols; ++c) {
        EXPECT_EQ(planar ? plane_code(data, bits, c) : stream_code(data, bits, c),
                  codes[static_cast<size_t>(c)]);
      }
    }
  }
}

TEST(CodeLayouts, AwqsOrderAndHighNibblesFirst) {
  constexpr int64_t kRows = 16, kCols = 45;
  const std::vector<uint8_t> codes = some_codes(4, kRows, kCols);
  std::vector<uint32_t> awq(kRows / 8 * kCols);
  std::vector<uint8_t> flat(kRows * kCols / 2);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      const uint32_t code = codes[static_cast<size_t>(r * kCols + c)];
      int nibble = 0;
      while (kAwqOrder[nibble] != r % 8) ++nibble;
      awq[static_cast<size_t>(c * (kRows / 8) + r / 8)] |= code << (4 * nibble);
      const int64_t at = r * kCols + c;
      flat[static_cast<size_t>(at / 2)] |= static_cast<uint8_t>(at % 2 == 0 ? code << 4U : code);
    }
  }
  expect_unpacked({.layout = CodeLayout::awq,
                   .bits = 4,
                   .data = reinterpret_cast<const std::byte*>(awq.data()),
                   .cols = kCols,
                   .stride = kRows / 8},
                  codes, kRows, kCols, {0, 5, 32});
  expect_unpacked({.layout = CodeLayout::rows_high_first,
                   .bits = 4,
                   .data = reinterpret_cast<const std::byte*>(flat.data()),
                   .cols = kCols},
                  codes, kRows, kCols, {0, 5, 32});
}

}  // namespace
}  // namespace qeval::model
