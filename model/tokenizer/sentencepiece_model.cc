// Protocol buffers on the wire: a message is a row of fields, each a varint `number << 3 | wire type` and a
// value: a varint (0), 8 bytes (1), a varint length and as many bytes (2) or 4 bytes (5). A field may be
// repeated; of an embedded message the parts merge, of anything else the last counts. Little-endian.
#include "model/tokenizer/sentencepiece_model.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace qeval::model {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3, kTrainerWhitespaceAsSuffix = 24, kTrainerByteFallback = 35;
constexpr uint32_t kNormalizerName = 1, kNormalizerCharsmap = 2, kNormalizerDummyPrefix = 3,
                   kNormalizerRemoveExtra = 4, kNormalizerEscape = 5;
constexpr uint64_t kModelTypeBpe = 2;

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
        take(4);
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

/// The character map is [size of trie][trie][strings]: a double array (Darts) of 32-bit units whose values
/// are offsets of zero-terminated strings. Every step of a look-up, and every value, must stay inside.
void check_charsmap(std::string_view map, const std::string& name) {
  const auto read_unit = [&](size_t at) {
    uint32_t unit = 0;
    std::memcpy(&unit, map.data() + at, sizeof unit);
    return unit;
  };
  const auto malformed = [&] { fail("{}: precompiled_charsmap is malformed", name); };
  if (map.size() < 4) malformed();
  const size_t trie_bytes = read_unit(0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= map.size() - 4 || map.back() != '\0')
    malformed();
  const size_t units = trie_bytes / 4;
  const size_t string_bytes = map.size() - 4 - trie_bytes;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t unit = read_unit(4 + 4 * i);
    if (unit >> 31 != 0) {
      if ((unit & 0x7FFFFFFF) >= string_bytes) malformed();
      continue;
    }
    const uint32_t offset = (unit >> 10) << ((unit & (1U << 9)) >> 6);
    if (((i ^ offset) | 0xFF) >= units) malformed();
  }
}

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

SentencePieceTraits read_sentencepiece_traits(std::string_view serialized, const std::string& name) {
  SentencePieceTraits traits;
  std::string_view charsmap;
  uint64_t model_type = 1, remove_extra_whitespaces = 1, escape_whitespaces = 1;
  bool has_space = false, space_inside = false;

  WireReader model(serialized, name);
  while (const auto field = model.next()) {
    if (field->type != kBytes || field->number > kModelNormalizer) continue;
    WireReader message(field->bytes, name);
    while (const auto inner = message.next()) {
      if (inner->number > 0xFF) continue;
      switch (field->number << 8 | inner->number) {
        case kModelPieces << 8 | kPieceText:
          has_space |= inner->bytes == kSpaceMark;
          space_inside |= holds_space_after_other(inner->bytes);
          break;
        case kModelTrainer << 8 | kTrainerModelType:
          model_type = inner->integer;
          break;
        case kModelTrainer << 8 | kTrainerWhitespaceAsSuffix:
          traits.treat_whitespace_as_suffix = inner->integer != 0;
          break;
        case kModelNormalizer << 8 | kNormalizerCharsmap:
          charsmap = inner->bytes;
          break;
        case kModelNormalizer << 8 | kNormalizerDummyPrefix:
          traits.add_dummy_prefix = inner->integer != 0;
          break;
        case kModelNormalizer << 8 | kNormalizerRemoveExtra:
          remove_extra_whitespaces = inner->integer;
          break;
        case kModelNormalizer << 8 | kNormalizerEscape:
          escape_whitespaces = inner->integer;
          break;
        default:
          break;
      }
    }
  }
  if (!charsmap.empty()) check_charsmap(charsmap, name);
  traits.words_are_independent = model_type == kModelTypeBpe && remove_extra_whitespaces == 0 &&
                                 escape_whitespaces == 1 && charsmap.empty() && has_space && !space_inside &&
                                 !traits.treat_whitespace_as_suffix;
  return traits;
}

std::string without_dummy_prefix(std::string_view serialized) {
  std::string out(serialized), spec;
  write_integer(spec, kNormalizerDummyPrefix, 0);
  write_bytes(out, kModelNormalizer, spec);
  return out;
}

}  // namespace qeval::model
