#include "quant/calibrate/calibration.h"

#include <cmath>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "base/error.h"
#include "quant/grid/range_search.h"
#include "tests/quant/reference_forward.h"
#include "tests/ranks.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::Rows;
using test::TinyModel;

Samples uneven_samples() {
  Samples all(3);
  for (int64_t i = 0; i < 45; ++i) all[0].push_back(static_cast<int32_t>((i * 17 + 3) % 61));
  for (int64_t i = 0; i < 70; ++i) all[1].push_back(static_cast<int32_t>((i * i + 5) % 61));
  all[2] = {7};
  return all;
}

/// Ranges and channel maxima by the slow reference.
struct Expected {
  explicit Expected(const model::Model& model)
      : ranges(model.config.num_layers), maxima(model.config.num_layers) {
    test::ReferenceForward forward(model, [&](const Point& point, Rows& x) {
      if (point.slot == Slot::weight) return;
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < x.cols; ++c) {
          const float v = x.at(r, c);
          std::optional<Range>& range = ranges[point];
          range = range ? Range{std::min(range->lo, v), std::max(range->hi, v)} : Range{v, v};
          std::vector<float>& most = maxima[point];
          most.resize(static_cast<size_t>(x.cols), 0.0F);
          most[static_cast<size_t>(c)] = std::max(most[static_cast<size_t>(c)], std::abs(v));
        }
      }
    });
    for (const auto& sample : uneven_samples()) forward.logits(sample);
  }
  ActRanges ranges;
  PointMap<std::vector<float>> maxima;
};

/// Position 0 has no part in the ranges of the others, and its own are those of every token as a first one.
TEST(Calibration, AFirstTokenApartIsMeasuredApart) {
  TinyModel tiny;
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  ActRanges others(2), firsts(2);
  const auto widen = [](std::optional<Range>& range, float v) {
    range = range ? Range{std::min(range->lo, v), std::max(range->hi, v)} : Range{v, v};
  };
  const auto measure = [&](const std::vector<int32_t>& ids, ActRanges& ranges, bool first) {
    test::ReferenceForward forward(model, [&](const Point& point, Rows& x) {
      if (point.slot == Slot::weight) return;
      for (int64_t r = 0; r < x.rows; ++r) {
        if ((r % std::ssize(ids) == 0) != first) continue;
        for (int64_t c = 0; c < x.cols; ++c) widen(ranges[point], x.at(r, c));
      }
    });
    forward.logits(ids);
  };
  std::set<int32_t> seen;
  for (const auto& sample : uneven_samples()) {
    measure(sample, others, false);
    seen.insert(sample.begin(), sample.end());
  }
  for (const int32_t token : seen) measure({token}, firsts, true);
  const Calibration measured = calibrate(
      model, uneven_samples(), make_qcfg(model.config, parse_scheme("w8a8")), {.first_token_apart = true});
  const auto expect_near = [](const Range& got, const Range& want, const Point& point) {
    const float tolerance = 1e-4F * (1 + std::abs(want.lo) + std::abs(want.hi));
    EXPECT_NEAR(got.lo, want.lo, tolerance) << point_name(point);
    EXPECT_NEAR(got.hi, want.hi, tolerance) << point_name(point);
  };
  for (const Point& point : all_points(model.config)) {
    if (!others[point] || (point.module == Module::activation && point.slot == Slot::input2)) continue;
    expect_near(measured.ranges[point].value(), *others[point], point);
    const bool probability = point.module == Module::pv_product && point.slot == Slot::input;
    expect_near(measured.first->ranges[point].value(), probability ? Range{0, 1} : *firsts[point], point);
  }
}

