#include "eval/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace qeval::eval {
namespace {

/// A tokenizer one can follow by eye: a token per byte (its code), but "ab" is one token, 1000.
class ByteTokenizer : public model::Tokenizer {
 public:
  ByteTokenizer(std::optional<int32_t> bos, std::optional<int32_t> eos, bool adds_bos) {
    bos_id_ = bos;
    eos_id_ = eos;
    if (adds_bos && bos) leading_ids_ = {*bos};
  }
  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.substr(i, 2) == "ab") {
        ids.push_back(1000);
        ++i;
      } else {
        ids.push_back(static_cast<unsigned char>(text[i]));
      }
    }
    return ids;
  }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  int32_t vocab_size() const override { return 1001; }
  std::string_view kind() const override { return "test"; }
};

const ByteTokenizer kWithBos(1, 2, true);
const ByteTokenizer kNamesBos(1, 2, false);
const ByteTokenizer kOnlyEos(std::nullopt, 2, false);

RequestEncoder encoder(const model::Tokenizer& tokenizer, int64_t max_length = 100,
                       Protocol protocol = Protocol::lm_eval_0_4,
                       PrefixToken prefix = PrefixToken::automatic) {
  return RequestEncoder(tokenizer, protocol, prefix, max_length);
}

using Ids = std::vector<int32_t>;

TEST(RequestEncoder, TrailingSpaceOfTheContextBelongsToTheContinuation) {
  const auto out = encoder(kNamesBos).encode({"q: \n", "x"});
  EXPECT_EQ(out.tokens.tokens, (Ids{'q', ':', ' ', '\n', 'x'}));
  EXPECT_EQ(out.tokens.scored, 3);
}

TEST(RequestEncoder, ContextAndContinuationAreEncodedTogether) {
  // "xa" + "bc": together x ab c. The context alone has two tokens, so what follows the first two is scored.
  const auto out = encoder(kNamesBos).encode({"xa", "bc"});
  EXPECT_EQ(out.tokens.tokens, (Ids{'x', 'a', 'c'}));
  EXPECT_EQ(out.tokens.scored, 1);
}

TEST(RequestEncoder, ATokenAcrossTheJoinThatLeavesNothingIsEncodedApartAndSaidSo) {
  const auto out = encoder(kNamesBos).encode({"a", "b"});
  EXPECT_TRUE(out.encoded_apart);
  EXPECT_EQ(out.tokens.tokens, (Ids{'a', 'b'}));
  EXPECT_EQ(out.tokens.scored, 1);
}

/// What a template writes behind the end of a turn is not scored, and what it opens the answer with is not.
TEST(RequestEncoder, AnAnswersTokensAreThoseThatThePromptLacks) {
  const std::vector<int32_t> ends{'>', '|'};
  const auto out = encoder(kWithBos).encode_answer("<u>q<m>\n", "yes>\n", ends);
  EXPECT_EQ(out.tokens.tokens, (Ids{1, '<', 'u', '>', 'q', '<', 'm', '>', '\n', 'y', 'e', 's', '>'}));
  EXPECT_EQ(out.tokens.scored, 4);
  EXPECT_EQ(encoder(kNamesBos).encode_answer("q", "no end\n", ends).tokens.scored, 7);
  // A token across the join is predicted whole: x ab, not x a b.
  const auto joined = encoder(kNamesBos).encode_answer("xa", "b|", ends);
  EXPECT_EQ(joined.tokens.tokens, (Ids{'x', 1000, '|'}));
  EXPECT_EQ(joined.tokens.scored, 2);
  const auto cut = encoder(kNamesBos, 4).encode_answer("12345", "yn|", ends);
  EXPECT_EQ(cut.tokens.tokens, (Ids{'4', '5', 'y', 'n', '|'}));
  EXPECT_EQ(cut.truncated, 3);
  EXPECT_THROW(encoder(kNamesBos, 2).encode_answer("12345", "yn|", ends), Error);
  EXPECT_THROW(encoder(kNamesBos).encode_answer("q", "", ends), Error);
  EXPECT_THROW(encoder(kNamesBos).encode_answer("", "x", ends), Error);
}

TEST(RequestEncoder, BosStandsInFrontOnceWhereTheTokenizerAddsIt) {
  EXPECT_EQ(encoder(kWithBos).encode({"q", "x"}).tokens.tokens, (Ids{1, 'q', 'x'}));
  EXPECT_EQ(encoder(kWithBos).encode({"\x01q", "x"}).tokens.tokens, (Ids{1, 'q', 'x'}));
  EXPECT_EQ(encoder(kWithBos).encode({"", "xy"}).tokens.tokens, (Ids{1, 'x', 'y'}));
  EXPECT_EQ(encoder(kNamesBos).encode({"q", "x"}).tokens.tokens, (Ids{'q', 'x'}));
}

