#include "quant/arithmetic/blocks/block_matrix.h"

#include <algorithm>
#include <cassert>
#include <vector>

#include "model/kernels/kernels.h"
#include "quant/arithmetic/blocks/read_block.h"

namespace qeval::quant {
namespace {

// Elements of the inner dimension that are multiplied at a time: of a panel, 16 KiB of bytes, which stay in
// the first-level cache while the rows of the input stream past.
constexpr int64_t kDepth = 512;
// Of a task.
constexpr int64_t kTaskRows = 256, kTaskColumns = 2 * kPanelColumns;

}  // namespace

std::optional<BlockMatrix> BlockMatrix::make(const model::Matrix& weights) {
  const model::DType* type = weights.stored.plain_type();
  const PanelForm* form = type == nullptr ? nullptr : panel_form(*type);
  if (form == nullptr || weights.cols % model::info(*type).block_size != 0) return std::nullopt;
  return BlockMatrix(*form, weights);
}

BlockMatrix::BlockMatrix(const PanelForm& form, const model::Matrix& weights)
    : form_(&form), rows_(weights.rows), cols_(weights.cols) {
  const int64_t panels = (rows_ + kPanelColumns - 1) / kPanelColumns;
  panels_.resize(static_cast<size_t>(panels * (cols_ / form.block()) * form.block_bytes()));
  parallel_tasks(panels, [&](int64_t panel) { pack_panel(weights, panel); });
}

void BlockMatrix::pack_panel(const model::Matrix& weights, int64_t panel) {
  const PanelForm& form = *form_;
  const model::DType type = *weights.stored.plain_type();
  const int64_t blocks = cols_ / form.block(), runs = form.block() / kRun, sub_blocks = form.sub_blocks();
  const model::DTypeInfo& info = model::info(type);
  const int64_t parts = info.block_size / form.block();
  auto* out = panels_.as<uint8_t>() + panel * blocks * form.block_bytes();
  // What is missing to a whole panel has scales of 0.
  std::memset(out, 0, static_cast<size_t>(blocks * form.block_bytes()));
  const int64_t count = std::min(kPanelColumns, rows_ - panel * kPanelColumns);
  StoredBlock block;
  for (int64_t column = 0; column < count; ++column) {
    const int64_t row = weights.stored_row(panel * kPanelColumns + column);
    const auto* source = reinterpret_cast<const uint8_t*>(weights.stored.row(row));
    for (int64_t b = 0; b < blocks; ++b) {
      read_block(type, source + b / parts * info.block_bytes, b % parts, block);
      uint8_t* to = out + b * form.block_bytes();
      for (int64_t run = 0; run < runs; ++run) {
        for (int64_t quad = 0; quad < kRun / 4; ++quad) {
          uint32_t four = load_four(block.codes + run * kRun + 4 * quad);
          int64_t at = run * (kRun / 4) + quad;
          if (form.codes != PanelForm::Codes::bytes) {
            at = run * (kRun / 8) + quad % 4;
            if (quad >= 4) four = load_four(to + (at * kPanelColumns + column) * 4) | four << 4U;
          }
          std::memcpy(to + (at * kPanelColumns + column) * 4, &four, sizeof(four));
        }
      }
      to += form.code_bytes();
      for (int64_t s = 0; s < sub_blocks; ++s)
        to[s * kPanelColumns + column] = static_cast<uint8_t>(block.steps[s]);
      to += sub_blocks * kPanelColumns;
      if (form.minima) {
        for (int64_t s = 0; s < sub_blocks; ++s)
          to[(s / 2 * kPanelColumns + column) * 2 + s % 2] = block.least[s];
        to += sub_blocks * kPanelColumns;
      }
      std::memcpy(to + 2 * column, &block.scale, sizeof(block.scale));
      if (form.minima || form.pairs)
        std::memcpy(to + 2 * (kPanelColumns + column), &block.minimum, sizeof(block.minimum));
    }
  }
}

void BlockMatrix::multiply(const BlockRows& in, int64_t first_row, int64_t row_count, int64_t first,
                           int64_t count, float* out, int64_t ld, const BlockKernels& kernels) const {
  assert(in.layout.cols == cols_ && first % kPanelColumns == 0);
  thread_local AlignedBuffer aside;  // of a panel that is not whole
  const PanelForm& form = *form_;
  const int64_t blocks = cols_ / form.block(), at_once = kDepth / form.block();
  const int64_t sum_bytes = form.sub_block == 0 ? 4 : 32;  // of a block
  const std::byte* rows = in.data + first_row * in.ld;
  for (int64_t column = first; column < first + count; column += kPanelColumns) {
    const int64_t width = std::min(kPanelColumns, first + count - column);
    float* c = out + column - first;
    int64_t ldc = ld;
    if (width < kPanelColumns) {
      aside.resize(static_cast<size_t>(row_count * kPanelColumns) * sizeof(float));
      c = aside.as<float>();
      ldc = kPanelColumns;
    }
    const uint8_t* panel = panels_.as<uint8_t>() + column / kPanelColumns * blocks * form.block_bytes();
    for (int64_t b = 0; b < blocks; b += at_once) {
      kernels.product({.form = &form,
                       .m = row_count,
                       .blocks = std::min(at_once, blocks - b),
                       .codes = reinterpret_cast<const int8_t*>(rows) + b * form.block(),
                       .scales = reinterpret_cast<const float*>(rows + in.layout.scales) + b,
                       .sums = rows + in.layout.sums + b * sum_bytes,
                       .ld = in.ld,
                       .panel = panel + b * form.block_bytes(),
                       .c = c,
                       .ldc = ldc,
                       .accumulate = b > 0});
    }
    if (width == kPanelColumns) continue;
    for (int64_t r = 0; r < row_count; ++r)
      std::copy_n(c + r * kPanelColumns, width, out + r * ld + column - first);
  }
}

void multiply(std::span<const BlockTarget> targets) {
  struct Task {
    const BlockTarget* target;
    int64_t row, column;
  };
  std::vector<Task> tasks;
  for (const BlockTarget& target : targets) {
    for (int64_t row = 0; row < target.in.rows; row += kTaskRows) {
      for (int64_t column = 0; column < target.matrix->rows(); column += kTaskColumns)
        tasks.push_back({&target, row, column});
    }
  }
  parallel_tasks(std::ssize(tasks), [&](int64_t t) {
    const auto& [target, row, column] = tasks[static_cast<size_t>(t)];
    const int64_t width = target->matrix->rows(), count = std::min(kTaskColumns, width - column);
    const int64_t rows = std::min(kTaskRows, target->in.rows - row);
    float* out = target->out + row * width + column;
    target->matrix->multiply(target->in, row, rows, column, count, out, width);
    if (target->bias == nullptr) return;
    for (int64_t r = 0; r < rows; ++r) model::kernels().add(target->bias + column, count, out + r * width);
  });
}

}  // namespace qeval::quant
