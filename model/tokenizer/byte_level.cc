#include "model/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

namespace qeval::model {
namespace {

constexpr uint32_t kFirstShifted = 0x100;
constexpr uint32_t kAlphabetEnd = kFirstShifted + 68;

struct Alphabet {
  std::array<uint32_t, 256> code_point_of_byte{};
  std::array<int, kAlphabetEnd> byte_of_code_point{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.byte_of_code_point.fill(-1);
  uint32_t next_shifted = kFirstShifted;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    // Latin-1 without controls, spaces and the soft hyphen.
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const uint32_t code_point = printable ? byte : next_shifted++;
    alphabet.code_point_of_byte[byte] = code_point;
    alphabet.byte_of_code_point[code_point] = static_cast<int>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size(); ++i) {
    uint32_t code_point = static_cast<unsigned char>(token[i]);
    if (code_point >= 0x80) {
      // The whole alphabet lies below U+0800: two UTF-8 bytes at most.
      if ((code_point & 0xE0) != 0xC0 || i + 1 == token.size()) return std::nullopt;
      const uint32_t continuation = static_cast<unsigned char>(token[++i]);
      if ((continuation & 0xC0) != 0x80) return std::nullopt;
      code_point = (code_point & 0x1F) << 6 | (continuation & 0x3F);
    }
    if (code_point >= kAlphabetEnd || kAlphabet.byte_of_code_point[code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte_of_code_point[code_point]);
  }
  return bytes;
}

std::string byte_level_of_bytes(std::string_view bytes) {
  std::string token;
  token.reserve(2 * bytes.size());
  for (const char byte : bytes) {
    const uint32_t code_point = kAlphabet.code_point_of_byte[static_cast<unsigned char>(byte)];
    if (code_point < 0x80) {
      token += static_cast<char>(code_point);
    } else {
      token += static_cast<char>(0xC0 | code_point >> 6);
      token += static_cast<char>(0x80 | (code_point & 0x3F));
    }
  }
  return token;
}

}  // namespace qeval::model
