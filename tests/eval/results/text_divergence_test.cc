#include "eval/results/text_divergence.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/results/divergence_results.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

double normal(Random& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
  return radius * std::cos(2 * std::numbers::pi * random.uniform());
}

TEST(StudentT, HasTheQuantilesOfTables) {
  EXPECT_NEAR(student_quantile(0.975, 1), 12.7062047362, 1e-8);
  EXPECT_NEAR(student_quantile(0.975, 9), 2.2621571628, 1e-9);
  EXPECT_NEAR(student_quantile(0.95, 29), 1.6991270265, 1e-9);
  EXPECT_NEAR(student_quantile(0.995, 1000), 2.5807546981, 1e-9);
  EXPECT_NEAR(student_quantile(0.8, std::numeric_limits<double>::infinity()), 0.8416212336, 1e-9);
  EXPECT_DOUBLE_EQ(student_quantile(0.025, 4), -student_quantile(0.975, 4));
  EXPECT_NEAR(student_probability(2.2621571628, 9), 0.975, 1e-10);
  EXPECT_DOUBLE_EQ(student_probability(0, 3), 0.5);
}

TEST(BlockMean, IsTheSandwichByBlocks) {
  // Blocks of 2, 1 and 3 tokens; mean 2, residuals 1 − 4 = … by hand: {5 − 4, 1 − 2, 6 − 6}.
  const std::vector<BlockSum> blocks{{5, 2}, {1, 1}, {6, 3}};
  const Estimate estimate = block_mean(blocks);
  EXPECT_DOUBLE_EQ(estimate.value, 2);
  EXPECT_DOUBLE_EQ(*estimate.standard_error, std::sqrt(1.5 * 2) / 6);
  EXPECT_NEAR(estimate.interval->high - 2, 4.3026527297 * std::sqrt(3.0) / 6, 1e-9);
  EXPECT_FALSE(block_mean(std::span(blocks).first(1)).interval);
  EXPECT_TRUE(std::isnan(block_mean({}).value));
  const Estimate positive = positive_block_mean(blocks);
  EXPECT_DOUBLE_EQ(positive.interval->low * positive.interval->high, 4);
  const std::vector<BlockSum> zero{{0, 2}, {0, 1}};
  EXPECT_EQ(positive_block_mean(zero).interval->high, 0);
}

/// A text of windows whose tokens are alike: a divergence with a long tail, and likelihoods that depend on
/// the window as well.
TextDivergence text(Random& random, int64_t windows, int64_t tokens, double shift = 0) {
  DivergenceTally tally;
  for (int64_t window = 0; window < windows; ++window) {
    const double topic = normal(random);
    for (int64_t i = 0; i < tokens; ++i) {
      TokenDivergence token;
      token.kl = std::exp(0.5 * topic + normal(random) - 4 + shift);
      token.reverse_kl = token.kl;
      token.base_nll = std::exp(0.3 * topic + 0.5 * normal(random));
      token.nll = token.base_nll + 0.05 + 0.1 * topic + 0.3 * normal(random);
      token.acceptance = 1 - std::min(1.0, token.kl);
      tally.add(token);
    }
    tally.end_window();
  }
  return std::move(tally).finish();
}

TextDivergence part(const TextDivergence& whole, size_t windows) {
  TextDivergence out;
  out.blocks.assign(whole.blocks.begin(), whole.blocks.begin() + static_cast<std::ptrdiff_t>(windows));
  return out;
}

bool covers(const Estimate& estimate, double value) {
  return estimate.interval->low <= value && value <= estimate.interval->high;
}

/// Taken as independent, the tokens of 30 windows would give intervals that cover in half of the draws.
TEST(TextDivergence, IntervalsCoverTheValueOfATextTenTimesAsLong) {
  Random random(7);
  constexpr int kDraws = 800;
  constexpr size_t kWindows = 30;
  int kl = 0, ratio = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    const TextDivergence whole = text(random, 10 * kWindows, 16);
    const TextDivergence some = part(whole, kWindows);
    kl += covers(some.kl(), whole.kl().value) ? 1 : 0;
    ratio += covers(some.perplexity_ratio(), whole.perplexity_ratio().value) ? 1 : 0;
  }
  EXPECT_GE(kl, kDraws * 93 / 100);
  EXPECT_LE(kl, kDraws * 97 / 100);
  EXPECT_GE(ratio, kDraws * 93 / 100);
  EXPECT_LE(ratio, kDraws * 97 / 100);
}

