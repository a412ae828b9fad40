// A folder whose only tokenizer is a SentencePiece `tokenizer.model`, read as transformers 5 reads it:
// pieces, and merges that follow from them, make a tokenizer of Hugging Face's kind. What the SentencePiece
// library would do with a text does not enter.
#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "base/unicode.h"
#include "model/tokenizer/definition.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/tokenizer_class.h"

namespace qeval::model {
namespace {

constexpr int kNormal = 1, kControl = 3, kUserDefined = 4;

using Step = NormalizerStep;
using Stage = PreTokenizerStage;

SentencePieceModel read_checked_sentencepiece(const std::filesystem::path& file) {
  const std::string name = file.string();
  const MappedFile mapped(file);
  refuse_lfs_pointer(mapped.text(), file);
  SentencePieceModel model = read_sentencepiece(mapped.text(), name);
  if (model.pieces.empty())
    fail("{}: the file has no pieces; a SentencePiece model (a protocol buffer) is expected", name);
  if (model.pieces.size() > static_cast<size_t>(kMaxTokenId))
    fail("{}: {} pieces; {} are accepted", name, model.pieces.size(), kMaxTokenId);
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.text.empty() || find_invalid_utf8(piece.text) != std::string::npos)
      fail("{}: piece {} '{}' is not well-formed UTF-8 of a byte or more", name, id, printable(piece.text));
    if (!std::isfinite(piece.score)) fail("{}: piece {} has the score {}", name, id, piece.score);
  }
  return model;
}

/// A way to put a piece together from two others, by their ids.
struct Halves {
  int32_t left = 0, right = 0;
};

/// Finds the pieces of which others consist.
class Splitter {
 public:
  void add(const std::string& text, int32_t id) {
    ids_[text] = id;
    lengths_.insert(text.size());
  }

  /// The ways to halve `text`, the shortest left half first.
  std::vector<Halves> split(std::string_view text) const {
    std::vector<Halves> ways;
    for (const size_t length : lengths_) {
      if (length >= text.size()) break;
      if (!lengths_.contains(text.size() - length)) continue;
      const auto left = ids_.find(text.substr(0, length)), right = ids_.find(text.substr(length));
      if (left != ids_.end() && right != ids_.end()) ways.push_back({left->second, right->second});
    }
    return ways;
  }

 private:
  std::unordered_map<std::string_view, int32_t> ids_;
  std::set<size_t> lengths_;
};

/// Merges for the classes with a pipeline of their own: of all pieces, by their ids.
void add_merges_by_id(TokenizerDefinition& definition) {
  Splitter splitter;
  for (const auto& token : definition.vocabulary) splitter.add(token.text, token.id);
  for (const auto& token : definition.vocabulary) {
    for (const Halves& halves : splitter.split(token.text))
      definition.merges.push_back({halves.left, halves.right, token.id});
  }
}

/// Merges for the general class: of normal pieces, by their scores.
void add_merges_by_score(const SentencePieceModel& model, TokenizerDefinition& definition) {
  const auto is_normal = [&](const TokenizerDefinition::Token& token) {
    return model.pieces[static_cast<size_t>(token.id)].type == kNormal;
  };
  std::vector<TokenizerDefinition::Token> tokens;
  std::copy_if(definition.vocabulary.begin(), definition.vocabulary.end(), std::back_inserter(tokens),
               is_normal);
  std::stable_sort(tokens.begin(), tokens.end(), [&](const auto& a, const auto& b) {
    const auto score = [&](const auto& token) { return model.pieces[static_cast<size_t>(token.id)].score; };
    return std::tuple(-score(a), a.id) < std::tuple(-score(b), b.id);
  });
  Splitter splitter;
  for (const auto& token : tokens) splitter.add(token.text, token.id);
  for (const auto& token : tokens) {
    for (const Halves& halves : splitter.split(token.text))
      definition.merges.push_back({halves.left, halves.right, token.id});
  }
}

/// Pieces that a user-defined one must stay apart from: a pattern of all of them, the longest first.
std::string pattern_of_user_defined(const SentencePieceModel& model, const TokenizerDefinition& definition) {
  std::vector<std::string_view> texts;
  for (const auto& token : definition.vocabulary) {
    if (model.pieces[static_cast<size_t>(token.id)].type == kUserDefined) texts.push_back(token.text);
  }
  std::stable_sort(texts.begin(), texts.end(),
                   [](auto a, auto b) { return count_code_points(a) > count_code_points(b); });
  std::string pattern;
  for (const std::string_view text : texts) (pattern += pattern.empty() ? "" : "|") += escape_pattern(text);
  return pattern;
}

/// The names that added_tokens_decoder gives to places of the vocabulary: but for a name that another piece
/// has, which keeps it.
void rename_pieces(const TokenizerConfig& config, TokenizerDefinition& definition) {
  std::unordered_map<int32_t, std::string> names;
  for (const AddedToken& token : config.added_tokens) names.emplace(token.id, token.content);
  std::set<std::string> kept;
  for (const auto& token : definition.vocabulary) {
    if (!names.contains(token.id)) kept.insert(token.text);
  }
  for (auto& token : definition.vocabulary) {
    if (const auto name = names.find(token.id); name != names.end() && !kept.contains(name->second))
      token.text = name->second;
  }
}

