#include "eval/engine/plan.h"

#include <random>
#include <set>

#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "base/error.h"
#include "tests/tiny_model.h"

namespace qeval::eval {
namespace {

/// Requests that share prefixes in all the ways tasks produce: choices under a context, contexts under
/// instructions, one-token choices, duplicates, one request that is the beginning of another, and loners.
std::vector<TokenRequest> sharing_requests() {
  std::mt19937 random(4);
  const auto tokens = [&](size_t count) {
    std::vector<int32_t> out(count);
    for (int32_t& t : out) t = static_cast<int32_t>(random() % 61);
    return out;
  };
  std::vector<TokenRequest> requests;
  const auto instructions = tokens(30);
  for (int document = 0; document < 6; ++document) {
    auto context = instructions;
    const auto own = tokens(8 + static_cast<size_t>(document) * 3);
    context.insert(context.end(), own.begin(), own.end());
    for (int choice = 0; choice < 4; ++choice) {
      const auto continuation = tokens(document % 2 == 0 ? 1 : 5);
      auto whole = context;
      whole.insert(whole.end(), continuation.begin(), continuation.end());
      requests.push_back({whole, std::ssize(continuation)});
    }
  }
  requests.push_back(requests[5]);
  requests.push_back({{requests[5].tokens.begin(), requests[5].tokens.end() - 2}, 7});
  requests.push_back({tokens(100), 99});
  requests.push_back({tokens(2), 1});
  return requests;
}

std::vector<TokenScores> score(
    const std::vector<TokenRequest>& requests, int64_t batch_tokens,
    void (*change)(model::ModelConfig&) = [](model::ModelConfig&) {}) {
  test::TinyModel tiny;
  change(tiny.config);
  const model::Model model = tiny.build();
  const auto arithmetic = model::make_float_arithmetic(model, 256);
  model::Decoder decoder(model, *arithmetic);
  const Plan plan(requests, batch_tokens, &model.config);
  ScoringRun run(decoder, plan);
  std::set<int64_t> completed;
  while (!run.done()) {
    for (const int64_t request : run.step()) EXPECT_TRUE(completed.insert(request).second);
  }
  EXPECT_EQ(completed.size(), requests.size());
  EXPECT_EQ(run.tokens_done(), plan.tokens_computed());
  std::vector<TokenScores> scores;
  for (size_t i = 0; i < requests.size(); ++i) scores.push_back(run.take(static_cast<int64_t>(i)));
  return scores;
}

TEST(Plan, SharingChangesNoBit) {
  const auto requests = sharing_requests();
  std::vector<TokenScores> alone;
  for (const TokenRequest& request : requests) alone.push_back(score({request}, 4096)[0]);
  for (const int64_t batch_tokens : {1, 7, 64, 4096}) {
    for (const size_t threads : {1, 3}) {
      const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
      const auto together = score(requests, batch_tokens);
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_EQ(together[i].log_probabilities, alone[i].log_probabilities) << i << " at " << batch_tokens;
        ASSERT_EQ(together[i].top1, alone[i].top1);
        ASSERT_EQ(together[i].logits_hashes, alone[i].logits_hashes);
      }
    }
  }
}

/// Where a rotary embedding depends on how long a sequence is, keys of one length cannot serve another.
TEST(Plan, LengthsThatChangeRotaryTablesShareNothing) {
  using Change = void (*)(model::ModelConfig&);
  const Change dynamic = [](model::ModelConfig& config) {
    config.rotary.scaling.kind = model::RopeScaling::Kind::dynamic;
    config.rotary.scaling.factor = 2;
    config.rotary.scaling.original_max_position_embeddings = 40;
  };
  const Change longrope = [](model::ModelConfig& config) {
    config.rotary.scaling.kind = model::RopeScaling::Kind::longrope;
    config.rotary.scaling.original_max_position_embeddings = 45;
    config.rotary.scaling.long_factors = {2, 4, 8};
    config.rotary.scaling.short_factors = {1, 1.5, 2};
    config.layers = {{.window = 16}, {.window = 0}};
  };
  const auto requests = sharing_requests();
  for (const Change change : {dynamic, longrope}) {
    std::vector<TokenScores> alone;
    for (const TokenRequest& request : requests) alone.push_back(score({request}, 4096, change)[0]);
    for (const int64_t batch_tokens : {1, 7, 64, 4096}) {
      const auto together = score(requests, batch_tokens, change);
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_EQ(together[i].logits_hashes, alone[i].logits_hashes) << i << " at " << batch_tokens;
      }
    }
  }
}

