#include "quant/arithmetic/coded_linear.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "quant/arithmetic/activation_rounding.h"
#include "tests/quant/emulated/kernels.h"

namespace qeval::quant {
namespace {

using model::ActivationRounding;
using model::CodedWeight;

/// What this CPU can run, and stronger CPUs' kernels with their instructions emulated.
std::vector<const IntegerKernels*> coded_paths() {
  std::vector<const IntegerKernels*> paths;
  for (const IntegerCpu cpu : kIntegerCpus) {
    if (cpu_supports(cpu)) paths.push_back(&integer_kernels(cpu));
  }
  for (const IntegerKernels* kernels : emulated_kernels()) paths.push_back(kernels);
  return paths;
}

/// A stored linear map of random codes, and what it is in numbers.
struct StoredCodes {
  int bits;
  bool zero_points;
  int64_t group;  ///< 0: one scale for all
  bool ends;      ///< codes at the ends of their range

  std::vector<std::byte> bytes{};
  std::vector<float> scales{};
  std::vector<int8_t> zeros{};
  std::shared_ptr<CodedWeight> coded = std::make_shared<CodedWeight>();
  model::LinearWeights weights{};

  void make(int64_t rows, int64_t cols, bool bias, std::mt19937& random) {
    const int64_t groups = group == 0 ? 1 : (cols + group - 1) / group;
    const int64_t row_bytes = (cols * bits + 7) / 8;
    bytes.resize(static_cast<size_t>(rows * row_bytes));
    for (std::byte& b : bytes) {
      const auto end = bits == 8 ? std::byte{0x80} : std::byte{0};
      b = ends && random() % 4 != 0 ? end : static_cast<std::byte>(random());
    }
    std::uniform_real_distribution<float> scale(0.001F, 0.02F);
    const int64_t grids = group == 0 ? 1 : rows * groups;
    const int reach = 1 << (bits - 1);
    for (int64_t i = 0; i < grids; ++i) {
      scales.push_back(scale(random));
      zeros.push_back(
          static_cast<int8_t>(static_cast<int>(random() % static_cast<unsigned>(2 * reach)) - reach));
      if (ends) zeros.back() = static_cast<int8_t>(reach - 1);
    }
    CodedWeight& w = *coded;
    w.rows = rows;
    w.cols = cols;
    w.group = group == 0 ? cols : group;
    w.codes = {.bits = bits, .data = bytes.data(), .cols = cols, .stride = row_bytes, .is_signed = bits == 8};
    w.scales = {.type = model::StoredScales::Type::f32,
                .data = reinterpret_cast<const std::byte*>(scales.data()),
                .row_step = group == 0 ? 0 : groups,
                .group_step = group == 0 ? 0 : 1};
    w.zeros.constant = reach;
    if (zero_points) {
      w.zeros.layout = model::StoredZeros::Layout::int8;
      w.zeros.data = reinterpret_cast<const std::byte*>(zeros.data());
      w.zeros.row_step = w.scales.row_step;
      w.zeros.group_step = w.scales.group_step;
    }
    weights.weight = {.name = "test", .rows = rows, .cols = cols, .stored = model::StoredWeight(coded, 0)};
    for (int64_t r = 0; bias && r < rows; ++r) weights.bias.push_back(scale(random) * 100);
  }
};

/// The products on one path, by CodedLinear::multiply().
std::vector<float> products(const model::LinearWeights& weights, const IntegerKernels& kernels,
                            const std::vector<float>& x) {
  const std::optional<CodedLinear> linear = CodedLinear::make(weights, kernels);
  EXPECT_TRUE(linear);
  if (!linear) return {};
  const int64_t cols = weights.weight.cols, rows = std::ssize(x) / cols;
  const CodedInput input(*weights.input, x.data(), rows, cols, linear->segment());
  std::vector<float> out(static_cast<size_t>(rows * weights.weight.rows));
  const CodedLinear::Target target{&*linear, out.data()};
  CodedLinear::multiply(input, {&target, 1});
  return out;
}

TEST(CodedLinear, EveryPathRoundsTheExactSumOnceAndSoStaysWithTheSimulation) {
  std::mt19937 random(23);
  const ActivationRounding roundings[] = {
      {.source = ActivationRounding::Scale::token},
      {.source = ActivationRounding::Scale::token, .symmetric = false},
      {.symmetric = false, .scale = 0.03F, .zero_point = -17},
      {.bits = 4, .source = ActivationRounding::Scale::token, .symmetric = false},
  };
  const auto run = [&](StoredCodes stored, const ActivationRounding& rounding, int64_t m, int64_t rows,
                       int64_t cols) {
    const bool bias = rows % 2 != 0;
    stored.make(rows, cols, bias, random);
    stored.weights.input = rounding;
    std::vector<float> x(static_cast<size_t>(m * cols));
    std::normal_distribution<float> normal;
    for (float& v : x) v = stored.ends && random() % 8 != 0 ? 4.0F : normal(random);
    const std::vector<float> got = products(stored.weights, integer_kernels_portable(), x);
    for (const IntegerKernels* path : coded_paths())
      ASSERT_EQ(products(stored.weights, *path, x), got) << name(path->cpu);

    std::vector<float> w(static_cast<size_t>(rows * cols));
    stored.weights.weight.decode_rows(0, rows, w.data());
    for (int64_t i = 0; i < m; ++i) {
      std::vector<int16_t> codes(static_cast<size_t>(cols));
      const RowGrid grid = code_activation(rounding, x.data() + i * cols, cols, codes.data());
      std::vector<float> rounded(x.begin() + i * cols, x.begin() + (i + 1) * cols);
      round_activation(rounding, rounded.data(), cols);
      for (int64_t r = 0; r < rows; ++r) {
        double exact = 0, simulated = 0, reach = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const int64_t at = r * cols + c;
          const int64_t scale =
              stored.group == 0 ? 0 : r * ((cols + stored.group - 1) / stored.group) + c / stored.group;
          // Codes are whole, so that the decoded weight says which.
          const double weight =
              std::nearbyint(w[static_cast<size_t>(at)] / stored.scales[static_cast<size_t>(scale)]) *
              static_cast<double>(stored.scales[static_cast<size_t>(scale)]);
          exact +=
              (codes[static_cast<size_t>(c)] - grid.zero_point) * static_cast<double>(grid.scale) * weight;
          const double product =
              static_cast<double>(rounded[static_cast<size_t>(c)]) * w[static_cast<size_t>(at)];
          simulated += product;
          reach += std::abs(product);
        }
        const float own_bias = bias ? stored.weights.bias[static_cast<size_t>(r)] : 0;
        const float y = got[static_cast<size_t>(i * rows + r)];
        // One rounding of the sum, one of the bias's addition; the reference's doubles have some, too.
        const double one = (std::abs(exact) + std::abs(y)) * 0x1p-24 + reach * 0x1p-45;
        ASSERT_NEAR(y, exact + static_cast<double>(own_bias), one) << m << " " << rows << " " << cols;
        ASSERT_NEAR(y, simulated + static_cast<double>(own_bias), one + reach * 0x1p-22);
      }
    }
  };
  for (const ActivationRounding& rounding : roundings) {
    for (const bool zero_points : {false, true}) {
      for (const int bits : {8, 4}) {
        run({bits, zero_points, 1 << 20, false}, rounding, 7, 37, 75);  // per channel
        run({bits, zero_points, 0, true}, rounding, 50, 16, 129);       // one scale, far-out codes
        run({bits, zero_points, 32, false}, rounding, 9, 33, 96);       // groups
        run({bits, zero_points, 32, true}, rounding, 1, 65, 70);        // the last of them short
      }
    }
  }
  // Sums beyond 2^31 if they were not cut: 40000 columns of the largest products.
  run({8, true, 1 << 20, true}, roundings[1], 2, 3, 40000);
}

TEST(CodedLinear, RowsAreIndependentOfOneAnother) {
  std::mt19937 random(29);
  StoredCodes stored{8, true, 1 << 20, false};
  stored.make(70, 130, true, random);
  stored.weights.input = ActivationRounding{.source = ActivationRounding::Scale::token, .symmetric = false};
  std::vector<float> x(static_cast<size_t>(61 * 130));
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(random);
  x[3 * 130 + 5] = std::numeric_limits<float>::quiet_NaN();
  x[4 * 130 + 5] = std::numeric_limits<float>::infinity();
  std::fill_n(x.begin() + 5 * 130, 130, 0.0F);
  const std::vector<float> all = products(stored.weights, integer_kernels(), x);
  for (int64_t i = 0; i < 61; ++i) {
    const std::vector<float> alone =
        products(stored.weights, integer_kernels(), {x.begin() + i * 130, x.begin() + (i + 1) * 130});
    for (int64_t r = 0; r < 70; ++r) {
      const float y = all[static_cast<size_t>(i * 70 + r)];
      if (i == 3 || i == 4) {  // as in the simulation
        ASSERT_TRUE(std::isnan(y)) << i;
      } else {
        ASSERT_EQ(y, alone[static_cast<size_t>(r)]) << i;
      }
      if (i == 5) {
        ASSERT_EQ(y, stored.weights.bias[static_cast<size_t>(r)]);
      }
    }
  }
}

TEST(CodedLinear, ReadsRowsWhereTheyAreStored) {
  std::mt19937 random(37);
  StoredCodes stored{8, true, 32, false};
  stored.make(96, 64, true, random);
  stored.weights.input = ActivationRounding{.source = ActivationRounding::Scale::token};
  std::vector<float> x(64);
  for (float& v : x) v = std::normal_distribution<float>()(random);
  const std::vector<float> whole = products(stored.weights, integer_kernels(), x);
  // The second of three maps in one matrix, its rotary pairs interleaved.
  model::LinearWeights part = stored.weights;
  part.weight.rows = 32;
  part.weight.stored = model::StoredWeight(stored.coded, 32);
  part.weight.interleaved_head_dim = 16;
  part.bias.clear();
  const std::vector<float> got = products(part, integer_kernels(), x);
  ASSERT_EQ(got.size(), 32U);
  for (int64_t r = 0; r < 32; ++r) {
    const auto at = static_cast<size_t>(32 + part.weight.stored_row(r));
    EXPECT_EQ(got[static_cast<size_t>(r)] + stored.weights.bias[at], whole[at]) << r;
  }
}

TEST(CodedLinear, IsNotMadeOfWhatAreNotIntegersByIntegers) {
  std::mt19937 random(31);
  const auto made = [&](const auto& change) {
    StoredCodes stored{8, true, 32, false};
    stored.make(20, 64, false, random);
    stored.weights.input = ActivationRounding{.source = ActivationRounding::Scale::token};
    change(stored);
    return CodedLinear::make(stored.weights).has_value();
  };
  const std::vector<int32_t> order(64, 1);
  EXPECT_TRUE(made([](StoredCodes&) {}));
  EXPECT_FALSE(made([](StoredCodes& s) { s.weights.input.reset(); }));
  EXPECT_FALSE(made([](StoredCodes& s) { s.weights.input->type = ActivationRounding::Type::e4m3; }));
  EXPECT_FALSE(made([](StoredCodes& s) { s.weights.input->bits = 16; }));
  EXPECT_FALSE(made([](StoredCodes& s) {
    s.weights.input->source = ActivationRounding::Scale::group;
    s.weights.input->group = 32;
  }));
  EXPECT_FALSE(made([](StoredCodes& s) { s.coded->values = model::e4m3_values(); }));
  EXPECT_FALSE(made([](StoredCodes& s) { s.coded->flat = true; }));
  EXPECT_FALSE(made([&](StoredCodes& s) { s.coded->group_of = order.data(); }));
  EXPECT_FALSE(made([](StoredCodes& s) { s.coded->zeros.add = 200; }));
  EXPECT_FALSE(
      made([](StoredCodes& s) { s.weights.weight.stored = model::StoredWeight(s.scales.data(), 64); }));
}

}  // namespace
}  // namespace qeval::quant
