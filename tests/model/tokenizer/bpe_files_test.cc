#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tokenizer_fixtures.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using Merges = std::vector<std::pair<std::string, std::string>>;

// Ids 256 "he", 257 "ll", 258 "hell", 259 "hello", 260 " w", 261 "12".
const Merges kMerges = {{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {" ", "w"}, {"1", "2"}};

std::unique_ptr<Tokenizer> load_bpe(const json& file) {
  const TemporaryFolder folder;
  return load_tokenizer(folder.write_json("tokenizer.json", file));
}

std::string bpe_refusal(const json& file) {
  return message_of([&] { load_bpe(file); });
}

json added(int id, const std::string& content, bool special = true) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", !special}};
}

TEST(BpeTokenizer, EncodesAndDecodes) {
  const auto tokenizer = load_bpe(tiny_bpe(kMerges, {added(300, "<end>")}));
  EXPECT_THAT(tokenizer->encode("hello w12"), ElementsAre(259, 260, 261));
  EXPECT_THAT(tokenizer->encode("hello<end>hell"), ElementsAre(259, 300, 258));
  EXPECT_TRUE(tokenizer->encode("").empty());
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->kind(), "byte-level BPE");
  for (const std::string& text : {std::string("hello w12"), std::string("naïve 世界 😁\n\t x"),
                                  std::string("a<end> b"), std::string("\0x", 2)}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  // One byte of a character is a token.
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{0xC3}), "\xC3");
  for (const int32_t id : {-1, 301, 299}) {
    EXPECT_THAT(message_of([&] { tokenizer->decode(std::vector{id}); }),
                HasSubstr(fmt::format("token id {} ", id)));
  }
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_FALSE(tokenizer->bos_id());
}

TEST(BpeTokenizer, InvalidUtf8IsAnErrorWithItsPlace) {
  const auto tokenizer = load_bpe(tiny_bpe(kMerges));
  EXPECT_THAT(message_of([&] { tokenizer->encode("abc\xFFz"); }), HasSubstr("byte 3"));
  EXPECT_THAT(message_of([&] { tokenizer->encode("ab\xC3"); }), HasSubstr("byte 2"));
}

TEST(BpeTokenizer, BothSpellingsOfMergesAreOneTokenizer) {
  json pairs = tiny_bpe(kMerges);
  for (json& merge : pairs["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  const auto a = load_bpe(tiny_bpe(kMerges)), b = load_bpe(pairs);
  EXPECT_EQ(a->hash(), b->hash());
  EXPECT_EQ(b->encode("hello w"), (std::vector<int32_t>{259, 260}));
}

TEST(BpeTokenizer, HashCoversWhatDecidesIds) {
  const std::string hash = load_bpe(tiny_bpe(kMerges))->hash();
  EXPECT_EQ(hash.size(), 64U);
  EXPECT_EQ(load_bpe(tiny_bpe(kMerges))->hash(), hash);
  json prefixed = tiny_bpe(kMerges), nfc = tiny_bpe(kMerges), ignoring = tiny_bpe(kMerges),
       renumbered = tiny_bpe(kMerges);
  prefixed["pre_tokenizer"]["add_prefix_space"] = true;
  nfc["normalizer"] = {{"type", "NFC"}};
  ignoring["model"]["ignore_merges"] = true;
  renumbered["model"]["vocab"]["hello"] = 400;
  Merges reversed(kMerges.rbegin(), kMerges.rend());
  std::swap(reversed[2], reversed[3]);
  for (const json& other : {prefixed, nfc, ignoring, renumbered, tiny_bpe(kMerges, {added(300, "<end>")}),
                            tiny_bpe({kMerges.begin(), kMerges.end() - 1})}) {
    EXPECT_NE(load_bpe(other)->hash(), hash);
  }
}

TEST(BpeTokenizer, NormalizerAndNormalizedTokens) {
  json file = tiny_bpe({{"\xC3", "\xA9"}}, {added(300, "\u0065\u0301!", false), added(301, "<\u00E9>")});
  const std::string decomposed = "e\u0301";
  EXPECT_EQ(load_bpe(file)->encode(decomposed), byte_ids(decomposed));
  for (const json& normalizer :
       {json{{"type", "NFC"}}, json{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}}}) {
    file["normalizer"] = normalizer;
    const auto tokenizer = load_bpe(file);
    EXPECT_THAT(tokenizer->encode(decomposed), ElementsAre(256));
    // A normalized token is sought in normalized text, whichever way it is spelt; the others in the raw text.
    EXPECT_THAT(tokenizer->encode("\u00E9!"), ElementsAre(300));
    EXPECT_THAT(tokenizer->encode("<\u00E9>"), ElementsAre(301));
    EXPECT_THAT(tokenizer->encode("<" + decomposed + ">"), ElementsAre('<', 256, '>'));
  }
}

TEST(BpeTokenizer, PreTokenizerSteps) {
  json file = tiny_bpe(kMerges);
  const json bytes_only = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  file["pre_tokenizer"] = bytes_only;
  EXPECT_THAT(load_bpe(file)->encode("hello w"), ElementsAre(259, 260));
  file["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(load_bpe(file)->encode("w"), ElementsAre(260));
  EXPECT_THAT(load_bpe(file)->encode(" w"), ElementsAre(260));

  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {digits, bytes_only}}};
  EXPECT_THAT(load_bpe(file)->encode("12"), ElementsAre('1', '2'));
  file["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  EXPECT_THAT(load_bpe(file)->encode("12"), ElementsAre(261));

  json split = {
      {"type", "Split"}, {"pattern", {{"Regex", "el|lo"}}}, {"behavior", "Isolated"}, {"invert", false}};
  file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, bytes_only}}};
  EXPECT_THAT(load_bpe(file)->encode("hello"), ElementsAre('h', 'e', 'l', 'l', 'o'));
  json& step = file["pre_tokenizer"]["pretokenizers"][0];
  step["pattern"] = {{"String", "w"}};
  step["behavior"] = "Removed";
  EXPECT_THAT(load_bpe(file)->encode("hellowhe"), ElementsAre(259, 256));
  step["invert"] = true;
  EXPECT_THAT(load_bpe(file)->encode("hellowhe"), ElementsAre('w'));
}

