#include "model/kernels/kernels.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "model/hadamard.h"
#include "model/kernels/gemm.h"

namespace qeval::model {
namespace {

std::vector<float> random_floats(size_t count, unsigned seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

/// B [k, n] in panels, columns beyond n zero.
std::vector<float> panels(const std::vector<float>& rows, int64_t n, int64_t k, const Kernels& kernel) {
  const int64_t count = (n + kernel.panel - 1) / kernel.panel;
  std::vector<float> packed(static_cast<size_t>(count * kernel.panel * k));
  for (int64_t p = 0; p < count; ++p) {
    kernel.pack_panel(rows.data() + p * kernel.panel * k, k, std::min(kernel.panel, n - p * kernel.panel), k,
                      packed.data() + p * kernel.panel * k);
  }
  return packed;
}

class KernelsTest : public testing::TestWithParam<CpuPath> {
 protected:
  void SetUp() override {
    if (!cpu_supports(GetParam())) GTEST_SKIP() << "this CPU lacks " << name(GetParam());
  }
  const Kernels& kernel() const { return kernels(GetParam()); }
};

TEST_P(KernelsTest, GemmMatchesDoubleSums) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1}, {7, 33, 19}, {13, 64, 130}, {25, 5, 300}}) {
    const auto a = random_floats(static_cast<size_t>(m * k), 1);
    const auto w = random_floats(static_cast<size_t>(n * k), 2);
    const auto b = panels(w, n, k, kernel());
    std::vector<float> c(static_cast<size_t>(m * n), 7.0F);
    kernel().gemm({.m = m,
                   .n = n,
                   .k = k,
                   .a = a.data(),
                   .lda = k,
                   .b = b.data(),
                   .ldb = kernel().panel,
                   .panel_stride = kernel().panel * k,
                   .c = c.data(),
                   .ldc = n});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t x = 0; x < k; ++x) {
          const double term = static_cast<double>(a[i * k + x]) * w[j * k + x];
          sum += term;
          magnitude += std::abs(term);
        }
        // A chain of k roundings: |error| ≤ k · ε · Σ|terms|.
        ASSERT_NEAR(c[i * n + j], sum, static_cast<double>(k) * 6e-8 * magnitude)
            << m << "x" << n << "x" << k;
      }
    }
  }
}

TEST_P(KernelsTest, GemmBitsDoNotDependOnTilingOrOnCutsOfK) {
  const int64_t m = 23;
  const int64_t n = 40;
  const int64_t k = 100;
  const auto a = random_floats(m * k, 3);
  const auto b = panels(random_floats(n * k, 4), n, k, kernel());
  std::vector<float> whole(m * n);
  Gemm g{.m = m,
         .n = n,
         .k = k,
         .a = a.data(),
         .lda = k,
         .b = b.data(),
         .ldb = kernel().panel,
         .panel_stride = kernel().panel * k,
         .c = whole.data(),
         .ldc = n};
  kernel().gemm(g);
  std::vector<float> pieces(m * n);
  for (int64_t row = 0; row < m; ++row) {
    Gemm one = g;
    one.m = 1;
    one.a += row * k;
    one.c = pieces.data() + row * n;
    one.k = 37;
    kernel().gemm(one);
    one.a += 37;
    one.b += 37 * kernel().panel;
    one.k = k - 37;
    one.accumulate = true;
    kernel().gemm(one);
  }
  EXPECT_EQ(whole, pieces);
}

TEST_P(KernelsTest, SoftmaxSumsToOneAndMatchesDouble) {
  for (const int64_t n : {1, 3, 8, 31, 1000}) {
    auto x = random_floats(static_cast<size_t>(n), 5, 20.0F);
    std::vector<double> want(x.begin(), x.end());
    const float scale = 0.3F;
    double largest = -1e30;
    for (double& v : want) largest = std::max(largest, v *= scale);
    double sum = 0;
    for (double& v : want) sum += v = std::exp(v - largest);
    kernel().softmax(x.data(), n, scale);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(x[i], want[i] / sum, 2e-6) << n;
  }
}

