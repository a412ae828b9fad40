#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "base/file.h"

namespace qeval::eval {

/// A file of a base model's log-probabilities as llama.cpp's `--kl-divergence-base` has it (its
/// tools/perplexity), little-endian: "_logits_", i32 tokens per chunk c, i32 vocabulary v, i32 chunks n, i32
/// tokens [n · c]; then of each chunk c − 1 − c/2 rows, the positions c/2 … c − 2. A row is 2 · ⌈v/2⌉ + 4
/// u16: the float32 scale and least log-probability, and per token the u16 k of its log-probability least +
/// scale · k; log-probabilities more than 16 below the largest are kept as the least.
struct LogitsHeader {
  int32_t context = 0, vocabulary = 0, chunks = 0;
  std::vector<int32_t> tokens;  ///< [chunks · context]; without the BOS that replaces each chunk's first

  int64_t rows_per_chunk() const { return context - 1 - context / 2; }
  int64_t row_values() const { return row_values(vocabulary); }
  static int64_t row_values(int64_t vocabulary) { return 2 * ((vocabulary + 1) / 2) + 4; }
};

/// One row as the file has it, of logits [vocabulary]; `out` has row_values(). Returns −ln of the probability
/// of `token` before it is rounded.
double quantize_row(std::span<const float> logits, int32_t token, std::span<uint16_t> out);

class LogitsWriter {
 public:
  LogitsWriter(const std::filesystem::path& path, const LogitsHeader& header);
  void add(std::span<const uint16_t> row);
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

class LogitsReader {
 public:
  /// Throws Error naming the file for what is no such file, for sizes that cannot be, tokens outside the
  /// vocabulary and a length that does not fit.
  explicit LogitsReader(const std::filesystem::path& path);
  const LogitsHeader& header() const { return header_; }
  /// Row `row` of chunk `chunk`.
  std::vector<uint16_t> row(int64_t chunk, int64_t row) const;

 private:
  MappedFile file_;
  LogitsHeader header_;
  size_t first_row_ = 0;
};

}  // namespace qeval::eval
