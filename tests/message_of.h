#pragma once

#include <string>

#include "base/error.h"

namespace qeval {

/// What the Error says that the callable throws; empty where it throws none.
template <typename Callable>
std::string message_of(const Callable& callable) {
  try {
    callable();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace qeval
