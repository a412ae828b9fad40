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

/// A program under way.
struct Running {
  int process = 0;
  std::filesystem::path output, error;
  bool keeps_output = true;  ///< for Outcome::output
};

/// Starts a program (its name or path, and its arguments). `scratch` holds the redirected streams; `output`
/// stands for standard output where it is no empty path.
Running start_program(const std::filesystem::path& scratch, std::vector<std::string> words,
                      std::string_view input = "", const std::filesystem::path& output = {});
/// Waits for its end.
Outcome wait_for(const Running& running);

/// Runs the qeval that was built with these tests, as a user would from a shell, and waits for its end.
/// `scratch` holds the redirected streams; `output` stands for standard output where it is no empty path.
Outcome run_qeval(const std::filesystem::path& scratch, const std::vector<std::string>& arguments,
                  std::string_view input = "", const std::filesystem::path& output = {});

}  // namespace qeval::test
