#include "quant/arithmetic/fake_arithmetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "base/error.h"
#include "model/decoder.h"
#include "quant/calibrate/calibration.h"
#include "quant/methods/editable_model.h"
#include "tests/quant/reference_forward.h"
#include "tests/quant/tiny_ranges.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::Rows;
using test::TinyModel;
using test::tokens;

/// docs/specification.md#grids written down once more: n elements on the grid of a range.
void quantize_in_range(const QuantSpec& spec, Range range, float* x, int64_t n) {
  const auto codes = static_cast<float>(int64_t{1} << (spec.symmetric ? spec.bits - 1 : spec.bits)) - 1;
  const float q_min = spec.symmetric ? -codes - 1 : 0;
  float s = (spec.symmetric ? std::max(std::abs(range.lo), std::abs(range.hi)) : range.hi - range.lo) / codes;
  s = std::min(std::max(s, 1e-5F), 1e6F);
  const float z = spec.symmetric ? 0 : -std::nearbyint(range.lo / s);
  for (int64_t i = 0; i < n; ++i) x[i] = (std::clamp(std::nearbyint(x[i] / s) + z, q_min, codes) - z) * s;
}

/// Stretches of `width` elements, each on a grid of its own range.
void quantize_by_own_range(const QuantSpec& spec, std::vector<float>& x, int64_t width) {
  for (size_t first = 0; first < x.size(); first += static_cast<size_t>(width)) {
    float lo = x[first], hi = x[first];
    for (size_t i = first; i < first + static_cast<size_t>(width); ++i) {
      lo = std::min(lo, x[i]);
      hi = std::max(hi, x[i]);
    }
    quantize_in_range(spec, {lo, hi}, &x[first], width);
  }
}

/// The simulation by the slow reference: every enabled point rounded where it stands in the block diagram.
Rows reference_logits(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                      const std::vector<int32_t>& ids) {
  test::ReferenceForward forward(model, [&](const Point& point, Rows& x) {
    const QuantSpec& spec = qcfg[point];
    if (!spec.enabled()) return;
    if (point.slot == Slot::weight) {
      const int64_t all = x.rows * x.cols;
      quantize_by_own_range(spec, x.values,
                            spec.group_size > 0 ? spec.group_size
                            : spec.per_channel  ? x.cols
                                                : all);
    } else if (spec.dynamic) {
      const bool heads = point.module == Module::qk_product || point.module == Module::pv_product;
      quantize_by_own_range(spec, x.values, heads ? model.config.head_dim : x.cols);
    } else {
      quantize_in_range(spec, ranges[point].value(), x.values.data(), x.rows * x.cols);
    }
  });
  return forward.logits(ids);
}

/// The same with grids of its own for position 0: rows of a tensor are tokens, those of scores tokens of one
/// head after the other.
Rows reference_logits(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                      const FirstToken& first, const std::vector<int32_t>& ids) {
  test::ReferenceForward forward(model, [&](const Point& point, Rows& x) {
    const QuantSpec& spec = qcfg[point];
    if (!spec.enabled()) return;
    if (point.slot == Slot::weight) {
      quantize_by_own_range(spec, x.values, spec.per_channel ? x.cols : x.rows * x.cols);
      return;
    }
    for (int64_t r = 0; r < x.rows; ++r) {
      const bool own = r % std::ssize(ids) == 0;
      quantize_in_range(own ? first.qcfg[point] : spec,
                        own ? first.ranges[point].value() : ranges[point].value(), &x.at(r, 0), x.cols);
    }
  });
  return forward.logits(ids);
}

std::vector<float> decoder_logits(const model::Model& model, const model::Arithmetic& arithmetic,
                                  const std::vector<int32_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  model::KvSpan kv(arithmetic, length, 1);
  model::Batch batch;
  batch.tokens = ids;
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < length; ++i) {
    batch.positions.push_back(static_cast<int32_t>(i));
    rows.push_back(i);
  }
  batch.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &kv, .kv_at = 0});
  model::Decoder decoder(model, arithmetic);
  decoder.forward(batch);
  return decoder.logits(rows);
}

/// Median over positions of the largest difference of their logits: a value that falls on the other side of
/// .5 moves some positions by a step; a point forgotten or rounded wrongly moves them all.
double median_difference(const std::vector<float>& got, const Rows& want) {
  std::vector<double> largest;
  for (int64_t r = 0; r < want.rows; ++r) {
    double most = 0;
    for (int64_t c = 0; c < want.cols; ++c) {
      most = std::max(most, std::abs(static_cast<double>(got[static_cast<size_t>(r * want.cols + c)]) -
                                     static_cast<double>(want.at(r, c))));
    }
    largest.push_back(most);
  }
  std::nth_element(largest.begin(), largest.begin() + std::ssize(largest) / 2, largest.end());
  return largest[largest.size() / 2];
}

