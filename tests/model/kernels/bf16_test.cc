// Products in bfloat16. Few CPUs have the instruction, so the kernel's code runs here over its definition;
// where the CPU has it, both must agree bit for bit.
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/decoder.h"
#include "model/float_arithmetic.h"
#include "model/kernels/bf16_impl.h"
#include "tests/model/emulated/bf16_tiles.h"
#include "tests/tiny_model.h"

namespace qeval::model {
namespace {

float half_of(uint32_t word, bool upper) {
  return std::bit_cast<float>(upper ? word & 0xFFFF0000U : word << 16);
}

/// vdpbf16ps: two fused multiply-adds a lane, the upper halves first.
struct Definition {
  using Sums = std::array<float, 16>;
  using Words = std::array<uint32_t, 16>;

  static Sums zero() { return {}; }
  static Sums load(const float* from) {
    Sums sums;
    std::copy_n(from, 16, sums.begin());
    return sums;
  }
  static void store(float* to, const Sums& sums) { std::ranges::copy(sums, to); }
  static Words load_words(const uint32_t* from) {
    Words words;
    std::copy_n(from, 16, words.begin());
    return words;
  }
  static Words broadcast_word(uint32_t word) {
    Words words;
    words.fill(word);
    return words;
  }
  static Sums dot(Sums sums, const Words& a, const Words& b) {
    for (size_t i = 0; i < 16; ++i) {
      for (const bool upper : {true, false})
        sums[i] = std::fma(half_of(a[i], upper), half_of(b[i], upper), sums[i]);
    }
    return sums;
  }
};

void narrow(const float* x, int64_t n, uint16_t* out) {
  narrow_bf16(x, n, out);
}
constexpr Bf16Kernels kDots{.name = "dots",
                            .arithmetic = "dots",
                            .multiply = bf16_gemm<Definition>,
                            .narrow = narrow,
                            .pack = pack_bf16};
#ifdef __x86_64__
constexpr Bf16Kernels kTiles{.name = "tiles",
                             .arithmetic = "tiles",
                             .multiply = emulated_bf16_gemm_by_tiles,
                             .narrow = narrow,
                             .pack = pack_bf16};
constexpr std::array kDefinitions{&kDots, &kTiles};
#else
constexpr std::array kDefinitions{&kDots};
#endif

float rounded(float x) {
  uint16_t narrow[2];
  narrow_bf16(&x, 1, narrow);
  return std::bit_cast<float>(static_cast<uint32_t>(narrow[0]) << 16);
}

std::vector<float> normals(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

TEST(Bf16, RoundsHalfToEven) {
  EXPECT_EQ(rounded(1.0F), 1.0F);
  EXPECT_EQ(rounded(1.00390625F), 1.0F);       // halfway between 1 and 1 + 2^-7: to the even one
  EXPECT_EQ(rounded(1.01171875F), 1.015625F);  // halfway again, the even one is above
  EXPECT_EQ(rounded(1.0039064F), 1.0078125F);
  EXPECT_EQ(rounded(-2.5F), -2.5F);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), kInfinity);
  EXPECT_EQ(rounded(-kInfinity), -kInfinity);
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7F800001U))));  // a NaN of low bits only
}

struct Bf16Shape {
  int64_t m, n, k;
};

class Bf16Product : public testing::TestWithParam<Bf16Shape> {
 protected:
  std::vector<float> a_ = normals(GetParam().m * GetParam().k, 1);
  std::vector<float> w_ = normals(GetParam().n * GetParam().k, 2);
  std::vector<float> bias_ = normals(GetParam().n, 3);
  Matrix matrix_{
      .name = "w",
      .rows = GetParam().n,
      .cols = GetParam().k,
      .stored = StoredWeight(DType::f32, GetParam().k, reinterpret_cast<const std::byte*>(w_.data()))};

  std::vector<float> product(Bf16Kernel kernel, int64_t first_row, int64_t rows) {
    std::vector<float> out(static_cast<size_t>(rows * GetParam().n));
    const Product product{view(matrix_, bias_.data()), out.data()};
    multiply_bf16(kernel, a_.data() + first_row * GetParam().k, rows, {&product, 1});
    return out;
  }
};

TEST_P(Bf16Product, IsTheProductOfRoundedOperands) {
  const auto [m, n, k] = GetParam();
  std::vector<std::vector<float>> got;
  for (const Bf16Kernel kernel : kDefinitions) got.push_back(product(kernel, 0, m));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, size = 0;
      for (int64_t t = 0; t < k; ++t) {
        const double term = static_cast<double>(rounded(a_[static_cast<size_t>(i * k + t)])) *
                            rounded(w_[static_cast<size_t>(j * k + t)]);
        sum += term;
        size += std::abs(term);
      }
      const auto at = static_cast<size_t>(i * n + j);
      for (const std::vector<float>& products : got)
        EXPECT_NEAR(products[at], sum + bias_[static_cast<size_t>(j)], 1e-6 * size) << i << ", " << j;
    }
  }
}

