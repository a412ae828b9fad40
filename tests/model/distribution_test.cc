#include "model/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "model/decoder.h"
#include "tests/tiny_model.h"

namespace qeval::model {
namespace {

struct Softmax {
  explicit Softmax(const std::vector<float>& logits) : max(*std::ranges::max_element(logits)) {
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  }
  double log_probability(float logit) const { return static_cast<double>(logit) - max - std::log(sum); }
  double max, sum = 0;
};

Distribution ask(std::vector<float> logits, const DistributionQuery& query) {
  const Softmax softmax(logits);
  return distribution_of(logits, softmax.max, softmax.sum, query);
}

TEST(Distribution, FindsTheLikeliestAndAddsUpTheRest) {
  std::mt19937 random(3);
  for (const int64_t vocabulary : {1, 2, 255, 256, 257, 1000, 5003}) {
    for (const int64_t wanted : {1, 3, 256}) {
      std::vector<float> logits(static_cast<size_t>(vocabulary));
      // Coarse values, so that there are ties, at the edge of what is kept as well.
      for (float& logit : logits) logit = static_cast<float>(random() % 97) / 8.0F;
      std::vector<int32_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
      });
      const auto kept = static_cast<size_t>(std::min(wanted, vocabulary));
      const Softmax softmax(logits);
      const Distribution found = ask(logits, {.likeliest = wanted});
      ASSERT_EQ(found.tokens,
                std::vector<int32_t>(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept)));
      double rest = 0;
      float minimum = 0;
      for (size_t i = 0; i < order.size(); ++i) {
        const double expected = softmax.log_probability(logits[static_cast<size_t>(order[i])]);
        if (i < kept) {
          ASSERT_EQ(found.log_probabilities[i], static_cast<float>(expected));
        } else {
          rest += std::exp(expected);
          minimum = static_cast<float>(expected);
        }
      }
      EXPECT_NEAR(found.rest, rest, 1e-6 * rest);
      EXPECT_EQ(found.rest_minimum, minimum);
    }
  }
}

TEST(Distribution, GivesTheTokensAskedForInTheirOrder) {
  const std::vector<float> logits{1, 5, -2, 0.5F, 3};
  const Softmax softmax(logits);
  const std::vector<int32_t> tokens{4, 0};
  const Distribution found = ask(logits, {.tokens = tokens});
  EXPECT_EQ(found.tokens, tokens);
  EXPECT_EQ(found.log_probabilities[0], static_cast<float>(softmax.log_probability(3)));
  EXPECT_EQ(found.log_probabilities[1], static_cast<float>(softmax.log_probability(1)));
  EXPECT_NEAR(found.rest, (std::exp(0.0) + std::exp(-7.0) + std::exp(-4.5)) / softmax.sum, 1e-7);
  EXPECT_EQ(found.rest_minimum, static_cast<float>(softmax.log_probability(-2)));
}

TEST(Distribution, ARestThatIsNearlyNothingKeepsItsSize) {
  std::vector<float> logits(600, -40.0F);
  for (size_t i = 0; i < 256; ++i) logits[i] = static_cast<float>(i) / 100;
  const Softmax softmax(logits);
  const double rest = ask(logits, {.likeliest = 256}).rest;
  EXPECT_NEAR(rest / (344 * std::exp(softmax.log_probability(-40.0F))), 1, 1e-6);
}

TEST(Distribution, BrokenLogitsEndNowhereElse) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits(300, nan);
  std::vector<float> copy = logits;
  const Distribution found = distribution_of(copy, nan, nan, {.likeliest = 256});
  EXPECT_TRUE(std::isnan(found.rest));
}

/// Two sequences in one batch: what a batch of another kind asks for must not change.
struct Answered {
  std::vector<TokenAnswer> answers;
  std::vector<Distribution> distributions;
};

Answered run(const Model& model, bool with_distributions, bool alone) {
  const auto arithmetic = make_float_arithmetic(model, 64);
  Decoder decoder(model, *arithmetic);
  KvSpan first(*arithmetic, 20, 1), second(*arithmetic, 9, 1);
  Batch batch;
  for (int32_t i = 0; i < 20; ++i) {
    batch.tokens.push_back((i * 11 + 3) % 61);
    batch.positions.push_back(i);
  }
  batch.segments.push_back({.length = 20, .kv = &first});
  if (!alone) {
    for (int32_t i = 0; i < 9; ++i) {
      batch.tokens.push_back((i * 7 + 1) % 61);
      batch.positions.push_back(i);
    }
    batch.segments.push_back({.first_row = 20, .length = 9, .kv = &second});
  }
  decoder.forward(batch);
  std::vector<TokenQuery> queries{{3, 5}, {7, 1}, {7, 60}, {19, 0}};
  if (!alone) queries.push_back({25, 4});
  static const std::vector<int32_t> tokens{9, 2, 44};
  const std::vector<DistributionQuery> wanted{
      {.row = 19, .likeliest = 10}, {.row = 7, .tokens = tokens}, {.row = 7, .likeliest = 5}};
  Answered out;
  if (with_distributions) {
    out.answers = decoder.answer(queries, wanted, out.distributions);
  } else {
    out.answers = decoder.answer(queries);
  }
  out.answers.resize(4);
  return out;
}

TEST(Distribution, ChangesNoAnswerAndDependsOnNoBatch) {
  test::TinyModel tiny;
  const Model model = tiny.build();
  const Answered plain = run(model, false, false), with = run(model, true, false),
                 alone = run(model, true, true);
  tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const Answered single = run(model, true, false);
  ASSERT_EQ(with.distributions.size(), 3U);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(plain.answers[i].log_probability, with.answers[i].log_probability);
    EXPECT_EQ(plain.answers[i].top1, with.answers[i].top1);
  }
  for (size_t i = 0; i < 3; ++i) {
    for (const Answered* other : {&alone, &single}) {
      EXPECT_EQ(with.distributions[i].tokens, other->distributions[i].tokens);
      EXPECT_EQ(with.distributions[i].log_probabilities, other->distributions[i].log_probabilities);
      EXPECT_EQ(with.distributions[i].rest, other->distributions[i].rest);
      EXPECT_EQ(with.distributions[i].rest_minimum, other->distributions[i].rest_minimum);
    }
  }
  EXPECT_EQ(with.distributions[0].tokens.front(), with.answers[3].top1);
}

}  // namespace
}  // namespace qeval::model
