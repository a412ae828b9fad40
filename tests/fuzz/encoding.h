#pragma once

#include <array>
#include <string_view>

#include "model/tokenizer/tokenizer.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

/// Encodes a few texts; every id must be one of the tokenizer's, and decode.
inline void encode_and_decode(const model::Tokenizer& tokenizer) {
  static constexpr std::array<std::string_view, 5> kTexts{
      "Hello, world", "  two\n\nlines \t 12345", "<s>[INST]</s> caf\xC3\xA9 cafe\xCC\x81 \xE2\x96\x81 ",
      "\xE5\x8D\x81 \xF0\x9F\x98\x80", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b"};
  for (const std::string_view text : kTexts) {
    accepted([&] {
      const std::vector<int32_t> ids = tokenizer.encode(text);
      for (const int32_t id : ids) {
        if (id < 0 || id >= tokenizer.vocab_size())
          defect("an id outside the vocabulary", std::to_string(id));
      }
      accepted([&] { (void)tokenizer.decode(ids); });
    });
  }
  for (const int32_t id : {-1, 0, 1, tokenizer.vocab_size() - 1, tokenizer.vocab_size()}) {
    accepted([&] { (void)tokenizer.decode({{id}}); });
  }
}

}  // namespace qeval::fuzz
