#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval {

/// Typed access to one JSON object of a file. null counts as absent, as it does in Python's configuration
/// classes, unless has() is asked. Errors name the file (`where`), the key, its value and what is accepted.
class JsonObject {
 public:
  /// `object` must outlive the reader; anything but an object is an Error.
  JsonObject(const nlohmann::json& object, std::string where);

  const std::string& where() const { return where_; }
  const nlohmann::json& value() const { return object_; }
  /// The value, or nullptr where it is absent or null.
  const nlohmann::json* find(const char* key) const;
  /// Whether the key stands there, be it null.
  bool has(const char* key) const { return object_.contains(key); }
  [[noreturn]] void refuse(const char* key, std::string_view accepted) const;

  int64_t integer(const char* key, std::optional<int64_t> fallback = std::nullopt) const;
  double number(const char* key, std::optional<double> fallback = std::nullopt) const;
  bool boolean(const char* key, bool fallback) const;
  std::string string(const char* key, std::optional<std::string> fallback = std::nullopt) const;
  std::vector<double> numbers(const char* key) const;
  std::vector<std::string> strings(const char* key) const;
  /// The object at `key`, which must be there and be one.
  JsonObject object(const char* key) const;

  /// Refuses anything but false (or absent).
  void require_false(std::initializer_list<const char*> keys) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace qeval