TEST(BpeTokenizer, RefusesByNameWhatItDoesNotKnow) {
  const auto with = [](const std::string& pointer, const json& value) {
    json file = tiny_bpe(kMerges);
    file[json::json_pointer(pointer)] = value;
    return bpe_refusal(file);
  };
  EXPECT_THAT(with("/normalizer", {{"type", "Lowercase"}}), AllOf(HasSubstr("Lowercase"), HasSubstr("NFC")));
  EXPECT_THAT(with("/normalizer", {{"type", "NF\nC"}}), HasSubstr("'NF\\x0aC'"));  // fit for a terminal
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "UnicodeScripts"}}),
              AllOf(HasSubstr("UnicodeScripts"), HasSubstr("ByteLevel")));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}}), HasSubstr("'_'"));
  EXPECT_THAT(with("/post_processor", {{"type", "BertProcessing"}}), HasSubstr("BertProcessing"));
  EXPECT_THAT(with("/model/type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_EQ(with("/model/unk_token", "<unk>"), "");  // no byte is missing, so nothing is unknown
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_EQ(with("/model/dropout", 0.0), "");
  EXPECT_EQ(with("/model/end_of_word_suffix", ""), "");
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Merged"}};
  EXPECT_THAT(with("/pre_tokenizer", split), HasSubstr("'Merged'"));
  json nested = {{"type", "NFC"}};
  for (int i = 0; i < 12; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  EXPECT_THAT(with("/normalizer", nested), HasSubstr("nested"));
}

TEST(BpeTokenizer, MalformedFilesAreOneLineErrors) {
  const auto with = [](const std::string& pointer, const json& value) {
    json file = tiny_bpe(kMerges);
    file[json::json_pointer(pointer)] = value;
    return bpe_refusal(file);
  };
  EXPECT_THAT(with("/model/merges", {"h"}), HasSubstr("merge 0 'h'"));
  EXPECT_THAT(with("/model/merges", {"h e", "h \u4E16"}), AllOf(HasSubstr("merge 1"), HasSubstr("\u4E16")));
  EXPECT_THAT(with("/model/merges", {"h x"}), AllOf(HasSubstr("merge 0"), HasSubstr("'hx'")));
  EXPECT_THAT(with("/model/merges", json::array({{"h", 1}, "h e"})), HasSubstr("merge 0"));
  EXPECT_THAT(with("/model/merges", 3), HasSubstr("merges"));
  EXPECT_THAT(with("/model/vocab", json::array()), HasSubstr("vocab"));
  EXPECT_THAT(with("/model/vocab/hello", 0), HasSubstr("share the id 0"));
  for (const json& id : {json(-1), json(1.5), json(1ULL << 40), json("1")}) {
    EXPECT_THAT(with("/model/vocab/hello", id), HasSubstr("token id")) << id;
  }
  EXPECT_THAT(with("/added_tokens", {{{"content", "x"}}}), HasSubstr("'id'"));
  EXPECT_THAT(with("/added_tokens", json::array({added(5, "<x>")})), HasSubstr("<x>"));
  EXPECT_THAT(with("/added_tokens", json::array({added(300, "")})), HasSubstr("0 bytes"));
  EXPECT_THAT(with("/added_tokens", json::array({added(300, std::string(2000, 'x'))})),
              HasSubstr("2000 bytes"));
  EXPECT_THAT(with("/added_tokens", json::array({added(300, "hello")})), HasSubstr("hello"));
  EXPECT_THAT(with("/model", nullptr), HasSubstr("model is missing"));

  const TemporaryFolder folder;
  const std::string whole = tiny_bpe({{"h", "e"}}).dump();
  for (size_t length = 0; length < whole.size(); length += 37) {
    const auto file = folder.write("tokenizer.json", whole.substr(0, length));
    const std::string message = message_of([&] { load_tokenizer(file); });
    EXPECT_THAT(message, HasSubstr("tokenizer.json")) << length;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(BpeTokenizer, FolderNamesBosAndEos) {
  const TemporaryFolder folder;
  json file = tiny_bpe(kMerges, {added(300, "<s>"), added(301, "</s>")});
  folder.write_json("tokenizer.json", file);
  EXPECT_FALSE(load_tokenizer(folder.path())->bos_id());

  folder.write_json("special_tokens_map.json",
                    json{{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}});
  auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), 300);
  EXPECT_EQ(tokenizer->eos_id(), 301);
  EXPECT_FALSE(tokenizer->adds_bos());

  // Beside an added_tokens_decoder that file does not count.
  folder.write_json("tokenizer_config.json", json{{"added_tokens_decoder", json::object()},
                                                  {"bos_token", nullptr},
                                                  {"eos_token", {{"content", "<s>"}}}});
  tokenizer = load_tokenizer(folder.path());
  EXPECT_FALSE(tokenizer->bos_id());
  EXPECT_EQ(tokenizer->eos_id(), 300);

  folder.write_json("special_tokens_map.json", json::object());
  // Whatever tokenizer_config.json says, the post-processor of tokenizer.json decides, as in transformers 5.
  folder.write_json("tokenizer_config.json", json{{"bos_token", "<s>"}, {"add_bos_token", true}});
  EXPECT_FALSE(load_tokenizer(folder.path())->adds_bos());
  file["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {{{"Sequence", {{"id", "A"}}}}}}};
  folder.write_json("tokenizer.json", file);
  EXPECT_FALSE(load_tokenizer(folder.path())->adds_bos());
  const json special = {{"SpecialToken", {{"id", "<s>"}}}};
  file["post_processor"]["single"] = {special, {{"Sequence", {{"id", "A"}}}}};
  EXPECT_EQ(load_bpe(file)->bos_id(), 300);
  EXPECT_TRUE(load_bpe(file)->adds_bos());
  file["post_processor"]["single"] = {{{"Sequence", {{"id", "A"}}}}, special};
  EXPECT_THAT(bpe_refusal(file), HasSubstr("after the text"));

  // Two tokens before the text, as GLM has.
  file["post_processor"]["single"] = {
      special, {{"SpecialToken", {{"id", "</s>"}}}}, {{"Sequence", {{"id", "A"}}}}};
  EXPECT_THAT(load_bpe(file)->leading_ids(), ElementsAre(300, 301));

  // A special token that nothing has takes the next id.
  folder.write_json("tokenizer_config.json", json{{"bos_token", "<nowhere>"}});
  EXPECT_EQ(load_tokenizer(folder.path())->bos_id(), 302);
  EXPECT_THAT(load_tokenizer(folder.path())->encode("<nowhere>"), ElementsAre(302));
  folder.write_json("tokenizer_config.json", json{{"bos_token", 3}});
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path()); }), HasSubstr("bos_token"));
}

