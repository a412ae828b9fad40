#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/temporary_folder.h"

namespace qeval {

using test::TemporaryFolder;

/// What the callable's Error says; empty where it throws none.
template <typename Error, typename Callable>
std::string message_of(const Callable& callable) {
  try {
    callable();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace qeval
