#include "eval/results/json_fields.h"

#include <cmath>
#include <limits>

#include "base/error.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

/// What a double, and so any reader of JSON, holds exactly: a count above it is none.
constexpr int64_t largest_integer = int64_t{1} << 53;

bool read_integer(const ordered_json& value, int64_t& out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{largest_integer}) return false;
  out = value.get<int64_t>();
  return out >= 0 && out <= largest_integer;
}

}  // namespace

std::string dump_json(const ordered_json& value, std::string_view where, int indent) {
  try {
    return value.dump(indent);
  } catch (const nlohmann::json::exception&) {
    fail("{}: a text to be written is not valid UTF-8", where);
  }
}

ordered_json number_to_json(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

JsonFields::JsonFields(const ordered_json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) fail("{}: expected a JSON object", where_);
}

void JsonFields::wrong(const char* key, std::string_view expected) const {
  fail("{}: field \"{}\" must be {}", where_, printable(key), expected);
}

const ordered_json& JsonFields::at(const char* key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) fail("{}: field \"{}\" is missing", where_, printable(key));
  return *found;
}

std::string JsonFields::text(const char* key) const {
  const ordered_json& value = at(key);
  if (!value.is_string()) wrong(key, "a string");
  return value.get<std::string>();
}

int64_t JsonFields::integer(const char* key) const {
  int64_t out = 0;
  if (!read_integer(at(key), out)) wrong(key, "an integer from 0 to 2^53");
  return out;
}

uint64_t JsonFields::seed(const char* key) const {
  const ordered_json& value = at(key);
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  return static_cast<uint64_t>(integer(key));
}

double JsonFields::number(const char* key) const {
  const ordered_json& value = at(key);
  if (value.is_number()) return value.get<double>();
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (value == "Infinity") return std::numeric_limits<double>::infinity();
  if (value == "-Infinity") return -std::numeric_limits<double>::infinity();
  wrong(key, "a number, null, \"Infinity\" or \"-Infinity\"");
}

bool JsonFields::boolean(const char* key) const {
  const ordered_json& value = at(key);
  if (!value.is_boolean()) wrong(key, "true or false");
  return value.get<bool>();
}

std::vector<int64_t> JsonFields::integers(const char* key) const {
  const ordered_json& value = at(key);
  if (!value.is_array()) wrong(key, "an array of integers from 0 to 2^53");
  std::vector<int64_t> out(value.size());
  for (size_t i = 0; i < out.size(); ++i) {
    if (!read_integer(value[i], out[i])) wrong(key, "an array of integers from 0 to 2^53");
  }
  return out;
}

std::vector<std::string> JsonFields::texts(const char* key) const {
  const ordered_json& value = at(key);
  if (!value.is_array()) wrong(key, "an array of strings");
  std::vector<std::string> out;
  for (const ordered_json& item : value) {
    if (!item.is_string()) wrong(key, "an array of strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

JsonFields JsonFields::object(const char* key) const {
  const ordered_json& value = at(key);
  if (!value.is_object()) wrong(key, "an object");
  return {value, fmt::format("{}, \"{}\"", where_, printable(key))};
}

}  // namespace qeval::eval
