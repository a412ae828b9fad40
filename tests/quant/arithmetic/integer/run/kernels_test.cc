#include "quant/arithmetic/integer/run/kernels.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/arithmetic/integer/point_grid.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/integer/run/linear.h"
#include "tests/quant/emulated/kernels.h"

namespace qeval::quant {
namespace {

struct Path {
  std::string name;
  const IntegerKernels& kernels;
};

/// What this CPU can run: its own paths, and those of stronger CPUs with their instructions emulated.
std::vector<Path> kernel_paths() {
  std::vector<Path> paths;
  for (const IntegerCpu cpu : kIntegerCpus) {
    if (!cpu_supports(cpu)) continue;
    paths.push_back({std::string(name(cpu)), integer_kernels(cpu)});
    EXPECT_EQ(paths.back().kernels.cpu, cpu);
  }
  for (const IntegerKernels* kernels : emulated_kernels())
    paths.push_back({"emulated " + std::string(name(kernels->cpu)), *kernels});
  return paths;
}

template <typename B, typename C>
void expect_exact(const std::string& path, void (*gemm)(const IntegerGemm&), int64_t m, int64_t n, int64_t k,
                  bool accumulate, int a_lo, int a_hi, bool extreme, std::mt19937& random) {
  const auto draw = [&](int lo, int hi) {
    if (extreme) return std::uniform_int_distribution<int>(0, 1)(random) == 0 ? lo : hi;
    return std::uniform_int_distribution<int>(lo, hi)(random);
  };
  constexpr int b_lo = std::numeric_limits<B>::min();  // NOLINT(bugprone-signed-char-misuse): a number
  constexpr int b_hi = std::numeric_limits<B>::max();
  const int64_t lda = k + 3;
  const int64_t stride = (k + 1) / 2 * 2 * kPanel;
  std::vector<int16_t> a(static_cast<size_t>(m * lda));
  std::vector<B> b(static_cast<size_t>((n + kPanel - 1) / kPanel * stride));
  for (int16_t& x : a) x = static_cast<int16_t>(draw(a_lo, a_hi));
  for (B& x : b) x = static_cast<B>(draw(b_lo, b_hi));  // padding included: it must not matter
  const int64_t ldc = n + 2;
  std::vector<C> c(static_cast<size_t>(m * ldc), C{77});
  gemm({.m = m,
        .n = n,
        .k = k,
        .a = a.data(),
        .lda = lda,
        .b = b.data(),
        .panel_stride = stride,
        .c = c.data(),
        .ldc = ldc,
        .accumulate = accumulate});
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < ldc; ++j) {
      int64_t want = j < n && !accumulate ? 0 : 77;
      for (int64_t t = 0; j < n && t < k; ++t) {
        want += int64_t{a[static_cast<size_t>(i * lda + t)]} *
                b[static_cast<size_t>(j / kPanel * stride + t / 2 * 2 * kPanel + 2 * (j % kPanel) + t % 2)];
      }
      // Modulo 2^32 where C has 32 bits.
      ASSERT_EQ(c[static_cast<size_t>(i * ldc + j)], static_cast<C>(want))
          << path << " " << m << "x" << n << "x" << k << " at " << i << "," << j;
    }
  }
}

TEST(IntegerKernels, EveryPathComputesTheExactProduct) {
  std::mt19937 random(5);
  for (const auto& [path, kernel] : kernel_paths()) {
    for (const int64_t m : {1, 5, 6, 7, 8, 13, 25, 32, 53}) {
      for (const int64_t n : {1, 8, 15, 16, 17, 40}) {
        for (const int64_t k : {1, 2, 3, 4, 5, 63, 64, 481, 2049}) {
          const bool accumulate = (m + n + k) % 2 == 0;
          const bool extreme = (m * n) % 3 == 0;
          expect_exact<int8_t, int32_t>(path, kernel.gemm_narrow, m, n, k, accumulate, 0, 255, extreme,
                                        random);
          expect_exact<int8_t, int32_t>(path, kernel.gemm_modular, m, n, k, accumulate, -32768, 32767,
                                        extreme, random);
          expect_exact<int8_t, int64_t>(path, kernel.gemm_wide, m, n, k, accumulate, -32768, 32767, extreme,
                                        random);
          expect_exact<int16_t, int64_t>(path, kernel.gemm_wide16, m, n, k, accumulate, -32768, 32767,
                                         extreme, random);
        }
      }
    }
  }
}

