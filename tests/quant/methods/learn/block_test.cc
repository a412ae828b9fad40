// The backward pass against finite differences, in double with rounding replaced by identity.
#include "quant/methods/learn/block.h"

#include <cmath>
#include <functional>
#include <memory>

#include <gtest/gtest.h>

#include "quant/methods/learn/learn.h"

namespace qeval::quant {
namespace {

/// Numbers in [−1, 1] that no two tests share by accident.
class Numbers {
 public:
  explicit Numbers(uint32_t seed) : state_(seed) {}
  double next() {
    state_ = state_ * 1664525U + 1013904223U;
    return static_cast<double>(state_ >> 8) / 8388608.0 - 1.0;
  }
  std::vector<double> vector(int64_t count, double scale = 1, double shift = 0) {
    std::vector<double> out(static_cast<size_t>(count));
    for (double& x : out) x = shift + scale * next();
    return out;
  }

 private:
  uint32_t state_;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Compares `gradient` with central differences of loss() in every element of `x`.
void check_gradient(const std::string& name, std::vector<double>& x, const std::vector<double>& gradient,
                    const std::function<double()>& loss, double tolerance = 2e-5) {
  ASSERT_EQ(x.size(), gradient.size()) << name;
  for (size_t i = 0; i < x.size(); ++i) {
    const double saved = x[i];
    const double h = 1e-6 * std::max(1e-5, std::abs(saved));
    x[i] = saved + h;
    const double above = loss();
    x[i] = saved - h;
    const double below = loss();
    x[i] = saved;
    const double difference = (above - below) / (2 * h);
    EXPECT_NEAR(gradient[i], difference, tolerance * (1 + std::abs(difference))) << name << "[" << i << "]";
  }
}

const TrainKernels<double>& kernels() {
  return train_kernels<double>();
}

TEST(TrainOps, FakeQuantizeGradient) {
  Numbers numbers(1);
  std::vector<double> x = numbers.vector(40, 3.0);
  const std::vector<double> weight = numbers.vector(40);
  std::vector<double> grid{0.013, 61.7};  // clips both ends of x
  std::vector<double> y(x.size());
  const auto make = [&] { return LeafGrid<double>{grid[0], grid[1], 0, 255, true}; };
  const auto loss = [&] {
    kernels().fake_quantize(x.data(), 40, make(), y.data());
    return dot(y, weight);
  };
  std::vector<double> gradient = weight;
  const GridGradient<double> of_grid =
      kernels().fake_quantize_backward(x.data(), 40, make(), gradient.data());
  EXPECT_NE(of_grid.offset, 0.0);
  check_gradient("x", x, gradient, loss);
  check_gradient("grid", grid, {of_grid.scale, of_grid.offset}, loss);
}

/// Rounding is real in float: inside, the scale's gradient is that of the rounding error; at the ends of the
/// codes nothing passes to x.
TEST(TrainOps, FloatFakeQuantizePassesStraightThroughRounding) {
  const LeafGrid<float> grid{0.5F, 2, 0, 5, true};
  const std::vector<float> x{0.6F, -0.6F, -1.0F, -3.0F, 1.5F, 9.0F};
  std::vector<float> y(x.size());
  train_kernels<float>().fake_quantize(x.data(), 6, grid, y.data());
  EXPECT_EQ(y, (std::vector<float>{0.5F, -0.5F, -1.0F, -1.0F, 1.5F, 1.5F}));
  std::vector<float> gradient(x.size(), 1);
  const GridGradient<float> of_grid =
      train_kernels<float>().fake_quantize_backward(x.data(), 6, grid, gradient.data());
  EXPECT_EQ(gradient, (std::vector<float>{1, 1, 0, 0, 0, 0}));
  // round(1.2) − 1.2 and round(−1.2) + 1.2 cancel; ends: (0 − 2) twice, (5 − 2) twice.
  EXPECT_NEAR(of_grid.scale, 2.0F, 1e-6F);
  EXPECT_NEAR(of_grid.offset, -4 * 0.5F, 1e-6F);
}

TEST(TrainOps, FloatPathsAgree) {
  Numbers numbers(5);
  std::vector<float> x;
  for (const double v : numbers.vector(53, 4.0)) x.push_back(static_cast<float>(v));
  const LeafGrid<float> grid{0.02F, 100.25F, 0, 255, true};
  std::vector<float> want(x.size());
  std::vector<float> want_gradient(x.size(), 0.5F);
  const auto& reference = train_kernels_portable();
  reference.fake_quantize(x.data(), 53, grid, want.data());
  const auto of_grid = reference.fake_quantize_backward(x.data(), 53, grid, want_gradient.data());
  for (const auto path : {model::CpuPath::avx2, model::CpuPath::avx512, model::CpuPath::neon}) {
    if (!model::cpu_supports(path)) continue;
    const auto& kernel = train_kernels(path);
    std::vector<float> y(x.size());
    std::vector<float> gradient(x.size(), 0.5F);
    kernel.fake_quantize(x.data(), 53, grid, y.data());
    EXPECT_EQ(y, want);
    const auto got = kernel.fake_quantize_backward(x.data(), 53, grid, gradient.data());
    EXPECT_EQ(gradient, want_gradient);
    EXPECT_NEAR(got.scale, of_grid.scale, 1e-4F * std::abs(of_grid.scale));
    EXPECT_NEAR(got.offset, of_grid.offset, 1e-5F * std::abs(of_grid.offset));
    EXPECT_EQ(kernel.min_max(x.data(), 53).lo, reference.min_max(x.data(), 53).lo);
    EXPECT_EQ(kernel.min_max(x.data(), 53).hi, reference.min_max(x.data(), 53).hi);
  }
}

TEST(TrainOps, SoftmaxGradient) {
  Numbers numbers(2);
  std::vector<double> x = numbers.vector(9, 2.0);
  const std::vector<double> weight = numbers.vector(9);
  const auto loss = [&] {
    std::vector<double> p = x;
    kernels().softmax(p.data(), 9, 0.7);
    return dot(p, weight);
  };
  std::vector<double> p = x;
  kernels().softmax(p.data(), 9, 0.7);
  std::vector<double> gradient = weight;
  kernels().softmax_backward(p.data(), 9, 0.7, gradient.data());
  check_gradient("x", x, gradient, loss);
}

class WeightGradient : public testing::TestWithParam<QuantSpec> {};

/// Clipped: unclipped, the extremes stand exactly at the ends of the codes, where the derivative jumps. The
/// offset is a constant of the backward pass: its value at the point is kept while the rest moves.
TEST_P(WeightGradient, OfFactorsAndBounds) {
  const QuantSpec spec = GetParam();
  constexpr int64_t kRows = 5;
  constexpr int64_t kCols = 6;
  Numbers numbers(3);
  std::vector<double> w = numbers.vector(kRows * kCols);
  w[7] = w[8];  // an equal pair
  std::vector<double> columns = numbers.vector(kCols, 0.3, 1);
  std::vector<double> divisors = numbers.vector(kRows, 0.3, 1);
  std::vector<double> multipliers = numbers.vector(kRows, 0.3, 1);
  const int64_t grids_count = spec.per_channel ? kRows : 1;
  std::vector<double> upper = numbers.vector(grids_count, 0.5, 1);
  std::vector<double> lower = numbers.vector(grids_count, 0.5, 1);
  const std::vector<double> upstream = numbers.vector(kRows * kCols);
  const TransformedWeight<double> weight{
      w.data(), kRows, kCols, columns.data(), nullptr, divisors.data(), multipliers.data()};
  const Clipping<double> clipping = {upper.data(), lower.data()};
  const WeightGrids<double> start = weight_grids(weight, spec, clipping);
  const auto loss = [&] {
    WeightGrids<double> grids = weight_grids(weight, spec, clipping);
    for (size_t g = 0; g < grids.grid.size(); ++g) grids.grid[g].offset = start.grid[g].offset;
    std::vector<double> out(w.size());
    quantize_weight(weight, spec, grids, out.data());
    return dot(out, upstream);
  };
  std::vector<double> d_columns(kCols);
  std::vector<double> d_divisors(kRows);
  std::vector<double> d_multipliers(kRows);
  std::vector<double> d_upper(upper.size());
  std::vector<double> d_lower(lower.size());
  std::vector<double> gradient = upstream;
  quantize_weight_backward<double>(weight, spec, clipping, start, nullptr, gradient.data(),
                                   {.upper = d_upper.data(),
                                    .lower = d_lower.data(),
                                    .column_multiplier = d_columns.data(),
                                    .row_divisor = d_divisors.data(),
                                    .row_multiplier = d_multipliers.data()});
  check_gradient("columns", columns, d_columns, loss);
  check_gradient("row divisors", divisors, d_divisors, loss);
  check_gradient("row multipliers", multipliers, d_multipliers, loss);
  check_gradient("upper", upper, d_upper, loss);
  check_gradient("lower", lower, d_lower, loss);

  // What is kept of the forward pass is what is made anew without it.
  std::vector<double> kept(w.size()), transformed(w.size()), out(w.size());
  const WeightGrids<double> with = weight_grids(weight, spec, clipping, kept.data());
  quantize_weight(weight, spec, with, out.data(), transformed.data());
  EXPECT_EQ(kept, transformed);
  EXPECT_NE(kept, w);
  EXPECT_NE(out, transformed);
  const TransformedWeight<double> plain{kept.data(), kRows, kCols};
  quantize_weight(plain, QuantSpec{.bits = 32}, {}, out.data());
  EXPECT_EQ(out, kept);
  quantize_weight(weight, spec, with, out.data());
  quantize_weight(plain, spec, with, kept.data());  // where it lies
  EXPECT_EQ(kept, out);
  std::vector<double> again = upstream, columns_again(kCols), upper_again(upper.size());
  quantize_weight_backward<double>(weight, spec, clipping, with, transformed.data(), again.data(),
                                   {.upper = upper_again.data(), .column_multiplier = columns_again.data()});
  EXPECT_EQ(columns_again, d_columns);
  EXPECT_EQ(upper_again, d_upper);
}

INSTANTIATE_TEST_SUITE_P(Specs, WeightGradient,
                         testing::Values(QuantSpec{.bits = 4, .per_channel = true}, QuantSpec{.bits = 8},
                                         QuantSpec{.bits = 4, .symmetric = true, .per_channel = true},
                                         QuantSpec{.bits = 8, .symmetric = true}));

/// Equal extremes share the gradient of the range.
TEST(TrainOps, TiesShareTheGradientEqually) {
  const std::vector<float> w{1, -1, 1, 0.25F};
  std::vector<float> factor{1, 1, 1, 1};
  const TransformedWeight<float> weight{w.data(), 1, 4, factor.data(), nullptr, nullptr, nullptr};
  const QuantSpec spec{.bits = 4};
  const WeightGrids<float> grids = weight_grids<float>(weight, spec, {});
  std::vector<float> gradient{0, 0, 0, 1};
  std::vector<float> d_factor(4);
  quantize_weight_backward<float>(weight, spec, {}, grids, nullptr, gradient.data(),
                                  {.column_multiplier = d_factor.data()});
  EXPECT_EQ(d_factor[0], d_factor[2]);
  EXPECT_NE(d_factor[0], 0.0F);
  // dL/ds = round(x/s) − x/s at 0.25, s = 2/15; half of it over q_max goes to each of the two maxima.
  const double ratio = 0.25 * 15 / 2;
  EXPECT_NEAR(d_factor[0], (std::nearbyint(ratio) - ratio) / 15 / 2, 1e-6);
}

// ---- a whole block
// ------------------------------------------------------------------------------------------

struct BlockCase {
  const char* name;
  std::function<void(model::ModelConfig&)> change;
};

class BlockGradient : public testing::TestWithParam<BlockCase> {
 protected:
  static constexpr int64_t kTokens = 5;