/// The special tokens that the model itself names, where the folder does not mention their roles.
void add_tokens_of_model(const SentencePieceModel& model, TokenizerConfig& config) {
  const auto add = [&](std::string_view role, int32_t id, const std::string& piece, std::string_view usual) {
    const auto has_role = [&](const NamedSpecialToken& named) { return named.role == role; };
    if (id < 0 || std::any_of(config.special_tokens.begin(), config.special_tokens.end(), has_role)) return;
    config.special_tokens.push_back(
        {std::string(role),
         AddedToken{.content = piece.empty() ? std::string(usual) : piece, .special = true}});
  };
  add("bos_token", model.bos_id, model.bos_piece, "<s>");
  add("eos_token", model.eos_id, model.eos_piece, "</s>");
  add("unk_token", model.unknown_id, model.unknown_piece, "<unk>");
}

/// What transformers makes where no class with a pipeline of its own is meant: the model's own settings
/// count.
void become_general(const SentencePieceModel& model, TokenizerConfig& config, TokenizerDefinition& definition,
                    const std::string& name) {
  definition.unigram = model.unigram;
  definition.byte_fallback = model.byte_fallback;
  if (model.unigram) {
    if (model.unknown_id < 0 || static_cast<size_t>(model.unknown_id) >= model.pieces.size()) {
      fail("{}: the unknown piece is {}, but there are {} pieces", name, model.unknown_id,
           model.pieces.size());
    }
    definition.unknown_id = model.unknown_id;
  } else {
    rename_pieces(config, definition);
    add_merges_by_score(model, definition);
    definition.fuse_unknown = true;
    for (const auto& token : definition.vocabulary) {
      if (token.text == model.unknown_piece) definition.unknown_id = token.id;
    }
  }
  auto& steps = definition.normalizer;
  const auto replace = [&](std::string pattern, std::string_view text) {
    steps.push_back({.kind = Step::Kind::kReplace, .pattern = std::move(pattern), .text = std::string(text)});
  };
  const std::string mark(kSpaceMark);
  const bool legacy = config.legacy.value_or(true);
  if (!model.character_map.empty())
    steps.push_back({.kind = Step::Kind::kCharacterMap, .text = model.character_map});
  if (model.remove_extra_whitespaces) {
    replace(R"(\A +| +\z)", "");
    replace(" {2,}", " ");
  }
  if (model.escape_whitespaces) replace(" ", mark);
  auto& stages = definition.pre_tokenizer;
  if (model.add_dummy_prefix) {
    if (legacy) replace("\\A" + mark, mark + mark);
    stages.push_back({.kind = Stage::Kind::kMarkSpaces});
    stages.push_back({.kind = legacy ? Stage::Kind::kPrefixMark : Stage::Kind::kPrefixMarkOnce});
    for (AddedToken& token : config.added_tokens) token.normalized = false;
  }
  const std::string user_defined = pattern_of_user_defined(model, definition);
  if (!user_defined.empty()) {
    definition.ignore_merges = !model.unigram;
    stages.push_back({.pattern = user_defined});
  }
  definition.spells_spaces = true;
  definition.drops_leading_space = model.add_dummy_prefix;
  add_tokens_of_model(model, config);
}

/// Control and user-defined pieces are added tokens, unless the folder lists additional ones of its own.
void add_special_pieces(const SentencePieceModel& model, const TokenizerConfig& config, bool general,
                        TokenAdder& adder, const std::string& name) {
  if (config.lists_additional_tokens) return;
  for (const SentencePiece& piece : model.pieces) {
    if (piece.type != kControl && (piece.type != kUserDefined || general)) continue;
    if (piece.text.size() > AddedTokenMatcher::kMaxContentBytes) {
      fail("{}: the piece '{}' has {} bytes; a control or user-defined piece has at most {}", name,
           printable(piece.text, 40), piece.text.size(), AddedTokenMatcher::kMaxContentBytes);
    }
    adder.add({.content = piece.text, .special = piece.type == kControl});
  }
}

}  // namespace

TokenizerDefinition read_sentencepiece_folder(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.model";
  const std::string name = file.string(), where = (folder / "tokenizer_config.json").string();
  const SentencePieceModel model = read_checked_sentencepiece(file);
  TokenizerConfig config = read_tokenizer_config(folder);
  if (config.add_eos_token)
    fail("{}: 'add_eos_token' is true; accepted: false, since a score continues the text", where);

  TokenizerDefinition definition;
  definition.byte_level = false;
  for (const SentencePiece& piece : model.pieces)
    definition.vocabulary.push_back(
        {piece.text, static_cast<int32_t>(definition.vocabulary.size()), piece.score});
  const TokenizerClass tokenizer_class = find_tokenizer_class(folder, false);
  const bool general = tokenizer_class == TokenizerClass::kAsFile;
  if (general) {
    refuse_other_sentencepiece_class(folder);
    become_general(model, config, definition, name);
  } else if (tokenizer_class == TokenizerClass::kLlama || tokenizer_class == TokenizerClass::kGemma) {
    for (const AddedToken& token : config.added_tokens) {
      const auto id = static_cast<size_t>(token.id);
      if (id < model.pieces.size() && model.pieces[id].text != token.content) {
        fail("{}: added token '{}' has the id {}, which is '{}' in {}", where, printable(token.content),
             token.id, printable(model.pieces[id].text), name);
      }
    }
    add_merges_by_id(definition);
    apply_tokenizer_class(tokenizer_class, config, definition, name);
  } else {
    fail("{}: the tokenizer class is one of byte-level BPE, which needs a tokenizer.json beside {}", where,
         name);
  }
  TokenAdder adder(definition);
  adder.add(config);
  add_special_pieces(model, config, general, adder, name);
  if (config.add_bos_token.value_or(false) && definition.bos_id)
    definition.leading_ids = {*definition.bos_id};
  return definition;
}

}  // namespace qeval::model
