#include "quant/methods/gptq.h"

#include <cmath>
#include <cstring>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/checkpoint/checkpoint.h"
#include "quant/grid/stored_codes.h"
#include "quant/methods/layer_errors.h"
#include "quant/methods/quantize.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

template <typename T>
std::vector<T> numbers(const model::TensorView& tensor) {
  std::vector<T> out(tensor.bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

/// Two linear maps of the tiny Llama: input, weight, and what independent programs make of it.
class Golden {
 public:
  Golden(int64_t of_layer, Module of_module, const char* file)
      : layer(of_layer),
        module(of_module),
        tensors_(model::open_safetensors(test::goldens() / "gptq" / file)),
        x(floats("X")),
        w(floats("W")),
        rows(tensors_->require("W").shape[0]),
        cols(tensors_->require("W").shape[1]) {}

  std::vector<float> floats(const std::string& name) const { return numbers<float>(tensors_->require(name)); }
  std::vector<int32_t> integers(const std::string& name) const {
    return numbers<int32_t>(tensors_->require(name));
  }
  std::vector<double> losses(const std::string& kind) const {
    return numbers<double>(tensors_->require(kind + ".loss"));
  }
  int64_t tokens() const { return std::ssize(x) / cols; }
  model::Matrix matrix() const {
    return {.name = "test", .rows = rows, .cols = cols, .stored = model::StoredWeight(w.data(), cols)};
  }
  /// Mean over tokens of ‖X(W − Ŵ)ᵀ‖².
  double loss(const QuantizedMatrix& codes) const {
    using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto input = Eigen::Map<const Floats>(x.data(), tokens(), cols).cast<double>();
    RowMatrix difference = Eigen::Map<const Floats>(w.data(), rows, cols).cast<double>();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const auto grid = static_cast<size_t>(codes.grid_index(r, c));
        difference(r, c) -=
            (codes.codes.as<int8_t>()[r * cols + c] - codes.zero_points[grid]) * double{codes.scales[grid]};
      }
    }
    return (input * difference.transpose()).squaredNorm() / static_cast<double>(tokens());
  }
  double equal_codes(const std::string& kind, const QuantizedMatrix& found) const {
    const std::vector<int32_t> expected = integers(kind + ".codes");
    double same = 0;
    for (size_t i = 0; i < expected.size(); ++i)
      same += found.codes.as<int8_t>()[i] + found.code_offset() == expected[i] ? 1 : 0;
    return same / static_cast<double>(expected.size());
  }

  int64_t layer;
  Module module;

 private:
  std::shared_ptr<const model::Checkpoint> tensors_;

 public:
  std::vector<float> x, w;
  int64_t rows, cols;
};

struct Kind {
  const char* name;
  int64_t group;
  WeightRange range;
};
constexpr Kind kKinds[] = {{"channel", -1, WeightRange::minmax},
                           {"channel_lse", -1, WeightRange::mse},
                           {"g32", 32, WeightRange::minmax},
                           {"g32_lse", 32, WeightRange::mse}};

std::vector<Golden> goldens() {
  std::vector<Golden> all;
  all.emplace_back(0, Module::q, "llama-base-0.self_attn.q_proj.safetensors");
  all.emplace_back(1, Module::down, "llama-base-1.mlp.w2.safetensors");
  return all;
}

TEST(GptqGoldens, CodesGridsAndLossesAreThoseOfIndependentPrograms) {
  for (const Golden& golden : goldens()) {
    InputProducts products;
    constexpr int64_t kPiece = 48;
    for (int64_t first = 0; first < golden.tokens(); first += kPiece)
      products.add(golden.x.data() + first * golden.cols, std::min(kPiece, golden.tokens() - first),
                   golden.cols);
    const GptqFactor factor = gptq_factor(products.lower(), "test");
    const std::vector<int32_t> order = golden.integers("order");
    EXPECT_TRUE(std::ranges::equal(factor.order, order));
    for (const Kind& kind : kKinds) {
      SCOPED_TRACE(kind.name);
      const QuantSpec spec{.bits = 4, .per_channel = true, .group_size = kind.group};
      const std::vector<Grid> grids = weight_grids(golden.matrix(), spec, kind.range);
      const std::vector<float> scales = golden.floats(std::string(kind.name) + ".scales");
      const std::vector<int32_t> offsets = golden.integers(std::string(kind.name) + ".offsets");
      ASSERT_EQ(grids.size(), scales.size());
      for (size_t i = 0; i < grids.size(); ++i) {
        EXPECT_FLOAT_EQ(grids[i].scale, scales[i]) << i;
        EXPECT_EQ(grids[i].zero_point, offsets[i]) << i;
      }
      const QuantizedMatrix codes = gptq_round(golden.matrix(), spec, grids, factor);
      EXPECT_GE(golden.equal_codes(kind.name, codes), 0.99);
      const std::vector<double> losses = golden.losses(kind.name);
      EXPECT_NEAR(golden.loss(codes) / losses[0], 1, 0.005);
      EXPECT_NEAR(golden.loss(quantize_matrix(golden.matrix(), spec, grids)) / losses[1], 1, 0.005);
      EXPECT_LT(losses[0], losses[1]);
    }
  }
}

