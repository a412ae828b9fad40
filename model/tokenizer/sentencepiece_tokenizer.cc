#include "model/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>
#include <map>
#include <new>

#include <sentencepiece_processor.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/unicode.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/gguf_vocabulary.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/tokenizer_class.h"

namespace qeval::model {
namespace {

/// The library's time per byte grows with the text (its heap leaves the cache): long ones are cut into parts
/// this long.
constexpr size_t kPartBytes = 512;

using Processor = sentencepiece::SentencePieceProcessor;

/// A model that the library has accepted.
struct LoadedModel {
  SentencePieceTraits traits;
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

LoadedModel load_model(std::string_view serialized, const std::string& name) {
  // Reading the traits first keeps hostile bytes from the library.
  LoadedModel loaded{read_sentencepiece_traits(serialized, name), std::make_unique<Processor>()};
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

/// When text after an added token begins with the dummy space again.
enum class LaterPrefix { kAlways, kUnlessSpace, kNever };

/// What a folder or a GGUF file says beyond the model itself.
struct Surroundings {
  std::optional<int32_t> bos_id, eos_id;
  bool adds_bos = true;
  std::vector<AddedToken> added_tokens = {};
  LaterPrefix later_prefix = LaterPrefix::kAlways;
  std::vector<std::string> warnings = {};
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(LoadedModel loaded, std::string_view serialized, Surroundings around,
                         const std::string& name)
      : traits_(loaded.traits), later_prefix_(around.later_prefix), processor_(std::move(loaded.processor)) {
    if (traits_.add_dummy_prefix && later_prefix_ != LaterPrefix::kAlways) {
      continuation_ = load_model(without_dummy_prefix(serialized), name).processor;
    }
    bos_id_ = around.bos_id;
    eos_id_ = around.eos_id;
    if (around.adds_bos && bos_id_) leading_ids_ = {*bos_id_};
    warnings_ = around.warnings;
    set_hash(serialized, around);
    read_surfaces(name);
    for (const AddedToken& token : around.added_tokens) {
      if (static_cast<size_t>(token.id) >= surfaces_.size())
        surfaces_.resize(static_cast<size_t>(token.id) + 1);
      surfaces_[static_cast<size_t>(token.id)] = {.text = token.content, .special = true};
    }
    added_ = AddedTokenMatcher(around.added_tokens);
    with_control_ = AddedTokenMatcher(with_control_tokens(std::move(around.added_tokens)));
  }

  std::vector<int32_t> encode(std::string_view text) const override { return encode(text, added_); }
  std::vector<int32_t> encode_prompt(std::string_view text) const override {
    return encode(text, with_control_);
  }

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
      at_start = surface.special && (at_start || later_prefix_ == LaterPrefix::kAlways);
    }
    if (!ids.empty() && traits_.add_dummy_prefix && traits_.treat_whitespace_as_suffix &&
        text.ends_with(' ')) {
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
        encode_segment(segment.text, continues(segment.text, !ids.empty()) ? *continuation_ : *processor_,
                       ids);
      }
    }
    return ids;
  }

  /// Whether a stretch of text begins without the dummy space.
  bool continues(std::string_view text, bool later) const {
    if (!later || continuation_ == nullptr) return false;
    return later_prefix_ == LaterPrefix::kNever || text.starts_with(' ') || text.starts_with(kSpaceMark);
  }

  /// `tokens`, and behind them the model's control tokens.
  std::vector<AddedToken> with_control_tokens(std::vector<AddedToken> tokens) const {
    for (int id = 0; id < processor_->GetPieceSize(); ++id) {
      const std::string& piece = processor_->IdToPiece(id);
      if (processor_->IsControl(id) && !piece.empty() &&
          piece.size() <= AddedTokenMatcher::kMaxContentBytes &&
          find_invalid_utf8(piece) == std::string::npos)
        tokens.push_back({.content = piece, .id = id, .special = true});
    }
    return tokens;
  }