TEST_P(KernelsTest, NormsMatchTheirFormulas) {
  const int64_t n = 77;
  const auto x = random_floats(n, 6, 3.0F);
  const auto w = random_floats(n, 7);
  const auto b = random_floats(n, 8);
  double squares = 0;
  double mean = 0;
  for (const float v : x) {
    squares += static_cast<double>(v) * v;
    mean += v / static_cast<double>(n);
  }
  double variance = 0;
  for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);
  std::vector<float> y(n);
  kernel().rms_norm(x.data(), w.data(), 1e-2F, n, y.data());
  for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i] / std::sqrt(squares / n + 1e-2) * w[i], 1e-5);
  kernel().l2_norm(x.data(), w.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], std::sqrt(n) * x[i] / std::sqrt(squares) * w[i], 1e-5);
  kernel().layer_norm(x.data(), w.data(), b.data(), 1e-3F, n, y.data());
  for (int64_t i = 0; i < n; ++i)
    ASSERT_NEAR(y[i], (x[i] - mean) / std::sqrt(variance + 1e-3) * w[i] + b[i], 1e-5);
  std::vector<float> zero(n, 0.0F);
  kernel().l2_norm(zero.data(), w.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y[i], 0.0F);
}

TEST_P(KernelsTest, ActivationsMatchTheirFormulas) {
  const int64_t n = 45;
  auto x = random_floats(n, 9, 4.0F);
  x[0] = -100.0F;
  x[1] = 100.0F;
  x[2] = 0.0F;
  std::vector<float> y(n);
  kernel().silu(x.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i] / (1 + std::exp(-static_cast<double>(x[i]))), 1e-5);
  kernel().gelu_tanh(x.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) {
    const double v = x[i];
    ASSERT_NEAR(y[i], 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))), 1e-5);
  }
}

TEST_P(KernelsTest, ErfGeluAndSigmoidHoldTheirTolerance) {
  std::vector<float> x;
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) / 250.0F);
  x.insert(x.end(), {-1e30F, 1e30F, -100.0F, 100.0F, 0.0F});
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> gelu(x.size()), sigmoid(x.size());
  kernel().gelu_erf(x.data(), n, gelu.data());
  kernel().sigmoid(x.data(), n, sigmoid.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    EXPECT_NEAR(gelu[i], 0.5 * v * std::erfc(-v / std::sqrt(2.0)), 2e-7 * std::max(1.0, std::abs(v))) << v;
    EXPECT_NEAR(sigmoid[i], 1.0 / (1.0 + std::exp(-v)), 2e-7) << v;
  }
}

// A NaN comes from broken weights. It was taken for exp(-87), and the model got plausible scores.
TEST_P(KernelsTest, ANaNStaysOneInEverythingThatTakesAnExponential) {
  const int64_t n = 45;
  const auto poisoned = [&](int64_t at) {
    auto x = random_floats(n, 9);
    x[static_cast<size_t>(at)] = std::nanf("");
    return x;
  };
  for (const int64_t at : {0, 20, 44}) {  // in a whole vector and in the tail
    const auto x = poisoned(at);
    std::vector<float> y(n);
    for (const auto& function : {kernel().silu, kernel().sigmoid, kernel().gelu_tanh, kernel().gelu_erf}) {
      function(x.data(), n, y.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(std::isnan(y[static_cast<size_t>(i)]), i == at) << i;
    }
    EXPECT_TRUE(std::isnan(kernel().logit_tile(x.data(), n).sum));
    auto row = x;
    kernel().softmax(row.data(), n, 1.0F);
    for (const float share : row) ASSERT_TRUE(std::isnan(share));
  }
}

TEST_P(KernelsTest, RotationTurnsPairsByTheAngle) {
  const int64_t half = 5;
  auto head = random_floats(2 * half, 10);
  const auto before = head;
  std::vector<float> cosines(half);
  std::vector<float> sines(half);
  for (int64_t i = 0; i < half; ++i) {
    cosines[i] = std::cos(0.3F * static_cast<float>(i));
    sines[i] = std::sin(0.3F * static_cast<float>(i));
  }
  kernel().rotate(head.data(), cosines.data(), sines.data(), half);
  for (int64_t i = 0; i < half; ++i) {
    ASSERT_NEAR(head[i], before[i] * cosines[i] - before[i + half] * sines[i], 1e-6);
    ASSERT_NEAR(head[i + half], before[i + half] * cosines[i] + before[i] * sines[i], 1e-6);
  }
}

TEST_P(KernelsTest, LogitTileGivesLogSumExpAndTheFirstArgMax) {
  auto x = random_floats(259, 11, 5.0F);
  x[100] = 40.0F;
  x[200] = 40.0F;
  const LogitTile tile = kernel().logit_tile(x.data(), 259);
  double sum = 0;
  for (const float v : x) sum += std::exp(static_cast<double>(v) - 40.0);
  EXPECT_EQ(tile.max, 40.0F);
  EXPECT_EQ(tile.arg_max, 100);
  EXPECT_NEAR(tile.sum, sum, 1e-5 * sum);
}

TEST_P(KernelsTest, HalfPrecisionWidensExactly) {
  std::vector<uint16_t> bits(0x10000);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(bits.size());
  kernel().widen_f16(bits.data(), std::ssize(bits), wide.data());
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const int exponent = static_cast<int>((h >> 10) & 31);
    const auto mantissa = static_cast<float>(h & 1023);
    const float sign = (h & 0x8000) != 0 ? -1.0F : 1.0F;
    if (exponent == 31) {
      ASSERT_TRUE(mantissa == 0 ? std::isinf(wide[h]) : std::isnan(wide[h]));
      continue;
    }
    const float want =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0F + mantissa, exponent - 25);
    ASSERT_EQ(wide[h], sign * want) << h;
  }
  kernel().widen_bf16(bits.data(), std::ssize(bits), wide.data());
  EXPECT_EQ(wide[0x3F80], 1.0F);
  EXPECT_EQ(wide[0xC049], -3.140625F);
}

