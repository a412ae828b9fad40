#include "model/tokenizer/gguf_vocabulary.h"

#include <unordered_map>

#include "base/error.h"
#include "model/tokenizer/definition.h"

namespace qeval::model {
namespace {

/// An id that is out of range counts as none, with a warning: files of other tools have such, and most texts
/// need none of these tokens.
std::optional<int32_t> read_id(const GgufFile& gguf, std::string_view key, GgufVocabulary& vocabulary,
                               const std::string& name) {
  if (gguf.find_value(key) == nullptr) return std::nullopt;
  const int64_t id = gguf.integer(key);
  if (id >= 0 && static_cast<uint64_t>(id) < vocabulary.tokens.size()) return static_cast<int32_t>(id);
  vocabulary.warnings.push_back(fmt::format("{}: {} is {}, but there are {} tokens: taken as none", name, key,
                                            id, vocabulary.tokens.size()));
  return std::nullopt;
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufFile& gguf, const std::string& name) {
  const std::vector<std::string>& tokens = gguf.strings("tokenizer.ggml.tokens");
  if (tokens.empty() || tokens.size() > static_cast<size_t>(kMaxTokenId) + 1) {
    fail("{}: tokenizer.ggml.tokens has {} tokens; 1 to {} are accepted", name, tokens.size(),
         kMaxTokenId + 1);
  }
  std::vector<GgufTokenType> types(tokens.size(), GgufTokenType::kNormal);
  if (const std::vector<int64_t>* stored = gguf.find_integers("tokenizer.ggml.token_type")) {
    if (stored->size() != tokens.size()) {
      fail("{}: tokenizer.ggml.token_type has {} values for {} tokens", name, stored->size(), tokens.size());
    }
    for (size_t i = 0; i < types.size(); ++i) {
      const int64_t type = (*stored)[i];
      if (type < 1 || type > 6)
        fail("{}: tokenizer.ggml.token_type of token {} is {}; 1 to 6 are known", name, i, type);
      types[i] = static_cast<GgufTokenType>(type);
    }
  }
  if (gguf.boolean_or("tokenizer.ggml.add_eos_token", false)) {
    fail("{}: tokenizer.ggml.add_eos_token is true; accepted: false, since a score continues the text", name);
  }
  GgufVocabulary vocabulary{.tokens = tokens, .types = std::move(types)};
  vocabulary.bos_id = read_id(gguf, "tokenizer.ggml.bos_token_id", vocabulary, name);
  vocabulary.eos_id = read_id(gguf, "tokenizer.ggml.eos_token_id", vocabulary, name);
  vocabulary.unknown_id = read_id(gguf, "tokenizer.ggml.unknown_token_id", vocabulary, name);
  for (const std::string_view role : {"seperator", "padding", "cls", "mask", "eot", "eom"})
    read_id(gguf, fmt::format("tokenizer.ggml.{}_token_id", role), vocabulary, name);

  std::unordered_map<std::string_view, int32_t> last;
  for (size_t i = 0; i < tokens.size(); ++i) last[tokens[i]] = static_cast<int32_t>(i);
  for (const std::string& token : tokens) vocabulary.meant.push_back(token.empty() ? -1 : last.at(token));
  return vocabulary;
}

}  // namespace qeval::model
