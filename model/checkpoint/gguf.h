#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/file.h"
#include "model/checkpoint/checkpoint.h"

namespace qeval::model {

/// One metadata value. Integers of every width are held as int64 (an uint64 above its range is refused),
/// floats as double; arrays are homogeneous and not nested.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<std::string>>;

/// A GGUF v2/v3 file, or all parts of one that was split: typed metadata and tensors, mapped. Little-endian
/// only.
class GgufFile : public Checkpoint {
 public:
  /// Of a split file, any part may be given (NAME-00002-of-00003.gguf); path() is the first one, the others
  /// must lie beside it. Throws Error naming the file and the offending offset, key or tensor.
  explicit GgufFile(const std::filesystem::path& file);
  void release_pages() const override;

  const GgufValue* find_value(std::string_view key) const;
  /// Typed look-ups: a missing key or another type is an Error that names it; the *_or forms default a
  /// missing key only.
  int64_t integer(std::string_view key) const;
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  const std::string& string(std::string_view key) const;
  std::string string_or(std::string_view key, std::string_view fallback) const;
  const std::vector<std::string>& strings(std::string_view key) const;
  /// nullptr where missing; another type is an Error.
  const std::vector<int64_t>* find_integers(std::string_view key) const;
  const std::vector<double>* find_numbers(std::string_view key) const;
  const std::vector<std::string>* find_strings(std::string_view key) const;

  /// The content of a GGUF file with the same metadata, but what is about parts, and no tensors: a
  /// vocabulary file.
  std::string without_tensors() const;

 private:
  std::vector<MappedFile> files_;
  std::vector<std::span<const std::byte>> values_;  ///< the metadata as stored, but what is about parts
  std::unordered_map<std::string, GgufValue> metadata_;
};

}  // namespace qeval::model
