#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::test {

/// What a finished program left behind.
struct Outcome {
  int status = -1;  ///< exit status, or 128 + the signal that ended it
  std::string output;
  std::string error;
};

/// Runs the qeval that was built with these tests, as a user would from a shell, and waits for its end.
/// `scratch` holds the redirected streams; `output` stands for standard output where it is no empty path.
Outcome run_qeval(const std::filesystem::path& scratch, const std::vector<std::string>& arguments,
                  std::string_view input = "", const std::filesystem::path& output = {});

}  // namespace qeval::test
