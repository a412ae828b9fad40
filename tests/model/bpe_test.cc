#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "tests/model/tokenizer_fixtures.h"

namespace qeval::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(ByteLevel, SpellsEveryByteWithOnePrintableCharacter) {
  EXPECT_EQ(byte_level_of_bytes(" a\n"), "ĠaĊ");
  EXPECT_EQ(byte_level_of_bytes("\xC2\xAD"), "ÂŃ");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(bytes_of_byte_level(byte_level_of_bytes(all)), all);
  for (const char* outside : {" ", "\n", "ń", "世", "\xC4", "\xC4x"}) {
    EXPECT_EQ(bytes_of_byte_level(outside), std::nullopt) << outside;
  }
}

/// The definition: again and again the best pair, the leftmost of equals.
std::vector<int32_t> merge_slowly(std::vector<int32_t> ids, const std::vector<BpeMerge>& merges) {
  while (true) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (size_t rank = 0; rank < best; ++rank) {
        if (merges[rank].left == ids[i] && merges[rank].right == ids[i + 1]) {
          best = rank;
          at = i;
        }
      }
    }
    if (best == merges.size()) return ids;
    ids[at] = merges[best].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(BpeModel, MergesAsTheDefinitionDoes) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<BpeToken> tokens = {{"a", 0}, {"b", 1}, {"c", 2}};
    std::map<std::string, int32_t> known = {{"a", 0}, {"b", 1}, {"c", 2}};
    std::map<std::pair<int32_t, int32_t>, bool> merged;
    std::vector<BpeMerge> merges;
    while (merges.size() < 25) {
      const BpeToken left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      if (left.bytes.size() + right.bytes.size() > 6 ||
          !merged.emplace(std::pair(left.id, right.id), true).second) {
        continue;
      }
      const auto [entry, added] = known.emplace(left.bytes + right.bytes, static_cast<int32_t>(known.size()));
      if (added) tokens.push_back({entry->first, entry->second});
      merges.push_back({left.id, right.id, entry->second});
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const BpeModel model(tokens, merges, false);
    BpeModel::Scratch scratch;
    for (int i = 0; i < 100; ++i) {
      std::string word(1 + random() % 20, 'a');
      std::vector<int32_t> letters;
      for (char& letter : word) {
        letter = static_cast<char>('a' + random() % 3);
        letters.push_back(letter - 'a');
      }
      std::vector<int32_t> ids;
      model.encode_word(word, scratch, ids);
      ASSERT_EQ(ids, merge_slowly(letters, merges)) << word;
    }
  }
}

TEST(BpeModel, TakesWholeWordsOnlyWhereMergesAreIgnored) {
  // No merge leads to "abc".
  const std::vector<BpeToken> tokens = {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}};
  const std::vector<BpeMerge> merges = {{0, 1, 3}};
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  BpeModel(tokens, merges, false).encode_word("abc", scratch, ids);
  EXPECT_THAT(ids, ElementsAre(3, 2));
  ids.clear();
  BpeModel(tokens, merges, true).encode_word("abc", scratch, ids);
  EXPECT_THAT(ids, ElementsAre(4));
}

TEST(BpeModel, LeavesOutBytesWithoutAToken) {
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  const BpeModel model({{"a", 0}, {"b", 1}, {"ab", 2}}, {{0, 1, 2}}, false);
  model.encode_word(
      "a\x01"
      "b",
      scratch, ids);
  EXPECT_THAT(ids, ElementsAre(2));
  ids.clear();
  model.encode_word("\x01", scratch, ids);
  EXPECT_THAT(ids, IsEmpty());
}

TEST(BpeModel, HandlesAWordOfAMillionBytes) {
  const BpeModel model({{"a", 0}, {"aa", 1}, {"aaaa", 2}}, {{0, 0, 1}, {1, 1, 2}}, false);
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  model.encode_word(std::string(1'000'003, 'a'), scratch, ids);
  ASSERT_EQ(ids.size(), 250'002U);
  EXPECT_THAT(std::vector(ids.end() - 3, ids.end()), ElementsAre(2, 1, 0));
}

std::vector<std::string> pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  PreTokenizer::Pieces pieces;
  pre_tokenizer.split(text, pieces);
  return {pieces.views.begin(), pieces.views.end()};
}

TEST(PreTokenizer, CutsAsTheNamedPatternsDo) {
  const auto cut = [](std::string_view name, std::string_view text) {
    return pieces_of(PreTokenizer(find_named_pre_tokenizer(name).stages), text);
  };
  EXPECT_THAT(cut("gpt-2", "I'm  12345 DON'T,\n\n go"),
              ElementsAre("I", "'m", " ", " 12345", " DON", "'", "T", ",", "\n\n", " go"));
  EXPECT_THAT(cut("smollm", "a 123."), ElementsAre("a", " ", "1", "2", "3", "."));
  EXPECT_THAT(cut("llama-bpe", "I'M 12345!\n\n x"), ElementsAre("I", "'M", " ", "123", "45", "!\n\n", " x"));
  EXPECT_THAT(cut("qwen2", "we'RE 12\n"), ElementsAre("we", "'RE", " ", "1", "2", "\n"));
  EXPECT_EQ(cut("stablelm2", "x1 (y)"), cut("qwen2", "x1 (y)"));
  EXPECT_EQ(cut("gpt-neox", "x1 (y)"), cut("gpt-2", "x1 (y)"));
}

TEST(PreTokenizer, NamesTheKnownNames) {
  EXPECT_THAT(message_of([] { find_named_pre_tokenizer("default"); }),
              testing::AllOf(HasSubstr("'default'"), HasSubstr("gpt-2"), HasSubstr("llama-bpe"),
                             HasSubstr("smollm")));
}

