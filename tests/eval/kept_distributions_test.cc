#include "eval/kept_distributions.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "eval/engine/scored_positions.h"
#include "tests/eval/result_fixture.h"
#include "tests/message_of.h"

namespace qeval::eval {
namespace {

using model::Distribution;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

KeptDocument document(int64_t id) {
  return {id,
          "0123456789abcdef",
          {{{5, 9, 2}, {-0.5F, -1.5F, -3.0F}, 0.12, 0}, {{}, {}, 1.0, 0}, {{7}, {0.0F}, 0, 0}}};
}

std::string file_of(const std::vector<KeptDocument>& documents) {
  std::string text = kept_format(10).header("arc");
  for (const KeptDocument& one : documents) text += kept_record(one);
  return text;
}

std::string read_error(const std::string& content, int64_t doc_id = 3) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "k.bin", content);
  return message_of([&] { KeptDistributions(folder.path() / "k.bin", "arc", 10).read(doc_id); });
}

TEST(KeptDistributions, ReadBackEveryBit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / kept_file("arc");
  write_file_atomically(path, file_of({document(3), document(8)}));
  const KeptDistributions kept(path, "arc", 10);
  EXPECT_EQ(kept.token_hash(3), "0123456789abcdef");
  EXPECT_FALSE(kept.token_hash(4).has_value());
  const KeptDocument read = kept.read(8);
  EXPECT_EQ(read.doc_id, 8);
  ASSERT_EQ(read.positions.size(), 3U);
  EXPECT_THAT(read.positions[0].tokens, ElementsAre(5, 9, 2));
  EXPECT_THAT(read.positions[0].log_probabilities, ElementsAre(-0.5F, -1.5F, -3.0F));
  EXPECT_EQ(read.positions[0].rest, 0.12);
  EXPECT_TRUE(read.positions[1].tokens.empty());
  EXPECT_EQ(kept_bytes_per_position(100'000), 16 + 8 * 256);
}

TEST(KeptDistributions, RefuseWhatIsDamaged) {
  const std::string whole = file_of({document(3)});
  EXPECT_EQ(read_error(whole), "");
  EXPECT_THAT(read_error(""), HasSubstr("no header line"));
  EXPECT_THAT(read_error(file_of({document(3), document(3)})), HasSubstr("twice"));
  const size_t begin = kept_format(10).header("arc").size();
  for (size_t length = begin + 1; length < whole.size(); length += 7)
    EXPECT_THAT(read_error(whole.substr(0, length)), HasSubstr("incomplete")) << length;
  // Every byte that is changed is noticed, whatever it meant: by the checksum, or because nothing fits.
  for (size_t i = begin; i < whole.size(); ++i) {
    if (i >= begin + 24 && i < begin + 40) continue;  // the token hash: compared with the samples'
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x41);
    const bool id = i >= begin + 8 && i < begin + 16;
    if (id) continue;  // another document, which the reader asks for by its number
    EXPECT_NE(read_error(changed), "") << "byte " << i - begin;
  }
  KeptDocument odd = document(3);
  odd.positions[0].tokens = {5, 9, 10};
  EXPECT_THAT(read_error(file_of({odd})), HasSubstr("below 10"));
  odd.positions[0].tokens = {5, 5, 2};
  EXPECT_THAT(read_error(file_of({odd})), HasSubstr("distinct"));
  odd = document(3);
  odd.positions[0].rest = -1;
  EXPECT_THAT(read_error(file_of({odd})), HasSubstr("a probability that is none"));
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "k.bin", whole);
  EXPECT_THAT(message_of([&] { KeptDistributions(folder.path() / "k.bin", "boolq", 10); }),
              HasSubstr("task is "));
  EXPECT_THAT(message_of([&] { KeptDistributions(folder.path() / "k.bin", "arc", 11); }),
              HasSubstr("vocab_size is "));
}

Distribution ask(std::vector<float> logits, const model::DistributionQuery& query) {
  double max = -INFINITY, sum = 0;
  for (const float logit : logits) max = std::max(max, static_cast<double>(logit));
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return model::distribution_of(logits, max, sum, query);
}

