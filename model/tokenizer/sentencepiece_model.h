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

/// A SentencePiece model of the BPE kind without character normalization, as Llama's and Gemma's are.
struct SentencePieceModel {
  std::vector<SentencePiece> pieces;
  bool byte_fallback = true;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
};

/// The model as a `tokenizer.model` file: a protocol buffer, message ModelProto of sentencepiece_model.proto.
std::string serialize_sentencepiece(const SentencePieceModel& model);

/// U+2581, which stands for a space in pieces.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/// `piece` with spaces for its space marks.
std::string spell_spaces(std::string_view piece);

/// What qeval itself wants to know of a serialized ModelProto.
struct SentencePieceTraits {
  bool add_dummy_prefix = true;
  bool treat_whitespace_as_suffix = false;
  /// Text may be encoded in parts, cut where a space follows something else: a model of the BPE kind, no
  /// piece of which holds a space mark after another character, that leaves characters and runs of spaces as
  /// they are.
  bool words_are_independent = false;
};

/// Throws Error naming `name` where the bytes are no protocol buffer or its character map points outside
/// itself (the SentencePiece library follows it unchecked).
SentencePieceTraits read_sentencepiece_traits(std::string_view serialized, const std::string& name);

/// `serialized` with add_dummy_prefix false.
std::string without_dummy_prefix(std::string_view serialized);

}  // namespace qeval::model
