#include "model/tokenizer/json_fields.h"

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/tokenizer/definition.h"

namespace qeval::model {

using nlohmann::json;

json read_json_object(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  refuse_lfs_pointer(mapped.text(), file);
  json value = parse_strict_json(mapped.text(), file.string());
  if (!value.is_object()) fail("{}: a JSON object is expected, not {}", file.string(), value.type_name());
  return value;
}

const json* find_field(const json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto field = object.find(key);
  return field == object.end() || field->is_null() ? nullptr : &*field;
}

bool bool_field_or(const json& object, std::string_view key, bool fallback, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) return fallback;
  if (!field->is_boolean()) fail("{}: '{}' is {}; true or false is expected", where, key, field->type_name());
  return field->get<bool>();
}

std::string string_field(const json& object, std::string_view key, const std::string& where) {
  const json* field = object.is_object() ? find_field(object, key) : nullptr;
  if (field == nullptr) fail("{}: '{}' is missing", where, key);
  if (!field->is_string()) fail("{}: '{}' is {}; a string is expected", where, key, field->type_name());
  return field->get<std::string>();
}

const json& object_field(const json& object, std::string_view key, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) fail("{}: '{}' is missing", where, key);
  if (!field->is_object()) fail("{}: '{}' is {}; an object is expected", where, key, field->type_name());
  return *field;
}

const json& array_field(const json& object, std::string_view key, const std::string& where) {
  const json* field = find_field(object, key);
  if (field == nullptr) fail("{}: '{}' is missing", where, key);
  if (!field->is_array()) fail("{}: '{}' is {}; an array is expected", where, key, field->type_name());
  return *field;
}

int32_t read_token_id(const json& value, const std::string& where) {
  if (!value.is_number_integer() || value < 0 || value > kMaxTokenId) {
    fail("{}: token id {} is not an integer from 0 to {}", where, printable(value.dump(), 40), kMaxTokenId);
  }
  return value.get<int32_t>();
}

AddedToken read_added_token(const json& object, int32_t id, const std::string& where) {
  AddedToken token;
  token.content = string_field(object, "content", where);
  if (token.content.empty() || token.content.size() > AddedTokenMatcher::kMaxContentBytes) {
    fail("{}: the content of added token {} has {} bytes; 1 to {} are accepted", where, id,
         token.content.size(), AddedTokenMatcher::kMaxContentBytes);
  }
  token.id = id;
  token.special = bool_field_or(object, "special", false, where);
  token.normalized = bool_field_or(object, "normalized", !token.special, where);
  token.lstrip = bool_field_or(object, "lstrip", false, where);
  token.rstrip = bool_field_or(object, "rstrip", false, where);
  token.single_word = bool_field_or(object, "single_word", false, where);
  return token;
}

}  // namespace qeval::model