TEST(BpeTokenizer, FolderAddsTokens) {
  const TemporaryFolder folder;
  folder.write_json("tokenizer.json", tiny_bpe(kMerges, {added(300, "<s>")}));
  folder.write_json(
      "tokenizer_config.json",
      json{{"added_tokens_decoder", {{"300", {{"content", "<s>"}}}, {"301", {{"content", "<new>"}}}}}});
  EXPECT_THAT(load_tokenizer(folder.path())->encode("<s><new>"), ElementsAre(300, 301));
  // As in transformers 5: whatever id is written, the next free one counts, and added_tokens.json does only
  // where there is no added_tokens_decoder.
  folder.write_json("added_tokens.json", json{{"<old>", 400}});
  EXPECT_THAT(load_tokenizer(folder.path())->encode("<new><old>"), ElementsAre(301, '<', 'o', 'l', 'd', '>'));
  folder.write_json("tokenizer_config.json", json::object());
  EXPECT_THAT(load_tokenizer(folder.path())->encode("<s><old>"), ElementsAre(300, 301));
  folder.write_json("added_tokens.json", json{{"<old>", -3}});
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path()); }), HasSubstr("added_tokens.json"));
}

TEST(BpeTokenizer, ThreadsShareOne) {
  const auto tokenizer = load_bpe(tiny_bpe(kMerges, {added(300, "<end>")}));
  const std::string text = "hello w12 <end> hell 世界";
  const auto expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) wrong += tokenizer->encode(text) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