/// A long text of many batches: what a window has left behind is given back, and the scores stay.
TEST(Plan, KeysOutsideAWindowAreGivenBack) {
  using Change = void (*)(model::ModelConfig&);
  const Change windowed = [](model::ModelConfig& config) {
    config.layers = {{.window = 16}, {.window = 12}};
  };
  std::vector<int32_t> text;
  for (int32_t i = 0; i < 240; ++i) text.push_back(i * 7 % 61);
  const std::vector<TokenRequest> requests{{text, 239}};
  EXPECT_EQ(score(requests, 8, windowed)[0].logits_hashes, score(requests, 4096, windowed)[0].logits_hashes);

  const auto most_kept = [&](Change change) {
    test::TinyModel tiny;
    change(tiny.config);
    const model::Model model = tiny.build();
    const auto arithmetic = model::make_float_arithmetic(model, 256);
    model::Decoder decoder(model, *arithmetic);
    const Plan plan(requests, 8, &model.config);
    ScoringRun run(decoder, plan);
    int64_t most = 0;
    while (!run.done()) {
      run.step();
      most = std::max(most, run.kept_bytes());
    }
    return most;
  };
  // Of 30 batches, those that the 16 tokens of the window reach back to.
  EXPECT_LE(most_kept(windowed) * 6, most_kept([](model::ModelConfig&) {}));
  // One layer of the two sees everything.
  const int64_t half = most_kept([](model::ModelConfig& config) { config.layers = {{.window = 16}, {}}; });
  EXPECT_GT(half * 2, most_kept([](model::ModelConfig&) {}));
}

TEST(Plan, ComputesNoTokenTwice) {
  const auto requests = sharing_requests();
  std::set<std::vector<int32_t>> prefixes;
  int64_t requested = 0;
  for (const TokenRequest& request : requests) {
    const auto input = request.input();
    requested += std::ssize(input);
    for (size_t n = 1; n <= input.size(); ++n)
      prefixes.insert({input.begin(), input.begin() + static_cast<int64_t>(n)});
  }
  for (const int64_t batch_tokens : {1, 16, 4096}) {
    const Plan plan(requests, batch_tokens);
    EXPECT_EQ(plan.tokens_computed(), std::ssize(prefixes));
    EXPECT_EQ(plan.tokens_requested(), requested);
    int64_t in_packs = 0;
    for (const Plan::Pack& pack : plan.packs()) {
      EXPECT_LE(pack.tokens, batch_tokens);
      in_packs += pack.tokens;
    }
    EXPECT_EQ(in_packs, plan.tokens_computed());
  }
}

TEST(Plan, GreedyMeansThatEveryScoredTokenIsTheArgMax) {
  const TokenRequest request{{1, 2, 3, 4}, 2};
  EXPECT_TRUE((TokenScores{{-1.0, -2.0}, {3, 4}, {}}.is_greedy(request)));
  EXPECT_FALSE((TokenScores{{-1.0, -2.0}, {2, 4}, {}}.is_greedy(request)));
  EXPECT_EQ((TokenScores{{-1.0, -2.5}, {}, {}}.log_likelihood()), -3.5);
}

TEST(Plan, RefusesRequestsWithoutContextOrScoredTokens) {
  const std::vector<TokenRequest> no_context{{{1, 2}, 2}};
  const std::vector<TokenRequest> nothing_scored{{{1, 2}, 0}};
  EXPECT_THROW(Plan(no_context, 16), Error);
  EXPECT_THROW(Plan(nothing_scored, 16), Error);
  EXPECT_THROW(Plan({}, 0), Error);
  EXPECT_TRUE(Plan({}, 16).packs().empty());
}

TEST(Plan, TakesAChainOfRequestsThatExtendOneAnother) {
  std::vector<TokenRequest> requests;
  for (size_t n = 2; n < 3000; ++n) requests.push_back({std::vector<int32_t>(n, 5), 1});
  const Plan plan(requests, 512);
  EXPECT_EQ(plan.tokens_computed(), 2998);
}

}  // namespace
}  // namespace qeval::eval