TEST(TextDivergence, BlocksAreWindowsAndPiecesOfLongOnes) {
  DivergenceTally tally;
  for (const int64_t tokens : {3, 1100, 2}) {
    for (int64_t i = 0; i < tokens; ++i) tally.add({.kl = static_cast<double>(tokens)});
    tally.end_window();
  }
  const TextDivergence measured = std::move(tally).finish();
  std::vector<int64_t> tokens;
  for (const DivergenceBlock& block : measured.blocks) tokens.push_back(block.tokens);
  EXPECT_THAT(tokens, ElementsAre(3, 512, 512, 76, 2));
  EXPECT_EQ(measured.tokens(), 1105);
  EXPECT_EQ(measured.kl_quantiles.front(), 2);
  EXPECT_EQ(measured.kl_quantiles.back(), 1100);
}

TEST(TextDivergence, RunsThatCannotBeToldApartAreTied) {
  Random same(1), again(1), worse(1), other(2);
  const TextDivergence a = text(same, 20, 50), twin = text(again, 20, 50), far = text(worse, 20, 50, 0.5);
  EXPECT_EQ(kl_difference(a, twin).value, 0);
  EXPECT_EQ(best_of(std::vector{far, a, twin}), 1U);
  EXPECT_EQ(tied_for_best(std::vector{far, a, twin}), (std::vector<bool>{false, true, true}));
  EXPECT_EQ(tied_for_best(std::vector{far}), std::vector<bool>{true});
  const TextDivergence shorter = text(other, 19, 50);
  EXPECT_THAT(message_of([&] { kl_difference(a, shorter); }), HasSubstr("other windows"));
}

TEST(DivergenceResults, AreReadAsTheyWereWritten) {
  const test::TemporaryFolder folder;
  Random random(3);
  DivergenceResults results;
  results.text = {"wiki.txt", "abc", 12, "qeval", 64, 4};
  results.base.label = "F16";
  results.base.path = "base.gguf";
  for (const char* label : {"Q4_0", "Q8_0"}) {
    DivergenceRun& run = results.runs.emplace_back();
    run.label = label;
    run.divergence = text(random, 4, 64);
    results.runs.back().model.details = {{"size_bytes", 1000}, {"weight_bits", 4.5}};
  }
  results.runs[1].losses = SplitLoss{
      .weights = 0.25, .activations = 0.125, .kv = -0.5, .together = 1, .kv_type = "q8_0", .tokens = 7};
  write_divergence_results(folder.path(), results);
  const DivergenceResults read = read_divergence_results(folder.path());
  EXPECT_FALSE(read.runs.at(0).losses);
  ASSERT_TRUE(read.runs.at(1).losses);
  const SplitLoss& losses = *read.runs[1].losses;
  EXPECT_EQ(losses.weights, 0.25);
  EXPECT_EQ(losses.activations, 0.125);
  EXPECT_EQ(losses.kv, -0.5);
  EXPECT_EQ(losses.interaction(), 1.125);
  EXPECT_EQ(losses.kv_type, "q8_0");
  EXPECT_EQ(losses.tokens, 7);
  EXPECT_EQ(read.text, results.text);
  EXPECT_EQ(read.base.label, "F16");
  ASSERT_EQ(read.runs.size(), 2U);
  EXPECT_EQ(read.runs[1].divergence.blocks, results.runs[1].divergence.blocks);
  EXPECT_EQ(read.runs[1].divergence.kl_quantiles, results.runs[1].divergence.kl_quantiles);
  EXPECT_EQ(render_divergence(read), render_divergence(results));
  EXPECT_THAT(render_divergence(results), HasSubstr("Q4_0"));
}

}  // namespace
}  // namespace qeval::eval
