// Products of ggml's block codes (--arithmetic ggml) on one thread, per type: a single row, which should wait
// for memory only, and a batch.
#include <cstring>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "model/kernels/gemm.h"
#include "quant/arithmetic/blocks/block_matrix.h"

namespace {

using qeval::model::DType;
using namespace qeval::quant;

constexpr int64_t kRows = 8192, kCols = 1536;

void BM_BlockProduct(benchmark::State& state, DType type) {
  const int64_t m = state.range(0), rows = m == 1 ? kRows : 512;
  std::mt19937 random(1);
  const qeval::model::DTypeInfo& info = qeval::model::info(type);
  std::vector<uint32_t> bytes(static_cast<size_t>(rows * kCols / info.block_size * info.block_bytes / 4 + 1));
  for (uint32_t& word : bytes) word = random() & 0x3BFF3BFFU;  // whose halves are finite
  const qeval::model::Matrix matrix{
      .name = "",
      .rows = rows,
      .cols = kCols,
      .stored = qeval::model::StoredWeight(type, kCols, reinterpret_cast<const std::byte*>(bytes.data()))};
  const auto blocks = BlockMatrix::make(matrix);
  qeval::model::Tensor x, codes;
  x.resize(m, kCols, sizeof(float));
  for (int64_t i = 0; i < m * kCols; ++i) x.row<float>(0)[i] = static_cast<float>(random() % 1000) - 500;
  const BlockRows in = encode_rows(*dot_type(type), x, codes);
  std::vector<float> out(static_cast<size_t>(m * rows));
  for (auto _ : state) {
    blocks->multiply(in, 0, m, 0, rows, out.data(), rows);
    benchmark::DoNotOptimize(out.data());
  }
  const auto rate = [&](double amount) {
    return benchmark::Counter(static_cast<double>(state.iterations()) * amount, benchmark::Counter::kIsRate);
  };
  state.counters["MAC/s"] = rate(static_cast<double>(m * rows * kCols));
  state.counters["weights B/s"] = rate(static_cast<double>(blocks->byte_count()));
}

/// A single row in float, which reads blocks as they are stored.
void BM_FloatRow(benchmark::State& state, DType type) {
  const qeval::model::DTypeInfo& info = qeval::model::info(type);
  const int64_t bytes = kRows * kCols / info.block_size * info.block_bytes;
  std::mt19937 random(1);
  std::vector<uint32_t> words(static_cast<size_t>(bytes / 4 + 1));
  for (uint32_t& word : words) word = random() & 0x3BFF3BFFU;
  const qeval::model::Matrix matrix{
      .name = "",
      .rows = kRows,
      .cols = kCols,
      .stored = qeval::model::StoredWeight(type, kCols, reinterpret_cast<const std::byte*>(words.data()))};
  std::vector<float> x(kCols, 0.5F), out(kRows);
  for (auto _ : state) {
    for (int64_t first = 0; first < kRows; first += 64)  // as a product's tasks
      qeval::model::multiply_block(view(matrix), first, 64, x.data(), kCols, 1, out.data() + first, kRows);
    benchmark::DoNotOptimize(out.data());
  }
  const auto rate = [&](int64_t amount) {
    return benchmark::Counter(static_cast<double>(state.iterations() * amount), benchmark::Counter::kIsRate);
  };
  state.counters["MAC/s"] = rate(kRows * kCols);
  state.counters["weights B/s"] = rate(bytes);
}

/// Laying out the codes when a model is loaded.
void BM_Pack(benchmark::State& state, DType type) {
  const qeval::model::DTypeInfo& info = qeval::model::info(type);
  const int64_t rows = 512;
  std::vector<uint32_t> words(static_cast<size_t>(rows * kCols / info.block_size * info.block_bytes / 4 + 1));
  std::mt19937 random(1);
  for (uint32_t& word : words) word = random() & 0x3BFF3BFFU;
  const qeval::model::Matrix matrix{
      .name = "",
      .rows = rows,
      .cols = kCols,
      .stored = qeval::model::StoredWeight(type, kCols, reinterpret_cast<const std::byte*>(words.data()))};
  for (auto _ : state) benchmark::DoNotOptimize(BlockMatrix::make(matrix)->byte_count());
  state.counters["weights/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * rows * kCols), benchmark::Counter::kIsRate);
}

void BM_Encode(benchmark::State& state, GgmlRow type) {
  std::vector<float> x(kCols);
  for (float& v : x) v = static_cast<float>(&v - x.data()) - 700;
  const BlockRowLayout layout(type, kCols);
  std::vector<std::byte> out(static_cast<size_t>(layout.stride));
  for (auto _ : state) {
    encode_row(layout, x.data(), out.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["elements/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kCols), benchmark::Counter::kIsRate);
}

[[maybe_unused]] const bool kRegistered = [] {
  for (const DType type : {DType::q8_0,    DType::q4_0,  DType::q4_1,    DType::q5_0,  DType::q5_1,
                           DType::iq4_nl,  DType::mxfp4, DType::nvfp4,   DType::q1_0,  DType::q2_0,
                           DType::q2_k,    DType::q3_k,  DType::q4_k,    DType::q5_k,  DType::q6_k,
                           DType::iq4_xs,  DType::iq3_s, DType::iq3_xxs, DType::iq2_s, DType::iq2_xs,
                           DType::iq2_xxs, DType::iq1_m, DType::iq1_s,   DType::tq2_0, DType::tq1_0}) {
    for (const int64_t m : {1, 2, 7, 256}) {
      benchmark::RegisterBenchmark(("product/" + std::string(qeval::model::info(type).name)).c_str(),
                                   BM_BlockProduct, type)
          ->Arg(m);
    }
    benchmark::RegisterBenchmark(("pack/" + std::string(qeval::model::info(type).name)).c_str(), BM_Pack,
                                 type);
  }
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                           DType::q5_0, DType::q4_k, DType::q6_k, DType::iq2_xs})
    benchmark::RegisterBenchmark(("float_row/" + std::string(qeval::model::info(type).name)).c_str(),
                                 BM_FloatRow, type);
  benchmark::RegisterBenchmark("encode/q8_0", BM_Encode, GgmlRow::q8_0);
  benchmark::RegisterBenchmark("encode/q8_k", BM_Encode, GgmlRow::q8_k);
  return true;
}();

}  // namespace
