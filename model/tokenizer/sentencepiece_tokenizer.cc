#include "model/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>
#include <new>

#include <sentencepiece_processor.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/unicode.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/gguf_vocabulary.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace qeval::model {
namespace {

/// The library's time per byte grows with the text (its heap leaves the cache): long ones are cut into parts
/// this long.
constexpr size_t kPartBytes = 512;

using Processor = sentencepiece::SentencePieceProcessor;

/// A model that the library has accepted.
struct LoadedModel {
  SentencePieceModel model;
  std::unique_ptr<Processor> processor;
};

/// What the library says against `call`, printable; empty where it is content. Beside its status it has
/// exceptions that its headers do not mention (of the double array that it keeps pieces in).
template <typename Call>
std::string refusal_of(const Call& call) {
  try {
    const auto status = call();
    return status.ok() ? "" : printable(status.ToString(), 200);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return printable(error.what(), 200);
  }
}

LoadedModel load_processor(std::string_view serialized, const std::string& name) {
  // Reading it ourselves first keeps hostile bytes from the library.
  LoadedModel loaded{read_sentencepiece(serialized, name), std::make_unique<Processor>()};
  const std::string refusal =
      refusal_of([&] { return loaded.processor->LoadFromSerializedProto(serialized); });
  if (!refusal.empty()) fail("{}: the SentencePiece library refuses the model: {}", name, refusal);
  return loaded;
}

/// The byte that a piece "<0xHH>" stands for.
char byte_of_piece(const std::string& piece, const std::string& name) {
  unsigned byte = 0;
  const char* end = piece.data() + piece.size();
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>' ||
      std::from_chars(piece.data() + 3, end, byte, 16).ptr != end - 1) {
    fail("{}: byte token '{}' is not of the form <0xHH>", name, printable(piece));
  }
  return static_cast<char>(byte);
}

/// What is not in the model itself.
struct Surroundings {
  std::optional<int32_t> bos_id, eos_id;
  bool adds_bos = true;
  std::vector<std::string> warnings = {};
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(LoadedModel loaded, std::string_view serialized, const Surroundings& around,
                         const std::string& name)
      : add_dummy_prefix_(loaded.model.add_dummy_prefix),
        whitespace_is_suffix_(loaded.model.treat_whitespace_as_suffix),
        words_are_independent_(words_are_independent(loaded.model)),
        processor_(std::move(loaded.processor)) {
    bos_id_ = around.bos_id;
    eos_id_ = around.eos_id;
    if (around.adds_bos && bos_id_) leading_ids_ = {*bos_id_};
    warnings_ = around.warnings;
    set_hash(serialized);
    read_surfaces(name);
    control_ = AddedTokenMatcher(control_tokens());
  }

  std::vector<int32_t> encode(std::string_view text) const override { return encode(text, {}); }
  std::vector<int32_t> encode_prompt(std::string_view text) const override { return encode(text, control_); }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    bool at_start = true;  // no text yet: the dummy space would be first
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size() || surfaces_[static_cast<size_t>(id)].text.empty()) {
        fail("token id {} is not in the vocabulary of {} ids", id, vocab_size());
      }
      const Surface& surface = surfaces_[static_cast<size_t>(id)];
      std::string_view piece = surface.text;
      if (at_start && !surface.special && has_dummy_prefix() && piece.starts_with(' '))
        piece.remove_prefix(1);
      text += piece;
      at_start = surface.special;
    }
    if (!ids.empty() && add_dummy_prefix_ && whitespace_is_suffix_ && text.ends_with(' ')) {
      text.pop_back();
    }
    return text;
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(surfaces_.size()); }
  std::string_view kind() const override { return "SentencePiece"; }

 private:
  struct Surface {
    std::string text;      // bytes; empty where no token has the id
    bool special = false;  // control or added: spelt out
  };

  std::vector<int32_t> encode(std::string_view text, const AddedTokenMatcher& tokens) const {
    if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
      fail("text is not well-formed UTF-8 at byte {}", bad);
    }
    std::vector<int32_t> ids;
    for (const TextSegment& segment : tokens.split(text)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_segment(segment.text, ids);
      }
    }
    return ids;
  }

  std::vector<AddedToken> control_tokens() const {
    std::vector<AddedToken> tokens;
    for (int id = 0; id < processor_->GetPieceSize(); ++id) {
      const std::string& piece = processor_->IdToPiece(id);
      if (processor_->IsControl(id) && !piece.empty() &&
          piece.size() <= AddedTokenMatcher::kMaxContentBytes &&
          find_invalid_utf8(piece) == std::string::npos)
        tokens.push_back({.content = piece, .id = id, .special = true});
    }
    return tokens;
  }

  /// Appends the ids of text that holds no control token that is meant.
  void encode_segment(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> part_ids;
    while (!text.empty()) {
      const size_t end = words_are_independent_ ? end_of_part(text) : text.size();
      const std::string refusal =
          refusal_of([&] { return processor_->Encode(text.substr(0, end), &part_ids); });
      if (!refusal.empty()) fail("the SentencePiece library cannot encode the text: {}", refusal);
      ids.insert(ids.end(), part_ids.begin(), part_ids.end());
      text.remove_prefix(end);
      // The next part begins with a space, which is just what a dummy prefix puts there.
      if (add_dummy_prefix_ && !text.empty()) text.remove_prefix(1);
    }
  }

  /// Where the first space after kPartBytes follows something that is no space and precedes anything.
  static size_t end_of_part(std::string_view text) {
    size_t end = kPartBytes;
    while ((end = text.find(' ', end)) != std::string_view::npos && end + 1 < text.size()) {
      const std::string_view part = text.substr(0, end);
      if (!part.ends_with(' ') && !part.ends_with(kSpaceMark)) return end;
      ++end;
    }
    return text.size();
  }

  bool has_dummy_prefix() const { return add_dummy_prefix_ && !whitespace_is_suffix_; }

  void read_surfaces(const std::string& name) {
    surfaces_.resize(static_cast<size_t>(processor_->GetPieceSize()));
    for (int id = 0; id < processor_->GetPieceSize(); ++id) {
      const std::string& piece = processor_->IdToPiece(id);
      Surface& surface = surfaces_[static_cast<size_t>(id)];
      surface.special = processor_->IsControl(id) || processor_->IsUnknown(id);
      if (surface.special) special_ids_.insert(id);
      if (processor_->IsByte(id)) {
        surface.text.assign(1, byte_of_piece(piece, name));
        continue;
      }
      surface.text = surface.special ? piece : spell_spaces(piece);
    }
  }

  void set_hash(std::string_view serialized) {
    Sha256 hash;
    hash.update(fmt::format("SentencePiece {} ", serialized.size())).update(serialized);
    hash.update(fmt::format("{} {} {}", bos_id_.value_or(-1), eos_id_.value_or(-1), !leading_ids_.empty()));
    hash_ = hash.hex();
  }

  bool add_dummy_prefix_, whitespace_is_suffix_, words_are_independent_;
  std::unique_ptr<Processor> processor_;
  AddedTokenMatcher control_;
  std::vector<Surface> surfaces_;
};

