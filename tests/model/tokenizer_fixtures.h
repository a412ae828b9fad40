#pragma once

// Tokenizers of a few tokens, written to a temporary folder.

#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::model {

using test::TemporaryFolder;

/// A tokenizer.json: the 256 bytes are the ids 0 … 255, each merge adds the next id.
inline nlohmann::json tiny_bpe(const std::vector<std::pair<std::string, std::string>>& merges,
                               const std::vector<nlohmann::json>& added_tokens = {}) {
  nlohmann::json vocab, pairs = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  for (const auto& [left, right] : merges) {
    const std::string a = byte_level_of_bytes(left), b = byte_level_of_bytes(right);
    pairs.push_back(a + " " + b);
    if (!vocab.contains(a + b)) vocab[a + b] = vocab.size();
  }
  return {{"version", "1.0"},
          {"added_tokens", added_tokens},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", pairs}}}};
}

/// Ids of single bytes, as tiny_bpe numbers them.
inline std::vector<int32_t> byte_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

/// A GGUF v3 file without tensors.
class GgufWriter {
 public:
  GgufWriter& string(std::string_view key, std::string_view value) {
    start(key, 8);
    add_string(metadata_, value);
    return *this;
  }
  GgufWriter& integer(std::string_view key, uint32_t value) {
    start(key, 4);
    add(metadata_, value);
    return *this;
  }
  GgufWriter& boolean(std::string_view key, bool value) {
    start(key, 7);
    metadata_ += static_cast<char>(value);
    return *this;
  }
  GgufWriter& strings(std::string_view key, const std::vector<std::string>& values) {
    start_array(key, 8, values.size());
    for (const std::string& value : values) add_string(metadata_, value);
    return *this;
  }
  GgufWriter& integers(std::string_view key, const std::vector<int32_t>& values) {
    start_array(key, 5, values.size());
    for (const int32_t value : values) add(metadata_, static_cast<uint32_t>(value));
    return *this;
  }
  GgufWriter& floats(std::string_view key, const std::vector<float>& values) {
    start_array(key, 6, values.size());
    for (const float value : values) add(metadata_, std::bit_cast<uint32_t>(value));
    return *this;
  }

  std::string bytes() const {
    std::string out = "GGUF";
    add(out, uint32_t{3});
    add(out, uint64_t{0});
    add(out, count_);
    return out + metadata_;
  }

 private:
  template <typename T>
  static void add(std::string& out, T value) {
    for (size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> (8 * i));
  }
  static void add_string(std::string& out, std::string_view value) {
    add(out, uint64_t{value.size()});
    out += value;
  }
  void start(std::string_view key, uint32_t type) {
    ++count_;
    add_string(metadata_, key);
    add(metadata_, type);
  }
  void start_array(std::string_view key, uint32_t element_type, size_t count) {
    start(key, 9);
    add(metadata_, element_type);
    add(metadata_, uint64_t{count});
  }

  std::string metadata_;
  uint64_t count_ = 0;
};

/// <unk> <s> </s>, 256 bytes (ids 3 … 258), then `words`, the earlier the more they are worth. "▁" spells a
/// space.
inline SentencePieceModel tiny_sentencepiece(const std::vector<std::string>& words) {
  SentencePieceModel model;
  model.pieces = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  for (int byte = 0; byte < 256; ++byte) model.pieces.push_back({fmt::format("<0x{:02X}>", byte), 0, 6});
  for (const std::string& word : words) {
    model.pieces.push_back({word, -static_cast<float>(model.pieces.size()), 1});
  }
  return model;
}

}  // namespace qeval::model
