#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// The text of `value`, compact or indented; throws Error opening with `where` if a string is not UTF-8.
std::string dump_json(const nlohmann::ordered_json& value, std::string_view where, int indent = -1);

/// A JSON number for every double: JSON has no NaN and no infinities, which become null, "Infinity" and
/// "-Infinity".
nlohmann::ordered_json number_to_json(double value);

/// Typed access to the fields of a JSON object; whatever is missing or of another type is an Error that names
/// the place and the field.
class JsonFields {
 public:
  /// `object` must outlive this; throws Error if it is not an object.
  JsonFields(const nlohmann::ordered_json& object, std::string where);

  bool has(const char* key) const { return object_.contains(key); }
  const nlohmann::ordered_json& at(const char* key) const;
  std::string text(const char* key) const;
  int64_t integer(const char* key) const;  ///< 0 … 2^53
  uint64_t seed(const char* key) const;    ///< an integer of at least 0, all 64 bits of it
  double number(const char* key) const;    ///< as number_to_json() writes it
  bool boolean(const char* key) const;
  std::vector<int64_t> integers(const char* key) const;  ///< each 0 … 2^53
  std::vector<std::string> texts(const char* key) const;
  /// The object under `key`; an absent one reads as empty only through has().
  JsonFields object(const char* key) const;

  const nlohmann::ordered_json& json() const { return object_; }
  const std::string& where() const { return where_; }
  [[noreturn]] void wrong(const char* key, std::string_view expected) const;

 private:
  const nlohmann::ordered_json& object_;
  std::string where_;
};

}  // namespace qeval::eval
