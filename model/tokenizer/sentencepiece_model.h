#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::model {

/// One entry of a SentencePiece vocabulary; its id is its place.
struct SentencePiece {
  std::string text;  // U+2581 for a space
  float score = 0;
  int type = 1;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
};

/// What a SentencePiece model says. The defaults are the format's, but for the first two, which are Llama's.
struct SentencePieceModel {
  bool unigram = false;
  bool byte_fallback = true;
  std::vector<SentencePiece> pieces;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;
  std::string character_map = {};  // of CharacterMap; empty: none
  // Ids below zero stand for "none".
  int32_t unknown_id = 0, bos_id = 1, eos_id = 2;
  std::string unknown_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>";
};

/// The model, of the BPE kind and without a character map, as a `tokenizer.model` file: a protocol buffer,
/// message ModelProto of sentencepiece_model.proto.
std::string serialize_sentencepiece(const SentencePieceModel& model);

/// U+2581, which stands for a space in pieces.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/// `piece` with spaces for its space marks.
std::string spell_spaces(std::string_view piece);

/// The reverse, for any model. Throws Error naming `name` where the bytes are no protocol buffer or its
/// character map points outside itself (the SentencePiece library follows it unchecked).
SentencePieceModel read_sentencepiece(std::string_view serialized, const std::string& name);

/// Whether text may be encoded in parts, cut where a space follows something else: a model of the BPE kind,
/// no piece of which holds a space mark after another character, that leaves characters and runs of spaces as
/// they are.
bool words_are_independent(const SentencePieceModel& model);

}  // namespace qeval::model
