#include "model/tokenizer/gguf_vocabulary.h"

#include "base/error.h"
#include "model/tokenizer/bpe_tokenizer.h"

namespace qeval::model {
namespace {

std::optional<int32_t> read_id(const GgufFile& gguf, std::string_view key, size_t count,
                               const std::string& name) {
  if (gguf.find_value(key) == nullptr) return std::nullopt;
  const int64_t id = gguf.integer(key);
  if (id < 0 || static_cast<uint64_t>(id) >= count) {
    fail("{}: {} is {}, but there are {} tokens", name, key, id, count);
  }
  return static_cast<int32_t>(id);
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
  return {.tokens = tokens,
          .types = std::move(types),
          .bos_id = read_id(gguf, "tokenizer.ggml.bos_token_id", tokens.size(), name),
          .eos_id = read_id(gguf, "tokenizer.ggml.eos_token_id", tokens.size(), name)};
}

}  // namespace qeval::model
