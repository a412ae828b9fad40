#include "quant/grid/quantizer.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qeval::quant {
namespace {

using model::CpuPath;

std::vector<CpuPath> quantizer_paths() {
  std::vector<CpuPath> supported;
  for (const CpuPath path : {CpuPath::portable, CpuPath::avx2, CpuPath::avx512, CpuPath::neon}) {
    if (model::cpu_supports(path)) supported.push_back(path);
  }
  return supported;
}

/// docs/specification.md#grids, a step a line, in float32.
float reference(float x, const Grid& g) {
  const auto z = static_cast<float>(g.zero_point);
  float q = std::nearbyint(x / g.scale) + z;
  if (q < static_cast<float>(g.q_min)) q = static_cast<float>(g.q_min);
  if (q > static_cast<float>(g.q_max)) q = static_cast<float>(g.q_max);
  return (q - z) * g.scale;
}

std::vector<float> values_at_ends(const Grid& grid) {
  const float huge = std::numeric_limits<float>::max();
  std::vector<float> x{0.0F, -0.0F, 1e-45F, -1e-45F, huge, -huge, 1e30F, -1e30F, 3.0F, -3.0F};
  // Ties, and their neighbours.
  for (int i = -300; i <= 300; ++i) {
    const float tie = (static_cast<float>(i) + 0.5F) * grid.scale;
    x.insert(x.end(), {tie, std::nextafter(tie, huge), std::nextafter(tie, -huge)});
  }
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0.0F, 4.0F);
  for (int i = 0; i < 1003; ++i) x.push_back(normal(generator));
  return x;
}

std::vector<QuantSpec> specs() {
  std::vector<QuantSpec> all;
  for (const int bits : {2, 3, 4, 8, 12, 16}) {
    for (const bool symmetric : {false, true}) all.push_back({.bits = bits, .symmetric = symmetric});
  }
  return all;
}

TEST(Grid, FollowsTheTable) {
  const Grid asymmetric = make_grid({.bits = 8}, {-1.0F, 3.0F});
  EXPECT_EQ(asymmetric, (Grid{4.0F / 255.0F, 64, 0, 255}));  // −round(−63.75) = 64
  const Grid symmetric = make_grid({.bits = 8, .symmetric = true}, {-1.0F, 3.0F});
  EXPECT_EQ(symmetric, (Grid{3.0F / 127.0F, 0, -128, 127}));
  const Grid wide = make_grid({.bits = 16}, {-2.0F, 2.0F});
  EXPECT_EQ(wide.q_max, 65535);
  EXPECT_EQ(wide.zero_point, 32768);  // 32767.5 rounds to even
}

TEST(Grid, KeepsAZeroPointOutsideTheCodes) {
  const Grid above = make_grid({.bits = 8}, {10.0F, 12.55F});
  EXPECT_EQ(above.zero_point, -1000);
  const Grid below = make_grid({.bits = 8}, {-12.55F, -10.0F});
  EXPECT_EQ(below.zero_point, 1255);
  std::vector<float> x{10.0F, 11.0F, 12.55F};
  quant_kernels().fake_quantize(x.data(), 3, above, x.data());
  EXPECT_THAT(x, testing::Pointwise(testing::FloatNear(1e-5F), std::vector<float>{10.0F, 11.0F, 12.55F}));
}

TEST(Grid, ClampsTheScale) {
  EXPECT_EQ(make_grid({.bits = 8}, {0.0F, 0.0F}).scale, 1e-5F);
  EXPECT_EQ(make_grid({.bits = 4}, {-3e38F, 3e38F}).scale, 1e6F);
  EXPECT_EQ(make_grid({.bits = 8}, {1e30F, 1e30F}).scale, 1e-5F);  // and no overflow in z
  EXPECT_TRUE(std::isnan(make_grid({.bits = 8}, {NAN, NAN}).scale));
}

