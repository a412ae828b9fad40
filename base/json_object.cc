#include "base/json_object.h"

#include "base/error.h"

namespace qeval {

using nlohmann::json;

namespace {

bool fits(const json& value) {
  return !value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

}  // namespace

JsonObject::JsonObject(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail("{} is not a JSON object", where_);
}

const json* JsonObject::find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonObject::refuse(const char* key, std::string_view accepted) const {
  const json* value = find(key);
  fail("{}: {} is {}; accepted: {}", where_, key, value ? printable(value->dump(), 60) : "missing", accepted);
}

int64_t JsonObject::integer(const char* key, std::optional<int64_t> fallback) const {
  const json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number_integer() || !fits(*value)) refuse(key, "an integer");
  return value->get<int64_t>();
}

double JsonObject::number(const char* key, std::optional<double> fallback) const {
  const json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number()) refuse(key, "a number");
  return value->get<double>();
}

bool JsonObject::boolean(const char* key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, "true and false");
  return value->get<bool>();
}

std::string JsonObject::string(const char* key, std::optional<std::string> fallback) const {
  const json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_string()) refuse(key, "a string");
  return value->get<std::string>();
}

std::vector<double> JsonObject::numbers(const char* key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_array()) refuse(key, "a list of numbers");
  std::vector<double> numbers;
  for (const json& item : *value) {
    if (!item.is_number()) refuse(key, "a list of numbers");
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

std::vector<std::string> JsonObject::strings(const char* key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_array()) refuse(key, "a list of strings");
  std::vector<std::string> strings;
  for (const json& item : *value) {
    if (!item.is_string()) refuse(key, "a list of strings");
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

JsonObject JsonObject::object(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) refuse(key, "an object");
  return {*value, where_ + ": " + key};
}

void JsonObject::require_false(std::initializer_list<const char*> keys) const {
  for (const char* key : keys) {
    if (boolean(key, false)) refuse(key, "false");
  }
}

}  // namespace qeval