TEST_P(Bf16Product, DoesNotDependOnTheBatch) {
  const auto [m, n, k] = GetParam();
  std::vector<Bf16Kernel> kernels(kDefinitions.begin(), kDefinitions.end());
  for (const Bf16Kernel own : {bf16_dot_kernel(), bf16_tile_kernel()}) {
    if (own != nullptr) kernels.push_back(own);
  }
  for (const Bf16Kernel kernel : kernels) {
    const std::vector<float> all = product(kernel, 0, m);
    for (int64_t i = 0; i < m; ++i) {
      const std::vector<float> one = product(kernel, i, 1);
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + i * n))
          << kernel->arithmetic << " row " << i;
    }
    std::vector<float> block(static_cast<size_t>(m * 5));
    if (n < 5) continue;
    multiply_block_bf16(kernel, view(matrix_, bias_.data()), n - 5, 5, a_.data(), k, m, block.data(), 5);
    for (int64_t i = 0; i < m; ++i) {
      EXPECT_TRUE(std::equal(block.begin() + i * 5, block.begin() + i * 5 + 5, all.begin() + i * n + n - 5))
          << kernel->arithmetic << " row " << i;
    }
  }
}

TEST_P(Bf16Product, IsWhatTheCpuComputes) {
  if (bf16_dot_kernel() == nullptr) GTEST_SKIP() << "this CPU has no bfloat16 dot products";
  EXPECT_EQ(product(bf16_dot_kernel(), 0, GetParam().m), product(&kDots, 0, GetParam().m));
}

#ifdef __x86_64__
TEST_P(Bf16Product, IsWhatTheTilesCompute) {
  if (bf16_tile_kernel() == nullptr) GTEST_SKIP() << "this CPU has no AMX";
  EXPECT_EQ(product(bf16_tile_kernel(), 0, GetParam().m), product(&kTiles, 0, GetParam().m));
}
#endif

TEST(Bf16, VectorsNarrowAsNumbersDo) {
  const Bf16Kernel kernel = bf16_dot_kernel();
  if (kernel == nullptr) GTEST_SKIP() << "this CPU has no bfloat16 dot products";
  std::vector<float> x = normals(400, 9);
  x[3] = std::numeric_limits<float>::max();
  x[5] = -std::numeric_limits<float>::infinity();
  x[7] = std::numeric_limits<float>::quiet_NaN();
  x[8] = 1.00390625F;
  for (const int64_t n : {1, 2, 31, 32, 33, 64, 95, 200}) {
    std::vector<uint16_t> want(202, 7), got = want;
    narrow_bf16(x.data(), n, want.data());
    kernel->narrow(x.data(), n, got.data());
    EXPECT_EQ(got, want) << n;
  }
  for (const auto& [rows, k] : {std::pair{16, 12}, {1, 1}, {5, 33}, {0, 7}, {3, 64}}) {
    const auto words = static_cast<size_t>((k + 1) / 2 * kBf16Panel);
    std::vector<uint32_t> want(words + 1, 7), got = want;
    pack_bf16(x.data(), rows, k, want.data());
    kernel->pack(x.data(), rows, k, got.data());
    EXPECT_EQ(got, want) << rows << " x " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bf16Product,
                         testing::Values(Bf16Shape{1, 1, 1}, Bf16Shape{3, 7, 33}, Bf16Shape{25, 70, 96},
                                         Bf16Shape{13, 64, 1537}, Bf16Shape{40, 200, 24},
                                         Bf16Shape{33, 48, 130}),
                         [](const testing::TestParamInfo<Bf16Shape>& shape) {
                           return fmt::format("{}x{}x{}", shape.param.m, shape.param.n, shape.param.k);
                         });

TEST(Bf16, ModelIsNearTheFloatOne) {
  test::TinyModel tiny;
  const Model model = tiny.build();
  const std::vector<int32_t> tokens{5, 17, 3, 44, 60, 1, 8, 30};
  const auto log_probabilities = [&](const Arithmetic& arithmetic) {
    Decoder decoder(model, arithmetic);
    KvSpan kv(arithmetic, std::ssize(tokens), model.config.num_layers);
    Batch batch{.tokens = tokens, .positions = {0, 1, 2, 3, 4, 5, 6, 7}, .segments = {}};
    batch.segments.push_back({.first_row = 0, .length = std::ssize(tokens), .first_position = 0, .kv = &kv});
    decoder.forward(batch);
    std::vector<TokenQuery> queries;
    for (int64_t row = 0; row + 1 < std::ssize(tokens); ++row)
      queries.push_back({row, tokens[static_cast<size_t>(row) + 1]});
    std::vector<double> out;
    for (const TokenAnswer& answer : decoder.answer(queries)) out.push_back(answer.log_probability);
    return out;
  };
  const std::vector<double> exact = log_probabilities(*make_float_arithmetic(model, 64));
  const std::vector<double> narrow = log_probabilities(Bf16Arithmetic(model, 64, &kDots));
  double difference = 0;
  for (size_t i = 0; i < exact.size(); ++i) difference += std::abs(exact[i] - narrow[i]);
  difference /= static_cast<double>(exact.size());
  EXPECT_GT(difference, 1e-5);  // it did round
  EXPECT_LT(difference, 0.1);
}

}  // namespace
}  // namespace qeval::model
