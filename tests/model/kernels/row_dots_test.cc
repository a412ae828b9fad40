// Products with a single row: what generation computes, token by token. They must have the bits of larger
// batches.
#include "model/kernels/row_dots.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "model/kernels/gemm.h"
#include "tests/model/block_halves.h"

namespace qeval::model {
namespace {

/// Bytes that every float type here reads as numbers of moderate size.
std::vector<std::byte> weight_bytes(DType dtype, int64_t numbers, std::mt19937& random) {
  const DTypeInfo& type = info(dtype);
  std::vector<std::byte> bytes(static_cast<size_t>(numbers / type.block_size * type.block_bytes));
  std::normal_distribution<float> normal;
  if (dtype == DType::f32) {
    for (size_t i = 0; i < bytes.size(); i += 4) {
      const float value = normal(random);
      std::memcpy(&bytes[i], &value, 4);
    }
    return bytes;
  }
  if (type.block_size > 1) {
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(type.block_bytes)) {
      for (const size_t at : fixtures::halves_of(dtype)) {
        const uint16_t half = narrow_f16(normal(random));
        std::memcpy(&bytes[block + at], &half, 2);
      }
      if (dtype == DType::mxfp4) bytes[block] = static_cast<std::byte>(120 + random() % 8);
    }
    return bytes;
  }
  for (size_t i = 0; i < bytes.size(); i += 2) {
    // Exponents around 1, of either sign: as half, as bfloat16.
    const auto noise = static_cast<uint16_t>(random());
    const auto half = static_cast<uint16_t>((noise & 0x8FFFU) | 0x3000U);
    const auto brain = static_cast<uint16_t>((noise & 0x80FFU) | 0x3F00U);
    std::memcpy(&bytes[i], dtype == DType::bf16 ? &brain : &half, 2);
  }
  return bytes;
}

struct Case {
  DType dtype;
  int64_t rows, cols, interleaved;
};

class RowProduct : public testing::TestWithParam<Case> {};

TEST_P(RowProduct, HasTheBitsOfABatch) {
  const auto [dtype, rows, cols, interleaved] = GetParam();
  std::mt19937 random(5);
  const std::vector<std::byte> bytes = weight_bytes(dtype, rows * cols, random);
  const Matrix matrix{.name = "w",
                      .rows = rows,
                      .cols = cols,
                      .stored = StoredWeight(dtype, cols, bytes.data()),
                      .interleaved_head_dim = interleaved};
  std::normal_distribution<float> normal;
  std::vector<float> input(static_cast<size_t>(3 * cols)), bias(static_cast<size_t>(rows));
  for (float& x : input) x = normal(random);
  for (float& x : bias) x = normal(random);
  for (const float* b : {static_cast<const float*>(nullptr), static_cast<const float*>(bias.data())}) {
    const WeightView w = view(matrix, b);
    std::vector<float> batch(static_cast<size_t>(3 * rows), 7.0F), single(static_cast<size_t>(rows), 7.0F);
    multiply_block(w, 0, rows, input.data(), cols, 3, batch.data(), rows);
    multiply_block(w, 0, rows, input.data() + cols, cols, 1, single.data(), rows);
    EXPECT_EQ(std::memcmp(single.data(), batch.data() + rows, static_cast<size_t>(rows) * sizeof(float)), 0);
    // A part of the rows, whatever its alignment.
    if (rows < 5) continue;
    multiply_block(w, 3, rows - 4, input.data() + cols, cols, 1, single.data(), rows);
    EXPECT_EQ(
        std::memcmp(single.data(), batch.data() + rows + 3, static_cast<size_t>(rows - 4) * sizeof(float)),
        0);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RowProduct,
                         testing::Values(Case{DType::f32, 61, 1541, 0}, Case{DType::f32, 1, 3, 0},
                                         Case{DType::f16, 64, 1600, 0}, Case{DType::f16, 37, 777, 0},
                                         Case{DType::f16, 40, 48, 20}, Case{DType::bf16, 45, 801, 0},
                                         Case{DType::f16, 100, 48, 50}, Case{DType::bf16, 75, 592, 0},
                                         Case{DType::f32, 44, 24, 22}, Case{DType::q4_0, 35, 1600, 0},
                                         Case{DType::q8_0, 12, 800, 0}, Case{DType::q4_1, 45, 96, 0},
                                         Case{DType::q5_0, 43, 160, 0}, Case{DType::q5_1, 65, 64, 0},
                                         Case{DType::q2_k, 37, 512, 0}, Case{DType::q3_k, 9, 1024, 0},
                                         Case{DType::q4_k, 70, 768, 0}, Case{DType::q5_k, 33, 512, 0},
                                         Case{DType::q6_k, 41, 768, 0}, Case{DType::iq4_nl, 40, 96, 20},
                                         Case{DType::iq4_xs, 36, 256, 0}, Case{DType::mxfp4, 38, 224, 0},
                                         Case{DType::iq2_xs, 7, 256, 0}));

/// Several products of one row, which threads share by stretches of their weights, and what follows them.
TEST(RowProducts, AreThoseOfABatchWithWhatFollows) {
  std::mt19937 random(7);
  constexpr int64_t kCols = 96;
  constexpr int64_t kRows[] = {70, 1, 33};
  std::normal_distribution<float> normal;
  std::vector<float> input(2 * kCols);
  for (float& x : input) x = normal(random);
  const Epilogue halve{nullptr, [](const void*, float* x, int64_t n) {
                         for (int64_t i = 0; i < n; ++i) x[i] *= 0.5F;
                       }};
  std::vector<std::vector<std::byte>> bytes;
  std::vector<Matrix> matrices;
  for (const int64_t rows : kRows) {
    bytes.push_back(weight_bytes(DType::f16, rows * kCols, random));
    matrices.push_back({.name = "w",
                        .rows = rows,
                        .cols = kCols,
                        .stored = StoredWeight(DType::f16, kCols, bytes.back().data())});
  }
  std::vector<std::vector<float>> batch(3), single(3);
  std::vector<Product> of_batch, of_single;
  for (size_t i = 0; i < 3; ++i) {
    batch[i].resize(static_cast<size_t>(2 * kRows[i]));
    single[i].resize(static_cast<size_t>(kRows[i]), 7.0F);
    of_batch.push_back({view(matrices[i]), batch[i].data(), halve});
    of_single.push_back({view(matrices[i]), single[i].data(), halve});
  }
  multiply(input.data(), 2, of_batch);
  multiply(input.data(), 1, of_single);
  for (size_t i = 0; i < 3; ++i) {
    batch[i].resize(single[i].size());  // the first row
    EXPECT_EQ(single[i], batch[i]) << i;
  }
}

/// The kernel itself against the chain written down.
TEST(RowDots, AreChainsOfFusedMultiplyAdds) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  if (!has_row_dots()) GTEST_SKIP() << "the path in force has no such kernel";
  for (const int64_t k : {1, 7, 16, 40, 123}) {
    constexpr int64_t kCount = 48;
    std::vector<float> x(static_cast<size_t>(k)), weights(static_cast<size_t>(kCount * k)), sums(kCount);
    for (float& v : x) v = normal(random);
    for (float& v : weights) v = normal(random);
    for (float& v : sums) v = normal(random);
    std::vector<const void*> rows;
    std::vector<float> expected = sums;
    for (int64_t r = 0; r < kCount; ++r) {
      const float* row = weights.data() + r * k;
      rows.push_back(row);
      auto& sum = expected[static_cast<size_t>(r)];
      for (int64_t i = 0; i < k; ++i) sum = std::fma(x[static_cast<size_t>(i)], row[i], sum);
    }
    row_dots({.count = kCount, .k = k, .x = x.data(), .rows = rows.data(), .sums = sums.data()});
    EXPECT_EQ(sums, expected) << k;
  }
}

}  // namespace
}  // namespace qeval::model
