#include "model/kernels/matmul.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace qeval::model {
namespace {

std::vector<float> numbers(int64_t count, uint32_t seed) {
  std::vector<float> out(static_cast<size_t>(count));
  uint32_t state = seed;
  for (float& x : out) {
    state = state * 1664525U + 1013904223U;
    x = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
  }
  return out;
}

double at(const FloatMatrix& m, int64_t i, int64_t j) {
  return static_cast<double>(m.data[i * m.row_step + j * m.col_step]);
}

struct Shape {
  int64_t m, n, k;
};

class Matmul : public testing::TestWithParam<Shape> {};

/// Sums of k products of numbers in [−1, 1]: rounding errors stay below k · ε · k.
TEST_P(Matmul, AgreesWithDoubleForEveryTranspose) {
  const auto [m, n, k] = GetParam();
  const auto a_data = numbers(m * k, 1);
  const auto b_data = numbers(k * n, 2);
  const auto start = numbers(m * (n + 3), 3);
  for (int form = 0; form < 8; ++form) {
    const bool accumulate = (form & 4) != 0;
    const FloatMatrix a =
        (form & 1) != 0 ? row_major(a_data.data(), k, m).transposed() : row_major(a_data.data(), m, k);
    const FloatMatrix b =
        (form & 2) != 0 ? row_major(b_data.data(), n, k).transposed() : row_major(b_data.data(), k, n);
    std::vector<float> c = start;
    matmul(a, b, c.data(), n + 3, accumulate);
    std::vector<float> serial = start;
    matmul_block(a, b, serial.data(), n + 3, accumulate);
    EXPECT_EQ(c, serial);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n + 3; ++j) {
        const auto index = static_cast<size_t>(i * (n + 3) + j);
        double want = static_cast<double>(start[index]);
        if (j < n) {
          if (!accumulate) want = 0;
          for (int64_t l = 0; l < k; ++l) want += at(a, i, l) * at(b, l, j);
        }
        ASSERT_NEAR(static_cast<double>(c[index]), want, static_cast<double>((k + 1) * (k + 1)) * 6e-8)
            << "form " << form << " at " << i << ", " << j;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Matmul,
                         testing::Values(Shape{1, 1, 1}, Shape{7, 5, 3}, Shape{13, 97, 64}, Shape{800, 33, 9},
                                         Shape{6, 200, 1100}));

}  // namespace
}  // namespace qeval::model
