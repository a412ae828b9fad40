#include "model/tokenizer/bpe_model.h"

#include <map>
#include <random>

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/tokenizer/added_tokens.h"
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
    const BpeModel model(tokens, merges, {});
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
  BpeModel(tokens, merges, {}).encode_word("abc", scratch, ids);
  EXPECT_THAT(ids, ElementsAre(3, 2));
  ids.clear();
  BpeModel(tokens, merges, {.ignore_merges = true}).encode_word("abc", scratch, ids);
  EXPECT_THAT(ids, ElementsAre(4));
}

TEST(BpeModel, LeavesOutBytesWithoutAToken) {
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  const BpeModel model({{"a", 0}, {"b", 1}, {"ab", 2}}, {{0, 1, 2}}, {});
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
  const BpeModel model({{"a", 0}, {"aa", 1}, {"aaaa", 2}}, {{0, 0, 1}, {1, 1, 2}}, {});
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  model.encode_word(std::string(1'000'003, 'a'), scratch, ids);
  ASSERT_EQ(ids.size(), 250'002U);
  EXPECT_THAT(std::vector(ids.end() - 3, ids.end()), ElementsAre(2, 1, 0));
}

std::vector<std::string> pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  PreTokenizer::Pieces pieces;
  pre_tokenizer.split(text, true, pieces);
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

/// What llama.cpp's own unicode_regex_split makes of one text for every name that it knows.
TEST(PreTokenizer, NamesMeanWhatLlamaCppMeansByThem) {
  struct Cut {
    std::string pieces;  // with "|" between
    std::vector<std::string_view> names;
  };
  const std::vector<Cut> cuts = {
      {"Hi  12 x½ I'LL ＡbC|\n\n| 漢字 かcafé́Été 1234567..!  |\n",
       {"gemma4", "granite-embed-multi-311m", "sarvam-moe"}},
      {"Hi  |12| x|½| I'LL ＡbC\n\n 漢字 かcafé́Été |1|234|567|..!  \n", {"superbpe"}},
      {"Hi|  |12| x|½| I|'LL| ＡbC|\n\n| |漢字| |か|café́Été| |123|456|7|..!|  \n",
       {"deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"}},
      {"Hi|  |12| x|½| I|'LL| ＡbC|\n\n| 漢字| かcafé|́Été| |123|456|7|..!|  \n", {"minicpm5"}},
      {"Hi|  |12| x|½| I|'|LL| ＡbC|\n|\n| |漢字| |か|caf|é|́|É|t|é| |1234567|..!|  |\n", {"deepseek-llm"}},
      {"Hi|  |12| |x½| |I'LL| |ＡbC|\n\n |漢字| |かcafé́Été| |1234567..!|  \n", {"whitespace"}},
      {"Hi|  |1|2| x|½| I|'LL| ＡbC|\n|\n| |漢字| |か|café́Été| |1|2|3|4|5|6|7|..!|  \n", {"spark2_5"}},
      {"Hi|  |1|2| x|½| I|'|LL| ＡbC|\n\n| 漢字| かcafé|́|Été| |1|2|3|4|5|6|7|..!|  \n",
       {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}},
      {"Hi|  |1|2| x|½| I|'|LL| ＡbC|\n|\n| |漢字| |か|café|́|Été| |1|2|3|4|5|6|7|..!|  |\n",
       {"deepseek-coder"}},
      {"Hi|  |1|2| x|½| I|'|LL| ＡbC|\n|\n| 漢字| かcafé|́|Été| |1|2|3|4|5|6|7|.|.|!|  |\n", {"chameleon"}},
      {"Hi| | 12| x|½| I|'|LL| ＡbC|\n\n| 漢字| かcafé|́|Été| 1234567|..!|  \n",
       {"mpt", "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0",
        "mellum", "modern-bert", "jina-v1-en", "jina-v2-code", "roberta-bpe", "olmo", "jais", "exaone4",
        "trillion", "granite-docling"}},
      {"Hi| | 12| x|½| I|'|LL| ＡbC|\n\n| 漢字| かcafé|́|Été| |123|456|7|..!|  \n", {"falcon"}},
      {"Hi| | 12| x½| I'LL| ＡbC|\n\n| 漢字| かcafé́Été| 1234567|..!  \n",
       {"poro-chat", "bloom", "gpt3-finnish"}},
      {"Hi| | |12| x|½| I'LL| ＡbC|\n\n| |漢字| かcafé|́Été| |123|456|7|..!|  \n", {"kimi-k2"}},
      {"Hi| | |12| x|½| I'LL| ＡbC|\n\n| 漢字| かcafé́Été| |1|234|567|..!|  \n", {"tiny_aya", "cohere2moe"}},
      {"Hi| | |12| x|½| I'LL| Ａb|C|\n\n| 漢字| かcafé|́Été| |123|456|7|..!|  \n",
       {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}},
      {"Hi| | |12| x|½| I'LL| Ａb|C|\n\n| 漢字| かcafé́Été| |123|456|7|..!|  \n", {"granite-embed-multi-97m"}},
      {"Hi| | |12| x|½| I|'LL| ＡbC|\n\n| |漢字| |か|café́Été| |1|234|567|..!|  \n", {"afmoe"}},
      {"Hi| | |12| x|½| I|'LL| ＡbC|\n\n| 漢字| かcafé|́Été| |123|456|7|..!|  \n",
       {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano", "jais-2", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5"}},
      {"Hi| | |12| x|½| I|'|LL| ＡbC|\n\n| 漢字| かcafé|́|Été| |123|456|7|..!|  \n", {"default"}},
      {"Hi| | |1|2| x|½| I'LL| ＡbC|\n\n| |漢字| |か|café́Été| |1|2|3|4|5|6|7|..!|  \n", {"youtu"}},
      {"Hi| | |1|2| x|½| I'LL| ＡbC|\n\n| 漢字| かcafé́Été| |1|2|3|4|5|6|7|..!  \n", {"viking"}},
      {"Hi| | |1|2| x|½| I|'LL| ＡbC|\n\n| 漢字 かcafé́Été| |1|2|3|4|5|6|7|..!|  \n", {"exaone-moe"}},
      {"Hi| | |1|2| x|½| I|'LL| ＡbC|\n\n| 漢字| かcafé|́Été| |1|2|3|4|5|6|7|..!|  \n",
       {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez", "bailingmoe", "bailingmoe2",
        "llada-moe", "seed-coder", "hunyuan", "ufakzeka", "grok-2", "solar-open"}},
      {"Hi| | |1|2| x|½| I|'LL| ＡbC|\n\n| 漢字| かcafé|́Été| |1|2|3|4|5|6|7|..!|  |\n", {"laguna"}},
      {"Hi| | |1|2| x|½| I|'LL| ＡbC|\n\n| 漢字| かcafé́Été| |1|2|3|4|5|6|7|..!|  \n", {"qwen35"}},
      {"Hi| | |1|2| x|½| I|'LL| Ａb|C|\n\n| 漢字| かcafé|́Été| |1|2|3|4|5|6|7|..!|  \n", {"tekken"}},
  };
  size_t names = 0;
  for (const Cut& cut : cuts) {
    std::string text = cut.pieces;
    std::erase(text, '|');
    for (const std::string_view name : cut.names) {
      ++names;
      const auto pieces = pieces_of(PreTokenizer(find_named_pre_tokenizer(name).stages), text);
      EXPECT_EQ(fmt::format("{}", fmt::join(pieces, "|")), cut.pieces) << name;
    }
  }
  EXPECT_EQ(names, 91U);
}

TEST(PreTokenizer, CutsKeepWhatTheirBehaviorSays) {
  using Behavior = PreTokenizerStage::Behavior;
  const auto cut = [](Behavior behavior, bool invert) {
    return pieces_of(PreTokenizer({{.pattern = "[0-9]", .behavior = behavior, .invert = invert}}), "a12b3");
  };
  EXPECT_THAT(cut(Behavior::kIsolated, false), ElementsAre("a", "1", "2", "b", "3"));
  EXPECT_THAT(cut(Behavior::kContiguous, false), ElementsAre("a", "12", "b", "3"));
  EXPECT_THAT(cut(Behavior::kMergedWithPrevious, false), ElementsAre("a1", "2", "b3"));
  EXPECT_THAT(cut(Behavior::kMergedWithNext, false), ElementsAre("a", "1", "2b", "3"));
  EXPECT_THAT(cut(Behavior::kMergedWithNext, true), ElementsAre("a1", "2", "b3"));
  EXPECT_THAT(cut(Behavior::kRemoved, true), ElementsAre("1", "2", "3"));
}

TEST(PreTokenizer, SpacesBecomeMarks) {
  using Kind = PreTokenizerStage::Kind;
  const PreTokenizer always({{.kind = Kind::kMarkSpaces}, {.kind = Kind::kPrefixMark}});
  EXPECT_THAT(pieces_of(always, "a b"), ElementsAre("▁a▁b"));
  EXPECT_THAT(pieces_of(always, " a"), ElementsAre("▁a"));
  const PreTokenizer once({{.kind = Kind::kMarkSpaces}, {.kind = Kind::kPrefixMarkOnce}});
  PreTokenizer::Pieces pieces;
  once.split("a", false, pieces);
  EXPECT_THAT(pieces.views, ElementsAre("a"));
  once.split("a", true, pieces);
  EXPECT_THAT(pieces.views, ElementsAre("▁a"));
}

TEST(PreTokenizer, NamesTheKnownNames) {
  EXPECT_THAT(
      message_of([] { find_named_pre_tokenizer("gpt-9"); }),
      testing::AllOf(HasSubstr("'gpt-9'"), HasSubstr("gpt-2"), HasSubstr("llama-bpe"), HasSubstr("smollm")));
}

TEST(PreTokenizer, StagesCutThePiecesOfTheStageBefore) {
  using Behavior = PreTokenizerStage::Behavior;
  const PreTokenizer isolated({{.pattern = "[0-9]"}, {.pattern = R"(\s?\p{L}+|\s+(?!\S))"}});
  // In " 1" the space ends its piece, so that nothing follows it.
  EXPECT_THAT(pieces_of(isolated, "ab cd 1"), ElementsAre("ab", " cd", " ", "1"));
  const PreTokenizer removed({{.pattern = "-", .behavior = Behavior::kRemoved}});
  EXPECT_THAT(pieces_of(removed, "-a--b"), ElementsAre("a", "b"));
  const PreTokenizer only_matches({{.pattern = "[a-z]+", .behavior = Behavior::kRemoved, .invert = true}});
  EXPECT_THAT(pieces_of(only_matches, "1ab2c"), ElementsAre("ab", "c"));
  const PreTokenizer prefixed({{.pattern = "-"}, {.kind = PreTokenizerStage::Kind::kPrefixSpace}});
  EXPECT_THAT(pieces_of(prefixed, "a- b"), ElementsAre(" a", " -", " b"));
  EXPECT_THAT(pieces_of(prefixed, ""), IsEmpty());
}

TEST(SplitPattern, WhiteSpaceIsUnicodes) {
  const PreTokenizer words(
      {{.pattern = R"([^\s]+)", .behavior = PreTokenizerStage::Behavior::kRemoved, .invert = true}});
  EXPECT_THAT(pieces_of(words, "a\u00A0b\u3000c\u0085d\u2028e"), ElementsAre("a", "b", "c", "d", "e"));
  // The Mongolian vowel separator was white space before Unicode 6.3, the zero-width space never.
  EXPECT_THAT(pieces_of(words, "a\u180Eb\u200Bc"), ElementsAre("a\u180Eb\u200Bc"));
}

TEST(SplitPattern, RefusesWhatEnginesReadDifferently) {
  for (const char* pattern : {R"(\w+)", R"([\b])", R"(\h)", "^a", "a$", "[a[bc]]", "[a-z&&[^b]]", "(?<=a)b",
                              "(?<n>a)", "(*ACCEPT)a", R"(\p{Han}+)", R"(\pL)", R"((a)\1)", "a{2}+", "[]a]",
                              "a\\", R"(\x{110000000})", R"(\u0041)"}) {
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
