// Byte-level BPE from a GGUF file's metadata: tokenizer.ggml.{tokens, merges, token_type, pre}.
#include "base/error.h"
#include "base/unicode.h"
#include "model/tokenizer/bpe_tokenizer.h"
#include "model/tokenizer/gguf_vocabulary.h"

namespace qeval::model {

BpeDefinition read_bpe_gguf(const GgufFile& gguf, const std::string& name) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(gguf, name);
  BpeDefinition definition;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& text = vocabulary.tokens[i];
    const auto id = static_cast<int32_t>(i);
    switch (vocabulary.types[i]) {
      case GgufTokenType::kControl:
      case GgufTokenType::kUserDefined:
        if (text.empty() || text.size() > AddedTokenMatcher::kMaxContentBytes ||
            find_invalid_utf8(text) != std::string::npos) {
          fail("{}: tokenizer.ggml.tokens: added token {} '{}' is not well-formed UTF-8 of 1 to {} bytes",
               name, i, printable(text), AddedTokenMatcher::kMaxContentBytes);
        }
        definition.added_tokens.push_back(
            {.content = text, .id = id, .special = vocabulary.types[i] == GgufTokenType::kControl});
        break;
      case GgufTokenType::kNormal:
      case GgufTokenType::kUnknown:
      case GgufTokenType::kUnused:
      case GgufTokenType::kByte:
        definition.vocabulary.push_back({text, id});
        break;
    }
  }
  const std::vector<std::string>& merges = gguf.strings("tokenizer.ggml.merges");
  const MergeReader reader(definition.vocabulary, name + ": tokenizer.ggml.merges");
  definition.merges.reserve(merges.size());
  for (const std::string& merge : merges)
    definition.merges.push_back(reader.read(merge, definition.merges.size()));

  if (gguf.find_value("tokenizer.ggml.pre") == nullptr) {
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
    pre_tokenizer = find_named_pre_tokenizer(gguf.string("tokenizer.ggml.pre"));
  } catch (const Error& error) {
    fail("{}: tokenizer.ggml.pre: {}", name, error.what());
  }
  definition.pre_tokenizer = std::move(pre_tokenizer.stages);
  definition.ignore_merges = pre_tokenizer.ignore_merges;
  definition.bos_id = vocabulary.bos_id;
  definition.eos_id = vocabulary.eos_id;
  definition.adds_bos = gguf.boolean_or("tokenizer.ggml.add_bos_token", pre_tokenizer.adds_bos_by_default) &&
                        definition.bos_id.has_value();
  return definition;
}

}  // namespace qeval::model
