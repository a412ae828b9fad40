#include "base/json_object.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"

namespace qeval {
namespace {

constexpr const char* kCount = "an integer from 0 to 2^53";

template <typename Json>
bool fits(const Json& value) {
  return !value.is_number_unsigned() || value.template get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

/// What a double, and so any reader of JSON, holds exactly: a count above it is none.
template <typename Json>
std::optional<int64_t> read_count(const Json& value) {
  if (!value.is_number_integer() || !fits(value)) return {};
  const auto count = value.template get<int64_t>();
  return count >= 0 && count <= int64_t{1} << 53 ? std::optional(count) : std::nullopt;
}

}  // namespace

nlohmann::json read_json_object(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  refuse_lfs_pointer(mapped.text(), file);
  nlohmann::json value = parse_strict_json(mapped.text(), file.string());
  if (!value.is_object()) fail("{}: a JSON object is expected, not {}", file.string(), value.type_name());
  return value;
}

template <typename Json>
BasicJsonObject<Json>::BasicJsonObject(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail("{} is not a JSON object", where_);
}

template <typename Json>
const Json& BasicJsonObject<Json>::at(std::string_view key) const {
  const auto it = object_.find(key);
  if (it == object_.end()) fail("{}: {} is missing", where_, printable(key));
  return *it;
}

template <typename Json>
void BasicJsonObject<Json>::refuse(std::string_view key, std::string_view accepted) const {
  const Json* value = find(key);
  fail("{}: {} is {}; accepted: {}", where_, printable(key), value ? printable(value->dump(), 60) : "missing",
       accepted);
}

template <typename Json>
int64_t BasicJsonObject<Json>::integer(std::string_view key, std::optional<int64_t> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number_integer() || !fits(*value)) refuse(key, "an integer");
  return value->template get<int64_t>();
}

template <typename Json>
double BasicJsonObject<Json>::number(std::string_view key, std::optional<double> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number()) refuse(key, "a number");
  return value->template get<double>();
}

template <typename Json>
bool BasicJsonObject<Json>::boolean(std::string_view key, std::optional<bool> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_boolean()) refuse(key, "true and false");
  return value->template get<bool>();
}

template <typename Json>
std::string BasicJsonObject<Json>::string(std::string_view key, std::optional<std::string> fallback) const {
  const Json* value = find(key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_string()) refuse(key, "a string");
  return value->template get<std::string>();
}

template <typename Json>
std::vector<double> BasicJsonObject<Json>::numbers(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_array()) refuse(key, "a list of numbers");
  std::vector<double> numbers;
  for (const Json& item : *value) {
    if (!item.is_number()) refuse(key, "a list of numbers");
    numbers.push_back(item.template get<double>());
  }
  return numbers;
}

template <typename Json>
std::vector<std::string> BasicJsonObject<Json>::strings(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_array()) refuse(key, "a list of strings");
  std::vector<std::string> strings;
  for (const Json& item : *value) {
    if (!item.is_string()) refuse(key, "a list of strings");
    strings.push_back(item.template get<std::string>());
  }
  return strings;
}

template <typename Json>
BasicJsonObject<Json> BasicJsonObject<Json>::object(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_object()) refuse(key, "an object");
  return {*value, fmt::format("{}: {}", where_, printable(key))};
}

template <typename Json>
const Json& BasicJsonObject<Json>::array(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_array()) refuse(key, "a list");
  return *value;
}

template <typename Json>
int64_t BasicJsonObject<Json>::count(std::string_view key) const {
  const std::optional<int64_t> value = read_count(at(key));
  if (!value) refuse(key, kCount);
  return *value;
}

template <typename Json>
std::vector<int64_t> BasicJsonObject<Json>::counts(std::string_view key) const {
  std::vector<int64_t> counts;
  for (const Json& item : array(key)) {
    const std::optional<int64_t> value = read_count(item);
    if (!value) refuse(key, fmt::format("a list, each {}", kCount));
    counts.push_back(*value);
  }
  return counts;
}

template <typename Json>
uint64_t BasicJsonObject<Json>::seed(std::string_view key) const {
  const Json& value = at(key);
  if (value.is_number_unsigned()) return value.template get<uint64_t>();
  return static_cast<uint64_t>(count(key));
}

template <typename Json>
double BasicJsonObject<Json>::any_number(std::string_view key) const {
  const Json& value = at(key);
  if (value.is_number()) return value.template get<double>();
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (value == "Infinity") return std::numeric_limits<double>::infinity();
  if (value == "-Infinity") return -std::numeric_limits<double>::infinity();
  refuse(key, "a number, null, \"Infinity\" or \"-Infinity\"");
}

template <typename Json>
void BasicJsonObject<Json>::require_false(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (boolean(key, false)) refuse(key, "false");
  }
}

template class BasicJsonObject<nlohmann::json>;
template class BasicJsonObject<nlohmann::ordered_json>;

std::string dump_json(const nlohmann::ordered_json& value, std::string_view where, int indent) {
  try {
    return value.dump(indent);
  } catch (const nlohmann::json::exception&) {
    fail("{}: a text to be written is not valid UTF-8", where);
  }
}

nlohmann::ordered_json number_to_json(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

}  // namespace qeval
