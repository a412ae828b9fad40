#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace qeval {

/// Bad input, an impossible request or a failing machine: anything a user can fix. The message is one line
/// that names what went wrong, where (file, tensor, line) and what would be accepted. Our own mistakes are
/// assertions.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The command line itself is wrong (exit status 2, where every other Error gives 1).
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// `text` fit for one line of a message: bytes of control characters (C0, C1, delete) and bytes that are not
/// UTF-8 are escaped as \xNN, and what exceeds `limit` bytes is cut and replaced by "…". File contents may be
/// hostile; terminals obey escapes.
std::string printable(std::string_view text, size_t limit = 120);

}  // namespace qeval