  /// Appends the ids of text that holds no added token; `first` encodes its beginning.
  void encode_segment(std::string_view text, const Processor& first, std::vector<int32_t>& ids) const {
    std::vector<int> part_ids;
    const Processor* processor = &first;
    while (!text.empty()) {
      const size_t end = traits_.words_are_independent ? end_of_part(text) : text.size();
      const std::string refusal =
          refusal_of([&] { return processor->Encode(text.substr(0, end), &part_ids); });
      if (!refusal.empty()) fail("the SentencePiece library cannot encode the text: {}", refusal);
      ids.insert(ids.end(), part_ids.begin(), part_ids.end());
      text.remove_prefix(end);
      // The next part begins with a space, which is just what a dummy prefix puts there.
      if (traits_.add_dummy_prefix && !text.empty()) text.remove_prefix(1);
      processor = processor_.get();
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

  bool has_dummy_prefix() const { return traits_.add_dummy_prefix && !traits_.treat_whitespace_as_suffix; }

  void read_surfaces(const std::string& name) {
    surfaces_.resize(static_cast<size_t>(processor_->GetPieceSize()));
    for (int id = 0; id < processor_->GetPieceSize(); ++id) {
      const std::string& piece = processor_->IdToPiece(id);
      Surface& surface = surfaces_[static_cast<size_t>(id)];
      surface.special = processor_->IsControl(id) || processor_->IsUnknown(id);
      if (processor_->IsByte(id)) {
        surface.text.assign(1, byte_of_piece(piece, name));
        continue;
      }
      surface.text = surface.special ? piece : spell_spaces(piece);
    }
  }

  void set_hash(std::string_view serialized, const Surroundings& around) {
    Sha256 hash;
    hash.update(fmt::format("SentencePiece {} ", serialized.size())).update(serialized);
    hash.update(fmt::format("{} {} {} {}", bos_id_.value_or(-1), eos_id_.value_or(-1), !leading_ids_.empty(),
                            static_cast<int>(later_prefix_)));
    for (const AddedToken& token : around.added_tokens) {
      hash.update(fmt::format(" {} {} {} {} {}:{}", token.id, token.lstrip, token.rstrip, token.single_word,
                              token.content.size(), token.content));
    }
    hash_ = hash.hex();
  }

  SentencePieceTraits traits_;
  LaterPrefix later_prefix_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Processor> continuation_;  // without the dummy space; may be absent
  AddedTokenMatcher added_, with_control_;
  std::vector<Surface> surfaces_;
};

std::optional<int32_t> id_or_none(int id) {
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

/// The id of each role that `config` names: that of the same added token or piece, else the next free one for
/// a token that is added. Pieces are not sought in text, which the SentencePiece library takes as it is,
/// unless the files list them as added tokens.
std::map<std::string, int32_t> add_special_tokens(const TokenizerConfig& config, const Processor& processor,
                                                  std::vector<AddedToken>& added) {
  std::map<std::string, int32_t> roles;
  int32_t next = processor.GetPieceSize();
  for (const AddedToken& token : added) next = std::max(next, token.id + 1);
  for (const NamedSpecialToken& named : config.special_tokens) {
    if (!named.token) continue;
    AddedToken token = *named.token;
    const auto known = std::find_if(added.begin(), added.end(),
                                    [&](const AddedToken& other) { return other.content == token.content; });
    const int piece = processor.PieceToId(token.content);
    if (known != added.end()) {
      token.id = known->id;
    } else if (piece >= 0 && processor.IdToPiece(piece) == token.content) {
      token.id = piece;
    } else {
      token.id = next++;
      added.push_back(token);
    }
    if (!named.role.empty()) roles.emplace(named.role, token.id);
  }
  return roles;
}

/// What transformers takes from the model itself where the folder names no class of its own.
void add_tokens_of_model(const Processor& processor, TokenizerConfig& config) {
  const auto add = [&](std::string_view role, int id) {
    const auto has_role = [&](const NamedSpecialToken& named) { return named.role == role; };
    if (id < 0 || std::any_of(config.special_tokens.begin(), config.special_tokens.end(), has_role)) return;
    config.special_tokens.push_back(
        {std::string(role), AddedToken{.content = processor.IdToPiece(id), .special = true}});
  };
  add("bos_token", processor.bos_id());
  add("eos_token", processor.eos_id());
  add("unk_token", processor.unk_id());
}

/// What the files of `folder` say beside the model; whether text begins with the dummy space is
/// `dummy_prefix`'s to tell.
Surroundings read_surroundings(const std::filesystem::path& folder, const Processor& processor,
                               const std::string& name, bool& dummy_prefix) {
  TokenizerConfig config = read_tokenizer_config(folder);
  const std::string where = (folder / "tokenizer_config.json").string();
  if (config.add_eos_token)
    fail("{}: 'add_eos_token' is true; accepted: false, since a score continues the text", where);
  for (const AddedToken& token : config.added_tokens) {
    if (token.id < processor.GetPieceSize() && processor.IdToPiece(token.id) != token.content) {
      fail("{}: added token '{}' has the id {}, which is '{}' in {}", where, printable(token.content),
           token.id, printable(processor.IdToPiece(token.id)), name);
    }
  }
  const TokenizerClass tokenizer_class = find_tokenizer_class(folder, config, false);
  Surroundings around;
  switch (tokenizer_class) {
    case TokenizerClass::kAsFile:
      add_tokens_of_model(processor, config);
      around.later_prefix = config.legacy.value_or(true) ? LaterPrefix::kAlways : LaterPrefix::kNever;
      break;
    case TokenizerClass::kLlama:
      around.later_prefix = config.legacy.value_or(false) ? LaterPrefix::kUnlessSpace : LaterPrefix::kNever;
      dummy_prefix = config.add_prefix_space.value_or(true);
      break;
    case TokenizerClass::kGemma:
      dummy_prefix = false;
      break;
    default:
      fail("{}: the tokenizer class is one of byte-level BPE, which needs a tokenizer.json beside {}", where,
           name);
  }
  add_default_tokens(tokenizer_class, config);
  around.added_tokens = std::move(config.added_tokens);
  const auto roles = add_special_tokens(config, processor, around.added_tokens);
  if (const auto bos = roles.find("bos_token"); bos != roles.end()) around.bos_id = bos->second;
  if (const auto eos = roles.find("eos_token"); eos != roles.end()) around.eos_id = eos->second;
  around.adds_bos = config.add_bos_token.value_or(false);
  return around;
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file,
                                              const std::filesystem::path& folder) {
  const std::string name = file.string();
  std::string serialized = read_file(file);
  refuse_lfs_pointer(serialized, file);
  if (serialized.empty()) fail("{}: the file is empty; a SentencePiece model is expected", name);
  LoadedModel loaded = load_model(serialized, name);
  if (folder.empty()) {
    Surroundings around{.bos_id = id_or_none(loaded.processor->bos_id()),
                        .eos_id = id_or_none(loaded.processor->eos_id())};
    return std::make_unique<SentencePieceTokenizer>(std::move(loaded), serialized, std::move(around), name);
  }
  bool dummy_prefix = true;
  Surroundings around = read_surroundings(folder, *loaded.processor, name, dummy_prefix);
  if (!dummy_prefix && loaded.traits.add_dummy_prefix) {
    serialized = without_dummy_prefix(serialized);
    loaded = load_model(serialized, name);
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(loaded), serialized, std::move(around), name);
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
  Surroundings around{.bos_id = vocabulary.bos_id,
                      .eos_id = vocabulary.eos_id,
                      .adds_bos = gguf.boolean_or("tokenizer.ggml.add_bos_token", true),
                      .warnings = vocabulary.warnings};
  const std::string serialized = serialize_sentencepiece(model);
  return std::make_unique<SentencePieceTokenizer>(load_model(serialized, name), serialized, std::move(around),
                                                  name);
}

}  // namespace qeval::model