Samples golden_calibration() {
  const auto answers =
      model::open_safetensors(test::goldens() / "mobilequant/llama-base/expected.safetensors");
  const model::TensorView& ids = answers->require("calibration_ids");
  const std::vector<int64_t> values = numbers<int64_t>(ids);
  Samples samples;
  for (int64_t r = 0; r < ids.shape[0]; ++r) {
    const auto row = values.begin() + r * ids.shape[1];
    samples.emplace_back(row, row + ids.shape[1]);
  }
  return samples;
}

/// From the checkpoint and its calibration ids on: the inputs are those of the float model, every map has its
/// own.
TEST(GptqGoldens, AWholeQuantizationHasTheSameCodes) {
  const model::Model base = model::load_model(test::goldens() / "mobilequant/llama-base");
  const Samples samples = golden_calibration();
  for (const Kind& kind : kKinds) {
    QuantizeOptions options;
    options.method = Method::gptq;
    options.scheme = parse_scheme("w4a16");
    options.scheme.weight.group_size = kind.group;
    options.weight_range = kind.range;
    const QuantizedModel quantized = quantize(base, samples, options);
    for (const Golden& golden : goldens()) {
      SCOPED_TRACE(std::string(kind.name) + " " + module_name(golden.layer, golden.module));
      const QuantSpec& spec = quantized.qcfg[{golden.layer, golden.module, Slot::weight}];
      const model::Matrix& weight =
          quantized.model().layers[static_cast<size_t>(golden.layer)].linear(golden.module).weight;
      ASSERT_TRUE(is_stored_as(weight, spec));
      EXPECT_GE(golden.equal_codes(kind.name, quantized_weight(weight, spec)), 0.99);
    }
  }
}

/// Every expert is rounded by the rows that it is given, and to nearest where it is given none.
TEST(Gptq, RoundsExpertsByTheirOwnInputs) {
  test::TinyModel tiny;
  tiny.config.experts.emplace();
  tiny.config.experts->route = {.experts = 4, .used = 1};
  tiny.config.experts->inner = 24;
  tiny.config.experts->router_bias = true;
  tiny.config.layers.assign(2, {.sparse = true});
  model::Model model = tiny.build();
  for (model::LayerWeights& layer : model.layers) layer.linears.at(Module::router).bias = {0, 0, 0, -1000};
  Samples samples(3);
  for (size_t s = 0; s < samples.size(); ++s) {
    for (size_t i = 0; i < 60; ++i) samples[s].push_back(static_cast<int32_t>((i * i + 7 * s) % 61));
  }
  const auto made = [&](Method method) {
    QuantizeOptions options;
    options.method = method;
    options.scheme = parse_scheme("w3a16");
    return quantize(model, samples, options);
  };
  const QuantizedModel nearest = made(Method::rtn), gptq = made(Method::gptq);
  const auto sum = [&](const QuantizedModel& quantized) {
    double total = 0;
    for (const double error : layer_errors(quantized, samples)) total += error;
    return total;
  };
  EXPECT_LT(sum(gptq), 0.8 * sum(nearest));
  const QuantSpec& spec = gptq.qcfg[{0, Module::expert_up, Slot::weight}];
  for (size_t e = 0; e < 4; ++e) {
    const model::Matrix& own = model.layers[0].experts.at(Module::expert_up)[e].weight;
    const model::Matrix& rounded = gptq.model().layers[0].experts.at(Module::expert_up)[e].weight;
    ASSERT_TRUE(is_stored_as(rounded, spec));
    const QuantizedMatrix got = quantized_weight(rounded, spec);
    const QuantizedMatrix want = quantize_matrix(own, spec, weight_grids(own, spec, WeightRange::minmax));
    EXPECT_EQ(std::memcmp(got.codes.data(), want.codes.data(), got.codes.size()) == 0, e == 3) << e;
  }
}

