#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/file.h"

namespace qeval {

/// A folder of its own for the running test, removed with its content at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::path(testing::TempDir()) /
            (std::string("qeval_") + info->test_suite_name() + "_" + info->name());
    std::filesystem::remove_all(path_);
    qeval::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Writes a file below the folder, with the folders on its way.
  std::filesystem::path write(const std::string& name, std::string_view content) const {
    const std::filesystem::path path = path_ / name;
    qeval::create_directories(path.parent_path());
    write_file_atomically(path, content);
    return path;
  }

 private:
  std::filesystem::path path_;
};

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