  void SetUp() override {
    config_.architecture = "hfmodel";
    config_.vocab_size = 8;
    config_.hidden_size = 8;
    config_.intermediate_size = 12;
    config_.num_layers = 1;
    config_.num_heads = 4;
    config_.num_kv_heads = 2;
    config_.head_dim = config_.rotary.dim = 4;
    config_.max_position_embeddings = 16;
    GetParam().change(config_);
    config_.graph = model::make_graph(config_);
    // Symmetric weights: with an asymmetric range the constant offset has no counterpart in differences.
    Scheme scheme{.weight = {.bits = 4, .symmetric = true, .per_channel = true}};
    qcfg_ = make_qcfg(config_, scheme);
    Numbers numbers(11);
    for (const model::Operation& operation : config_.graph.block(0).operations) {
      if (const auto* norm = std::get_if<model::NormOp>(&operation)) {
        qcfg_[{0, norm->module, Slot::weight}].symmetric = true;
        weights_.norm(norm->module) = {own(numbers.vector(norm->weights(), 0.4, 1)),
                                       own(numbers.vector(norm->bias ? norm->weights() : 0, 0.2))};
      }
    }
    for (const model::Operation& operation : config_.graph.block(0).operations) {
      if (const auto* linear = std::get_if<model::LinearOp>(&operation)) {
        weights_.linear(linear->module) = {own(numbers.vector(linear->rows * linear->cols, 0.6))->data(),
                                           linear->rows, linear->cols,
                                           own(numbers.vector(linear->bias ? linear->rows : 0, 0.3))};
      }
    }
    x_ = numbers.vector(kTokens * config_.hidden_size, 1.5);
    upstream_ = numbers.vector(kTokens * config_.hidden_size);
    for (const Point& point : all_points(config_)) {
      if (!needs_range(qcfg_, point)) continue;
      // Narrow enough that each point clips a few values.
      const bool unit = (point.module == Module::pv_product && point.slot == Slot::input) ||
                        (point.module == Module::activation && point.slot == Slot::input2);
      ranges_[point] = unit ? Range{0.111F, 0.887F} : Range{-1.0123F, 1.1017F};
    }
    parameters_ = initial_parameters<double>(config_, qcfg_, ranges_, 0, {.modified = true, .ranges = true});
    perturb(numbers);
  }