TEST(RequestEncoder, AnEmptyContextBecomesThePrefixToken) {
  EXPECT_EQ(encoder(kNamesBos).encode({"", "xy"}).tokens.tokens, (Ids{1, 'x', 'y'}));
  EXPECT_EQ(encoder(kOnlyEos).encode({"", "xy"}).tokens.tokens, (Ids{2, 'x', 'y'}));
  EXPECT_EQ(encoder(kNamesBos).encode({"  ", "x"}).tokens.tokens, (Ids{1, ' ', ' ', 'x'}));
  EXPECT_EQ(encoder(kNamesBos, 100, Protocol::lm_eval_0_4, PrefixToken::eos).encode({"", "x"}).tokens.tokens,
            (Ids{2, 'x'}));
  EXPECT_THROW(encoder(kNamesBos, 100, Protocol::lm_eval_0_4, PrefixToken::none).encode({"", "x"}), Error);
  EXPECT_THROW(encoder(kOnlyEos, 100, Protocol::lm_eval_0_4, PrefixToken::bos), Error);
}

TEST(RequestEncoder, AMissingPrefixTokenMattersOnlyWhereItIsNeeded) {
  const ByteTokenizer neither(std::nullopt, std::nullopt, false);
  EXPECT_EQ(encoder(neither).encode({"q", "x"}).tokens.tokens, (Ids{'q', 'x'}));
  EXPECT_EQ(encoder(neither).prefix_policy(), "none");
  EXPECT_THROW(encoder(neither).encode({"", "x"}), Error);
  EXPECT_THROW(encoder(neither).windows("xy"), Error);
  EXPECT_EQ(encoder(neither, 100, Protocol::lm_eval_0_4, PrefixToken::none).windows("xy").size(), 1U);
  const ByteTokenizer only_bos(1, std::nullopt, false);
  try {
    encoder(only_bos, 100, Protocol::lm_eval_0_3).encode({"", "x"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("accepted: prefix_token bos"), std::string::npos);
  }
}

TEST(RequestEncoder, BosIsAddedAsToldInsteadOfWhatTheTokenizerAdds) {
  const auto told = [](const model::Tokenizer& tokenizer, std::optional<AddBos> add) {
    return RequestEncoder(tokenizer, Protocol::lm_eval_0_4, PrefixToken::automatic, 100, add);
  };
  EXPECT_EQ(told(kNamesBos, AddBos::texts).encode({"q", "x"}).tokens.tokens, (Ids{1, 'q', 'x'}));
  EXPECT_EQ(told(kNamesBos, AddBos::texts).encode({"\x01q", "x"}).tokens.tokens,
            (Ids{1, 'q', 'x'}));  // never twice
  EXPECT_EQ(told(kWithBos, AddBos::never).encode({"q", "x"}).tokens.tokens, (Ids{'q', 'x'}));
  EXPECT_THROW(told(kOnlyEos, AddBos::texts), Error);  // there is none to add
  EXPECT_EQ(told(kWithBos, AddBos::never).encode({"", "x"}).tokens.tokens,
            (Ids{1, 'x'}));  // the prefix stays
  EXPECT_EQ(told(kWithBos, AddBos::never).add_bos_policy(), "false");
  EXPECT_EQ(told(kWithBos, std::nullopt).add_bos_policy(), "");
}

/// A sequence is whatever the model computes from position 0 on.
TEST(RequestEncoder, BosStandsBeforeEverySequence) {
  const auto always = [](const model::Tokenizer& tokenizer, int64_t length = 100,
                         Protocol protocol = Protocol::lm_eval_0_4,
                         PrefixToken prefix = PrefixToken::automatic) {
    return RequestEncoder(tokenizer, protocol, prefix, length, AddBos::always);
  };
  EXPECT_EQ(always(kNamesBos).add_bos_policy(), "always");
  EXPECT_EQ(always(kNamesBos).encode({"q", "x"}).tokens.tokens, (Ids{1, 'q', 'x'}));
  EXPECT_EQ(always(kNamesBos).encode({"\x01q", "x"}).tokens.tokens, (Ids{1, 'q', 'x'}));
  EXPECT_EQ(always(kNamesBos).encode({"", "x"}).tokens.tokens, (Ids{1, 'x'}));
  EXPECT_EQ(always(kNamesBos, 100, Protocol::lm_eval_0_3).encode({"", "x"}).tokens.tokens, (Ids{1, 'x'}));
  EXPECT_EQ(always(kNamesBos, 100, Protocol::lm_eval_0_3).prefix_policy(), "bos (1)");
  EXPECT_THAT([&] { always(kNamesBos, 100, Protocol::lm_eval_0_4, PrefixToken::eos); },
              testing::ThrowsMessage<Error>(
                  testing::HasSubstr("every sequence begins with token 1; accepted with it: bos")));
  EXPECT_EQ(always(kNamesBos, 100, Protocol::lm_eval_0_3).encode({"q", "x"}).tokens.tokens,
            (Ids{1, 'q', 'x'}));
  EXPECT_EQ(always(kOnlyEos).encode({"q", "x"}).tokens.tokens, (Ids{2, 'q', 'x'}));
  // A cut takes what stands behind it.
  const auto cut = always(kNamesBos, 3).encode({"abcdef", "xy"});
  EXPECT_EQ(cut.tokens.tokens, (Ids{1, 'f', 'x', 'y'}));
  EXPECT_EQ(cut.tokens.scored, 2);
  EXPECT_EQ(always(kNamesBos, 3).encode({"abc", "xyz"}).tokens.tokens, (Ids{1, 'x', 'y', 'z'}));
  EXPECT_EQ(always(kNamesBos, 6).encode_prompt("abcdef", 2).tokens.tokens, (Ids{1, 'd', 'e', 'f', 0}));
  const auto windows = always(kNamesBos, 4).windows("0123456789");
  ASSERT_EQ(windows.size(), 3);
  EXPECT_EQ(windows[0].tokens, (Ids{1, '0', '1', '2', '3'}));
  EXPECT_EQ(windows[1].tokens, (Ids{1, '4', '5', '6', '7'}));
  EXPECT_EQ(windows[1].scored, 4);
  EXPECT_EQ(windows[2].tokens, (Ids{1, '6', '7', '8', '9'}));
  EXPECT_EQ(windows[2].scored, 2);
  const auto unprefixed = always(kNamesBos, 4, Protocol::lm_eval_0_4, PrefixToken::none).windows("01");
  EXPECT_EQ(unprefixed[0].tokens, (Ids{1, '0', '1'}));
  EXPECT_THROW(always(ByteTokenizer(std::nullopt, std::nullopt, false)), Error);
}

TEST(RequestEncoder, TheOldProtocolEncodesApartWithoutSpecialTokensAndStartsWithEos) {
  const auto old = encoder(kWithBos, 100, Protocol::lm_eval_0_3);
  EXPECT_EQ(old.encode({"xa", "bc"}).tokens.tokens, (Ids{'x', 'a', 'b', 'c'}));
  EXPECT_EQ(old.encode({"", "x"}).tokens.tokens, (Ids{2, 'x'}));
  EXPECT_EQ(old.prefix_policy(), "eos (2)");
}

TEST(RequestEncoder, LongContextsLoseTheirLeftAndTheLossIsCounted) {
  const auto out = encoder(kNamesBos, 3).encode({"abcdef", "xy"});
  EXPECT_EQ(out.tokens.tokens, (Ids{'e', 'f', 'x', 'y'}));  // three inputs, the last token only predicted
  EXPECT_EQ(out.tokens.scored, 2);
  EXPECT_EQ(out.truncated, 3);
  EXPECT_THROW(encoder(kNamesBos, 3).encode({"q", "wxyz"}), Error);
  EXPECT_THROW(encoder(kNamesBos).encode({"q", ""}), Error);
}

TEST(RequestEncoder, WindowsScoreEveryTokenOnceWithAsMuchContextAsFits) {
  const auto windows = encoder(kNamesBos, 4).windows("0123456789");
  ASSERT_EQ(windows.size(), 3);
  EXPECT_EQ(windows[0].tokens, (Ids{1, '0', '1', '2', '3'}));
  EXPECT_EQ(windows[0].scored, 4);
  EXPECT_EQ(windows[1].tokens, (Ids{'3', '4', '5', '6', '7'}));
  EXPECT_EQ(windows[1].scored, 4);
  EXPECT_EQ(windows[2].tokens, (Ids{'5', '6', '7', '8', '9'}));
  EXPECT_EQ(windows[2].scored, 2);
  EXPECT_TRUE(encoder(kNamesBos, 4).windows("").empty());
}

TEST(RequestEncoder, RollingTextGetsThePrefixButNoSecondBos) {
  EXPECT_EQ(encoder(kWithBos, 4).windows("01")[0].tokens, (Ids{1, '0', '1'}));
  const auto bare = encoder(kWithBos, 4, Protocol::lm_eval_0_4, PrefixToken::none).windows("01");
  EXPECT_EQ(bare[0].tokens, (Ids{'0', '1'}));
  EXPECT_EQ(bare[0].scored, 1);  // nothing predicts the first token
}

TEST(TokenHash, TellsIdsAndScoredPartsApart) {
  const std::vector<TokenRequest> a{{{1, 2, 3}, 1}};
  const std::vector<TokenRequest> b{{{1, 2, 3}, 2}};
  const std::vector<TokenRequest> c{{{1, 2, 4}, 1}};
  EXPECT_EQ(token_hash(a), token_hash(a));
  EXPECT_NE(token_hash(a), token_hash(b));
  EXPECT_NE(token_hash(a), token_hash(c));
}

}  // namespace
}  // namespace qeval::eval
