// Decoding of stored weights on their way into a product, single-threaded, per format: tiles as the product
// asks for them. What a quantized format takes is to be held against Q4_1, the block format that is decoded
// most.
#include <memory>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "model/checkpoint/stored_weight.h"
#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace {

using qeval::model::CodedWeight;
using qeval::model::CodeLayout;
using qeval::model::DType;
using qeval::model::StoredScales;
using qeval::model::StoredWeight;
using qeval::model::StoredZeros;

constexpr int64_t kRows = 512, kCols = 768;

/// Random bytes, aligned and enough for any tensor of the matrix; scales read from them are finite.
const std::byte* some_bytes() {
  static const std::vector<uint32_t> bytes = [] {
    std::mt19937 random(1);
    std::vector<uint32_t> words(kRows * kCols);
    for (uint32_t& word : words) word = random() & 0x3BFF3BFFU;
    return words;
  }();
  return reinterpret_cast<const std::byte*>(bytes.data());
}

struct Format {
  const char* name;
  CodeLayout layout;
  int bits;
  int64_t group;
  StoredScales::Type scales;
  StoredZeros::Layout zeros;
  int values = 0;
  bool is_signed = false;
};

constexpr Format kFormats[]{
    {"GPTQ 4-bit g128", CodeLayout::columns_stream, 4, 128, StoredScales::Type::f16,
     StoredZeros::Layout::row_stream},
    {"GPTQ 3-bit g128", CodeLayout::columns_stream, 3, 128, StoredScales::Type::f16,
     StoredZeros::Layout::row_stream},
    {"GPTQ 2-bit g64", CodeLayout::columns_stream, 2, 64, StoredScales::Type::f16,
     StoredZeros::Layout::row_stream},
    {"GPTQ 8-bit g128", CodeLayout::columns_stream, 8, 128, StoredScales::Type::f16,
     StoredZeros::Layout::row_stream},
    {"GPTQ planar 5-bit g128", CodeLayout::columns_planes, 5, 128, StoredScales::Type::f16,
     StoredZeros::Layout::row_planes},
    {"AWQ 4-bit g128", CodeLayout::awq, 4, 128, StoredScales::Type::f16, StoredZeros::Layout::awq},
    {"packed 4-bit g32", CodeLayout::rows_stream, 4, 32, StoredScales::Type::bf16, StoredZeros::Layout::none},
    {"packed 4-bit g32 zeros", CodeLayout::rows_stream, 4, 32, StoredScales::Type::bf16,
     StoredZeros::Layout::column_stream},
    {"packed 3-bit g32, words", CodeLayout::rows_words, 3, 32, StoredScales::Type::bf16,
     StoredZeros::Layout::none},
    {"packed 6-bit g64", CodeLayout::rows_stream, 6, 64, StoredScales::Type::bf16, StoredZeros::Layout::none},
    {"int8 per channel", CodeLayout::rows_stream, 8, kCols, StoredScales::Type::bf16,
     StoredZeros::Layout::none, 0, true},
    {"FP8 per channel", CodeLayout::rows_stream, 8, kCols, StoredScales::Type::bf16,
     StoredZeros::Layout::none, 256},
    {"NVFP4", CodeLayout::rows_stream, 4, 16, StoredScales::Type::f8_e4m3, StoredZeros::Layout::none, 16},
    {"MXFP4", CodeLayout::rows_stream, 4, 32, StoredScales::Type::e8m0, StoredZeros::Layout::none, 16},
    {"nf4 g64", CodeLayout::rows_high_first, 4, 64, StoredScales::Type::f32, StoredZeros::Layout::none, 16},
};

StoredWeight coded(const Format& format) {
  auto weight = std::make_shared<CodedWeight>();
  const bool down =
      format.layout == CodeLayout::columns_stream || format.layout == CodeLayout::columns_planes;
  const int64_t groups = kCols / format.group;
  weight->rows = kRows;
  weight->cols = kCols;
  weight->codes = {.layout = format.layout,
                   .bits = format.bits,
                   .data = some_bytes(),
                   .cols = kCols,
                   .stride = format.layout == CodeLayout::awq ? kRows / 8
                             : down                           ? kRows
                             : format.layout == CodeLayout::rows_words
                                 ? (kCols + 32 / format.bits - 1) / (32 / format.bits) * 4
                                 : kCols * format.bits / 8,
                   .is_signed = format.is_signed};
  const bool by_group = down || format.layout == CodeLayout::awq;
  weight->scales = {.type = format.scales,
                    .data = some_bytes(),
                    .row_step = by_group ? 1 : groups,
                    .group_step = by_group ? kRows : 1};
  weight->zeros = {
      .layout = format.zeros,
      .data = some_bytes(),
      .bits = format.bits,
      .stride = format.zeros == StoredZeros::Layout::column_stream ? groups : kRows * format.bits / 32,
      .constant = 8};
  weight->group = format.group;
  weight->flat = format.layout == CodeLayout::rows_high_first;
  if (format.values == 16) weight->values = qeval::model::e2m1_values();
  if (format.values == 256) weight->values = qeval::model::e4m3_values();
  weight->value_count = format.values;
  return {weight, 0};
}

void decode_tiles(benchmark::State& state, const StoredWeight& weight, int64_t rows) {
  std::vector<float> out(static_cast<size_t>(rows * kCols));
  for ([[maybe_unused]] const auto _ : state) {
    for (int64_t row = 0; row < kRows; row += rows) weight.decode(row, rows, 0, kCols, out.data(), kCols);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["Gweights/s"] = benchmark::Counter(static_cast<double>(kRows * kCols) * 1e-9,
                                                    benchmark::Counter::kIsIterationInvariantRate);
}

const int kRegistered = [] {
  const int64_t rows = qeval::model::kernels().panel;
  for (const DType type : {DType::q4_1, DType::q8_0, DType::q4_k, DType::f16}) {
    const StoredWeight weight(type, kCols, some_bytes());
    benchmark::RegisterBenchmark(std::string(qeval::model::info(type).name).c_str(),
                                 [=](benchmark::State& state) { decode_tiles(state, weight, rows); });
  }
  for (const Format& format : kFormats) {
    benchmark::RegisterBenchmark(
        format.name, [&format, rows](benchmark::State& state) { decode_tiles(state, coded(format), rows); });
  }
  return 0;
}();

}  // namespace
