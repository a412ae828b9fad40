// How documents are divided between processes: everything once, evenly, and without computing shared prefixes
// again and again.
#include "eval/distributed/split.h"

#include <algorithm>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

namespace qeval::eval {
namespace {

constexpr TokenCosts kCosts{.token = 10, .context = 0.01, .scored = 5};

/// Documents of `choices` requests each that share `shared` tokens, of lengths from `least` to `most`.
std::vector<std::vector<TokenRequest>> make_documents(int count, int choices, int shared, int least, int most,
                                                      unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> length(least, most);
  std::vector<std::vector<TokenRequest>> out;
  for (int d = 0; d < count; ++d) {
    std::vector<int32_t> question(static_cast<size_t>(shared), 7);
    for (int i = length(random); i > 0; --i) question.push_back(static_cast<int32_t>(random() % 50));
    std::vector<TokenRequest>& requests = out.emplace_back();
    for (int c = 0; c < choices; ++c) {
      requests.push_back({question, 2});
      requests.back().tokens.insert(requests.back().tokens.end(), {60 + c, 61});
    }
  }
  return out;
}

std::vector<DocumentCost> costs(const std::vector<std::vector<TokenRequest>>& documents) {
  std::vector<DocumentRequests> all;
  for (size_t i = 0; i < documents.size(); ++i) all.push_back({i, documents[i]});
  return document_costs(all, kCosts);
}

using TaskCosts = std::vector<std::vector<DocumentCost>>;

/// What a part computes by the plan itself.
int64_t planned_tokens(const std::vector<std::vector<TokenRequest>>& documents,
                       const std::vector<DocumentCost>& list, const std::vector<int64_t>& part_of,
                       int64_t part) {
  std::vector<TokenRequest> requests;
  for (size_t i = 0; i < list.size(); ++i) {
    if (part_of[i] != part) continue;
    const auto& own = documents[list[i].document];
    requests.insert(requests.end(), own.begin(), own.end());
  }
  return Plan(requests, 256).tokens_computed();
}

TEST(Split, PartsAreEven) {
  const auto documents = make_documents(400, 4, 0, 20, 200, 1);
  const TaskCosts tasks{costs(documents)};
  for (const int64_t parts : {1, 2, 3, 5, 8}) {
    const std::vector<double> loads = part_costs(tasks, parts);
    const double mean = std::accumulate(loads.begin(), loads.end(), 0.0) / static_cast<double>(parts);
    EXPECT_LT(std::ranges::max(loads), 1.02 * mean) << parts;
    const auto part_of = split_documents(tasks, parts);
    std::vector<int64_t> tokens;
    for (int64_t part = 0; part < parts; ++part)
      tokens.push_back(planned_tokens(documents, tasks[0], part_of[0], part));
    EXPECT_LT(std::ranges::max(tokens), 1.05 * static_cast<double>(std::ranges::min(tokens))) << parts;
  }
}

TEST(Split, AFewLongDocumentsAreDealtOutSingly) {
  std::vector<std::vector<TokenRequest>> documents = make_documents(9, 1, 0, 300, 300, 2);
  const auto part_of = split_documents(TaskCosts{costs(documents)}, 3);
  for (int64_t part = 0; part < 3; ++part) EXPECT_EQ(std::ranges::count(part_of[0], part), 3);
}

TEST(Split, EveryDocumentIsInOneOfThePartsWhateverTheOrderItIsReadIn) {
  auto documents = make_documents(60, 2, 10, 5, 40, 3);
  const auto list = costs(documents);
  std::vector<bool> seen(documents.size());
  for (const DocumentCost& cost : list) seen[cost.document] = true;
  EXPECT_EQ(std::ranges::count(seen, true), 60);
  const auto part_of = split_documents(TaskCosts{list}, 7);
  EXPECT_EQ(part_of[0].size(), list.size());
  for (const int64_t part : part_of[0]) EXPECT_TRUE(part >= 0 && part < 7);

  // The same documents under other numbers fall into the same parts.
  std::vector<std::vector<TokenRequest>> reversed(documents.rbegin(), documents.rend());
  const auto other = costs(reversed);
  ASSERT_EQ(other.size(), list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(documents[list[i].document].front().tokens, reversed[other[i].document].front().tokens);
    EXPECT_EQ(list[i].alone, other[i].alone);
  }
  EXPECT_EQ(split_documents(TaskCosts{other}, 7), part_of);
}

TEST(Split, ASharedPrefixIsNotComputedByEveryDocument) {
  const auto documents = make_documents(200, 1, 1000, 20, 60, 4);  // a thousand tokens of examples
  const auto list = costs(documents);
  constexpr int64_t kParts = 4;
  const auto part_of = split_documents(TaskCosts{list}, kParts);
  int64_t computed = 0;
  for (int64_t part = 0; part < kParts; ++part) computed += planned_tokens(documents, list, part_of[0], part);
  const int64_t together = planned_tokens(documents, list, std::vector<int64_t>(list.size()), 0);
  // Once per part; the questions share a first token here and there.
  EXPECT_LE(computed, together + (kParts - 1) * 1000 + 50);
}

TEST(Split, MorePartsThanDocumentsLeaveSomeEmpty) {
  const auto documents = make_documents(2, 2, 0, 5, 9, 5);
  const auto part_of = split_documents(TaskCosts{costs(documents), {}}, 5);
  EXPECT_NE(part_of[0][0], part_of[0][1]);
  EXPECT_TRUE(part_of[1].empty());
}

TEST(Split, CostsFollowThePlansTokens) {
  // Without attention and head the costs are the plan's tokens.
  const TokenCosts tokens_only{.token = 1};
  const auto documents = make_documents(30, 4, 12, 5, 30, 6);
  std::vector<DocumentRequests> all;
  for (size_t i = 0; i < documents.size(); ++i) all.push_back({i, documents[i]});
  const auto list = document_costs(all, tokens_only);
  double sum = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(list[i].alone, static_cast<double>(Plan(documents[list[i].document], 64).tokens_computed()));
    sum += i == 0 ? list[i].alone : list[i].after;
  }
  EXPECT_EQ(sum, static_cast<double>(planned_tokens(documents, list, std::vector<int64_t>(list.size()), 0)));
}

/// Seconds made of known rates give these rates back.
TEST(CostModel, FitsTheRatesOfProductsAndOfAttention) {
  const TokenCosts operations{.token = 2e8, .context = 7e4, .scored = 5e7};
  const auto timed = [&](double tokens, double scored) {
    return TimedPass{tokens, scored,
                     (tokens * operations.token + scored * operations.scored) * 1e-11 +
                         tokens * (tokens + 1) / 2 * operations.context * 3e-11};
  };
  const TokenCosts fitted = fit_costs(operations, timed(128, 33), timed(1024, 257));
  EXPECT_NEAR(fitted.token, 2e-3, 1e-9);
  EXPECT_NEAR(fitted.scored, 5e-4, 1e-9);
  EXPECT_NEAR(fitted.context, 2.1e-6, 1e-12);
  // A longer pass that was faster per operation says nothing of attention.
  TimedPass quick = timed(1024, 257);
  quick.seconds /= 100;
  const TokenCosts without = fit_costs(operations, timed(128, 33), quick);
  EXPECT_EQ(without.context, 0);
  EXPECT_GT(without.token, 0);
}

}  // namespace
}  // namespace qeval::eval