  void perturb(Numbers& numbers) {
    for (Parameter<double>* p : parameters_.learned()) {
      for (double& v : p->value) v *= 1 + 0.1 * numbers.next();
    }
  }

  std::vector<double>* own(std::vector<double> values) {
    owned_.push_back(std::make_unique<std::vector<double>>(std::move(values)));
    return owned_.back().get();
  }
  double loss(const Block<double>& block) {
    std::vector<double> y(x_.size());
    block_forward(block, parameters_, x_.data(), kTokens, kept_, workspace_, y.data());
    return dot(y, upstream_);
  }

  void check_all(const Block<double>& block) {
    loss(block);
    std::vector<double> gradient = upstream_;
    block_backward(block, parameters_, kept_, workspace_, gradient.data());
    const auto again = [&] { return loss(block); };
    check_gradient("x", x_, gradient, again, 1e-4);
    size_t groups = 0;
    for (Parameter<double>* p : parameters_.learned()) {
      check_gradient(p->name, p->value, p->gradient, again, 1e-4);
      groups |= size_t{1} << static_cast<size_t>(p->group);
    }
    EXPECT_EQ(groups, 7U);
  }

  model::ModelConfig config_;
  QuantConfig qcfg_;
  ActRanges ranges_{1};
  std::vector<std::unique_ptr<std::vector<double>>> owned_;
  BlockWeights<double> weights_;
  BlockParameters<double> parameters_;
  std::vector<double> x_, upstream_;
  Kept<double> kept_;
  Workspace<double> workspace_;
};

TEST_P(BlockGradient, OfInputAndEveryParameter) {
  const RotaryTables rotary(config_, kTokens);
  check_all(make_block(config_, rotary, weights_, qcfg_, 0));
}

/// Weights that are codes have factors of their grids: in groups, one for a channel, or one for all; position
/// 0 has grids of its own, which clip more, and no part in what is learned of the others.
TEST_P(BlockGradient, OfTheGridsOfCodesAndWithPositionZeroApart) {
  FirstToken first{make_first_qcfg(qcfg_, config_), ranges_};
  for (const Point& point : all_points(config_)) {
    if (first.ranges[point] && first.ranges[point]->lo < 0) first.ranges[point] = Range{-0.7123F, 0.8017F};
  }
  QuantConfig codes = qcfg_;
  for (const Point& point : all_points(config_)) {
    const bool linear = point.slot == Slot::weight && is_linear(point.module);
    if (!linear || point.module == Module::up) {  // which is clipped as ever
      codes[point] = {};
      continue;
    }
    if (point.module == Module::o) codes[point].per_channel = false;
    if (point.module == Module::q || point.module == Module::down) codes[point].group_size = 4;
    qcfg_[point] = {};
  }
  parameters_ = initial_parameters<double>(config_, qcfg_, ranges_, 0, {.ranges = true, .codes = &codes});
  const auto factors = [&](Module module) {
    return std::ssize(parameters_.factor[static_cast<size_t>(module)].value);
  };
  EXPECT_EQ(factors(Module::o), 1);
  EXPECT_EQ(factors(Module::v), weights_.linear(Module::v).rows);
  EXPECT_EQ(factors(Module::q), weights_.linear(Module::q).rows * weights_.linear(Module::q).cols / 4);
  EXPECT_EQ(factors(Module::up), 0);
  Numbers numbers(12);
  perturb(numbers);
  const RotaryTables rotary(config_, kTokens);
  check_all(make_block(config_, rotary, weights_, qcfg_, 0, std::optional(first)));
}

using model::Activation;
using model::BlockForm;
using model::ModelConfig;
using model::NormKind;
using model::QkNorm;

std::string name_of(const testing::TestParamInfo<BlockCase>& instance) {
  return instance.param.name;
}

INSTANTIATE_TEST_SUITE_P(Architectures, BlockGradient,
                         testing::Values(BlockCase{"llama", [](ModelConfig&) {}},
                                         BlockCase{"gemma",
                                                   [](ModelConfig& c) {
                                                     c.activation = Activation::gelu_tanh;
                                                     c.num_heads = 2;
                                                     c.num_kv_heads = 1;
                                                     c.head_dim = c.rotary.dim = 6;
                                                   }},
                                         BlockCase{"stablelm",
                                                   [](ModelConfig& c) {
                                                     c.norm = NormKind::layer;
                                                     c.num_heads = 2;
                                                     c.rotary.dim = 2;
                                                     c.qkv_bias = c.mlp_bias = true;
                                                   }}),
                         name_of);

/// Each operation of the graph that the paper's blocks lack.
INSTANTIATE_TEST_SUITE_P(
    Forms, BlockGradient,
    testing::Values(BlockCase{"sandwich_with_head_norms_and_soft_cap",
                              [](ModelConfig& c) {
                                c.architecture = "gemma3_text";
                                c.form = BlockForm::sandwich;
                                c.qk_norm = QkNorm::head;
                                c.score_softcap = 1.3F;
                                c.attention_scale = 0.7F;
                                c.activation = Activation::gelu_tanh;
                              }},
                    BlockCase{"update_norms",
                              [](ModelConfig& c) {
                                c.form = BlockForm::update_norms;
                                c.qk_norm = QkNorm::full_width;
                              }},
                    BlockCase{"parallel",
                              [](ModelConfig& c) {
                                c.form = BlockForm::parallel;
                                c.norm = c.qk_norm_kind = NormKind::layer;
                                c.norm_bias = false;
                                c.qk_norm = QkNorm::head_own;
                                c.residual_factor = 0.4F;
                              }},
                    BlockCase{"parallel_with_two_norms",
                              [](ModelConfig& c) {
                                c.form = BlockForm::parallel_two_norms;
                                c.norm = NormKind::layer;
                                c.num_kv_heads = 4;
                                c.gated_mlp = false;
                                c.activation = Activation::gelu_erf;
                                c.qkv_bias = c.o_bias = c.mlp_bias = true;
                              }},
                    BlockCase{"window", [](ModelConfig& c) { c.layers = {{.window = 2}}; }},
                    BlockCase{"no_rotary",
                              [](ModelConfig& c) {
                                c.num_kv_heads = 4;
                                c.layers = {{.rotary = false}};
                              }},
                    BlockCase{"local_rotary",
                              [](ModelConfig& c) {
                                c.local_rotary = model::Rotary{.theta = 3, .dim = 2, .scaling = {}};
                                c.layers = {{.local_rotary = true}};
                                c.position_beta = 0.5;
                                c.position_original = 2;
                              }},
                    BlockCase{"norms_behind_the_rotary_embedding",
                              [](ModelConfig& c) {
                                c.norm = c.qk_norm_kind = NormKind::layer;
                                c.qk_norm = QkNorm::head;
                                c.qk_norm_bias = c.qk_norm_after_rotary = true;
                              }},
                    BlockCase{"norms_after_additions",
                              [](ModelConfig& c) {
                                c.form = BlockForm::after_add;
                                c.norm = NormKind::layer;
                                c.num_kv_heads = 4;
                                c.gated_mlp = false;
                                c.activation = Activation::relu2;
                              }},
                    BlockCase{"rotated",
                              [](ModelConfig& c) {
                                c.num_kv_heads = 4;
                                c.rotation = model::Rotation{.down_block = 12, .query_key_block = 4};
                              }},
                    BlockCase{"relu",
                              [](ModelConfig& c) {
                                c.gated_mlp = false;
                                c.activation = Activation::relu;
                              }}),
    name_of);

/// Where a scale between q and k would be undone, or heads share keys, there is none; elsewhere what stands
/// behind the product (a soft cap) does not matter.
TEST(LetEdges, FollowTheGraph) {
  const auto edges = [](const std::function<void(ModelConfig&)>& change, bool modified = true) {
    ModelConfig config;
    config.hidden_size = config.intermediate_size = 8;
    config.num_layers = 1;
    config.num_heads = config.num_kv_heads = 2;
    config.head_dim = config.rotary.dim = 4;
    change(config);
    std::string names;
    for (const LetEdge& edge : let_edges(model::make_graph(config).block(0), modified)) {
      names += (names.empty() ? "" : "; ") + edge_name(edge);
    }
    return names;
  };
  EXPECT_EQ(edges([](ModelConfig&) {}), "norm to q, k, v; norm to gate, up; up to down; v to o; q to k");
  EXPECT_EQ(edges([](ModelConfig&) {}, false), "norm to q, k, v; norm to gate, up; v to o; q to k");
  EXPECT_EQ(edges([](ModelConfig& c) { c.num_kv_heads = 1; }),
            "norm to q, k, v; norm to gate, up; up to down");
  EXPECT_EQ(edges([](ModelConfig& c) { c.qk_norm = QkNorm::head; }),
            "norm to q, k, v; norm to gate, up; up to down; v to o");
  EXPECT_EQ(edges([](ModelConfig& c) { c.score_softcap = 2; }),
            "norm to q, k, v; norm to gate, up; up to down; v to o; q to k");
  EXPECT_EQ(edges([](ModelConfig& c) { c.form = BlockForm::update_norms; }), "up to down; v to o; q to k");
  EXPECT_EQ(edges([](ModelConfig& c) {
              c.form = BlockForm::parallel;
              c.gated_mlp = false;
            }),
            "norm to q, k, v, gate; v to o; q to k");
}

}  // namespace
}  // namespace qeval::quant
