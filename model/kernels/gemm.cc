#include "model/kernels/gemm.h"

#include <algorithm>
#include <optional>

#include "base/parallel.h"
#include "model/kernels/kernels.h"
#include "model/kernels/row_dots.h"

namespace qeval::model {
namespace {

// Rows of W per task: with kColumnBlock columns, 192 KiB of packed panels, which stay in the second-level
// cache while the rows of A stream past.
constexpr int64_t kRowsOfWeight = 64;
// Rows of W that a single row of A is multiplied by at once; decoded, 96 KiB.
constexpr int64_t kRowsAtOnce = 4 * kRowDots;
// Rows of A per task: decoding and packing the weights again costs a few percent at this many.
constexpr int64_t kRowsOfInput = 1024;

void decode_matrix(const void* context, const WeightView::Tile& tile) {
  static_cast<const Matrix*>(context)->decode(tile.row, tile.rows, tile.col, tile.cols, tile.out,
                                              tile.stride);
}

struct GemmScratch {
  AlignedBuffer rows, panels;
};

/// The stored type, where the kernels read rows of it as they are.
std::optional<DType> row_type(const WeightView& w) {
  if (w.decode != decode_matrix) return std::nullopt;
  const DType* type = static_cast<const Matrix*>(w.context)->stored.plain_type();
  return type != nullptr && reads_rows_of(*type) ? std::optional(*type) : std::nullopt;
}

/// multiply_block for one row of A. Weights are read once, in their stored type where the kernels can, else a
/// few rows are decoded at a time; nothing is packed.
void multiply_row(const WeightView& w, int64_t first, int64_t count, const float* a, float* c) {
  constexpr int64_t kRows = kRowsAtOnce;
  thread_local GemmScratch scratch;
  const std::optional<DType> stored = row_type(w);
  for (int64_t row = 0; row < count; row += kRows) {
    const int64_t in_block = std::min(kRows, count - row);
    const int64_t padded = (in_block + kRowDots - 1) / kRowDots * kRowDots;
    const void* rows[kRows];
    float sums[kRows] = {};
    // What is missing to whole groups repeats the last row; its sum is thrown away.
    const auto source = [&](int64_t r) { return first + row + std::min(r, in_block - 1); };
    if (stored) {
      const auto& matrix = *static_cast<const Matrix*>(w.context);
      for (int64_t r = 0; r < padded; ++r) rows[r] = matrix.stored.row(matrix.stored_row(source(r)));
      row_dots({.count = padded,
                .k = w.cols,
                .x = a,
                .rows = rows,
                .type = *stored,
                .sums = sums,
                .ahead = kRows * (matrix.stored.row(1) - matrix.stored.row(0))});
    } else {
      scratch.rows.resize(static_cast<size_t>(kRows * kColumnBlock) * sizeof(float));
      auto* decoded = scratch.rows.as<float>();
      for (int64_t r = 0; r < padded; ++r) rows[r] = decoded + std::min(r, in_block - 1) * kColumnBlock;
      for (int64_t col = 0; col < w.cols; col += kColumnBlock) {
        const int64_t k = std::min(kColumnBlock, w.cols - col);
        w.decode(w.context, {first + row, in_block, col, k, decoded, kColumnBlock});
        row_dots({.count = padded, .k = k, .x = a + col, .rows = rows, .sums = sums});
      }
    }
    std::copy_n(sums, in_block, c + row);
  }
  if (w.bias != nullptr) kernels().add(w.bias + first, count, c);
}

}  // namespace

bool has_row_dots() {
  return cpu_path() != CpuPath::portable;
}

WeightView view(const Matrix& matrix, const float* bias) {
  return {matrix.rows, matrix.cols, bias, &matrix, decode_matrix};
}

WeightView view(const LinearWeights& weights) {
  return view(weights.weight, weights.bias.empty() ? nullptr : weights.bias.data());
}

void multiply_block(const WeightView& w, int64_t first, int64_t count, const float* a, int64_t lda, int64_t m,
                    float* c, int64_t ldc) {
  if (m == 1 && has_row_dots()) {
    multiply_row(w, first, count, a, c);
    return;
  }
  thread_local GemmScratch scratch;
  const Kernels& kernel = kernels();
  const int64_t panel = kernel.panel;
  const int64_t panels = (count + panel - 1) / panel;
  scratch.rows.resize(static_cast<size_t>(panel * kColumnBlock) * sizeof(float));
  scratch.panels.resize(static_cast<size_t>(panels * panel * kColumnBlock) * sizeof(float));
  auto* rows = scratch.rows.as<float>();
  auto* packed = scratch.panels.as<float>();
  for (int64_t col = 0; col < w.cols; col += kColumnBlock) {
    const int64_t k = std::min(kColumnBlock, w.cols - col);
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t in_panel = std::min(panel, count - p * panel);
      w.decode(w.context, {first + p * panel, in_panel, col, k, rows, k});
      kernel.pack_panel(rows, k, in_panel, k, packed + p * panel * k);
    }
    kernel.gemm({.m = m,
                 .n = count,
                 .k = k,
                 .a = a + col,
                 .lda = lda,
                 .b = packed,
                 .ldb = panel,
                 .panel_stride = panel * k,
                 .c = c,
                 .ldc = ldc,
                 .accumulate = col > 0});
  }
  if (w.bias != nullptr) {
    for (int64_t r = 0; r < m; ++r) kernel.add(w.bias + first, count, c + r * ldc);
  }
}

