// Byte-level BPE from a GGUF file's metadata: tokenizer.ggml.{tokens, merges, token_type, pre}.
#include <unordered_set>

#include "base/error.h"
#include "base/unicode.h"
#include "model/tokenizer/definition.h"
#include "model/tokenizer/gguf_vocabulary.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace qeval::model {

TokenizerDefinition read_bpe_gguf(const GgufFile& gguf, const std::string& name) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(gguf, name);
  TokenizerDefinition definition;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& text = vocabulary.tokens[i];
    const auto id = static_cast<int32_t>(i);
    const GgufTokenType type = vocabulary.types[i];
    // A merge may make any token, an added one too.
    if (vocabulary.meant[i] != id) continue;  // empty, or again behind: no text becomes it
    definition.vocabulary.push_back({text, id});
    if (type != GgufTokenType::kControl && type != GgufTokenType::kUserDefined) continue;
    if (text.empty() || text.size() > AddedTokenMatcher::kMaxContentBytes ||
        find_invalid_utf8(text) != std::string::npos) {
      fail("{}: tokenizer.ggml.tokens: added token {} '{}' is not well-formed UTF-8 of 1 to {} bytes", name,
           i, printable(text), AddedTokenMatcher::kMaxContentBytes);
    }
    definition.added_tokens.push_back(
        {.content = text, .id = id, .special = type == GgufTokenType::kControl});
  }
  const std::string kind = gguf.string("tokenizer.ggml.model");
  static const std::vector<std::string> kNoMerges;
  const std::vector<std::string>* stored = gguf.find_strings("tokenizer.ggml.merges");
  const bool may_lack_merges = gguf.string_or("tokenizer.ggml.pre", "") == "kimi-k2";
  const auto& merges =
      may_lack_merges && stored == nullptr ? kNoMerges : gguf.strings("tokenizer.ggml.merges");
  const MergeReader reader(definition.vocabulary, name + ": tokenizer.ggml.merges");
  definition.merges.reserve(merges.size());
  std::unordered_set<std::string_view> seen;  // of two that are the same the first counts, as in llama.cpp
  for (const std::string& merge : merges) {
    if (seen.insert(merge).second) definition.merges.push_back(reader.read(merge, seen.size() - 1));
  }

  if (kind != "gemma4" && gguf.find_value("tokenizer.ggml.pre") == nullptr) {
    fail(
        "{}: tokenizer.ggml.pre is missing, so the pattern that cuts text into words is unknown; convert the "
        "model "
        "again with a current converter",
        name);
  }
  if (gguf.boolean_or("tokenizer.ggml.add_space_prefix", false)) {
    fail("{}: tokenizer.ggml.add_space_prefix is true, which is not supported with byte-level BPE", name);
  }
  NamedPreTokenizer pre_tokenizer;
  try {
    pre_tokenizer = find_named_pre_tokenizer(kind == "gemma4" ? kind : gguf.string("tokenizer.ggml.pre"));
  } catch (const Error& error) {
    fail("{}: tokenizer.ggml.pre: {}", name, error.what());
  }
  definition.pre_tokenizer = std::move(pre_tokenizer.stages);
  definition.ignore_merges = pre_tokenizer.ignore_merges;
  if (pre_tokenizer.marks_spaces || pre_tokenizer.raw_text) {
    definition.byte_level = false;
    definition.byte_fallback = true;
  }
  if (pre_tokenizer.marks_spaces) {
    definition.spells_spaces = true;
    definition.whole_newlines = pre_tokenizer.always_adds_bos;  // Gemma 4 and its kin
    definition.normalizer.push_back(
        {.kind = NormalizerStep::Kind::kReplace, .pattern = " ", .text = std::string(kSpaceMark)});
  }
  definition.warnings = vocabulary.warnings;
  definition.bos_id = vocabulary.bos_id;
  definition.eos_id = vocabulary.eos_id;
  const bool adds_bos = pre_tokenizer.always_adds_bos ||
                        gguf.boolean_or("tokenizer.ggml.add_bos_token", pre_tokenizer.adds_bos_by_default);
  if (adds_bos && definition.bos_id) definition.leading_ids = {*definition.bos_id};
  return definition;
}

}  // namespace qeval::model
