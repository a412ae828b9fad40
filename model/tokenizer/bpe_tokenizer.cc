#include "model/tokenizer/bpe_tokenizer.h"

#include <unordered_set>

#include "base/error.h"
#include "base/hash.h"
#include "base/unicode.h"
#include "model/tokenizer/byte_level.h"

namespace qeval::model {
namespace {

/// Everything that decides ids, with lengths written out so that no two definitions share a spelling.
std::string definition_hash(const BpeDefinition& definition) {
  std::string text = "byte-level BPE";
  const auto add_number = [&](int64_t value) { fmt::format_to(std::back_inserter(text), " {}", value); };
  const auto add_string = [&](std::string_view value) {
    add_number(static_cast<int64_t>(value.size()));
    (text += ':') += value;
  };
  for (const auto& token : definition.vocabulary) {
    add_string(token.text);
    add_number(token.id);
  }
  text += "\nmerges";
  for (const BpeMerge& merge : definition.merges) {
    add_number(merge.left);
    add_number(merge.right);
  }
  text += "\nadded";
  for (const AddedToken& token : definition.added_tokens) {
    add_string(token.content);
    for (const int64_t field : {int64_t{token.id}, int64_t{token.normalized}, int64_t{token.lstrip},
                                int64_t{token.rstrip}, int64_t{token.single_word}}) {
      add_number(field);
    }
  }
  text += "\nstages";
  for (const PreTokenizerStage& stage : definition.pre_tokenizer) {
    add_string(stage.pattern);
    for (const bool flag : {stage.keep_matches, stage.keep_gaps, stage.prefix_space}) add_number(flag);
  }
  text += "\nrest";
  for (const int64_t field :
       {int64_t{definition.nfc}, int64_t{definition.ignore_merges}, int64_t{definition.bos_id.value_or(-1)},
        int64_t{definition.eos_id.value_or(-1)}, int64_t{definition.adds_bos}}) {
    add_number(field);
  }
  return sha256_hex(text);
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeDefinition definition, const std::string& name)
      : nfc_(definition.nfc),
        pre_tokenizer_(definition.pre_tokenizer),
        model_(text_tokens(definition), definition.merges, definition.ignore_merges) {
    bos_id_ = definition.bos_id;
    eos_id_ = definition.eos_id;
    adds_bos_ = definition.adds_bos;
    hash_ = definition_hash(definition);
    store_bytes(definition, name);
    std::vector<AddedToken> in_raw_text, in_normalized_text;
    for (AddedToken& token : definition.added_tokens) {
      if (token.normalized && nfc_) token.content = normalize_nfc(token.content);
      (token.normalized ? in_normalized_text : in_raw_text).push_back(std::move(token));
    }
    in_raw_text_ = AddedTokenMatcher(std::move(in_raw_text));
    in_normalized_text_ = AddedTokenMatcher(std::move(in_normalized_text));
  }

  std::vector<int32_t> encode(std::string_view text) const override {
    if (text.size() > kMaxTextBytes)
      fail("a text of {} bytes cannot be tokenized; {} are", text.size(), kMaxTextBytes);
    if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
      fail("text is not well-formed UTF-8 at byte {}", bad);
    }
    std::vector<int32_t> ids;
    PreTokenizer::Pieces pieces;
    BpeModel::Scratch scratch;
    std::string normalized;
    for (const TextSegment& raw : in_raw_text_.split(text)) {
      if (raw.id >= 0) {
        ids.push_back(raw.id);
        continue;
      }
      std::string_view segment = raw.text;
      if (nfc_ && !is_ascii(segment)) segment = normalized = normalize_nfc(segment);
      for (const TextSegment& part : in_normalized_text_.split(segment)) {
        if (part.id >= 0) {
          ids.push_back(part.id);
          continue;
        }
        pre_tokenizer_.split(part.text, pieces);
        for (const std::string_view word : pieces.views) model_.encode_word(word, scratch, ids);
      }
    }
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size() || bytes_[static_cast<size_t>(id)].empty()) {
        fail("token id {} is not in the vocabulary of {} ids", id, vocab_size());
      }
      text += bytes_[static_cast<size_t>(id)];
    }
    return text;
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  std::string_view kind() const override { return "byte-level BPE"; }

 private:
  static constexpr size_t kMaxTextBytes = (size_t{1} << 31) - 2;

  static bool is_ascii(std::string_view text) {
    unsigned char all = 0;
    for (const char c : text) all |= static_cast<unsigned char>(c);
    return all < 0x80;
  }

  /// The tokens that the words of a text can become. Added tokens are found before words are cut and, as
  /// everywhere, are also in the vocabulary of a tokenizer.json: a word that happens to spell one becomes it.
  static std::vector<BpeToken> text_tokens(const BpeDefinition& definition) {
    std::vector<BpeToken> tokens;
    tokens.reserve(definition.vocabulary.size());
    for (const auto& token : definition.vocabulary) {
      if (auto bytes = bytes_of_byte_level(token.text); bytes && !bytes->empty()) {
        tokens.push_back({std::move(*bytes), token.id});
      }
    }
    return tokens;
  }

  void store_bytes(const BpeDefinition& definition, const std::string& name) {
    const auto slot = [&](int32_t id) -> std::string& {
      if (static_cast<size_t>(id) >= bytes_.size()) bytes_.resize(static_cast<size_t>(id) + 1);
      return bytes_[static_cast<size_t>(id)];
    };
    std::unordered_map<std::string_view, int32_t> id_of_text;
    for (const auto& token : definition.vocabulary) {
      std::string& bytes = slot(token.id);
      if (!bytes.empty()) {
        fail("{}: tokens '{}' and '{}' share the id {}", name, printable(bytes), printable(token.text),
             token.id);
      }
      if (!id_of_text.emplace(token.text, token.id).second) {
        fail("{}: token '{}' is in the vocabulary twice", name, printable(token.text));
      }
      bytes = bytes_of_byte_level(token.text).value_or(token.text);
    }
    for (const AddedToken& token : definition.added_tokens) {
      const auto known = id_of_text.find(token.content);
      std::string& bytes = slot(token.id);
      if (known != id_of_text.end() ? known->second != token.id : !bytes.empty() && bytes != token.content) {
        fail("{}: added token '{}' has the id {}, the vocabulary says otherwise", name,
             printable(token.content), token.id);
      }
      bytes = token.content;
    }
  }

  bool nfc_;
  AddedTokenMatcher in_raw_text_, in_normalized_text_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  std::vector<std::string> bytes_;  // of each id; empty where no token has it
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeDefinition definition, const std::string& name) {
  return std::make_unique<BpeTokenizer>(std::move(definition), name);
}

MergeReader::MergeReader(const std::vector<BpeDefinition::Token>& vocabulary, std::string name)
    : name_(std::move(name)) {
  ids_.reserve(vocabulary.size());
  for (const auto& token : vocabulary) ids_.emplace(token.text, token.id);
}

int32_t MergeReader::find(std::string_view token, size_t rank) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) fail("{}: merge {}: '{}' is not in the vocabulary", name_, rank, printable(token));
  return found->second;
}

BpeMerge MergeReader::read(std::string_view left, std::string_view right, size_t rank) const {
  return {find(left, rank), find(right, rank), find(std::string(left).append(right), rank)};
}

BpeMerge MergeReader::read(std::string_view pair, size_t rank) const {
  const size_t space = pair.find(' ');
  if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos) {
    fail("{}: merge {} '{}' is not two tokens with a space between", name_, rank, printable(pair));
  }
  return read(pair.substr(0, space), pair.substr(space + 1), rank);
}

}  // namespace qeval::model