void for_each_rows_block(std::span<const RowsProduct> products,
                         const std::function<void(const float* a, const ProductBlock&)>& body) {
  struct Task {
    const float* a;
    ProductBlock block;
  };
  std::vector<Task> tasks;
  for (const RowsProduct& own : products) {
    const Product& product = own.product;
    for (int64_t i = 0; i < own.m; i += kRowsOfInput) {
      for (int64_t w = 0; w < product.weight.rows; w += kRowsOfWeight) {
        tasks.push_back({own.a,
                         {&product, w, std::min(kRowsOfWeight, product.weight.rows - w), i,
                          std::min(kRowsOfInput, own.m - i)}});
      }
    }
  }
  parallel_tasks(std::ssize(tasks), [&](int64_t t) {
    const Task& task = tasks[static_cast<size_t>(t)];
    body(task.a, task.block);
  });
}

void for_each_block(int64_t m, std::span<const Product> products,
                    const std::function<void(const ProductBlock&)>& body) {
  std::vector<RowsProduct> all;
  for (const Product& product : products) all.push_back({product, nullptr, m});
  for_each_rows_block(all, [&](const float*, const ProductBlock& block) { body(block); });
}

namespace {

/// Rows of weights [first, first + count) of a product, finished.
void multiply_part(const RowsProduct& own, int64_t first, int64_t count, int64_t first_input, int64_t rows) {
  const WeightView& weight = own.product.weight;
  const Epilogue& epilogue = own.product.epilogue;
  float* out = own.product.out + first_input * weight.rows + first;
  multiply_block(weight, first, count, own.a + first_input * weight.cols, weight.cols, rows, out,
                 weight.rows);
  if (epilogue.apply == nullptr) return;
  for (int64_t r = 0; r < rows; ++r) epilogue.apply(epilogue.context, out + r * weight.rows, count);
}

/// Products of a row each: every thread a stretch of weights, since a product takes as long as the longest.
void multiply_single_rows(std::span<const RowsProduct> products) {
  int64_t stretches = 0;
  for (const RowsProduct& own : products)
    stretches += (own.product.weight.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_ranges(stretches, 1, [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for (const RowsProduct& own : products) {
      const int64_t rows = own.product.weight.rows;
      const int64_t first = std::max<int64_t>(0, (begin - before) * kRowsAtOnce);
      const int64_t last = std::min(rows, (end - before) * kRowsAtOnce);
      if (first < last) multiply_part(own, first, last - first, 0, 1);
      before += (rows + kRowsAtOnce - 1) / kRowsAtOnce;
    }
  });
}

}  // namespace

void multiply_rows(std::span<const RowsProduct> products) {
  if (has_row_dots() && std::ranges::all_of(products, [](const RowsProduct& own) { return own.m == 1; })) {
    multiply_single_rows(products);
    return;
  }
  for_each_rows_block(products, [](const float* a, const ProductBlock& block) {
    multiply_part({*block.product, a, 0}, block.first_weight, block.count, block.first_input, block.rows);
  });
}

void multiply(const float* a, int64_t m, std::span<const Product> products) {
  std::vector<RowsProduct> all;
  for (const Product& product : products) all.push_back({product, a, m});
  multiply_rows(all);
}

}  // namespace qeval::model