/// A model with a token of massive activations, and samples that it stands in once, behind the first
/// position.
struct MassiveToken {
  MassiveToken() : model(tiny.build()), embedding(static_cast<size_t>(61 * 24)) {
    model.embedding.decode_rows(0, 61, embedding.data());
    for (size_t i = size_t{60} * 24; i < embedding.size(); ++i) embedding[i] *= 1000;
    model.embedding.stored =
        model::StoredWeight(model::DType::f32, 24, reinterpret_cast<const std::byte*>(embedding.data()));
    for (int64_t i = 0; i < 300; ++i)
      plain[static_cast<size_t>(i / 100)].push_back(static_cast<int32_t>(i * 17 % 60));
    massive = plain;
    massive[1][40] = 60;
  }
  TinyModel tiny;
  model::Model model;
  std::vector<float> embedding;
  Samples plain = Samples(3), massive;
};

/// Nothing of it is left in the ranges of the others, where position 0 is apart; the paper's ranges include
/// it. Of few bits a search does not leave it out: its squared error is more than that of all the others.
TEST(Calibration, MassiveTokensBehindTheFirstAreLeftOut) {
  const Point residual{0, Module::input_norm, Slot::input};
  for (const auto& [bits, estimator] : {std::pair{16, RangeEstimator::minmax},
                                        {8, RangeEstimator::minmax},
                                        {8, RangeEstimator::mse},
                                        {8, RangeEstimator::percentile}}) {
    MassiveToken token;
    QuantConfig qcfg = make_qcfg(token.model.config, parse_scheme("w8a8"));
    qcfg[residual].bits = bits;
    const auto range = [&](const Samples& samples, bool apart) {
      // A percentile at which the values of one row more would show.
      return calibrate(token.model, samples, qcfg,
                       {.estimator = estimator, .percentile = 99, .first_token_apart = apart})
          .ranges[residual]
          .value();
    };
    const auto reach = [](const Range& of) { return std::max(-of.lo, of.hi); };
    // As if it were not there. What the first norm reads is an embedding, whatever stands in front.
    Samples others = token.massive;
    others[1].erase(others[1].begin() + 40);
    const Range without = range(others, true);
    if (bits == 16) {  // which has room for what it is cut to
      EXPECT_GE(reach(range(token.massive, true)), reach(without));
      EXPECT_LT(reach(range(token.massive, true)), 5 * reach(without));
    } else {
      EXPECT_EQ(range(token.massive, true), without) << bits << " bits, " << name(estimator);
    }
    if (estimator == RangeEstimator::percentile) continue;  // which cuts as much by itself
    EXPECT_GT(reach(range(token.massive, false)),
              (estimator == RangeEstimator::mse ? 100 : 300) * reach(without));
    // Once in a hundred tokens it is no exception.
    for (size_t i : {0, 2}) token.massive[i][40] = token.massive[i][60] = 60;
    EXPECT_GT(reach(range(token.massive, true)), 50 * reach(without));
  }
}

/// Rows of zeros, as padding has, make no exceptions of all others.
TEST(Calibration, RowsOfZerosDoNotCount) {
  MassiveToken token;
  std::fill(token.embedding.begin() + 60 * 24, token.embedding.end(), 0.0F);
  const QuantConfig qcfg = make_qcfg(token.model.config, parse_scheme("w8a8"));
  const auto range = [&](const Samples& samples) {
    return calibrate(token.model, samples, qcfg, {.first_token_apart = true})
        .ranges[{0, Module::input_norm, Slot::input}]
        .value();
  };
  Samples plain = token.plain;
  for (auto& sample : plain) sample.resize(4);
  Samples padded = plain;
  for (auto& sample : padded) sample.resize(700, 60);  // 3 rows that count among 699
  EXPECT_EQ(range(padded), range(plain));
}