/// A [m, byte_stride] · three panels and their overflow.
std::vector<int32_t> quad_products(const IntegerKernels& kernel, const IntegerMatrix& matrix,
                                   const std::vector<uint8_t>& a, int64_t m) {
  std::vector<int32_t> c(static_cast<size_t>(m * 3 * kPanel));
  QuadGemm gemm{.m = m,
                .panels = 3,
                .a = a.data(),
                .lda = byte_stride(matrix.cols),
                .b = matrix.panels.as<int8_t>(),
                .entries = matrix.entries,
                .group = matrix.group,
                .c = c.data(),
                .ldc = 3 * kPanel};
  kernel.gemm_quads(gemm);
  gemm.panels = 1;
  gemm.accumulate = true;
  for (size_t p = 0; p + 1 < matrix.overflow_first.size(); ++p) {
    gemm.b = matrix.overflow.as<int8_t>() + matrix.overflow_first[p] * kQuadEntry;
    gemm.inputs = matrix.overflow_inputs.data() + matrix.overflow_first[p];
    gemm.entries = matrix.overflow_first[p + 1] - matrix.overflow_first[p];
    gemm.c = c.data() + static_cast<int64_t>(p) * kPanel;
    kernel.gemm_quads(gemm);
  }
  return c;
}

/// Weights at the ends of their range over inputs of 255 are what 16-bit sums of pairs would saturate on.
TEST(IntegerKernels, GroupedQuadsAreExactOnEveryPathThatReadsThem) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  int packed = 0;
  for (const int64_t cols : {1, 3, 4, 30, 577}) {
    for (const float far_out : {0.02F, 0.5F}) {
      for (const QuantSpec& spec :
           {QuantSpec{.bits = 8}, QuantSpec{.bits = 8, .symmetric = true, .per_channel = true},
            QuantSpec{.bits = 6, .per_channel = true}}) {
        const int64_t rows = 35;
        std::vector<float> values(static_cast<size_t>(rows * cols));
        for (float& w : values) {
          w = normal(random) * 0.1F + 0.02F;
          if (normal(random) * 0.4F < far_out - 1) w = random() % 2 == 0 ? 1.0F : -0.9F;
        }
        const QuantizedMatrix codes =
            quantize_matrix({.name = "test",
                             .rows = rows,
                             .cols = cols,
                             .stored = model::StoredWeight(
                                 model::DType::f32, cols, reinterpret_cast<const std::byte*>(values.data()))},
                            spec);
        IntegerMatrix matrix;
        matrix.rows = rows;
        matrix.cols = cols;
        for (int64_t r = 0; r < 48; ++r) {
          const auto grid = static_cast<size_t>(codes.grid_index(std::min(r, rows - 1), 0));
          matrix.zero_points.push_back(codes.zero_points[grid]);
        }
        if (!pack_grouped_quads(codes, matrix)) continue;
        ++packed;
        const int64_t m = 13;
        const int64_t stride = byte_stride(cols);
        std::vector<uint8_t> a(static_cast<size_t>(m * stride));
        for (uint8_t& x : a) x = random() % 3 == 0 ? static_cast<uint8_t>(random()) : uint8_t{255};
        for (const auto& [path, kernel] : kernel_paths()) {
          if (kernel.quad_layout != PanelLayout::grouped_quads) continue;
          const std::vector<int32_t> c = quad_products(kernel, matrix, a, m);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t r = 0; r < rows; ++r) {
              int32_t want = 0;
              for (int64_t t = 0; t < cols; ++t) {
                want += a[static_cast<size_t>(i * stride + t)] *
                        (codes.codes.as<int8_t>()[r * cols + t] - matrix.zero_points[static_cast<size_t>(r)]);
              }
              ASSERT_EQ(c[static_cast<size_t>(i * 48 + r)], want)
                  << path << " " << cols << " group " << matrix.group << " at " << i << "," << r;
            }
          }
        }
      }
    }
  }
  EXPECT_GE(packed, 8);  // where the overflow is worth its memory
}