void make_llama(model::ModelConfig&) {}
void make_gemma(model::ModelConfig& config) {
  config.architecture = "gemma";
  config.activation = model::Activation::gelu_tanh;  // simulated in its erf form
  config.scale_embedding = true;
  config.num_kv_heads = 1;
}
void make_stablelm(model::ModelConfig& config) {
  config.norm = model::NormKind::layer;
  config.num_kv_heads = 4;
  config.qkv_bias = true;
}

class FakeArithmeticTest : public testing::TestWithParam<void (*)(model::ModelConfig&)> {
 protected:
  void SetUp() override {
    GetParam()(tiny_.config);
    tiny_.config.l2norm_as_rmsnorm = tiny_.config.norm == model::NormKind::rms;
    model_ = tiny_.build();
    qcfg_ = make_qcfg(model_.config, {});
    ranges_ = calibrate(model_, {tokens(40), tokens(23)}, qcfg_, {}).ranges;
  }

  void expect_the_reference(const QuantConfig& qcfg, double tolerance = 2e-4, int64_t alike = 3) {
    const ActRanges ranges = complete_ranges(qcfg, ranges_, model_.config, "test");
    const FakeArithmetic arithmetic(model_, qcfg, ranges, 64);
    // A flip at a first token moves all that follow: `alike` of five sequences must be free of such.
    std::vector<double> differences;
    for (int64_t start = 1; start < 6; ++start) {
      const std::vector<int32_t> ids = tokens(33, start);
      differences.push_back(median_difference(decoder_logits(model_, arithmetic, ids),
                                              reference_logits(model_, qcfg, ranges, ids)));
    }
    EXPECT_GE(std::ranges::count_if(differences, [&](double d) { return d < tolerance; }), alike)
        << testing::PrintToString(differences);
  }

  std::vector<Point> quantized_points_of_blocks() const {
    std::vector<Point> points = all_points(model_.config);
    std::erase_if(points, [&](const Point& point) { return !qcfg_[point].enabled(); });
    return points;
  }

  /// The sequence in two batches, the second one cut into two segments that continue the same span.
  std::vector<float> logits_in_pieces(const model::Arithmetic& arithmetic, const std::vector<int32_t>& ids) {
    const auto length = static_cast<int64_t>(ids.size());
    model::KvSpan kv(arithmetic, length, model_.config.num_layers);
    model::Decoder decoder(model_, arithmetic);
    std::vector<float> all;
    const auto run = [&](int64_t first, const std::vector<int64_t>& lengths) {
      model::Batch batch;
      std::vector<int64_t> rows;
      for (const int64_t count : lengths) {
        batch.segments.push_back({.first_row = std::ssize(batch.tokens),
                                  .length = count,
                                  .first_position = first,
                                  .kv = &kv,
                                  .kv_at = first});
        for (int64_t i = 0; i < count; ++i, ++first) {
          rows.push_back(std::ssize(batch.tokens));
          batch.tokens.push_back(ids[static_cast<size_t>(first)]);
          batch.positions.push_back(static_cast<int32_t>(first));
        }
      }
      decoder.forward(batch);
      const std::vector<float> part = decoder.logits(rows);
      all.insert(all.end(), part.begin(), part.end());
    };
    run(0, {11});
    run(11, {5, length - 16});
    return all;
  }

  TinyModel tiny_;
  model::Model model_;
  QuantConfig qcfg_;
  ActRanges ranges_;
};

TEST_P(FakeArithmeticTest, FollowsTheSlowReferenceInEveryScheme) {
  for (const char* name : {"w8a8", "w4a8", "w4a8-sym"}) {
    SCOPED_TRACE(name);
    expect_the_reference(make_qcfg(model_.config, parse_scheme(name)));
  }
  // Steps of 16 bits are so fine that some value of every row falls on the other side, for a small step.
  expect_the_reference(make_qcfg(model_.config, parse_scheme("w8a16")), 2e-3);
}