TEST(Calibration, RanksMeasureWhatOneProcessMeasures) {
  MassiveToken token;
  const model::Model& model = token.model;
  const QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
  for (const CalibrationOptions& options : {CalibrationOptions{},
                                            {.estimator = RangeEstimator::mse},
                                            {.first_token_apart = true},
                                            {.estimator = RangeEstimator::mse, .first_token_apart = true}}) {
    const Calibration alone = calibrate(model, token.massive, qcfg, options);
    for (const int64_t ranks : {2, 5}) {  // more than there are samples
      test::run_ranks(ranks, [&](const Peers& peers) {
        const Calibration shared = calibrate(model, token.massive, qcfg, options, {}, peers);
        EXPECT_EQ(shared.ranges, alone.ranges);
        for (const Point& point : all_points(model.config))
          EXPECT_EQ(shared.channel_maxima[point], alone.channel_maxima[point]) << point_name(point);
      });
    }
  }
}

TEST(Calibration, MeasuresWhatTheSlowReferenceComputes) {
  TinyModel tiny;
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  const Calibration found = calibrate(model, uneven_samples(), make_qcfg(model.config, {}), {});
  const Expected expected(model);
  for (const Point& point : all_points(model.config)) {
    if (point.slot == Slot::weight || is_after_blocks(point.module)) continue;
    SCOPED_TRACE(point_name(point));
    if (point.module == Module::activation && point.slot == Slot::input2) {
      EXPECT_FALSE(found.ranges[point]);  // the sigmoid is [0, 1] by nature
      continue;
    }
    ASSERT_TRUE(found.ranges[point]);
    EXPECT_NEAR(found.ranges[point]->lo, expected.ranges[point]->lo, 2e-4);
    EXPECT_NEAR(found.ranges[point]->hi, expected.ranges[point]->hi, 2e-4);
    if (is_linear(point.module) && point.slot == Slot::input) {
      EXPECT_THAT(found.channel_maxima[point],
                  testing::Pointwise(testing::FloatNear(2e-4F), expected.maxima[point]));
    }
  }
  for (const Slot slot : {Slot::input, Slot::output}) {
    EXPECT_TRUE((found.ranges[{0, Module::final_norm, slot}]));
    EXPECT_TRUE((found.ranges[{0, Module::head, slot}]));
  }
}

/// The second pass leaves logits out, but not where their own range is narrowed.
TEST(Calibration, LogitsOfFewBitsAreNarrowed) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const Point head{0, Module::head, Slot::output}, input{0, Module::head, Slot::input};
  const CalibrationOptions options{.estimator = RangeEstimator::percentile, .percentile = 75};
  const auto ranges = [&](int bits, const CalibrationOptions& chosen) {
    QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
    qcfg[head].bits = bits;
    return calibrate(model, uneven_samples(), qcfg, chosen).ranges;
  };
  const ActRanges whole = ranges(8, {}), narrowed = ranges(8, options), wide = ranges(16, options);
  EXPECT_GT(narrowed[head]->lo, whole[head]->lo);
  EXPECT_LT(narrowed[head]->hi, whole[head]->hi);
  EXPECT_EQ(wide[head], whole[head]);
  EXPECT_EQ(wide[input], narrowed[input]);
}

TEST(Calibration, ScoresOfFuturePositionsCount) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const Point scores{0, Module::qk_product, Slot::output};
  const Calibration found = calibrate(model, uneven_samples(), make_qcfg(model.config, {}), {});
  // The same without what the mask hides.
  std::optional<Range> visible;
  test::ReferenceForward forward(model, [&](const Point& point, Rows& x) {
    if (point != scores) return;
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c <= r % x.cols; ++c) {
        const float v = x.at(r, c);
        visible = visible ? Range{std::min(visible->lo, v), std::max(visible->hi, v)} : Range{v, v};
      }
    }
  });
  for (const auto& sample : uneven_samples()) forward.logits(sample);
  ASSERT_TRUE(found.ranges[scores]);
  EXPECT_GT(visible->lo - found.ranges[scores]->lo + found.ranges[scores]->hi - visible->hi, 0.1F);
}

