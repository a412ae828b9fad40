#include "eval/engine/generation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/finite.h"
#include "tests/tiny_model.h"

namespace qeval::eval {
namespace {

using model::Arithmetic;
using model::Decoder;
using model::KvSpan;
using model::make_float_arithmetic;
using model::Model;
using model::Module;
using model::NotFinite;

struct GenerationFixture {
  test::TinyModel tiny{3};
  Model model = tiny.build();
  std::unique_ptr<Arithmetic> arithmetic = make_float_arithmetic(model, 64);
  Decoder decoder{model, *arithmetic};
};

/// However a text is cut into calls, what follows has the same bits.
TEST(Generator, ATextMayComeInAnyPieces) {
  GenerationFixture f;
  const std::vector<int32_t> text{5, 60, 0, 17, 17, 3, 44, 9, 21};
  Generator whole(f.decoder, 16);
  const std::vector<float> expected = whole.extend(text);
  for (const size_t cut : {size_t{1}, size_t{4}, size_t{8}}) {
    Generator pieces(f.decoder, 16);
    pieces.extend(std::span(text).first(cut));
    EXPECT_EQ(pieces.extend(std::span(text).subspan(cut)), expected) << cut;
  }
  Generator single(f.decoder, 9);
  std::vector<float> last;
  for (const int32_t token : text) last = single.extend({{token}});
  EXPECT_EQ(last, expected);
  EXPECT_EQ(single.length(), 9);
}

/// Finite weights whose products overflow: the operation where that begins is named, and the token.
TEST(Generator, SaysWhereAModelOverflows) {
  const auto says = [](const std::function<void(Model&)>& damage) {
    GenerationFixture f;
    damage(f.model);
    Generator generator(f.decoder, 4);
    try {
      generator.extend({{5}});
    } catch (const NotFinite& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string before = ": the first value that is not finite is in ",
                    behind = ", at token 0 of the input (id 5)";
  EXPECT_THAT(
      says([](Model& m) { std::ranges::fill(m.layers[1].norms[Module::post_attention_norm].weight, 1e30F); }),
      testing::HasSubstr(before + "the product before model.layers.1.mlp.w2" + behind));
  EXPECT_THAT(says([](Model& m) { std::ranges::fill(m.layers[0].norms[Module::input_norm].weight, 1e25F); }),
              testing::HasSubstr(before + "the attention before model.layers.0.self_attn.o_proj" + behind));
  EXPECT_THAT(says([](Model& m) { std::ranges::fill(m.final_norm.weight, 3e38F); }),
              testing::HasSubstr(before + "the output of "));
  EXPECT_EQ(says([](Model&) {}), "");
}

// The system promises any amount, and ends the process when it is used.
TEST(KvSpan, RefusesMoreThanMemory) {
  GenerationFixture f;
  EXPECT_NO_THROW(KvSpan(*f.arithmetic, 4096, 2));
  try {
    const KvSpan span(*f.arithmetic, int64_t{1} << 45, 2);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_TRUE(
        std::string(error.what()).starts_with("keys and values of 35184372088832 tokens: needs about "))
        << error.what();
  }
}

TEST(Generator, RefusesWhatDoesNotFit) {
  GenerationFixture f;
  EXPECT_THROW(Generator(f.decoder, 0), Error);
  EXPECT_THROW(Generator(f.decoder, 257), Error);
  Generator generator(f.decoder, 2);
  EXPECT_THROW(generator.extend({}), Error);
  EXPECT_THROW(generator.extend({{61}}), Error);
  EXPECT_THROW(generator.extend({{-1}}), Error);
  EXPECT_THROW(generator.extend({{1, 2, 3}}), Error);
  generator.extend({{1, 2}});
  EXPECT_THROW(generator.extend({{1}}), Error);
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargestAndNeverANaN) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Sampler sampler({});
  EXPECT_EQ(sampler.draw(std::vector<float>{kNan, 1, 3, 3, kNan}), 2);
  EXPECT_EQ(sampler.draw(std::vector<float>{-std::numeric_limits<float>::infinity(), -1e30F}), 1);
  EXPECT_THROW(sampler.draw(std::vector<float>{kNan, kNan}), Error);
}

TEST(Sampler, InfiniteLogitsCannotBeDrawnFrom) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float logit : {kInf, -kInf}) {
    Sampler sampler({.temperature = 1});
    EXPECT_THROW(sampler.draw(std::vector<float>{std::nanf(""), logit, logit}), Error);
  }
  Sampler sampler({.temperature = 1});
  EXPECT_EQ(sampler.draw(std::vector<float>{-kInf, 2}), 1);
}

std::vector<int> counts(const SamplingOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options);
  std::vector<int> count(logits.size());
  for (int i = 0; i < draws; ++i) ++count[static_cast<size_t>(sampler.draw(logits))];
  return count;
}

