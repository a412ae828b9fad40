#pragma once

#include <cstdint>

#include "base/parallel.h"
#include "model/arithmetic.h"
#include "quant/arithmetic/integer/integer_model.h"

namespace qeval::quant {

struct IntegerKernels;

/// A product's input: codes [rows, cols], and the sum of each row's codes.
struct LinearInput {
  int64_t rows = 0, cols = 0;
  const int16_t* codes = nullptr;
  const int64_t* sums = nullptr;   ///< [rows], where a map has zero points to take off
  const uint8_t* bytes = nullptr;  ///< [rows, byte_stride(cols)], where a map has the layout of quads
};
/// Whole groups of four entries.
inline int64_t byte_stride(int64_t cols) {
  return (cols + 15) / 16 * 16;
}
/// bytes [byte_stride(cols)] ← codes of 0 … 255, zeros behind them.
void to_bytes(const int16_t* codes, int64_t cols, uint8_t* bytes);

/// out [rows, count] (row stride ld) ← the outputs [first, first + count) of the linear map as codes, on the
/// calling thread. `first` is a multiple of kPanel.
void linear_codes(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in,
                  int64_t first_row, int64_t row_count, int16_t* out, int64_t ld);
/// The same as 32-bit numbers (the logits), not clamped to codes.
void linear_wide(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in, int32_t* out,
                 int64_t ld);
/// out [row_count, count] (row stride ld) ← products of inputs of 0 … 255 with weights of at most 8 bits
/// modulo 2^32, of rows [first_row, + row_count), before constants and zero points: Σ x·w, of grouped quads
/// Σ x·(w − zero point). On the calling thread; `first` is a multiple of kPanel, and the panels have been
/// laid out for these kernels (pack_panels).
void linear_sums(const IntegerKernels& kernel, const IntegerMatrix& w, int64_t first, int64_t count,
                 const LinearInput& in, int64_t first_row, int64_t row_count, int32_t* out, int64_t ld);
/// Rows at position 0, codes of up to 16 bits, as a linear map multiplies them: where its weights have 8 bits
/// or fewer and no groups, the two bytes of each number apart, less 2^15 below 0; behind them a row of ones.
struct FirstInput {
  FirstInput(const IntegerMatrix& w, const model::Tensor& codes);

  int64_t rows;
  bool bytes_apart;
  std::vector<int64_t> sums;  ///< of each row's codes
  model::Tensor parts, bytes;
};
/// out [input.rows, count] (row stride ld) ← the outputs [first, first + count) of the map as codes.
void first_linear_codes(const IntegerMatrix& w, const IntegerFirstLinear& first, int64_t first_column,
                        int64_t count, const FirstInput& input, int16_t* out, int64_t ld);
/// sums [rows] ← Σ of each row.
void row_sums(const int16_t* codes, int64_t rows, int64_t cols, int64_t* sums);

}  // namespace qeval::quant
