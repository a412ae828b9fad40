#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/parallel.h"
#include "model/weights.h"
#include "quant/arithmetic/blocks/block_rows.h"
#include "quant/arithmetic/blocks/kernels.h"

namespace qeval::quant {

/// A weight matrix in ggml's blocks, its codes laid out for the kernels: a second time in memory, of up to 4
/// bits as 4 and others (those of grids as their entries) as 8, with the scales as they are stored.
class BlockMatrix {
 public:
  /// Nothing where the type is none of GGUF's blocks (panel_form.h), or a row no whole number of them.
  /// `weights` is not needed afterwards.
  static std::optional<BlockMatrix> make(const model::Matrix& weights);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t byte_count() const { return static_cast<int64_t>(panels_.size()); }

  /// out [row_count, count] (row stride ld) ← rows [first_row, + row_count) of the input by weights [first, +
  /// count), first a multiple of kPanelColumns; kernels.h says how elements are computed. On the calling
  /// thread.
  void multiply(const BlockRows& in, int64_t first_row, int64_t row_count, int64_t first, int64_t count,
                float* out, int64_t ld, const BlockKernels& kernels = block_kernels()) const;

 private:
  BlockMatrix(const PanelForm& form, const model::Matrix& weights);
  void pack_panel(const model::Matrix& weights, int64_t panel);

  const PanelForm* form_;
  int64_t rows_, cols_;
  AlignedBuffer panels_;
};

/// A product of several that are computed together.
struct BlockTarget {
  const BlockMatrix* matrix;
  const float* bias;  ///< [matrix->rows()], or null
  float* out;         ///< [rows, matrix->rows()], contiguous
  BlockRows in;
};
/// All of them, in parallel. One addition for the bias.
void multiply(std::span<const BlockTarget> targets);

}  // namespace qeval::quant
