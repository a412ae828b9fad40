#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace qeval::model {

static_assert(std::endian::native == std::endian::little, "the checkpoint formats are read in place");

/// Reads a little-endian integer or float that need not be aligned.
template <typename T>
T load_little_endian(const std::byte* source) {
  static_assert(std::is_arithmetic_v<T>);
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

/// A cursor over the bytes of a file that cannot leave them: reading past the end is an Error that names the
/// file, what was being read and the offset.
class ByteReader {
 public:
  /// `file` is what messages call the bytes.
  ByteReader(std::span<const std::byte> bytes, std::string file) : bytes_(bytes), file_(std::move(file)) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  template <typename T>
  T read(std::string_view what) {
    return load_little_endian<T>(take(sizeof(T), what).data());
  }

  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      fail("{}: truncated: {} at offset {} needs {} bytes, {} are left", file_, what, offset_, count,
           remaining());
    }
    const auto result = bytes_.subspan(offset_, count);
    offset_ += count;
    return result;
  }

  std::string_view take_text(uint64_t count, std::string_view what) {
    const auto bytes = take(count, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::string file_;
  size_t offset_ = 0;
};

}  // namespace qeval::model
