#include <charconv>
#include <variant>

#include "base/error.h"
#include "base/hash.h"
#include "base/unicode.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/definition.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/unigram_model.h"

namespace qeval::model {
namespace {

/// Everything that decides ids, with lengths written out so that no two definitions share a spelling.
std::string definition_hash(const TokenizerDefinition& definition) {
  std::string text = definition.unigram ? "Unigram" : definition.byte_level ? "byte-level BPE" : "BPE";
  const auto add_number = [&](int64_t value) { fmt::format_to(std::back_inserter(text), " {}", value); };
  const auto add_string = [&](std::string_view value) {
    add_number(static_cast<int64_t>(value.size()));
    (text += ':') += value;
  };
  for (const auto& token : definition.vocabulary) {
    add_string(token.text);
    add_number(token.id);
    if (definition.unigram) fmt::format_to(std::back_inserter(text), " {}", token.score);
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
  text += "\nnormalizer";
  for (const NormalizerStep& step : definition.normalizer) {
    add_number(static_cast<int64_t>(step.kind));
    add_string(step.pattern);
    add_string(step.text);
  }
  text += "\nstages";
  for (const PreTokenizerStage& stage : definition.pre_tokenizer) {
    add_number(static_cast<int64_t>(stage.kind));
    add_string(stage.pattern);
    add_number(static_cast<int64_t>(stage.behavior));
    add_number(stage.invert);
  }
  text += "\nrest";
  for (const int64_t field :
       {int64_t{definition.ignore_merges}, int64_t{definition.whole_newlines},
        int64_t{definition.byte_fallback}, int64_t{definition.fuse_unknown},
        int64_t{definition.unknown_id.value_or(-1)}, int64_t{definition.bos_id.value_or(-1)},
        int64_t{definition.eos_id.value_or(-1)}}) {
    add_number(field);
  }
  for (const int32_t id : definition.leading_ids) add_number(id);
  return sha256_hex(text);
}

/// The ids of the tokens <0x00> … <0xFF>, -1 where there is none.
std::array<int32_t, 256> find_byte_tokens(const TokenizerDefinition& definition) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& token : definition.vocabulary) ids.emplace(token.text, token.id);
  std::array<int32_t, 256> found{};
  for (size_t byte = 0; byte < found.size(); ++byte) {
    const auto token = ids.find(fmt::format("<0x{:02X}>", byte));
    found[byte] = token == ids.end() ? -1 : token->second;
  }
  return found;
}

using WordModel = std::variant<BpeModel, UnigramModel>;

WordModel make_word_model(const TokenizerDefinition& definition) {
  std::optional<std::array<int32_t, 256>> byte_tokens;
  if (definition.byte_fallback) byte_tokens = find_byte_tokens(definition);
  if (definition.unigram) return UnigramModel(definition.vocabulary, definition.unknown_id, byte_tokens);
  // Added tokens are found before words are cut and, as everywhere, are also in the vocabulary of a
  // tokenizer.json: a word that happens to spell one becomes it.
  std::vector<BpeToken> tokens;
  tokens.reserve(definition.vocabulary.size());
  for (const auto& token : definition.vocabulary) {
    auto bytes = definition.byte_level ? bytes_of_byte_level(token.text) : token.text;
    if (bytes && !bytes->empty()) tokens.push_back({std::move(*bytes), token.id});
  }
  return BpeModel(std::move(tokens), definition.merges,
                  {.ignore_merges = definition.ignore_merges,
                   .whole_newlines = definition.whole_newlines,
                   .characters = !definition.byte_level,
                   .byte_tokens = byte_tokens,
                   .unknown_id = definition.unknown_id,
                   .fuse_unknown = definition.fuse_unknown});
}

class PipelineTokenizer final : public Tokenizer {
 public:
  PipelineTokenizer(TokenizerDefinition definition, const std::string& name)
      : drops_leading_space_(definition.drops_leading_space),
        kind_(definition.unigram      ? "Unigram"
              : definition.byte_level ? "byte-level BPE"
                                      : "BPE"),
        normalizer_(definition.normalizer),
        pre_tokenizer_(definition.pre_tokenizer),
        model_(make_word_model(definition)) {
    bos_id_ = definition.bos_id;
    eos_id_ = definition.eos_id;
    leading_ids_ = definition.leading_ids;
    warnings_ = definition.warnings;
    hash_ = definition_hash(definition);
    store_bytes(definition, name);
    std::vector<AddedToken> in_raw_text, in_normalized_text;
    for (AddedToken& token : definition.added_tokens) {
      if (token.special) special_ids_.insert(token.id);
      if (token.normalized) token.content = normalizer_.apply(token.content);
      if (token.content.empty()) continue;
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
    BpeModel::Scratch bpe_scratch;
    UnigramModel::Scratch unigram_scratch;
    std::string normalized;
    for (const TextSegment& raw : in_raw_text_.split(text)) {
      if (raw.id >= 0) {
        ids.push_back(raw.id);
        continue;
      }
      std::string_view segment = raw.text;
      bool keeps_start = true;
      if (!normalizer_.empty()) segment = normalized = normalizer_.apply(segment, &keeps_start);
      for (const TextSegment& part : in_normalized_text_.split(segment)) {
        if (part.id >= 0) {
          ids.push_back(part.id);
          continue;
        }
        const bool begins =
            keeps_start && raw.text.data() == text.data() && part.text.data() == segment.data();
        pre_tokenizer_.split(part.text, begins, pieces);
        for (const std::string_view word : pieces.views) {
          if (const auto* bpe = std::get_if<BpeModel>(&model_)) {
            bpe->encode_word(word, bpe_scratch, ids);
          } else {
            std::get<UnigramModel>(model_).encode_word(word, unigram_scratch, ids);
          }
        }
      }
    }
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    bool at_start = drops_leading_space_;
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size() || surfaces_[static_cast<size_t>(id)].bytes.empty()) {
        fail("token id {} is not in the vocabulary of {} ids", id, vocab_size());
      }
      const Surface& surface = surfaces_[static_cast<size_t>(id)];
      std::string_view bytes = surface.bytes;
      if (at_start && !surface.added && bytes.starts_with(' ')) bytes.remove_prefix(1);
      at_start = at_start && surface.added;
      text += bytes;
    }
    return text;
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(surfaces_.size()); }
  std::string_view kind() const override { return kind_; }