TEST_P(FakeArithmeticTest, FollowsTheSlowReferencePointByPoint) {
  // Each point alone at 5 bits: the others cannot hide it.
  for (const Point& point : quantized_points_of_blocks()) {
    SCOPED_TRACE(point_name(point));
    QuantConfig only(model_.config.num_layers);
    only[point] = qcfg_[point];
    only[point].bits = 5;
    if (point.module != Module::activation) {
      // GELU is simulated in the erf form where the activation is quantized, as the reference has it.
      only[{0, Module::activation, Slot::output}].bits = 16;
      only[{1, Module::activation, Slot::output}].bits = 16;
    } else {
      only[{1 - point.layer, Module::activation, Slot::output}].bits = 16;
    }
    expect_the_reference(only);
  }
}

TEST_P(FakeArithmeticTest, RoundsWeightsByGroupAndInputsWhereAsked) {
  Scheme scheme;
  scheme.weight = {.bits = 4, .per_channel = true, .group_size = 4};
  QuantConfig qcfg = make_qcfg(model_.config, scheme);
  qcfg[{0, Module::q, Slot::input}].bits = 6;  // k and v read the unrounded one
  qcfg[{1, Module::up, Slot::input}].bits = 6;
  qcfg[{1, Module::o, Slot::input}].bits = 6;
  qcfg[{0, Module::activation, Slot::input}].bits = 6;
  expect_the_reference(qcfg);
}

TEST_P(FakeArithmeticTest, RoundsDynamicallyRowByRow) {
  Scheme scheme;
  scheme.dynamic_activations = true;
  QuantConfig qcfg = make_qcfg(model_.config, scheme);
  for (int64_t layer = 0; layer < 2; ++layer) {  // the reference's rows hold hidden keys as well
    qcfg[{layer, Module::qk_product, Slot::output}].dynamic = false;
    qcfg[{layer, Module::pv_product, Slot::input}].dynamic = false;
  }
  expect_the_reference(qcfg, 2e-4, 2);  // a grid per row: more values stand near a step
}

TEST_P(FakeArithmeticTest, GivesTheSameBitsForAnyThreadsAndBatches) {
  for (const bool dynamic : {false, true}) {
    Scheme scheme;
    scheme.dynamic_activations = dynamic;
    const QuantConfig qcfg = make_qcfg(model_.config, scheme);
    const FakeArithmetic arithmetic(model_, qcfg, complete_ranges(qcfg, ranges_, model_.config, "test"), 64);
    const std::vector<int32_t> ids = tokens(37);
    const std::vector<float> whole = decoder_logits(model_, arithmetic, ids);
    {
      const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
      EXPECT_EQ(decoder_logits(model_, arithmetic, ids), whole);
    }
    EXPECT_EQ(logits_in_pieces(arithmetic, ids), whole);
  }
}

std::string architecture(const testing::TestParamInfo<void (*)(model::ModelConfig&)>& test) {
  const std::array<std::string, 3> names{"llama", "gemma", "stablelm"};
  return names[test.index];
}
INSTANTIATE_TEST_SUITE_P(Architectures, FakeArithmeticTest,
                         testing::Values(make_llama, make_gemma, make_stablelm), architecture);

TEST(FakeArithmetic, KeepsTheModelsOwnActivationWhereNothingRoundsIt) {
  TinyModel tiny;
  tiny.config.architecture = "gemma";
  tiny.config.activation = model::Activation::gelu_tanh;
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  const QuantConfig nothing(model.config.num_layers);
  const FakeArithmetic fake(model, nothing, ActRanges(model.config.num_layers), 64);
  const auto plain = model::make_float_arithmetic(model, 64);
  EXPECT_EQ(decoder_logits(model, fake, tokens(20)), decoder_logits(model, *plain, tokens(20)));
}

TEST(FakeArithmetic, RoundsTheHeadWhereTheConfigurationNamesIt) {
  TinyModel tiny;
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  QuantConfig qcfg(model.config.num_layers);
  const ActRanges none(model.config.num_layers);
  const std::vector<float> before = decoder_logits(model, FakeArithmetic(model, qcfg, none, 64), tokens(9));
  qcfg[{0, Module::head, Slot::weight}] = {.bits = 8, .per_channel = true};
  const std::vector<float> after = decoder_logits(model, FakeArithmetic(model, qcfg, none, 64), tokens(9));
  EditableModel rounded(model);
  rounded.edit_ends();
  const EditableModel::Linear head = rounded.head();
  for (int64_t r = 0; r < head.rows; ++r) {
    const auto [lo, hi] = std::minmax_element(head.row(r), head.row(r) + head.cols);
    quantize_in_range({.bits = 8}, {*lo, *hi}, head.row(r), head.cols);
  }
  const std::vector<float> expected = decoder_logits(
      rounded.model(), FakeArithmetic(rounded.model(), QuantConfig(model.config.num_layers), none, 64),
      tokens(9));
  double moved = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_NEAR(after[i], expected[i], 1e-5);
    moved = std::max(moved, std::abs(static_cast<double>(before[i]) - static_cast<double>(after[i])));
  }
  EXPECT_GT(moved, 1e-4);
}

