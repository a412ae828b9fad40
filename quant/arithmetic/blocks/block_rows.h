#pragma once

#include <cstdint>

#include "model/arithmetic.h"
#include "quant/arithmetic/ggml_rounding.h"

namespace qeval::quant {

/// Where the parts of an input's row are, rounded to Q8_0, Q8_1 or Q8_K as ggml does, its codes apart from
/// the scales. In bytes from the row's beginning, all multiples of 64:
///   codes   int8 [cols]
///   scales  float [cols / block]; NaN where the block holds what is not finite
///   sums    of codes: int16 [cols / 16] (Q8_0, Q8_K), and of Q8_1 float [cols / 32]: times the scale before
///           it was rounded, rounded to a half
struct BlockRowLayout {
  GgmlRow type;
  int64_t cols, scales, sums, stride;

  BlockRowLayout(GgmlRow row_type, int64_t columns);
};

/// Whether inputs of this type have codes.
inline bool has_codes(GgmlRow type) {
  return type == GgmlRow::q8_0 || type == GgmlRow::q8_1 || type == GgmlRow::q8_k;
}

/// Rows of a product's input as codes.
struct BlockRows {
  BlockRowLayout layout;
  int64_t rows = 0;
  const std::byte* data = nullptr;
  int64_t ld = 0;  ///< bytes from a row to the next
};

/// out [layout.stride] ← x [cols], cols a multiple of the type's block.
void encode_row(const BlockRowLayout& layout, const float* x, std::byte* out);
/// The same of all rows of a tensor, in parallel; `out` becomes [rows, stride / 4].
BlockRows encode_rows(GgmlRow type, const model::Tensor& in, model::Tensor& out);

}  // namespace qeval::quant