/// By vectors or by numbers: the same bits, of zeros too.
TEST_P(KernelsTest, HadamardAddsInTheOrderOfTheTemplate) {
  for (const int64_t order : {2, 8, 16, 64, 128, 12, 20, 80, 96, 1536}) {
    for (const HadamardMatrix& h : {make_hadamard(order), transposed(make_hadamard(order))}) {
      auto x = random_floats(order, 15);
      for (size_t i = 0; i < x.size(); i += 3) x[i] = i % 2 == 0 ? -0.0F : 0.0F;
      std::vector<float> plain = x, vectors = x, scratch(x.size());
      multiply_hadamard<float>(h, plain.data(), scratch.data());
      kernel().hadamard(h.order, h.base_order, h.masks.data(), vectors.data(), scratch.data());
      EXPECT_EQ(std::memcmp(vectors.data(), plain.data(), plain.size() * sizeof(float)), 0) << order;
    }
  }
}

#if defined(__aarch64__)
constexpr std::array kPaths{CpuPath::portable, CpuPath::neon};
#else
constexpr std::array kPaths{CpuPath::portable, CpuPath::avx2, CpuPath::avx512};
#endif
INSTANTIATE_TEST_SUITE_P(Paths, KernelsTest, testing::ValuesIn(kPaths),
                         [](const auto& path) { return std::string(name(path.param)); });

TEST(Gemm, BlocksOfAStoredMatrixMatchTheWholeAndAddTheBias) {
  const int64_t rows = 70;
  const int64_t cols = 1000;  // more than one column block
  const auto weights = random_floats(rows * cols, 12);
  const auto bias = random_floats(rows, 13);
  const auto a = random_floats(3 * cols, 14);
  const Matrix matrix{
      .name = "w",
      .rows = rows,
      .cols = cols,
      .stored = StoredWeight(DType::f32, cols, reinterpret_cast<const std::byte*>(weights.data()))};
  std::vector<float> whole(3 * rows);
  const Product product{view(matrix, bias.data()), whole.data()};
  multiply(a.data(), 3, std::span(&product, 1));
  std::vector<float> block(3 * 10);
  multiply_block(product.weight, 55, 10, a.data(), cols, 3, block.data(), 10);
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t i = 0; i < 10; ++i) {
      double sum = bias[55 + i];
      for (int64_t x = 0; x < cols; ++x)
        sum += static_cast<double>(a[r * cols + x]) * weights[(55 + i) * cols + x];
      ASSERT_NEAR(whole[r * rows + 55 + i], sum, 2e-3);
      ASSERT_EQ(whole[r * rows + 55 + i], block[r * 10 + i]);
    }
  }
}

}  // namespace
}  // namespace qeval::model