TEST(PreTokenizer, StagesCutThePiecesOfTheStageBefore) {
  const PreTokenizer isolated({{.pattern = "[0-9]"}, {.pattern = R"(\s?\p{L}+|\s+(?!\S))"}});
  // In " 1" the space ends its piece, so that nothing follows it.
  EXPECT_THAT(pieces_of(isolated, "ab cd 1"), ElementsAre("ab", " cd", " ", "1"));
  const PreTokenizer removed({{.pattern = "-", .keep_matches = false}});
  EXPECT_THAT(pieces_of(removed, "-a--b"), ElementsAre("a", "b"));
  const PreTokenizer only_matches({{.pattern = "[a-z]+", .keep_gaps = false}});
  EXPECT_THAT(pieces_of(only_matches, "1ab2c"), ElementsAre("ab", "c"));
  const PreTokenizer prefixed({{.pattern = "-"}, {.prefix_space = true}});
  EXPECT_THAT(pieces_of(prefixed, "a- b"), ElementsAre(" a", " -", " b"));
  EXPECT_THAT(pieces_of(prefixed, ""), IsEmpty());
}

TEST(SplitPattern, WhiteSpaceIsUnicodes) {
  const PreTokenizer words({{.pattern = R"([^\s]+)", .keep_gaps = false}});
  EXPECT_THAT(pieces_of(words, "a\u00A0b\u3000c\u0085d\u2028e"), ElementsAre("a", "b", "c", "d", "e"));
  // The Mongolian vowel separator was white space before Unicode 6.3, the zero-width space never.
  EXPECT_THAT(pieces_of(words, "a\u180Eb\u200Bc"), ElementsAre("a\u180Eb\u200Bc"));
}

TEST(SplitPattern, RefusesWhatEnginesReadDifferently) {
  for (const char* pattern :
       {R"(\w+)", R"(\bx)", R"(\h)", "^a", "a$", "[a[bc]]", "[a-z&&[^b]]", "(?<=a)b", "(?<n>a)", "(*ACCEPT)a",
        R"(\p{Han}+)", R"(\pL)", R"((a)\1)", "a{2}+", "[]a]", "a\\", R"(\x{110000000})", R"(\u0041)"}) {
    EXPECT_THAT(message_of([&] { const SplitPattern made{pattern}; }), HasSubstr("is not supported"))
        << pattern;
  }
  EXPECT_THAT(message_of([] { const SplitPattern made{"(a"}; }), HasSubstr("pattern '(a'"));
  EXPECT_THAT(message_of([] { const SplitPattern made{"a*"}; }), HasSubstr("empty string"));
  EXPECT_EQ(message_of([] {
              const SplitPattern made{R"((?i:'s)|[^\r\n\p{L}]?\p{Lu}+|\x{4E00}|\.\[\$|a{1,3}?|\xE9)"};
            }),
            "");
}

TEST(SplitPattern, RunawayBacktrackingIsAnError) {
  const SplitPattern pattern("(?:a+)+b");
  SplitPattern::MatchBuffer buffer;
  EXPECT_THAT(message_of([&] { pattern.find(std::string(60, 'a') + "cb", 0, buffer); }), HasSubstr("limit"));
}

TEST(SplitPattern, EscapedLiteralsMatchThemselves) {
  const std::string literal = R"(a.b*c[d]{e}(f)|^$\+?-&)";
  const SplitPattern pattern(escape_pattern(literal));
  SplitPattern::MatchBuffer buffer;
  const auto match = pattern.find("x" + literal, 0, buffer);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 1U);
  EXPECT_EQ(match->end, literal.size() + 1);
}

std::string show(const std::vector<TextSegment>& segments) {
  std::string shown;
  for (const TextSegment& segment : segments) {
    shown += fmt::format("[{}{}]", segment.text, segment.id < 0 ? "" : fmt::format(":{}", segment.id));
  }
  return shown;
}

TEST(AddedTokens, LeftmostLongestWins) {
  const AddedTokenMatcher matcher({{.content = "<a>", .id = 1},
                                   {.content = "<a><b>", .id = 2},
                                   {.content = "b><c", .id = 3},
                                   {.content = "é", .id = 4}});
  EXPECT_EQ(show(matcher.split("x<a><b><c><a>y")), "[x][<a><b>:2][<c>][<a>:1][y]");
  EXPECT_EQ(show(matcher.split("<a><b")), "[<a>:1][<b]");
  EXPECT_EQ(show(matcher.split("éè")), "[é:4][è]");
  EXPECT_EQ(show(matcher.split("")), "");
  EXPECT_EQ(show(AddedTokenMatcher().split("<a>")), "[<a>]");
}

TEST(AddedTokens, StripAndWordFlags) {
  const AddedTokenMatcher strips(
      {{.content = "<l>", .id = 1, .lstrip = true}, {.content = "<r>", .id = 2, .rstrip = true}});
  EXPECT_EQ(show(strips.split("a \t\u3000<l> b <r> \n c")), "[a][ \t\u3000<l>:1][ b ][<r> \n :2][c]");
  // The white space belongs to the token before it already.
  EXPECT_EQ(show(strips.split("<r>  <l>")), "[<r>  :2][<l>:1]");
  const AddedTokenMatcher word({{.content = "ab", .id = 1, .single_word = true}});
  EXPECT_EQ(show(word.split("ab xab abx éab ab_ (ab)")), "[ab:1][ xab abx éab ab_ (][ab:1][)]");
}

}  // namespace
}  // namespace qeval::model