/// The paper's procedure word for word: one column after the other, the inverse of what is left of H updated
/// by elimination, in place of a Cholesky factor.
QuantizedMatrix by_elimination(const model::Matrix& matrix, const QuantSpec& spec,
                               const std::vector<Grid>& grids, const RowMatrix& h,
                               const std::vector<int64_t>& order) {
  QuantizedMatrix result = on_grids(matrix, spec, grids);
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  matrix.decode_rows(0, matrix.rows, values.data());
  RowMatrix w(matrix.rows, matrix.cols);
  for (int64_t i = 0; i < w.size(); ++i) w.data()[i] = double{values[static_cast<size_t>(i)]};
  RowMatrix damped = h;
  damped.diagonal().array() += kGptqDamping * h.diagonal().mean();
  RowMatrix inverse = damped.inverse();
  for (const int64_t j : order) {
    for (int64_t r = 0; r < matrix.rows; ++r) {
      const Grid& grid = grids[static_cast<size_t>(result.grid_index(r, j))];
      const double code = std::clamp(std::nearbyint(w(r, j) / double{grid.scale}) + grid.zero_point,
                                     double(grid.q_min), double(grid.q_max));
      result.codes.as<int8_t>()[r * matrix.cols + j] = static_cast<int8_t>(code - result.code_offset());
      const double error = w(r, j) - (code - grid.zero_point) * double{grid.scale};
      w.row(r) -= error / inverse(j, j) * inverse.row(j);
    }
    const Eigen::RowVectorXd pivot = inverse.row(j);
    inverse -= pivot.transpose() * pivot / pivot[j];
  }
  return result;
}

TEST(Gptq, IsEliminationColumnByColumn) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  constexpr int64_t kRows = 70, kCols = 150, kTokens = 200;  // more than one task and one stretch of columns
  std::vector<float> w(kRows * kCols), x(kTokens * kCols);
  for (float& value : w) value = normal(random);
  for (float& value : x) value = normal(random);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t j = 1; j < kCols; ++j) x[t * kCols + j] += 0.7F * x[t * kCols + j - 1];
    x[t * kCols + 17] = 0;  // never on
  }
  const model::Matrix matrix{
      .name = "test", .rows = kRows, .cols = kCols, .stored = model::StoredWeight(w.data(), kCols)};
  InputProducts products;
  products.add(x.data(), kTokens, kCols);
  RowMatrix h = products.lower().triangularView<Eigen::Lower>();
  h = RowMatrix(h.selfadjointView<Eigen::Lower>());
  EXPECT_NEAR(
      h(3, 5),
      [&] {
        double sum = 0;
        for (int64_t t = 0; t < kTokens; ++t) sum += double{x[t * kCols + 3]} * double{x[t * kCols + 5]};
        return sum;
      }(),
      1e-3);
  const GptqFactor factor = gptq_factor(products.lower(), "test");
  EXPECT_EQ(factor.order.back(), 17);
  for (const QuantSpec& spec :
       {QuantSpec{.bits = 3, .per_channel = true},
        QuantSpec{.bits = 4, .symmetric = true, .per_channel = true, .group_size = 50},
        QuantSpec{.bits = 8}}) {
    const std::vector<Grid> grids = weight_grids(matrix, spec, WeightRange::minmax);
    const QuantizedMatrix found = gptq_round(matrix, spec, grids, factor);
    const QuantizedMatrix expected = by_elimination(matrix, spec, grids, h, factor.order);
    int64_t same = 0;
    for (int64_t i = 0; i < kRows * kCols; ++i)
      same += found.codes.as<int8_t>()[i] == expected.codes.as<int8_t>()[i] ? 1 : 0;
    EXPECT_GE(same, kRows * kCols * 999 / 1000);  // of a tie two correct programs may make either
  }
}

TEST(Gptq, InputsThatAreAlwaysZeroAreRoundedToNearest) {
  const std::vector<float> w{0.1F, -0.7F, 0.4F, 0.9F, 0.3F, -0.2F}, x(30, 0.0F);
  const model::Matrix matrix{
      .name = "test", .rows = 2, .cols = 3, .stored = model::StoredWeight(w.data(), 3)};
  InputProducts products;
  products.add(x.data(), 10, 3);
  const QuantSpec spec{.bits = 4, .per_channel = true};
  const std::vector<Grid> grids = weight_grids(matrix, spec, WeightRange::minmax);
  const QuantizedMatrix found = gptq_round(matrix, spec, grids, gptq_factor(products.lower(), "test"));
  const QuantizedMatrix nearest = quantize_matrix(matrix, spec, grids);
  EXPECT_EQ(std::memcmp(found.codes.data(), nearest.codes.data(), 6), 0);
}