/// The vocabulary of tiny_bpe(kMerges), then "<ctrl>" 262 (control) and "  " 263 (user-defined).
GgufWriter tiny_bpe_gguf(const std::string& pre) {
  std::vector<std::string> tokens, merges;
  const json model = tiny_bpe(kMerges)["model"];
  tokens.resize(model["vocab"].size());
  for (const auto& [token, id] : model["vocab"].items()) tokens[id.get<size_t>()] = token;
  for (const json& merge : model["merges"]) merges.push_back(merge);
  std::vector<int32_t> types(tokens.size(), 1);
  tokens.insert(tokens.end(), {"<ctrl>", "  "});
  types.insert(types.end(), {3, 4});
  GgufWriter writer;
  writer.string("general.architecture", "llama").string("tokenizer.ggml.model", "gpt2");
  writer.strings("tokenizer.ggml.tokens", tokens).integers("tokenizer.ggml.token_type", types);
  writer.strings("tokenizer.ggml.merges", merges);
  if (!pre.empty()) writer.string("tokenizer.ggml.pre", pre);
  return writer;
}

TEST(BpeTokenizer, FromGguf) {
  const TemporaryFolder folder;
  const auto open = [&](const GgufWriter& writer) {
    return load_tokenizer(folder.write("vocab.gguf", writer.bytes()));
  };
  const auto tokenizer = open(tiny_bpe_gguf("gpt-2").integer("tokenizer.ggml.bos_token_id", 262));
  EXPECT_THAT(tokenizer->encode("hello w12<ctrl>  h"), ElementsAre(259, 260, 261, 262, 263, 'h'));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello w12<ctrl>  h")), "hello w12<ctrl>  h");
  EXPECT_EQ(tokenizer->bos_id(), 262);
  EXPECT_FALSE(tokenizer->eos_id());
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->vocab_size(), 264);
  EXPECT_THAT(open(tiny_bpe_gguf("smollm"))->encode("12"), ElementsAre('1', '2'));
  EXPECT_TRUE(open(tiny_bpe_gguf("llama-bpe").integer("tokenizer.ggml.bos_token_id", 262))->adds_bos());
  EXPECT_TRUE(open(tiny_bpe_gguf("gpt-2")
                       .integer("tokenizer.ggml.bos_token_id", 262)
                       .boolean("tokenizer.ggml.add_bos_token", true))
                  ->adds_bos());
  EXPECT_FALSE(open(tiny_bpe_gguf("llama-bpe")
                        .integer("tokenizer.ggml.bos_token_id", 262)
                        .boolean("tokenizer.ggml.add_bos_token", false))
                   ->adds_bos());
}

