#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "program.h"
#include "tests/model/byte_model.h"
#include "tests/model/fixtures.h"

namespace qeval::test {

/// A user's folder: a tiny model with its tokenizer in model/, data of one task in data/, and qeval run
/// there.
class Cli : public testing::Test {
 protected:
  Cli();

  Outcome run(const std::vector<std::string>& arguments, std::string_view input = "") const;
  /// `qeval eval` on the model and the data with further arguments.
  Outcome eval(const std::vector<std::string>& arguments) const;

  /// Path of a file or folder below the user's folder.
  std::string path(std::string_view name) const { return folder_ / name; }
  void write(std::string_view name, std::string_view content) const;
  std::string read(std::string_view name) const;
  /// A copy of the model in a folder `name`, whose tensor has this value at place `index`.
  void write_damaged_model(std::string_view name, const std::string& tensor, size_t index, float value) const;

 private:
  model::fixtures::TemporaryFolder folder_;
};

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

/// One line on stderr that has `part`, and this exit status.
void expect_one_line(const Outcome& outcome, int status, const std::string& part);
/// Exit status 0 and nothing on stderr.
void expect_success(const Outcome& outcome);

}  // namespace qeval::test
