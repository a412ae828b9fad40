// Typed look-ups into the metadata of a GGUF file.

#include "base/error.h"
#include "model/checkpoint/gguf.h"

namespace qeval::model {
namespace {

/// The value as T, nullptr where the key is missing; another type is an Error.
template <typename T>
const T* find_as(const GgufFile& file, std::string_view key, std::string_view type) {
  const GgufValue* value = file.find_value(key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) fail("{}: metadata key {} is not {}", file.path().string(), key, type);
  return typed;
}

template <typename T>
const T& require_as(const GgufFile& file, std::string_view key, std::string_view type) {
  const T* value = find_as<T>(file, key, type);
  if (value == nullptr) fail("{}: metadata key {} ({}) is missing", file.path().string(), key, type);
  return *value;
}

constexpr std::string_view kInteger = "an integer", kNumber = "a float", kBoolean = "a boolean",
                           kString = "a string";

}  // namespace

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto it = metadata_.find(std::string(key));
  return it == metadata_.end() ? nullptr : &it->second;
}

int64_t GgufFile::integer(std::string_view key) const {
  return require_as<int64_t>(*this, key, kInteger);
}

int64_t GgufFile::integer_or(std::string_view key, int64_t fallback) const {
  const auto* value = find_as<int64_t>(*this, key, kInteger);
  return value == nullptr ? fallback : *value;
}

double GgufFile::number(std::string_view key) const {
  return require_as<double>(*this, key, kNumber);
}

double GgufFile::number_or(std::string_view key, double fallback) const {
  const auto* value = find_as<double>(*this, key, kNumber);
  return value == nullptr ? fallback : *value;
}

bool GgufFile::boolean_or(std::string_view key, bool fallback) const {
  const auto* value = find_as<bool>(*this, key, kBoolean);
  return value == nullptr ? fallback : *value;
}

const std::string& GgufFile::string(std::string_view key) const {
  return require_as<std::string>(*this, key, kString);
}

std::string GgufFile::string_or(std::string_view key, std::string_view fallback) const {
  const auto* value = find_as<std::string>(*this, key, kString);
  return value == nullptr ? std::string(fallback) : *value;
}

const std::vector<std::string>& GgufFile::strings(std::string_view key) const {
  return require_as<std::vector<std::string>>(*this, key, "an array of strings");
}

const std::vector<int64_t>* GgufFile::find_integers(std::string_view key) const {
  return find_as<std::vector<int64_t>>(*this, key, "an array of integers");
}

const std::vector<double>* GgufFile::find_numbers(std::string_view key) const {
  return find_as<std::vector<double>>(*this, key, "an array of floats");
}

const std::vector<std::string>* GgufFile::find_strings(std::string_view key) const {
  return find_as<std::vector<std::string>>(*this, key, "an array of strings");
}

std::string GgufFile::without_tensors() const {
  constexpr size_t kTensorCountAt = 8;  // behind the magic and the version
  std::string content(files_.front().text().substr(0, kTensorCountAt));
  for (const uint64_t count : {uint64_t{0}, uint64_t{values_.size()}})
    content.append(reinterpret_cast<const char*>(&count), sizeof count);
  for (const auto value : values_) content.append(reinterpret_cast<const char*>(value.data()), value.size());
  return content;
}

}  // namespace qeval::model
