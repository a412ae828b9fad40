#include "model/kernels/bf16.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "model/kernels/cpu.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

int64_t words(int64_t columns) {
  return (columns + 1) / 2;
}

/// multiply_block_bf16 with A as words.
void multiply_words(Bf16Kernel kernel, const WeightView& w, int64_t first, int64_t count, const uint32_t* a,
                    int64_t m, float* c, int64_t ldc) {
  thread_local AlignedBuffer rows, panels;
  constexpr int64_t kTwoPanels = 2 * kBf16Panel;
  const int64_t padded = (count + kTwoPanels - 1) / kTwoPanels * kTwoPanels;
  rows.resize(static_cast<size_t>(kBf16Panel * kColumnBlock) * sizeof(float));
  panels.resize(static_cast<size_t>(padded * words(kColumnBlock)) * sizeof(uint32_t));
  static_assert(kColumnBlock % 2 == 0, "a block of columns is whole words");
  for (int64_t col = 0; col < w.cols; col += kColumnBlock) {
    const int64_t k = std::min(kColumnBlock, w.cols - col);
    for (int64_t p = 0; p < padded; p += kBf16Panel) {
      const int64_t in_panel = std::clamp<int64_t>(count - p, 0, kBf16Panel);
      if (in_panel > 0) w.decode(w.context, {first + p, in_panel, col, k, rows.as<float>(), k});
      kernel->pack(rows.as<float>(), in_panel, k, panels.as<uint32_t>() + p * words(k));
    }
    kernel->multiply({.m = m,
                      .n = count,
                      .pairs = words(k),
                      .a = a + col / 2,
                      .lda = words(w.cols),
                      .b = panels.as<uint32_t>(),
                      .c = c,
                      .ldc = ldc,
                      .accumulate = col > 0});
  }
  if (w.bias == nullptr) return;
  for (int64_t r = 0; r < m; ++r) kernels().add(w.bias + first, count, c + r * ldc);
}

}  // namespace

Bf16Kernel bf16_dot_kernel() {
#if defined(__x86_64__)
  static constexpr Bf16Kernels kDots{.name = "avx512-bf16",
                                     .arithmetic = "float-bf16",
                                     .multiply = bf16_gemm_avx512,
                                     .narrow = narrow_bf16_avx512,
                                     .pack = pack_bf16_avx512};
  if (cpu_supports(CpuPath::avx512) && cpu_has(CpuFeature::avx512_bf16)) return &kDots;
#endif
  return nullptr;
}

Bf16Kernel bf16_tile_kernel() {
#if defined(__x86_64__)
  static constexpr Bf16Kernels kTiles{.name = "avx512-amx",
                                      .arithmetic = "float-bf16-amx",
                                      .multiply = bf16_gemm_avx512_amx,
                                      .narrow = narrow_bf16_avx512,
                                      .pack = pack_bf16_avx512};
  if (bf16_dot_kernel() != nullptr && cpu_has(CpuFeature::amx_bf16)) return &kTiles;
#endif
  return nullptr;
}

Bf16Kernel bf16_kernel() {
  if (cpu_path() != CpuPath::avx512) return nullptr;
  const Bf16Kernel tiles = cpu_path_is_forced() ? nullptr : bf16_tile_kernel();
  return tiles != nullptr ? tiles : bf16_dot_kernel();
}

void narrow_bf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = narrow_bf16(x[i]);
  if (n % 2 != 0) out[n] = 0;
}

void pack_bf16(const float* rows, int64_t count, int64_t k, uint32_t* panel) {
  thread_local AlignedBuffer narrow;
  const int64_t pairs = words(k);
  narrow.resize(static_cast<size_t>(2 * pairs) * sizeof(uint16_t));
  std::fill_n(panel, pairs * kBf16Panel, 0U);
  for (int64_t r = 0; r < count; ++r) {
    narrow_bf16(rows + r * k, k, narrow.as<uint16_t>());
    const auto* row = narrow.as<uint32_t>();
    for (int64_t i = 0; i < pairs; ++i) panel[i * kBf16Panel + r] = row[i];
  }
}

void multiply_block_bf16(Bf16Kernel kernel, const WeightView& w, int64_t first, int64_t count, const float* a,
                         int64_t lda, int64_t m, float* c, int64_t ldc) {
  thread_local AlignedBuffer narrow;
  const int64_t stride = words(w.cols);
  narrow.resize(static_cast<size_t>(m * stride) * sizeof(uint32_t));
  for (int64_t r = 0; r < m; ++r) kernel->narrow(a + r * lda, w.cols, narrow.as<uint16_t>() + 2 * r * stride);
  multiply_words(kernel, w, first, count, narrow.as<uint32_t>(), m, c, ldc);
}

void multiply_bf16(Bf16Kernel kernel, const float* a, int64_t m, std::span<const Product> products) {
  const int64_t cols = products[0].weight.cols;
  const int64_t stride = words(cols);
  AlignedBuffer narrow;
  narrow.resize(static_cast<size_t>(m * stride) * sizeof(uint32_t));
  parallel_ranges(m, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      kernel->narrow(a + r * cols, cols, narrow.as<uint16_t>() + 2 * r * stride);
  });
  for_each_block(m, products, [&](const ProductBlock& block) {
    multiply_words(kernel, block.product->weight, block.first_weight, block.count,
                   narrow.as<uint32_t>() + block.first_input * stride, block.rows, block.out(),
                   block.stride());
  });
}

bool bf16_is_faster(Bf16Kernel kernel, const WeightView& w) {
  constexpr int64_t kInputs = 256, kMostRows = 2048;
  constexpr int kTries = 4;
  WeightView part = w;
  part.rows = std::min(w.rows, kMostRows);
  const std::vector<float> input(static_cast<size_t>(kInputs * w.cols), 0.5F);
  std::vector<float> out(static_cast<size_t>(kInputs * part.rows));
  const Product product{part, out.data()};
  const auto seconds = [](const auto& multiply_once) {
    const auto start = std::chrono::steady_clock::now();
    multiply_once();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  double narrow = std::numeric_limits<double>::infinity(), wide = narrow;
  for (int i = 0; i < kTries; ++i) {  // in turns; the best of each is the least disturbed
    wide = std::min(wide, seconds([&] { multiply(input.data(), kInputs, {&product, 1}); }));
    narrow = std::min(narrow, seconds([&] { multiply_bf16(kernel, input.data(), kInputs, {&product, 1}); }));
  }
  return narrow < wide;
}

void multiply_rows_bf16(Bf16Kernel kernel, std::span<const RowsProduct> products) {
  for_each_rows_block(products, [&](const float* a, const ProductBlock& block) {
    const WeightView& weight = block.product->weight;
    multiply_block_bf16(kernel, weight, block.first_weight, block.count, a + block.first_input * weight.cols,
                        weight.cols, block.rows, block.out(), block.stride());
  });
}

}  // namespace qeval::model