TEST(Gptq, InputsThatAreNotFiniteAreRefusedByName) {
  std::vector<float> x(30, 1.0F);
  x[7] = INFINITY;
  InputProducts products;
  products.add(x.data(), 10, 3);
  try {
    gptq_factor(products.lower(), "model.layers.3.mlp.w2.input");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.3.mlp.w2.input"));
  }
}

/// A range far from 0 is widened, so that its zero point is a code and can be stored.
TEST(WeightGrids, HaveZeroPointsThatCanBeStored) {
  const std::vector<float> w{3.0F, 3.1F, 3.2F, 3.3F, -5.0F, -4.0F, -4.5F, -4.2F};
  const model::Matrix matrix{
      .name = "test", .rows = 2, .cols = 4, .stored = model::StoredWeight(w.data(), 4)};
  for (const WeightRange range : {WeightRange::minmax, WeightRange::mse}) {
    const std::vector<Grid> grids = weight_grids(matrix, {.bits = 4, .per_channel = true}, range);
    EXPECT_EQ(grids[0].zero_point, 0);
    EXPECT_EQ(grids[1].zero_point, 15);
  }
}

TEST(WeightGrids, TheSearchFindsTheLeastError) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> w(4 * 96);
  for (float& value : w) value = normal(random);
  w[5] = 9.0F;
  const model::Matrix matrix{
      .name = "test", .rows = 4, .cols = 96, .stored = model::StoredWeight(w.data(), 96)};
  const auto error = [&](const QuantSpec& spec, const std::vector<Grid>& grids) {
    const QuantizedMatrix codes = quantize_matrix(matrix, spec, grids);
    double sum = 0;
    for (int64_t i = 0; i < 4 * 96; ++i) {
      const auto grid = static_cast<size_t>(codes.grid_index(i / 96, i % 96));
      const double value =
          (codes.codes.as<int8_t>()[i] - codes.zero_points[grid]) * double{codes.scales[grid]};
      sum += (value - double{w[static_cast<size_t>(i)]}) * (value - double{w[static_cast<size_t>(i)]});
    }
    return sum;
  };
  for (const QuantSpec& spec : {QuantSpec{.bits = 4}, QuantSpec{.bits = 4, .symmetric = true},
                                QuantSpec{.bits = 4, .per_channel = true},
                                QuantSpec{.bits = 3, .per_channel = true, .group_size = 32}}) {
    const double found = error(spec, weight_grids(matrix, spec, WeightRange::mse));
    EXPECT_LT(found, error(spec, weight_grids(matrix, spec, WeightRange::minmax)));
    const std::vector<Range> whole = weight_ranges(matrix, spec);
    for (const float f : {0.9F, 0.75F, 0.5F, 0.3F}) {
      std::vector<Grid> grids;
      for (const Range& range : whole) grids.push_back(make_grid(spec, {f * range.lo, f * range.hi}));
      EXPECT_LE(found, error(spec, grids)) << f;
    }
  }
}

TEST(StoredCodes, ComeBackAsTheyWere) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> w(6 * 40);
  for (float& value : w) value = normal(random);
  const model::Matrix matrix{
      .name = "test", .rows = 6, .cols = 40, .stored = model::StoredWeight(w.data(), 40)};
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {false, true}) {
      for (const auto& [channel, group] : {std::pair{false, -1}, {true, -1}, {true, 8}}) {
        const QuantSpec spec{
            .bits = bits, .symmetric = symmetric, .per_channel = channel, .group_size = group};
        SCOPED_TRACE(describe(spec));
        const QuantizedMatrix codes =
            quantize_matrix(matrix, spec, weight_grids(matrix, spec, WeightRange::mse));
        model::Matrix stored = matrix;
        stored.stored = store_codes(codes);
        ASSERT_TRUE(is_stored_as(stored, spec));
        const QuantizedMatrix back = quantized_weight(stored, spec);
        EXPECT_EQ(std::memcmp(back.codes.data(), codes.codes.data(), 6 * 40), 0);
        EXPECT_EQ(back.scales, codes.scales);
        EXPECT_EQ(back.zero_points, codes.zero_points);
        // And as floats they are worth what the codes say.
        std::vector<float> floats(6 * 40);
        stored.decode_rows(0, 6, floats.data());
        for (int64_t i = 0; i < 6 * 40; ++i) {
          const auto grid = static_cast<size_t>(codes.grid_index(i / 40, i % 40));
          EXPECT_EQ(
              floats[static_cast<size_t>(i)],
              static_cast<float>(codes.codes.as<int8_t>()[i] - codes.zero_points[grid]) * codes.scales[grid]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace qeval::quant
