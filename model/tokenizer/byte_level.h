#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qeval::model {

/// Byte-level BPE files spell every byte as one printable character: the printable ones of Latin-1 stand for
/// themselves, the other 68 are U+0100, U+0101, … in byte order (GPT-2's bytes_to_unicode), so that a space
/// is written "Ġ". The bytes that `token` spells; nullopt where it holds a character outside this alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

/// The same alphabet the other way round.
std::string byte_level_of_bytes(std::string_view bytes);

}  // namespace qeval::model