double exact_divergence(const std::vector<float>& p, const std::vector<float>& q) {
  double sum_p = 0, sum_q = 0, kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    sum_p += std::exp(static_cast<double>(p[i]));
    sum_q += std::exp(static_cast<double>(q[i]));
  }
  for (size_t i = 0; i < p.size(); ++i) {
    const double lp = static_cast<double>(p[i]) - std::log(sum_p),
                 lq = static_cast<double>(q[i]) - std::log(sum_q);
    kl += std::exp(lp) * (lp - lq);
  }
  return kl;
}

TEST(PositionDivergence, EqualsSciPy) {
  // numpy: i = arange(600); a = i*37%101/7 + i%13/5; b = i*53%97/9 + i%11/4; P, Q: softmax of either, all but
  // the 256 likeliest of a added up. scipy.stats.entropy(P, Q), and the slack by its formula; the divergence
  // over all 600 is 5.35877224947569.
  std::vector<float> a, b;
  for (int i = 0; i < 600; ++i) {
    a.push_back(static_cast<float>(i * 37 % 101 / 7.0 + i % 13 / 5.0));
    b.push_back(static_cast<float>(i * 53 % 97 / 9.0 + i % 11 / 4.0));
  }
  const Distribution base = ask(a, {.likeliest = 256});
  const PositionDivergence found = position_divergence(base, ask(b, {.tokens = base.tokens}));
  EXPECT_NEAR(static_cast<double>(found.kl), 5.352047070328892, 2e-5);
  EXPECT_NEAR(static_cast<double>(found.slack), 0.01943192884874438, 1e-6);
  EXPECT_NEAR(exact_divergence(a, b), 5.35877224947569, 1e-5);
}

TEST(PositionDivergence, LiesWithinItsBounds) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (const size_t vocabulary : {257UL, 258UL, 300UL, 3000UL}) {
    for (const float noise : {0.01F, 0.5F, 4.0F}) {
      std::vector<float> a(vocabulary), b(vocabulary);
      for (size_t i = 0; i < vocabulary; ++i) {
        a[i] = 3 * normal(random);
        b[i] = a[i] + noise * normal(random);
      }
      const Distribution base = ask(a, {.likeliest = kKeptTokens});
      const PositionDivergence found = position_divergence(base, ask(b, {.tokens = base.tokens}));
      const double exact = exact_divergence(a, b), low = static_cast<double>(found.kl);
      EXPECT_GE(exact, low - 1e-6 - 1e-5 * exact);
      EXPECT_LE(exact, low + static_cast<double>(found.slack) + 1e-6 + 1e-5 * exact);
      if (vocabulary == 257) {  // one token left: nothing is lost
        EXPECT_NEAR(exact, low, 1e-5 * (1 + exact));
        EXPECT_NEAR(static_cast<double>(found.slack), 0, 1e-5);
      }
      const PositionDivergence same = position_divergence(base, ask(a, {.tokens = base.tokens}));
      EXPECT_EQ(same.kl, 0);
    }
  }
}

TEST(ScoredPositions, CountsASharedPlaceOnce) {
  // One-token choices; two choices of which one goes on; a repeated request; another context.
  EXPECT_EQ(scored_positions(std::vector<TokenRequest>{{{1, 2, 3, 7}, 1}, {{1, 2, 3, 8}, 1}}).count, 1);
  const ScoredPositions found = scored_positions(std::vector<TokenRequest>{
      {{1, 2, 3, 4}, 2}, {{1, 2, 3, 5, 6}, 3}, {{1, 2, 9, 5, 6}, 3}, {{1, 2, 3, 4}, 3}, {{2, 2, 3, 4}, 1}});
  EXPECT_THAT(found.index[0], ElementsAre(0, 1));       // after 1 2, after 1 2 3
  EXPECT_THAT(found.index[1], ElementsAre(-1, -1, 2));  // the same two, after 1 2 3 5
  EXPECT_THAT(found.index[2], ElementsAre(-1, 3, 4));
  EXPECT_THAT(found.index[3], ElementsAre(5, -1, -1));  // after 1, which nobody scored yet
  EXPECT_THAT(found.index[4], ElementsAre(6));
  EXPECT_EQ(found.count, 7);
  EXPECT_EQ(scored_positions({}).count, 0);
}

}  // namespace
}  // namespace qeval::eval