/// A mixture of one expert, to which every token is given whole, is a dense MLP: with its weights, points and
/// ranges it has its bits.
TEST(FakeArithmetic, OneExpertIsADenseMlp) {
  constexpr std::array<std::pair<Module, Module>, 4> kPairs{{{Module::gate, Module::expert_gate},
                                                             {Module::activation, Module::expert_activation},
                                                             {Module::up, Module::expert_up},
                                                             {Module::down, Module::expert_down}}};
  TinyModel tiny, other(2);
  tiny.config.l2norm_as_rmsnorm = other.config.l2norm_as_rmsnorm = true;
  const model::Model dense = tiny.build();
  model::Experts experts;
  experts.inner = dense.config.intermediate_size;
  experts.route = {.experts = 1, .used = 1, .normalize = true};
  other.config.experts = experts;
  other.config.layers.assign(2, {.sparse = true});
  const model::Model routed = other.build();
  model::Model sparse = dense;
  sparse.config = routed.config;
  for (size_t layer = 0; layer < 2; ++layer) {
    model::LayerWeights& own = sparse.layers[layer];
    own.linears[Module::router] = routed.layers[layer].linear(Module::router);
    for (const auto& [from, to] : kPairs) {
      if (is_linear(from)) own.experts[to] = {own.linear(from)};
    }
  }
  const QuantConfig qcfg = make_qcfg(dense.config, {});
  QuantConfig sparse_qcfg = make_qcfg(sparse.config, {});
  ActRanges ranges = tiny_ranges(dense.config), sparse_ranges = tiny_ranges(sparse.config);
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (const auto& [from, to] : kPairs) {
      for (const Slot slot : {Slot::input, Slot::input2, Slot::weight, Slot::output}) {
        EXPECT_EQ((sparse_qcfg[{layer, to, slot}]), (qcfg[{layer, from, slot}])) << module_name(layer, to);
        sparse_ranges[{layer, to, slot}] = ranges[{layer, from, slot}];
      }
    }
    sparse_qcfg[{layer, Module::expert_mix, Slot::output}] = {};  // which a dense MLP has not
  }
  const FakeArithmetic one(dense, qcfg, complete_ranges(qcfg, ranges, dense.config, "test"), 64);
  const FakeArithmetic two(sparse, sparse_qcfg,
                           complete_ranges(sparse_qcfg, sparse_ranges, sparse.config, "test"), 64);
  EXPECT_EQ(decoder_logits(sparse, two, tokens(20)), decoder_logits(dense, one, tokens(20)));
}

TEST(FakeArithmetic, ExpertsGiveTheSameBitsForAnyBatch) {
  TinyModel tiny;
  tiny.config.l2norm_as_rmsnorm = true;
  model::Experts experts;
  experts.inner = 12;
  experts.shared_inner = 9;
  experts.shared_gate = true;
  experts.route = {.experts = 5, .used = 2};
  tiny.config.experts = experts;
  tiny.config.layers.assign(2, {.sparse = true});
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w4a8"));
  const FakeArithmetic arithmetic(model, qcfg,
                                  complete_ranges(qcfg, tiny_ranges(model.config), model.config, "test"), 64);
  const std::vector<float> whole = decoder_logits(model, arithmetic, tokens(37));
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  EXPECT_EQ(decoder_logits(model, arithmetic, tokens(37)), whole);
  const std::vector<float> shorter = decoder_logits(model, arithmetic, tokens(11));
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), whole.begin()));
}

TEST(QuantizedMatrix, RefusesWeightsThatAreNotFinite) {
  std::vector<float> values(8, 1.0F);
  values[5] = NAN;
  const model::Matrix matrix{
      .name = "model.layers.7.mlp.w2", .rows = 2, .cols = 4, .stored = model::StoredWeight(values.data(), 4)};
  try {
    quantize_matrix(matrix, {.bits = 8});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.7.mlp.w2"));
  }
}