TEST(Sampler, DrawsByTheModelsProbabilities) {
  const std::vector<float> logits{std::log(0.2F), std::log(0.5F), std::log(0.3F)};
  constexpr int kDraws = 20000;
  const auto near = [&](int count, double p) {
    return std::abs(count - p * kDraws) < 5 * std::sqrt(kDraws * p * (1 - p));
  };
  const auto plain = counts({.temperature = 1, .seed = 4}, logits, kDraws);
  EXPECT_TRUE(near(plain[0], 0.2) && near(plain[1], 0.5) && near(plain[2], 0.3));
  const auto cold = counts({.temperature = 0.5, .seed = 4}, logits, kDraws);  // probabilities squared
  EXPECT_TRUE(near(cold[0], 0.04 / 0.38) && near(cold[1], 0.25 / 0.38));
  const auto two = counts({.temperature = 1, .top_k = 2, .seed = 4}, logits, kDraws);
  EXPECT_TRUE(two[0] == 0 && near(two[1], 0.5 / 0.8));
  const auto nucleus = counts({.temperature = 1, .top_p = 0.45, .seed = 4}, logits, kDraws);
  EXPECT_EQ(nucleus[1], kDraws);
}

TEST(Sampler, TheSeedDecides) {
  const std::vector<float> logits(50, 1.0F);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.draw(logits));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, RefusesImpossibleOptions) {
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.temperature = std::nan("")}), Error);
  EXPECT_THROW(Sampler({.top_k = -1}), Error);
  EXPECT_THROW(Sampler({.top_p = 0}), Error);
  EXPECT_THROW(Sampler({.top_p = 1.5}), Error);
}

/// Logits after `tokens`, given in pieces of `piece`.
std::vector<float> logits_after(const Model& model, const std::vector<int32_t>& tokens, size_t piece) {
  const auto arithmetic = make_float_arithmetic(model, 256);
  Decoder decoder(model, *arithmetic);
  Generator generator(decoder, 256);
  std::vector<float> logits;
  for (size_t i = 0; i < tokens.size(); i += piece) {
    logits = generator.extend(std::span(tokens).subspan(i, std::min(piece, tokens.size() - i)));
  }
  return logits;
}

TEST(Generator, AWindowHidesWhatLiesBeforeItAndDependsOnNoBatch) {
  constexpr int64_t kWindow = 20;
  test::TinyModel tiny;
  tiny.config.layers.assign(2, {.window = kWindow});
  const Model model = tiny.build();
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 150; ++i) tokens.push_back(i * 7 % 61);
  const std::vector<float> whole = logits_after(model, tokens, 150);
  for (const size_t piece : {1, 7, 64, 100}) EXPECT_EQ(logits_after(model, tokens, piece), whole) << piece;
  // Two layers see 2 · (window − 1) tokens back.
  std::vector<int32_t> other = tokens;
  const size_t first_seen = tokens.size() - 1 - 2 * (kWindow - 1);
  other[first_seen - 1] = (other[first_seen - 1] + 1) % 61;
  EXPECT_EQ(logits_after(model, other, 150), whole);
  other[first_seen] = (other[first_seen] + 1) % 61;
  EXPECT_NE(logits_after(model, other, 150), whole);
}

}  // namespace
}  // namespace qeval::eval
