#include "datasets/row.h"

#include <charconv>
#include <optional>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::datasets {
namespace {

/// "a.b.c" → "a" and "b.c"; the second is empty at the last step.
std::pair<std::string_view, std::string_view> first_step(std::string_view path) {
  const size_t dot = path.find('.');
  if (dot == std::string_view::npos) return {path, {}};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

template <typename Integer>
std::optional<Integer> parse_integer(std::string_view text) {
  Integer value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

const Json* step_into(const Json& value, std::string_view step) {
  if (value.is_object()) {
    const auto found = value.find(std::string(step));
    return found == value.end() ? nullptr : &*found;
  }
  if (value.is_array()) {
    const auto position = parse_integer<size_t>(step);
    return position && *position < value.size() ? &value[*position] : nullptr;
  }
  return nullptr;
}

const Json* walk(const Json& start, std::string_view path) {
  const Json* value = &start;
  while (value != nullptr && !path.empty()) {
    const auto [step, rest] = first_step(path);
    value = step_into(*value, step);
    path = rest;
  }
  return value;
}

}  // namespace

std::string_view kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a truth value";
    case Json::value_t::number_float:
      return "a fraction";
    default:
      return "a number";
  }
}

void Row::fail_at(std::string_view path, std::string_view message) const {
  fail("{}:{}: field \"{}\": {}", printable(*file_, 4096), line_, printable(path), message);
}

const Json* Row::find(std::string_view path) const {
  return walk(fields_, path);
}

const Json& Row::at(std::string_view path) const {
  const Json* value = find(path);
  if (value == nullptr) fail_at(path, "missing");
  return *value;
}

const std::string& Row::text(std::string_view path) const {
  const Json& value = at(path);
  if (!value.is_string()) fail_at(path, fmt::format("{} where a string is expected", kind_of(value)));
  return value.get_ref<const std::string&>();
}

std::vector<std::string> Row::texts(std::string_view path) const {
  std::vector<std::string> out;
  const auto take = [&](const Json* value, size_t position) {
    if (value == nullptr) fail_at(path, fmt::format("missing in item {} of the list", position));
    if (!value->is_string()) {
      fail_at(path, fmt::format("item {} is {} where a string is expected", position, kind_of(*value)));
    }
    out.push_back(value->get<std::string>());
  };
  const Json* value = &fields_;
  std::string_view rest = path;
  while (!rest.empty()) {
    const auto [step, behind] = first_step(rest);
    if (value->is_array() && !parse_integer<size_t>(step)) break;
    value = step_into(*value, step);
    if (value == nullptr) fail_at(path, "missing");
    rest = behind;
  }
  if (!value->is_array())
    fail_at(path, fmt::format("{} where a list of strings is expected", kind_of(*value)));
  for (size_t i = 0; i < value->size(); ++i) take(walk((*value)[i], rest), i);
  if (out.empty()) fail_at(path, "an empty list where at least one string is expected");
  return out;
}

int64_t Row::integer(std::string_view path) const {
  const Json& value = at(path);
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)
    fail_at(path, "the number is too large");
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (const auto number = parse_integer<int64_t>(strip(text))) return *number;
    fail_at(path, fmt::format("\"{}\" where a whole number is expected", printable(text, 40)));
  }
  fail_at(path, fmt::format("{} where a whole number is expected", kind_of(value)));
}

int64_t Row::index(std::string_view path, int64_t count, int64_t first) const {
  const int64_t value = integer(path);
  if (value < first || value - first >= count) {
    fail_at(path, fmt::format("{} is none of {} to {}", value, first, first + count - 1));
  }
  return value - first;
}

}  // namespace qeval::datasets
