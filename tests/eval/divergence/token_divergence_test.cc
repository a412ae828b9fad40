#include "eval/divergence/token_divergence.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/divergence/measure.h"
#include "eval/divergence/side_by_side.h"
#include "eval/requests.h"
#include "tests/message_of.h"
#include "tests/model/byte_model.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using testing::HasSubstr;

struct Row {
  std::vector<float> logits, probabilities;
  explicit Row(std::vector<float> values) : logits(std::move(values)), probabilities(logits.size()) {}
  LogitRow read() { return read_row(logits, probabilities); }
};

TEST(TokenDivergence, IsWhatTheFormulasSay) {
  std::vector<float> a, b;
  for (int i = 0; i < 103; ++i) {
    a.push_back(3 * std::sin(static_cast<float>(i)));
    b.push_back(a.back() + std::cos(static_cast<float>(3 * i)));
  }
  const auto log_softmax = [](const std::vector<float>& logits) {
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::vector<double> out;
    for (const float logit : logits) out.push_back(static_cast<double>(logit) - std::log(sum));
    return out;
  };
  const std::vector<double> p = log_softmax(a), q = log_softmax(b);
  double kl = 0, reverse = 0, acceptance = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    kl += std::exp(p[i]) * (p[i] - q[i]);
    reverse += std::exp(q[i]) * (q[i] - p[i]);
    acceptance += std::min(std::exp(p[i]), std::exp(q[i]));
  }
  Row base(a), other(b);
  const TokenDivergence found = token_divergence(base.read(), other.read(), 17);
  EXPECT_NEAR(found.kl, kl, 1e-6);
  EXPECT_NEAR(found.reverse_kl, reverse, 1e-6);
  EXPECT_NEAR(found.acceptance, acceptance, 1e-6);
  EXPECT_NEAR(found.base_nll, -p[17], 1e-6);
  EXPECT_NEAR(found.nll, -q[17], 1e-6);
  EXPECT_NEAR(found.p_difference, std::exp(q[17]) - std::exp(p[17]), 1e-6);
  EXPECT_EQ(found.same_top,
            std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin());
  const TokenDivergence itself = token_divergence(base.read(), base.read(), 5);
  EXPECT_EQ(itself.kl, 0);
  EXPECT_EQ(itself.reverse_kl, 0);
  EXPECT_EQ(itself.acceptance, 1);
  EXPECT_EQ(itself.p_difference, 0);
  a[7] = INFINITY;
  EXPECT_TRUE(std::isnan(Row(a).read().log_sum));
}

