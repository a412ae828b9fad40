// Protocol buffers on the wire: a message is a row of fields, each a varint `number << 3 | wire type` and a
// value: a varint (0), 8 bytes (1), a varint length and as many bytes (2) or 4 bytes (5). A field may be
// repeated; of an embedded message the parts merge, of anything else the last counts. Little-endian.
#include "model/tokenizer/sentencepiece_model.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "model/tokenizer/character_map.h"

namespace qeval::model {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3, kTrainerWhitespaceAsSuffix = 24, kTrainerByteFallback = 35,
                   kTrainerUnknownId = 40, kTrainerBosId = 41, kTrainerEosId = 42, kTrainerUnknownPiece = 45,
                   kTrainerBosPiece = 46, kTrainerEosPiece = 47;
constexpr uint32_t kNormalizerName = 1, kNormalizerCharsmap = 2, kNormalizerDummyPrefix = 3,
                   kNormalizerRemoveExtra = 4, kNormalizerEscape = 5;
constexpr uint64_t kModelTypeUnigram = 1, kModelTypeBpe = 2;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void write_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void write_integer(std::string& out, uint32_t field, uint64_t value) {
  write_varint(out, field << 3 | kVarint);
  write_varint(out, value);
}

void write_float(std::string& out, uint32_t field, float value) {
  write_varint(out, field << 3 | kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift);
}

void write_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  write_varint(out, field << 3 | kBytes);
  write_varint(out, bytes.size());
  out += bytes;
}

struct Field {
  uint32_t number = 0;
  uint32_t type = 0;
  uint64_t integer = 0;    // of a varint
  float real = 0;          // of 4 bytes
  std::string_view bytes;  // of a byte string
};

/// Reads a message field by field. Throws Error where the bytes end too early.
class WireReader {
 public:
  WireReader(std::string_view message, const std::string& name) : message_(message), name_(name) {}

  std::optional<Field> next() {
    if (message_.empty()) return std::nullopt;
    const uint64_t tag = varint();
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<uint32_t>(tag & 7);
    switch (field.type) {
      case kVarint:
        field.integer = varint();
        break;
      case kFixed64:
        take(8);
        break;
      case kBytes:
        field.bytes = take(varint());
        break;
      case kFixed32:
        std::memcpy(&field.real, take(4).data(), 4);
        break;
      default:
        malformed();
    }
    return field;
  }

 private:
  [[noreturn]] void malformed() const {
    fail("{}: not a SentencePiece model (a protocol buffer), or a truncated one", name_);
  }

  std::string_view take(uint64_t count) {
    if (count > message_.size()) malformed();
    const std::string_view taken = message_.substr(0, count);
    message_.remove_prefix(count);
    return taken;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    malformed();
  }

  std::string_view message_;
  const std::string& name_;
};

bool holds_space_after_other(std::string_view piece) {
  while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
  return piece.find(kSpaceMark) != std::string_view::npos;
}

}  // namespace

std::string spell_spaces(std::string_view piece) {
  std::string text;
  for (size_t mark = 0; (mark = piece.find(kSpaceMark)) != std::string_view::npos;) {
    text.append(piece.substr(0, mark)) += ' ';
    piece.remove_prefix(mark + kSpaceMark.size());
  }
  return text.append(piece);
}

std::string serialize_sentencepiece(const SentencePieceModel& model) {
  std::string out, message;
  for (const SentencePiece& piece : model.pieces) {
    message.clear();
    write_bytes(message, kPieceText, piece.text);
    write_float(message, kPieceScore, piece.score);
    write_integer(message, kPieceType, static_cast<uint64_t>(piece.type));
    write_bytes(out, kModelPieces, message);
  }
  message.clear();
  write_integer(message, kTrainerModelType, kModelTypeBpe);
  write_integer(message, kTrainerByteFallback, model.byte_fallback);
  write_bytes(out, kModelTrainer, message);
  message.clear();
  write_bytes(message, kNormalizerName, "identity");
  write_integer(message, kNormalizerDummyPrefix, model.add_dummy_prefix);
  write_integer(message, kNormalizerRemoveExtra, model.remove_extra_whitespaces);
  write_integer(message, kNormalizerEscape, 1);
  write_bytes(out, kModelNormalizer, message);
  return out;
}

namespace {

SentencePiece read_piece(WireReader message) {
  SentencePiece piece;
  while (const auto field = message.next()) {
    if (field->number == kPieceText) piece.text = field->bytes;
    if (field->number == kPieceScore) piece.score = field->real;
    if (field->number == kPieceType) piece.type = static_cast<int>(field->integer);
  }
  return piece;
}

void read_trainer(WireReader message, SentencePieceModel& model) {
  while (const auto field = message.next()) {
    const auto id = static_cast<int32_t>(field->integer);
    switch (field->number) {
      case kTrainerModelType:
        model.unigram = field->integer == kModelTypeUnigram;
        break;
      case kTrainerWhitespaceAsSuffix:
        model.treat_whitespace_as_suffix = field->integer != 0;
        break;
      case kTrainerByteFallback:
        model.byte_fallback = field->integer != 0;
        break;
      case kTrainerUnknownId:
        model.unknown_id = id;
        break;
      case kTrainerBosId:
        model.bos_id = id;
        break;
      case kTrainerEosId:
        model.eos_id = id;
        break;
      case kTrainerUnknownPiece:
        model.unknown_piece = field->bytes;
        break;
      case kTrainerBosPiece:
        model.bos_piece = field->bytes;
        break;
      case kTrainerEosPiece:
        model.eos_piece = field->bytes;
        break;
      default:
        break;
    }
  }
}

void read_normalizer_message(WireReader message, SentencePieceModel& model) {
  while (const auto field = message.next()) {
    switch (field->number) {
      case kNormalizerCharsmap:
        model.character_map = field->bytes;
        break;
      case kNormalizerDummyPrefix:
        model.add_dummy_prefix = field->integer != 0;
        break;
      case kNormalizerRemoveExtra:
        model.remove_extra_whitespaces = field->integer != 0;
        break;
      case kNormalizerEscape:
        model.escape_whitespaces = field->integer != 0;
        break;
      default:
        break;
    }
  }
}

}  // namespace

SentencePieceModel read_sentencepiece(std::string_view serialized, const std::string& name) {
  SentencePieceModel model;
  // What the format has where a file is silent.
  model.unigram = true;
  model.byte_fallback = false;
  model.remove_extra_whitespaces = true;
  WireReader reader(serialized, name);
  while (const auto field = reader.next()) {
    if (field->type != kBytes) continue;
    const WireReader message(field->bytes, name);
    if (field->number == kModelPieces) model.pieces.push_back(read_piece(message));
    if (field->number == kModelTrainer) read_trainer(message, model);
    if (field->number == kModelNormalizer) read_normalizer_message(message, model);
  }
  if (!model.character_map.empty()) CharacterMap::check(model.character_map, name);
  return model;
}

bool words_are_independent(const SentencePieceModel& model) {
  bool has_space = false;
  for (const SentencePiece& piece : model.pieces) {
    has_space |= piece.text == kSpaceMark;
    if (holds_space_after_other(piece.text)) return false;
  }
  return has_space && !model.unigram && !model.remove_extra_whitespaces && model.escape_whitespaces &&
         model.character_map.empty() && !model.treat_whitespace_as_suffix;
}

}  // namespace qeval::model