TEST(Calibration, GivesTheSameBitsForAnyNumberOfThreads) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, {});
  for (const RangeEstimator estimator :
       {RangeEstimator::minmax, RangeEstimator::percentile, RangeEstimator::mse}) {
    const CalibrationOptions options{.estimator = estimator, .percentile = 99};
    const Calibration many = calibrate(model, uneven_samples(), qcfg, options);
    const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
    const Calibration single = calibrate(model, uneven_samples(), qcfg, options);
    EXPECT_EQ(many.ranges, single.ranges) << name(estimator);
    EXPECT_EQ(many.channel_maxima, single.channel_maxima) << name(estimator);
  }
}

TEST(Calibration, NarrowsCoarsePointsOnly) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantConfig qcfg = make_qcfg(model.config, {});
  const Calibration whole = calibrate(model, uneven_samples(), qcfg, {});
  const Calibration narrow =
      calibrate(model, uneven_samples(), qcfg, {.estimator = RangeEstimator::percentile, .percentile = 98});
  const auto width = [](const Calibration& c, Point point) {
    return c.ranges[point]->hi - c.ranges[point]->lo;
  };
  const Point product{1, Module::down, Slot::input}, residual{1, Module::input_norm, Slot::input};
  EXPECT_LT(width(narrow, product), 0.9F * width(whole, product));
  EXPECT_EQ(width(narrow, residual), width(whole, residual));  // 16 bits
}

TEST(Calibration, NamesThePointWhereAValueIsNotFinite) {
  TinyModel tiny;
  model::Model model = tiny.build();
  model.layers[1].norms[Module::input_norm].weight[3] = INFINITY;
  try {
    calibrate(model, uneven_samples(), make_qcfg(model.config, {}), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.1.input_layernorm.output"));
  }
}

TEST(RangeSearch, PercentileLeavesOutTheShareAtEitherEnd) {
  Histogram histogram({-10.0F, 90.0F});
  for (int i = 0; i <= 1000; ++i) histogram.add(static_cast<float>(i) * 0.1F - 10.0F, 1);
  const Range range = percentile_range(histogram, 99.0);
  EXPECT_NEAR(range.lo, -9.0F, 0.11F);
  EXPECT_NEAR(range.hi, 89.0F, 0.11F);
  EXPECT_EQ(percentile_range(histogram, 100.0), (Range{-10.0F, 90.0F}));
}

/// Where half of the values are left out at either end, the lower bound came to lie above the upper one.
TEST(RangeSearch, PercentilesDoNotCross) {
  for (const double percentile : {50.0, std::nextafter(50.0, 51.0), 50.1}) {
    Histogram histogram({0.0F, 1.0F});
    histogram.add(0.1F, 5);
    histogram.add(0.9F, 5);
    const Range range = percentile_range(histogram, percentile);
    EXPECT_LT(range.lo, range.hi) << percentile;
  }
}

TEST(RangeSearch, MeanSquaredErrorGivesUpAnOutlier) {
  Histogram histogram({-1.0F, 40.0F});
  for (int i = 0; i < 100000; ++i) histogram.add(static_cast<float>(i % 2000) * 1e-3F - 1.0F, 1);
  histogram.add(40.0F, 1);
  const QuantSpec spec{.bits = 4};
  const Range range = mse_range(histogram, spec);
  EXPECT_LT(range.hi, 8.0F);
  EXPECT_LE(range.lo, -0.8F);
  EXPECT_LT(squared_error(histogram, make_grid(spec, range)),
            0.5 * squared_error(histogram, make_grid(spec, histogram.range())));
  // With many bits the outlier is worth keeping.
  EXPECT_GT(mse_range(histogram, {.bits = 14}).hi, 35.0F);
}

TEST(RangeSearch, ARangeOfOneValueStaysWhatItIs) {
  Histogram histogram({2.5F, 2.5F});
  histogram.add(2.5F, 10);
  EXPECT_EQ(percentile_range(histogram, 99.0), (Range{2.5F, 2.5F}));
  EXPECT_EQ(mse_range(histogram, {.bits = 8}), (Range{2.5F, 2.5F}));
}

}  // namespace
}  // namespace qeval::quant