class MeasureTest : public testing::Test {
 protected:
  MeasureTest() {
    test::write_byte_model(folder_ / "model");
    loaded_ = std::make_shared<LoadedModel>(folder_ / "model");
    session_ = std::make_unique<Session>(
        SessionOptions{.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
    for (int i = 0; i < 40; ++i) text_ += "Words of number " + std::to_string(i * i) + ". ";
  }
  test::TemporaryFolder folder_;
  std::shared_ptr<LoadedModel> loaded_;
  std::unique_ptr<Session> session_;
  std::string text_;
};

/// The base's likelihoods are those of the rolling log-likelihood over the same text.
TEST_F(MeasureTest, PredictsWhatARollingDocumentIsScoredBy) {
  const TextWindows windows = text_windows(session_->tokenizer(), {"a.txt", text_}, TextProtocol::qeval, 24);
  Session twin({.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
  const std::vector<Measured> measured =
      measure_divergence({.base = session_.get(), .others = {&twin}, .windows = windows});
  ASSERT_EQ(measured.size(), 1U);
  const TextDivergence& found = measured[0].divergence;
  EXPECT_EQ(found.tokens(), std::ssize(text_));
  EXPECT_EQ(found.kl().value, 0);
  EXPECT_EQ(found.top1_agreement().value, 1);
  const Plan plan(windows.windows, 64, &session_->model().config);
  ScoringRun run(session_->decoder(), plan);
  while (!run.done()) run.step();
  double log_likelihood = 0;
  for (int64_t i = 0; i < std::ssize(windows.windows); ++i) log_likelihood += run.take(i).log_likelihood();
  EXPECT_NEAR(std::log(found.base_perplexity().value), -log_likelihood / static_cast<double>(found.tokens()),
              1e-6);
}

/// The same tokens are predicted, all behind the token that a model with a prefix begins with.
TEST_F(MeasureTest, BeginsEveryWindowAsToldTo) {
  const model::Tokenizer& tokenizer = session_->tokenizer();
  const int32_t start = tokenizer.bos_id() ? *tokenizer.bos_id() : tokenizer.eos_id().value();
  const TextWindows plain = text_windows(tokenizer, {"a.txt", text_}, parse_text_protocol("qeval"), 24),
                    told = text_windows(tokenizer, {"a.txt", text_}, parse_text_protocol("qeval-bos"), 24);
  EXPECT_EQ(name(told.protocol), "qeval-bos");
  ASSERT_EQ(plain.windows.size(), told.windows.size());
  EXPECT_NE(plain.windows[1].tokens.front(), start);
  for (size_t i = 0; i < told.windows.size(); ++i) {
    TokenRequest expected = plain.windows[i];
    expected.tokens.front() = start;
    EXPECT_EQ(told.windows[i].tokens, expected.tokens);
    EXPECT_EQ(told.windows[i].scored, expected.scored);
  }
}

/// Chunks of c tokens; the positions c/2 … c − 2 of each are scored; the rest of the text is left out.
TEST_F(MeasureTest, CutsATextAsLlamaDoes) {
  const TextWindows windows =
      text_windows(session_->tokenizer(), {"a.txt", text_}, TextProtocol::llama_cpp, 33);
  ASSERT_EQ(std::ssize(windows.windows), std::ssize(text_) / 33);
  EXPECT_EQ(windows.windows[1].scored, 16);
  EXPECT_EQ(windows.windows[1].tokens.size(), 33U);
  EXPECT_EQ(windows.windows[1].tokens[0], static_cast<unsigned char>(text_[33]));
  EXPECT_EQ(std::ssize(windows.tokens), std::ssize(windows.windows) * 33);
  EXPECT_THAT(message_of([&] {
                text_windows(session_->tokenizer(), {"a.txt", std::string_view(text_).substr(0, 65)},
                             TextProtocol::llama_cpp, 33);
              }),
              HasSubstr("needs two chunks of 33: at least 66"));
}

/// What is written of a base and read again gives the same figures as the base itself.
TEST_F(MeasureTest, StoredPredictionsStandForTheBase) {
  const TextWindows windows =
      text_windows(session_->tokenizer(), {"a.txt", text_}, TextProtocol::llama_cpp, 40);
  Session twin({.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
  LogitsWriter writer(folder_ / "base.kld", {40, static_cast<int32_t>(test::kTokens),
                                             static_cast<int32_t>(windows.windows.size()), windows.tokens});
  const auto live =
      measure_divergence({.base = session_.get(), .others = {&twin}, .windows = windows, .writer = &writer});
  writer.commit();
  const LogitsReader reader(folder_ / "base.kld");
  const TextWindows again = stored_windows(twin.tokenizer(), reader.header());
  require_same_windows(windows, again, "model");
  const auto stored = measure_divergence({.stored = &reader, .others = {&twin}, .windows = again});
  EXPECT_EQ(stored[0].chunk_lines, live[0].chunk_lines);
  EXPECT_EQ(stored[0].llama.report(), live[0].llama.report());
  EXPECT_NEAR(stored[0].divergence.perplexity_ratio().value, 1, 1e-3);
  TextWindows other = again;
  ++other.windows[1].tokens[3];
  EXPECT_THAT(message_of([&] { require_same_windows(windows, other, "model"); }),
              HasSubstr("other ids than the base's in window 2"));
}

/// Windows that are computed at once, and stretches of one that is too long for that, give the same bits as
/// windows alone.
TEST_F(MeasureTest, WindowsSideBySideGiveTheSameBits) {
  Session twin({.model = folder_ / "model", .arithmetic = "float", .max_length = {}}, loaded_);
  std::vector<int32_t> ids = session_->tokenizer().encode(text_);
  while (std::ssize(ids) < 500) ids.insert(ids.end(), ids.begin(), ids.end());
  std::vector<TokenRequest> windows;
  for (int64_t i = 0; i < 12; ++i) {
    const int64_t first = 7 * i, length = 3 + (i * 37) % std::min<int64_t>(180, session_->max_length() - 3);
    windows.push_back({{ids.begin() + first, ids.begin() + first + length}, 1 + (length - 2) / (i + 1)});
  }
  using Seen = std::vector<std::pair<std::vector<int32_t>, std::vector<std::vector<float>>>>;
  const auto visit = [](Seen& seen) {
    return [&seen](std::span<const int32_t> targets, std::span<const std::vector<float>> logits) {
      seen.emplace_back(std::vector(targets.begin(), targets.end()),
                        std::vector(logits.begin(), logits.end()));
    };
  };
  Seen together, alone;
  SideBySide lanes({session_.get(), &twin}, session_->max_length());
  EXPECT_EQ(lanes.run(windows, visit(together)), std::ssize(windows));
  for (const TokenRequest& window : windows) EXPECT_EQ(lanes.run({&window, 1}, visit(alone)), 1);
  EXPECT_EQ(together, alone);
  EXPECT_EQ(together.front().first,
            std::vector<int32_t>(windows[0].tokens.end() - windows[0].scored, windows[0].tokens.end()));
}

/// Beyond the longest input there are no angles of the rotary embedding.
TEST_F(MeasureTest, RefusesWindowsThatTheSessionIsNotPreparedFor) {
  EXPECT_THAT(message_of([&] { SideBySide({session_.get()}, session_->max_length() + 1); }),
              HasSubstr("the longest input it is prepared for"));
}

}  // namespace
}  // namespace qeval::eval
