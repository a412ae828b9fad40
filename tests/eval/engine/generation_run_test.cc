#include "eval/engine/generation_run.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/engine/generation.h"
#include "tests/message_of.h"
#include "tests/tiny_model.h"

namespace qeval::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A letter for every token; some are two, and the last three special.
class Letters final : public model::Tokenizer {
 public:
  Letters() {
    special_ids_ = {58, 59, 60};
    eos_id_ = 60;
  }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string out;
    for (const int32_t id : ids)
      out += id >= 58 ? "<" + std::to_string(id) + ">" : std::string(1, letter(id));
    return out;
  }
  int32_t vocab_size() const override { return 61; }
  std::string_view kind() const override { return "letters"; }
  static char letter(int32_t id) { return static_cast<char>('A' + id); }
};

struct GenerationRunFixture {
  test::TinyModel tiny{3};
  model::Model model = tiny.build();
  std::unique_ptr<model::Arithmetic> arithmetic = model::make_float_arithmetic(model, 256);
  model::Decoder decoder{model, *arithmetic};
  Letters letters;
  /// Prompts that share beginnings, one of them twice, one within another.
  std::vector<TokenRequest> prompts;

  GenerationRunFixture() {
    std::vector<int32_t> shared;
    for (int32_t i = 0; i < 30; ++i) shared.push_back((i * 7 + 3) % 58);
    for (const std::vector<int32_t>& end :
         {std::vector<int32_t>{1}, {1}, {1, 2, 3}, {4, 5}, {}, {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}}) {
      TokenRequest request{shared, 1};
      request.tokens.insert(request.tokens.end(), end.begin(), end.end());
      request.tokens.push_back(0);
      prompts.push_back(request);
    }
    prompts.push_back({{5, 0}, 1});
  }

  std::map<int64_t, GeneratedText> run(TextLimits limits, int64_t batch_tokens = 2048,
                                       int64_t kv_bytes = int64_t{1} << 30) {
    const Plan plan(prompts, batch_tokens, &model.config);
    GenerationRun generation(decoder, letters, plan, std::move(limits), batch_tokens, kv_bytes);
    std::map<int64_t, GeneratedText> out;
    while (!generation.done()) {
      for (const int64_t request : generation.step())
        EXPECT_TRUE(out.emplace(request, generation.take(request)).second);
    }
    EXPECT_EQ(generation.held_bytes(), 0);
    EXPECT_EQ(generation.tokens_done(), generation.tokens_to_do());
    EXPECT_EQ(out.size(), prompts.size());
    return out;
  }

  std::vector<int32_t> alone(const TokenRequest& prompt, size_t count) {
    Generator generator(decoder, 256);
    Sampler sampler({});
    std::vector<int32_t> out;
    generate(generator, prompt.input(), 2048, [&](std::span<const float> logits) -> std::optional<int32_t> {
      out.push_back(sampler.draw(logits));
      return out.size() < count ? std::optional(out.back()) : std::nullopt;
    });
    return out;
  }
};

/// Longer than a page of keys and values.
constexpr int64_t kLong = 150;

TEST(GenerationRun, TextsAreThoseOfEachPromptAlone) {
  GenerationRunFixture f;
  const auto texts = f.run({.stops = {}, .end_ids = {}, .max_tokens = kLong});
  for (size_t i = 0; i < f.prompts.size(); ++i) {
    EXPECT_EQ(texts.at(static_cast<int64_t>(i)).tokens, f.alone(f.prompts[i], kLong)) << i;
    EXPECT_EQ(texts.at(static_cast<int64_t>(i)).end, GeneratedText::End::length);
  }
}

/// Bit for bit: the hashes are of all logits.
TEST(GenerationRun, TextsDependOnNoBatchOrMemory) {
  GenerationRunFixture f;
  const TextLimits limits{.stops = {}, .end_ids = {}, .max_tokens = kLong};
  const auto expected = f.run(limits);
  for (const auto& [batch, bytes] :
       {std::pair<int64_t, int64_t>{1, 1}, {7, int64_t{1} << 30}, {64, 1}, {2048, 200000}}) {
    const auto texts = f.run(limits, batch, bytes);
    for (const auto& [request, text] : expected) {
      EXPECT_EQ(texts.at(request).tokens, text.tokens) << batch << " " << bytes << " " << request;
      EXPECT_EQ(texts.at(request).logits_hashes, text.logits_hashes)
          << batch << " " << bytes << " " << request;
    }
  }
}

TEST(GenerationRun, ATextEndsWhereItsTaskSaysSo) {
  GenerationRunFixture f;
  const std::vector<int32_t> whole = f.alone(f.prompts[0], 40);
  // Over three tokens, whose letters may have come before in another order.
  const std::string all = f.letters.decode(whole), stop = all.substr(20, 3);
  const size_t end = all.find(stop) + 3;
  const auto stopped = f.run({.stops = {"~~~~", stop}, .end_ids = {}, .max_tokens = 40}).at(0);
  EXPECT_EQ(stopped.end, GeneratedText::End::stop);
  EXPECT_EQ(stopped.tokens.size(), end);
  EXPECT_EQ(answer_text(f.letters, stopped.tokens, std::vector<std::string>{"~~~~", stop}),
            all.substr(0, end - 3));
  const auto ended = f.run({.stops = {}, .end_ids = {whole[5]}, .max_tokens = 40}).at(0);
  EXPECT_EQ(ended.end, GeneratedText::End::eos);
  EXPECT_EQ(ended.tokens.back(), whole[5]);
  EXPECT_LE(ended.tokens.size(), 6U);
}

TEST(AnswerText, IsWithoutSpecialTokensAndStops) {
  const Letters letters;
  EXPECT_EQ(answer_text(letters, std::vector<int32_t>{0, 60, 1, 59}, {}), "AB");
  EXPECT_EQ(answer_text(letters, std::vector<int32_t>{0, 1, 2, 3}, std::vector<std::string>{"D", "BC"}), "A");
  EXPECT_EQ(answer_text(letters, std::vector<int32_t>{0, 1, 2, 1, 3}, std::vector<std::string>{"B"}), "A")
      << "the first one counts";
  // One sign for each stretch that could have begun a character.
  class Bytes final : public model::Tokenizer {
   public:
    std::vector<int32_t> encode(std::string_view) const override { return {}; }
    std::string decode(std::span<const int32_t> ids) const override { return {ids.begin(), ids.end()}; }
    int32_t vocab_size() const override { return 256; }
    std::string_view kind() const override { return "bytes"; }
  };
  const std::vector<int32_t> bytes{'a', 0xF0, 0x9F, 0x98, 'b', 0xE2, 0x82, 0xC3, 0xFF, 0xC3, 0xA9};
  EXPECT_EQ(answer_text(Bytes(), bytes, {}), "a\uFFFDb\uFFFD\uFFFD\uFFFDé");
}

TEST(GenerationRun, WhatDoesNotFitIsRefused) {
  GenerationRunFixture f;
  EXPECT_THAT(message_of([&] { f.run({.stops = {}, .end_ids = {}, .max_tokens = 250}); }),
              HasSubstr("tokens of prompt and 250 of answer; accepted: 256 in all"));
}

}  // namespace
}  // namespace qeval::eval