 private:
  static constexpr size_t kMaxTextBytes = (size_t{1} << 31) - 2;

  struct Surface {
    std::string bytes;  // empty where no token has the id
    bool added = false;
  };

  /// What a token of the vocabulary adds to a text.
  static std::string surface_of(const std::string& token, const TokenizerDefinition& definition) {
    if (definition.byte_level) return bytes_of_byte_level(token).value_or(token);
    unsigned byte = 0;
    if (definition.byte_fallback && token.size() == 6 && token.starts_with("<0x") && token.back() == '>' &&
        std::from_chars(token.data() + 3, token.data() + 5, byte, 16).ptr == token.data() + 5) {
      return std::string(1, static_cast<char>(byte));
    }
    return definition.spells_spaces ? spell_spaces(token) : token;
  }

  void store_bytes(const TokenizerDefinition& definition, const std::string& name) {
    const auto slot = [&](int32_t id) -> Surface& {
      if (static_cast<size_t>(id) >= surfaces_.size()) surfaces_.resize(static_cast<size_t>(id) + 1);
      return surfaces_[static_cast<size_t>(id)];
    };
    std::unordered_map<std::string_view, int32_t> id_of_text;
    for (const auto& token : definition.vocabulary) {
      std::string& bytes = slot(token.id).bytes;
      if (!bytes.empty()) {
        fail("{}: tokens '{}' and '{}' share the id {}", name, printable(bytes), printable(token.text),
             token.id);
      }
      if (!id_of_text.emplace(token.text, token.id).second) {
        fail("{}: token '{}' is in the vocabulary twice", name, printable(token.text));
      }
      bytes = surface_of(token.text, definition);
    }
    for (const AddedToken& token : definition.added_tokens) {
      const auto known = id_of_text.find(token.content);
      std::string& bytes = slot(token.id).bytes;
      if (known != id_of_text.end() ? known->second != token.id : !bytes.empty() && bytes != token.content) {
        fail("{}: added token '{}' has the id {}, the vocabulary says otherwise", name,
             printable(token.content), token.id);
      }
      bytes = token.content;
      slot(token.id).added = true;
    }
  }

  bool drops_leading_space_;
  std::string_view kind_;
  AddedTokenMatcher in_raw_text_, in_normalized_text_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  WordModel model_;
  std::vector<Surface> surfaces_;  // of each id
};

}  // namespace

std::unique_ptr<Tokenizer> make_pipeline_tokenizer(TokenizerDefinition definition, const std::string& name) {
  return std::make_unique<PipelineTokenizer>(std::move(definition), name);
}

MergeReader::MergeReader(const std::vector<TokenizerDefinition::Token>& vocabulary, std::string name)
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