// Gemma 4 and Sarvam have byte pairs of characters, with "▁" for a space and bytes for what has no token.
TEST(BpeTokenizer, FromGgufWithCharacters) {
  const TemporaryFolder folder;
  const auto open = [&](const char* kind, const char* pre) {
    GgufWriter writer;
    writer.string("tokenizer.ggml.model", kind).string("tokenizer.ggml.pre", pre);
    writer.strings("tokenizer.ggml.tokens",
                   {"<bos>", "▁", "a", "b", "▁a", "<0xC3>", "<0xA9>", "<0x0A>", "\n\n"});
    writer.integers("tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 6, 6, 6, 1});
    writer.strings("tokenizer.ggml.merges", {"▁ a"}).integer("tokenizer.ggml.bos_token_id", 0);
    return load_tokenizer(folder.write("vocab.gguf", writer.bytes()));
  };
  const auto gemma = open("gemma4", "gemma4");
  EXPECT_THAT(gemma->encode("ab aé\n\nb\n"), ElementsAre(2, 3, 4, 5, 6, 8, 3, 7));
  EXPECT_THAT(gemma->leading_ids(), ElementsAre(0));
  EXPECT_EQ(gemma->decode(gemma->encode("ab aé\n")), "ab aé\n");
  const auto sarvam = open("gpt2", "sarvam-moe");
  EXPECT_THAT(sarvam->encode(" a"), ElementsAre(4));
  EXPECT_THAT(sarvam->encode("\n\n"), ElementsAre(7, 7));
  EXPECT_FALSE(sarvam->adds_bos());
}

TEST(BpeTokenizer, MalformedGgufIsRefused) {
  const TemporaryFolder folder;
  const auto refused = [&](const GgufWriter& writer) {
    const auto file = folder.write("vocab.gguf", writer.bytes());
    return message_of([&] { load_tokenizer(file); });
  };
  EXPECT_THAT(refused(tiny_bpe_gguf("gpt-9")), AllOf(HasSubstr("gpt-9"), HasSubstr("qwen2")));
  EXPECT_THAT(refused(tiny_bpe_gguf("")), HasSubstr("tokenizer.ggml.pre is missing"));
  EXPECT_EQ(refused(tiny_bpe_gguf("gpt-2").integer("tokenizer.ggml.bos_token_id", 264)), "");
  const auto beyond = load_tokenizer(folder.path() / "vocab.gguf");
  EXPECT_FALSE(beyond->bos_id());
  EXPECT_THAT(beyond->warnings(), ElementsAre(HasSubstr("bos_token_id is 264")));
  EXPECT_THAT(refused(tiny_bpe_gguf("gpt-2").boolean("tokenizer.ggml.add_space_prefix", true)),
              HasSubstr("add_space_prefix"));
  EXPECT_THAT(refused(GgufWriter().string("tokenizer.ggml.model", "bert")), HasSubstr("'bert'"));
  EXPECT_THAT(refused(GgufWriter().string("general.architecture", "llama")), HasSubstr("no tokenizer"));
  const auto with = [&](const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                        const std::vector<std::string>& merges) {
    return refused(GgufWriter()
                       .string("tokenizer.ggml.model", "gpt2")
                       .string("tokenizer.ggml.pre", "gpt-2")
                       .strings("tokenizer.ggml.tokens", tokens)
                       .integers("tokenizer.ggml.token_type", types)
                       .strings("tokenizer.ggml.merges", merges));
  };
  EXPECT_EQ(with({"a", "b", "ab"}, {1, 1, 1}, {"a b"}), "");
  EXPECT_THAT(with({"a", "b"}, {1}, {}), HasSubstr("1 values for 2 tokens"));
  EXPECT_THAT(with({"a", "b"}, {1, 9}, {}), HasSubstr("token 1 is 9"));
  EXPECT_THAT(with({"a", "b"}, {1, 1}, {"a b"}), HasSubstr("'ab'"));
  // Of two tokens with one text the last is meant; an empty one never.
  EXPECT_EQ(with({"a", "a", ""}, {1, 1, 1}, {}), "");
  EXPECT_THAT(load_tokenizer(folder.path() / "vocab.gguf")->encode("a"), ElementsAre(1));
  EXPECT_THAT(with({"a", "\x80"}, {1, 3}, {}), HasSubstr("UTF-8"));
  EXPECT_THAT(with({}, {}, {}), HasSubstr("0 tokens"));
}

TEST(LoadTokenizer, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path()); }),
              HasSubstr("tokenizer.json, tokenizer.model or tokenizer.gguf"));
  EXPECT_THAT(message_of([&] { load_tokenizer(folder.path() / "nothing"); }), HasSubstr("no such file"));
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
  for (const char* name : {"tokenizer.model", "tokenizer.json", "vocab.gguf"}) {
    const auto file = folder.write(name, pointer);
    EXPECT_THAT(message_of([&] { load_tokenizer(file); }), AllOf(HasSubstr(name), HasSubstr("git lfs pull")));
  }
  const auto text = folder.write("notes.txt", "hello");
  EXPECT_THAT(message_of([&] { load_tokenizer(text); }), HasSubstr("not a tokenizer"));
}

}  // namespace
}  // namespace qeval::model
