#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "model/tokenizer/added_tokens.h"

namespace qeval::model {

/// A JSON file and typed access to its fields, for the tokenizer's files: every mistake is an Error that
/// names the file and the field.
nlohmann::json read_json_object(const std::filesystem::path& file);

/// The field of an object, nullptr where it is missing or null, or `object` is none.
const nlohmann::json* find_field(const nlohmann::json& object, std::string_view key);

bool bool_field_or(const nlohmann::json& object, std::string_view key, bool fallback,
                   const std::string& where);
/// A missing field is an Error too.
std::string string_field(const nlohmann::json& object, std::string_view key, const std::string& where);

/// A missing field, or one of another kind, is an Error.
const nlohmann::json& object_field(const nlohmann::json& object, std::string_view key,
                                   const std::string& where);
const nlohmann::json& array_field(const nlohmann::json& object, std::string_view key,
                                  const std::string& where);

/// A token id in 0 … kMaxTokenId.
int32_t read_token_id(const nlohmann::json& value, const std::string& where);

/// {"content", "special", "normalized", "lstrip", "rstrip", "single_word"}, the flags false where missing
/// except `normalized`, which then is the opposite of `special`.
AddedToken read_added_token(const nlohmann::json& object, int32_t id, const std::string& where);

}  // namespace qeval::model
