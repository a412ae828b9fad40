#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval {

/// The JSON object in a file; Error for another value, or a Git LFS pointer in its place.
nlohmann::json read_json_object(const std::filesystem::path& file);

/// The field of an object; nullptr where it is missing or null, or `value` is no object.
template <typename Json>
const Json* find_field(const Json& value, std::string_view key) {
  if (!value.is_object()) return nullptr;
  const auto field = value.find(key);
  return field == value.end() || field->is_null() ? nullptr : &*field;
}

/// Typed access to one JSON object of a file; `Json` is nlohmann::json, or ordered_json where the order of
/// keys counts. null counts as absent, as it does in Python's configuration classes, unless has() or at() is
/// asked. Errors name the file (`where`), the key, its value and what is accepted.
template <typename Json>
class BasicJsonObject {
 public:
  /// `object` must outlive the reader; anything but an object is an Error.
  BasicJsonObject(const Json& object, std::string where);

  const std::string& where() const { return where_; }
  const Json& value() const { return object_; }
  /// The value, or nullptr where it is absent or null.
  const Json* find(std::string_view key) const { return find_field(object_, key); }
  /// Whether the key stands there, be it null.
  bool has(std::string_view key) const { return object_.contains(key); }
  /// The value, which must be there, be it null.
  const Json& at(std::string_view key) const;
  [[noreturn]] void refuse(std::string_view key, std::string_view accepted) const;

  int64_t integer(std::string_view key, std::optional<int64_t> fallback = std::nullopt) const;
  double number(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  bool boolean(std::string_view key, std::optional<bool> fallback = std::nullopt) const;
  std::string string(std::string_view key, std::optional<std::string> fallback = std::nullopt) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  /// The object or the array at `key`, which must be there and be one.
  BasicJsonObject object(std::string_view key) const;
  const Json& array(std::string_view key) const;

  int64_t count(std::string_view key) const;                ///< 0 … 2^53, what every reader of JSON holds
  std::vector<int64_t> counts(std::string_view key) const;  ///< each 0 … 2^53
  uint64_t seed(std::string_view key) const;                ///< an integer of at least 0, all 64 bits of it
  double any_number(std::string_view key) const;            ///< as number_to_json() writes it

  /// Refuses anything but false (or absent).
  void require_false(std::initializer_list<std::string_view> keys) const;

 private:
  const Json& object_;
  std::string where_;
};

using JsonObject = BasicJsonObject<nlohmann::json>;
using OrderedJsonObject = BasicJsonObject<nlohmann::ordered_json>;

extern template class BasicJsonObject<nlohmann::json>;
extern template class BasicJsonObject<nlohmann::ordered_json>;

/// The text of `value`, compact or indented; throws Error opening with `where` if a string is not UTF-8.
std::string dump_json(const nlohmann::ordered_json& value, std::string_view where, int indent = -1);

/// A JSON number for every double: JSON has no NaN and no infinities, which become null, "Infinity" and
/// "-Infinity".
nlohmann::ordered_json number_to_json(double value);

}  // namespace qeval