TEST(IntegerKernels, QuadsAreExactOnEveryPathThatReadsThem) {
  std::mt19937 random(16);
  for (const int64_t cols : {1, 3, 4, 30, 577}) {
    for (const int64_t m : {1, 2, 11, 12, 13, 29, 32, 48}) {
      IntegerMatrix matrix;
      matrix.rows = 3 * kPanel;
      matrix.cols = cols;
      matrix.layout = PanelLayout::quads;
      matrix.entries = (cols + 3) / 4;
      matrix.panels.resize(static_cast<size_t>(3 * matrix.panel_bytes()));
      auto* codes = matrix.panels.as<int8_t>();
      for (int64_t i = 0; i < 3 * matrix.panel_codes(); ++i) {
        codes[i] = random() % 3 == 0 ? static_cast<int8_t>(random()) : int8_t{-128};
      }
      const int64_t stride = byte_stride(cols);
      std::vector<uint8_t> a(static_cast<size_t>(m * stride));
      for (uint8_t& x : a) x = random() % 3 == 0 ? static_cast<uint8_t>(random()) : uint8_t{255};
      for (const auto& [path, kernel] : kernel_paths()) {
        if (kernel.quad_layout != PanelLayout::quads) continue;
        const std::vector<int32_t> c = quad_products(kernel, matrix, a, m);
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t r = 0; r < matrix.rows; ++r) {
            int32_t want = 0;
            for (int64_t t = 0; t < 4 * matrix.entries; ++t) {
              want += a[static_cast<size_t>(i * stride + t)] *
                      codes[r / kPanel * matrix.panel_codes() + t / 4 * kQuadEntry + r % kPanel * 4 + t % 4];
            }
            ASSERT_EQ(c[static_cast<size_t>(i * matrix.rows + r)], want)
                << path << " " << m << " x " << cols << " at " << i << "," << r;
          }
        }
      }
    }
  }
}

TEST(IntegerKernels, SumsAtTheirLargestDoNotOverflow) {
  // All products of one sign: −32768 · −128 over a chunk of a wide product, 255 · −128 over the longest row.
  constexpr int64_t k = 65536;
  const std::vector<int8_t> b(static_cast<size_t>(k * kPanel), -128);
  for (const auto& [path, kernel] : kernel_paths()) {
    for (const int64_t m : {1, 8, 17}) {  // of vectors, of VNNI's bytes, of tiles
      SCOPED_TRACE(path + " " + std::to_string(m));
      std::vector<int16_t> a(static_cast<size_t>(k), -32768);
      std::vector<int64_t> wide(static_cast<size_t>(m * kPanel));
      IntegerGemm gemm{.m = m,
                       .n = kPanel,
                       .k = k,
                       .a = a.data(),
                       .lda = 0,  // every row is the same one
                       .b = b.data(),
                       .panel_stride = k * kPanel,
                       .c = wide.data(),
                       .ldc = kPanel};
      kernel.gemm_wide(gemm);
      EXPECT_THAT(wide, testing::Each(k * 32768 * 128));
      a.assign(a.size(), 255);
      std::vector<int32_t> narrow(wide.size());
      gemm.c = narrow.data();
      kernel.gemm_narrow(gemm);
      EXPECT_THAT(narrow, testing::Each(-k * 255 * 128));
    }
  }
}