/// Position 0 has 16 bits, but for keys and values as the attention reads them, and ranges that no other
/// position has a part in.
TEST(FirstToken, IsRoundedOnGridsOfItsOwn) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
  const Calibration measured =
      calibrate(model, {tokens(30), tokens(30, 17)}, qcfg, {.first_token_apart = true});
  const FirstToken& first = measured.first.value();
  for (const Point& point : all_points(model.config)) {
    if (point.slot == Slot::weight || !qcfg[point].enabled()) continue;
    const bool kept = (point.module == Module::v && point.slot == Slot::output) ||
                      (point.slot == Slot::input2 && point.module != Module::activation);
    EXPECT_EQ(first.qcfg[point].bits, kept ? 8 : 16) << point_name(point);
  }
  const std::vector<int32_t> ids = tokens(24, 9);
  const FirstToken complete{first.qcfg, complete_ranges(first.qcfg, first.ranges, model.config, "test")};
  const ActRanges ranges = complete_ranges(qcfg, measured.ranges, model.config, "test");
  const FakeArithmetic fake(model, qcfg, ranges, 64, complete);
  const std::vector<float> got = decoder_logits(model, fake, ids);
  EXPECT_LT(median_difference(got, reference_logits(model, qcfg, ranges, complete, ids)), 1e-4);
  // The row itself, whose 16 bits leave nothing to fall the other way.
  const Rows want = reference_logits(model, qcfg, ranges, complete, ids);
  const FakeArithmetic shared(model, qcfg, ranges, 64);
  const std::vector<float> without = decoder_logits(model, shared, ids);
  double own = 0, others = 0;
  for (int64_t c = 0; c < want.cols; ++c) {
    own = std::max(own, std::abs(static_cast<double>(got[static_cast<size_t>(c)] - want.at(0, c))));
    others = std::max(others, std::abs(static_cast<double>(without[static_cast<size_t>(c)] - want.at(0, c))));
  }
  EXPECT_LT(own, 2e-3);
  EXPECT_GT(others, 2e-2);
}

/// The same grids twice are one.
TEST(FirstToken, OnTheOthersGridsIsLikeTheOthers) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w4a8"));
  const ActRanges ranges =
      complete_ranges(qcfg, calibrate(model, {tokens(30)}, qcfg, {}).ranges, model.config, "test");
  const FakeArithmetic plain(model, qcfg, ranges, 64),
      twice(model, qcfg, ranges, 64, FirstToken{qcfg, ranges});
  EXPECT_EQ(decoder_logits(model, plain, tokens(24)), decoder_logits(model, twice, tokens(24)));
}

/// Whatever else is in the batch.
TEST(FirstToken, IsFoundInEverySequenceOfABatch) {
  TinyModel tiny;
  tiny.config.rotation = model::Rotation{.down_block = 20, .query_key_block = 2};
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
  const Calibration measured = calibrate(model, {tokens(30)}, qcfg, {.first_token_apart = true});
  const FirstToken first{measured.first->qcfg,
                         complete_ranges(measured.first->qcfg, measured.first->ranges, model.config, "test")};
  const FakeArithmetic fake(model, qcfg, complete_ranges(qcfg, measured.ranges, model.config, "test"), 64,
                            first);
  model::Decoder decoder(model, fake);
  model::KvSpan one(fake, 9, 2), other(fake, 1, 2), third(fake, 12, 2);
  model::Batch batch;
  std::vector<std::vector<int32_t>> sequences{tokens(9), tokens(1, 30), tokens(12, 40)};
  int64_t row = 0;
  for (const auto& [ids, kv] :
       {std::pair{&sequences[0], &one}, {&sequences[1], &other}, {&sequences[2], &third}}) {
    batch.segments.push_back({.first_row = row, .length = std::ssize(*ids), .first_position = 0, .kv = kv});
    for (const int32_t id : *ids) {
      batch.tokens.push_back(id);
      batch.positions.push_back(static_cast<int32_t>(row++ - batch.segments.back().first_row));
    }
  }
  batch.read = {0, 8, 9, 10, 21};
  decoder.forward(batch);
  const std::vector<float> together = decoder.logits(*batch.read);
  const auto expect_row = [&](size_t row_of_batch, const std::vector<int32_t>& ids, size_t position) {
    const std::vector<float> alone = decoder_logits(model, fake, ids);
    for (size_t c = 0; c < 61; ++c)
      ASSERT_EQ(together[row_of_batch * 61 + c], alone[position * 61 + c]) << row_of_batch;
  };
  expect_row(0, sequences[0], 0);
  expect_row(1, sequences[0], 8);
  expect_row(2, sequences[1], 0);
  expect_row(3, sequences[2], 0);
  expect_row(4, sequences[2], 11);
}

}  // namespace
}  // namespace qeval::quant