std::optional<int32_t> id_or_none(int id) {
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  const std::string name = file.string();
  const std::string serialized = read_file(file);
  refuse_lfs_pointer(serialized, file);
  if (serialized.empty()) fail("{}: the file is empty; a SentencePiece model is expected", name);
  LoadedModel loaded = load_processor(serialized, name);
  const Surroundings around{.bos_id = id_or_none(loaded.processor->bos_id()),
                            .eos_id = id_or_none(loaded.processor->eos_id())};
  return std::make_unique<SentencePieceTokenizer>(std::move(loaded), serialized, around, name);
}

namespace {

/// A token of GGUF as a piece: converters write the spaces of user-defined ones as such, where the library,
/// which escapes a text before it looks for them, wants the escaped form.
std::string piece_text(const GgufVocabulary& vocabulary, size_t id) {
  const std::string& token = vocabulary.tokens[id];
  if (vocabulary.types[id] != GgufTokenType::kUserDefined || token.find(' ') == std::string::npos)
    return token;
  std::string text;
  for (const char c : token) text += c == ' ' ? std::string(kSpaceMark) : std::string(1, c);
  return std::ranges::find(vocabulary.tokens, text) == vocabulary.tokens.end() ? text : token;
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece_gguf(const GgufFile& gguf, const std::string& name) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(gguf, name);
  const std::vector<double>* scores = gguf.find_numbers("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != vocabulary.tokens.size()) {
    fail("{}: tokenizer.ggml.scores has {} values for {} tokens", name,
         scores == nullptr ? 0 : scores->size(), vocabulary.tokens.size());
  }
  if (gguf.find_value("tokenizer.ggml.precompiled_charsmap") != nullptr) {
    fail(
        "{}: tokenizer.ggml.precompiled_charsmap is not supported; SentencePiece models without character "
        "normalization are",
        name);
  }
  SentencePieceModel model;
  model.pieces.reserve(vocabulary.tokens.size());
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    // The library wants distinct pieces; what no text becomes only keeps its place.
    const bool meant = vocabulary.meant[i] == static_cast<int32_t>(i);
    model.pieces.push_back({.text = meant ? piece_text(vocabulary, i) : fmt::format("<qeval:{}>", i),
                            .score = static_cast<float>((*scores)[i]),
                            .type = static_cast<int>(meant ? vocabulary.types[i] : GgufTokenType::kUnused)});
  }
  // The library wants an unknown piece; converters that read tokenizer.json make it a control token (Gemma
  // 3).
  const bool has_unknown =
      std::ranges::find(vocabulary.types, GgufTokenType::kUnknown) != vocabulary.types.end();
  if (!has_unknown && vocabulary.unknown_id) {
    model.pieces[static_cast<size_t>(*vocabulary.unknown_id)].type =
        static_cast<int>(GgufTokenType::kUnknown);
  }
  model.byte_fallback = std::find(vocabulary.types.begin(), vocabulary.types.end(), GgufTokenType::kByte) !=
                        vocabulary.types.end();
  model.add_dummy_prefix = gguf.boolean_or("tokenizer.ggml.add_space_prefix", true);
  model.remove_extra_whitespaces = gguf.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false);
  const Surroundings around{.bos_id = vocabulary.bos_id,
                            .eos_id = vocabulary.eos_id,
                            .adds_bos = gguf.boolean_or("tokenizer.ggml.add_bos_token", true),
                            .warnings = vocabulary.warnings};
  const std::string serialized = serialize_sentencepiece(model);
  return std::make_unique<SentencePieceTokenizer>(load_processor(serialized, name), serialized, around, name);
}

}  // namespace qeval::model