TEST(FixedPoint, RescalesWithinRoundingOfTheRealProduct) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 20000; ++trial) {
    const double factor = std::exp2(std::uniform_real_distribution<double>(-40, 12)(random));
    const double bound = std::exp2(std::uniform_real_distribution<double>(1, 50)(random));
    if (factor * bound > 0x1p40) continue;  // far beyond every code: clamped all the same
    const Rescale r = make_rescale(factor, bound);
    const auto x = static_cast<int64_t>(std::uniform_real_distribution<double>(-bound, bound)(random));
    const double exact = static_cast<double>(x) * factor;
    // Half a unit of the result, and the input's and multiplier's 31 bits.
    ASSERT_NEAR(static_cast<double>(rescale(x, r)), exact, 0.5 + bound * factor * 0x1p-30)
        << factor << " " << bound << " " << x;
  }
  const Rescale half = make_rescale(0.5, 100);
  EXPECT_EQ(rescale(3, half), 2);
  EXPECT_EQ(rescale(-3, half), -1);
  // A factor beyond every code saturates with the right sign.
  const CodeRange codes{.zero_point = 0, .lo = -128, .hi = 127};
  EXPECT_EQ(requantize(1, make_rescale(1e12, 10), codes), 127);
  EXPECT_EQ(requantize(-1, make_rescale(1e12, 10), codes), -128);
  EXPECT_EQ(requantize(INT64_C(1) << 60, make_rescale(1, 100), codes), 127);
}

TEST(FixedPoint, SquareRootIsTheFloor) {
  std::mt19937_64 random(3);
  std::vector<uint64_t> values{0, 1, 2, 3, 4, UINT64_C(1) << 62, (UINT64_C(1) << 62) - 1};
  for (uint64_t i = 0; i < 70000; ++i) values.push_back(i);
  for (int i = 0; i < 20000; ++i) values.push_back(random() >> (2 + i % 60));
  for (const uint64_t x : values) {
    const uint64_t root = integer_sqrt(x);
    ASSERT_LE(root * root, x);
    ASSERT_GT((root + 1) * (root + 1), x);
  }
}

struct LinearCase {
  QuantSpec weight, input, output;
  Range input_range, output_range;
  double weight_shift;
};

/// y = x · wᵀ + b in double, on dequantized codes, rounded to the output's grid.
TEST(IntegerLinear, StaysWithinOneStepOfTheRealProduct) {
  const QuantSpec a8{.bits = 8};
  const QuantSpec a8s{.bits = 8, .symmetric = true};
  const QuantSpec a16{.bits = 16};
  const QuantSpec a5{.bits = 5};
  const LinearCase cases[] = {
      {{.bits = 8}, a8, a8, {-2, 3}, {-9, 7}, 0},
      {{.bits = 8, .symmetric = true, .per_channel = true}, a8s, a16, {-2, 3}, {-20, 20}, 0},
      {{.bits = 4, .per_channel = true}, a8, a8, {-2, 3}, {-9, 7}, 0},
      {{.bits = 4, .symmetric = true, .per_channel = true}, a16, a8, {-2, 3}, {-9, 7}, 0},
      {{.bits = 3}, a5, a5, {-2, 3}, {-9, 7}, 0},
      {{.bits = 16}, a8, a16, {-2, 3}, {-20, 20}, 0},
      {{.bits = 12, .symmetric = true, .per_channel = true}, a16, a16, {-2, 3}, {-20, 20}, 0},
      // Ranges that exclude 0: zero points outside the codes, of input, weight and output.
      {{.bits = 8}, a8, a8, {5, 6}, {2, 9}, 0.05},
      {{.bits = 8, .per_channel = true}, a8, a16, {-7, -6.5}, {-900, -500}, 3},
      // Everything saturates.
      {{.bits = 8}, a8, a8, {-2, 3}, {-0.01F, 0.01F}, 0},
  };
  std::mt19937 random(11);
  int number = 0;
  for (const LinearCase& c : cases) {
    ++number;
    for (const int64_t cols : {1, 33, 600}) {
      for (const int64_t rows : {1, 16, 83}) {
        std::normal_distribution<float> normal(static_cast<float>(c.weight_shift), 0.1F);
        std::vector<float> weight(static_cast<size_t>(rows * cols));
        for (float& w : weight) w = normal(random);
        model::LinearWeights weights;
        weights.weight = {.name = "test",
                          .rows = rows,
                          .cols = cols,
                          .stored = model::StoredWeight(model::DType::f32, cols,
                                                        reinterpret_cast<const std::byte*>(weight.data()))};
        for (int64_t r = 0; r < rows; ++r) weights.bias.push_back(normal(random) * 3);
        const PointGrid input = make_point_grid(c.input, c.input_range);
        const PointGrid output = make_point_grid(c.output, c.output_range);
        const IntegerMatrix matrix = prepare_linear(weights, c.weight, input, output);
        EXPECT_EQ(matrix.storage, c.weight.bits <= 4   ? WeightStorage::int4
                                  : c.weight.bits <= 8 ? WeightStorage::int8
                                                       : WeightStorage::int16);

        std::vector<float> simulated = weight;  // the weights as the simulation rounds them
        const int64_t grid_size = c.weight.per_channel ? cols : rows * cols;
        for (int64_t at = 0; at < rows * cols; at += grid_size) {
          float* first = simulated.data() + at;
          quant_kernels().fake_quantize(first, grid_size,
                                        make_grid(c.weight, quant_kernels().range(first, grid_size)), first);
        }
        const int64_t m = 7;
        std::uniform_int_distribution<int> code(input.codes.lo, input.codes.hi);
        std::vector<int16_t> x(static_cast<size_t>(m * cols));
        for (int16_t& v : x) v = static_cast<int16_t>(code(random));
        std::vector<int64_t> sums(static_cast<size_t>(m));
        row_sums(x.data(), m, cols, sums.data());
        std::vector<int16_t> y(static_cast<size_t>(m * rows));
        std::vector<uint8_t> bytes(static_cast<size_t>(m * byte_stride(cols)));
        for (int64_t i = 0; i < m && matrix.narrow_input; ++i) {
          to_bytes(x.data() + i * cols, cols, bytes.data() + i * byte_stride(cols));
        }
        linear_codes(matrix, 0, rows, {m, cols, x.data(), sums.data(), bytes.data()}, 0, m, y.data(), rows);
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t r = 0; r < rows; ++r) {
            double sum = weights.bias[static_cast<size_t>(r)];
            for (int64_t t = 0; t < cols; ++t) {
              sum += static_cast<double>(input.value(x[static_cast<size_t>(i * cols + t)])) *
                     static_cast<double>(simulated[static_cast<size_t>(r * cols + t)]);
            }
            ASSERT_NEAR(y[static_cast<size_t>(i * rows + r)], output.code(static_cast<float>(sum)), 1)
                << "case " << number << " " << cols << "x" << rows << " row " << i << " output " << r;
          }
        }
      }
    }
  }
}