TEST(Quantizer, EqualsTheFormulaBitForBitOnEveryPath) {
  for (const QuantSpec& spec : specs()) {
    for (const Range range : {Range{-3.0F, 5.0F}, Range{0.25F, 0.5F}, Range{-1e-7F, 1e-7F}}) {
      const Grid grid = make_grid(spec, range);
      const std::vector<float> x = values_at_ends(grid);
      for (const CpuPath path : quantizer_paths()) {
        std::vector<float> y(x.size());
        quant_kernels(path).fake_quantize(x.data(), static_cast<int64_t>(x.size()), grid, y.data());
        for (size_t i = 0; i < x.size(); ++i) {
          ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(reference(x[i], grid)))
              << "x " << x[i] << " bits " << spec.bits << " path " << model::name(path);
        }
      }
    }
  }
}

TEST(Quantizer, HandsNanThrough) {
  const Grid grid = make_grid({.bits = 8}, {-1.0F, 1.0F});
  for (const CpuPath path : quantizer_paths()) {
    std::vector<float> x(37, NAN);
    quant_kernels(path).fake_quantize(x.data(), 37, grid, x.data());
    for (const float v : x) EXPECT_TRUE(std::isnan(v)) << model::name(path);
  }
}

TEST(Quantizer, CodesDecodeToTheFakeQuantizedValues) {
  for (const QuantSpec& spec : specs()) {
    const Grid grid = make_grid(spec, {-3.0F, 5.0F});
    const int32_t offset = spec.symmetric ? 0 : 1 << (spec.bits - 1);
    const std::vector<float> x = values_at_ends(grid);
    const auto n = static_cast<int64_t>(x.size());
    for (const CpuPath path : quantizer_paths()) {
      const QuantKernels& kernel = quant_kernels(path);
      std::vector<float> want(x.size()), got(x.size());
      kernel.fake_quantize(x.data(), n, grid, want.data());
      if (spec.bits <= 8) {
        std::vector<int8_t> codes(x.size());
        kernel.quantize_i8(x.data(), n, grid, offset, codes.data());
        kernel.dequantize_i8(codes.data(), n, grid.scale, grid.zero_point - offset, got.data());
      } else {
        std::vector<int16_t> codes(x.size());
        kernel.quantize_i16(x.data(), n, grid, offset, codes.data());
        kernel.dequantize_i16(codes.data(), n, grid.scale, grid.zero_point - offset, got.data());
      }
      EXPECT_EQ(got, want) << "bits " << spec.bits << " path " << model::name(path);
    }
  }
}

TEST(Quantizer, RangeFindsExtremesAndRefusesToHideNan) {
  for (const CpuPath path : quantizer_paths()) {
    const QuantKernels& kernel = quant_kernels(path);
    for (int64_t n = 1; n < 70; ++n) {
      for (int64_t at = 0; at < n; ++at) {
        std::vector<float> x(static_cast<size_t>(n), -2.0F);
        x[static_cast<size_t>(at)] = 7.0F;
        const Range top = kernel.range(x.data(), n);
        EXPECT_EQ(top, (Range{n == 1 ? 7.0F : -2.0F, 7.0F}));
        x[static_cast<size_t>(at)] = -9.0F;
        EXPECT_EQ(kernel.range(x.data(), n).lo, -9.0F);
        x[static_cast<size_t>(at)] = NAN;
        EXPECT_TRUE(std::isnan(kernel.range(x.data(), n).lo));
        x[static_cast<size_t>(at)] = -INFINITY;
        EXPECT_TRUE(std::isnan(kernel.range(x.data(), n).hi));
      }
    }
  }
}

TEST(Quantizer, DynamicRowsTakeTheirOwnRange) {
  std::vector<float> row{-1.0F, 0.4F, 2.0F};
  const std::vector<float> original = row;
  const QuantSpec spec{.bits = 8, .dynamic = true};
  fake_quantize_row(spec, Grid{}, row.data(), 3);
  const Grid grid = make_grid(spec, {-1.0F, 2.0F});
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(row[i], reference(original[i], grid));
}

TEST(ChannelMaxima, KeepTheLargestMagnitude) {
  for (const CpuPath path : quantizer_paths()) {
    std::vector<float> largest(21, 1.0F);
    std::vector<float> row(21, 0.5F);
    row[3] = -4.0F;
    row[20] = 3.0F;
    quant_kernels(path).abs_max(row.data(), 21, largest.data());
    EXPECT_EQ(largest[3], 4.0F);
    EXPECT_EQ(largest[20], 3.0F);
    EXPECT_EQ(largest[0], 1.0F);
  }
}

}  // namespace
}  // namespace qeval::quant
