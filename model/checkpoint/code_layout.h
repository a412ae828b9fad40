#pragma once

#include <cstddef>
#include <cstdint>

namespace qeval::model {

/// How the codes of a matrix [rows, cols] lie in a tensor. "Word": little-endian uint32.
enum class CodeLayout : uint8_t {
  rows_stream,  ///< each row a dense stream of bits, low bits first; its bytes or words make no difference
  rows_words,   ///< each row in words of ⌊32 / bits⌋ codes, low bits first, the rest of a word unused
  rows_high_first,  ///< 4 bits, the matrix one run of codes, the first of a byte in its high nibble
  /// GPTQ: [words, rows]: 32 codes of a row's dense stream are `bits` words, one below the other.
  columns_stream,
  /// GPTQModel's "planar": the same words, but each run of 32 codes as planes of 4, 2 and 1 bits, low bits
  /// first.
  columns_planes,
  awq,  ///< 4 bits, [cols, rows / 8]: a word is a column's codes of 8 rows, row kAwqOrder[k] in nibble k
};

inline constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/// Codes as they are stored: numbers of `bits` bits, 1 to 8.
struct Codes {
  CodeLayout layout = CodeLayout::rows_stream;
  int bits = 8;
  const std::byte* data = nullptr;
  int64_t cols = 0;
  /// Bytes of a row; of layouts that pack columns, words from one word of a row to the next below it.
  int64_t stride = 0;
  /// 8 bits in two's complement: unpacked + 128.
  bool is_signed = false;

  /// Whether unpacked codes are the stored bytes.
  bool is_bytes() const { return layout == CodeLayout::rows_stream && bits == 8 && !is_signed; }
};

/// Where blocks of columns_* layouts begin: the first column that unpack() is asked for is a multiple of it.
inline constexpr int64_t kCodeBlock = 32;

/// Unpacks codes [row, row + rows) × [col, col + count), a byte each, `out` having rows `stride` apart.
void unpack(const Codes& codes, int64_t row, int64_t rows, int64_t col, int64_t count, uint8_t* out,
            int64_t stride);

/// Code i of a dense stream, of words of ⌊32 / bits⌋ codes, or of planes of 32 codes, `step` words from one
/// word to the next.
uint32_t stream_code(const std::byte* data, int bits, int64_t i, int64_t step = 1);
uint32_t word_code(const std::byte* data, int bits, int64_t i, int64_t step = 1);
uint32_t plane_code(const std::byte* data, int bits, int64_t i);

}  // namespace qeval::model