/// Weights like a model's: normally distributed, with a few far out.
void make_normal(std::vector<float>& weights, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 0.02F);
  for (float& w : weights) w = normal(random) * (random() % 2000 == 0 ? 4.0F : 1.0F);
}

TEST(IntegerMemory, WeightsTakeAQuarterAndAnEighthOfFloat) {
  std::mt19937 random(23);
  const int64_t rows = 320, cols = 576;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  make_normal(values, random);
  model::LinearWeights weights;
  weights.weight = {.name = "weight",
                    .rows = rows,
                    .cols = cols,
                    .stored = model::StoredWeight(model::DType::f32, cols,
                                                  reinterpret_cast<const std::byte*>(values.data()))};
  const PointGrid input = make_point_grid({.bits = 8}, {-3, 4});
  const PointGrid output = make_point_grid({.bits = 8}, {-5, 4});
  const auto share = [&](const QuantSpec& spec) {
    const IntegerMatrix matrix = prepare_linear(weights, spec, input, output);
    // Eight bits per channel have too few small codes here for groups: those stay pairs.
    const PanelLayout quads = integer_kernels().quad_layout;
    EXPECT_EQ(matrix.layout, quads == PanelLayout::grouped_quads && spec.bits == 8 && spec.per_channel
                                 ? PanelLayout::pairs
                                 : quads);
    return static_cast<double>(matrix.byte_count()) / static_cast<double>(rows * cols * 4);
  };
  EXPECT_LE(share({.bits = 8}), 0.25 * 1.1);
  EXPECT_LE(share({.bits = 8, .per_channel = true}), 0.25 * 1.1);
  EXPECT_LE(share({.bits = 4, .per_channel = true}), 0.125 * 1.1);
  EXPECT_LE(share({.bits = 4, .symmetric = true, .per_channel = true}), 0.125 * 1.1);
}

}  // namespace
}  // namespace qeval::quant
