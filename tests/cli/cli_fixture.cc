#include "cli_fixture.h"

#include <algorithm>
#include <cstring>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace qeval::test {

void expect_one_line(const Outcome& outcome, int status, const std::string& part) {
  EXPECT_EQ(outcome.status, status);
  EXPECT_THAT(outcome.error, testing::AllOf(testing::StartsWith("qeval: "), testing::EndsWith("\n"),
                                            testing::HasSubstr(part)));
  EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << outcome.error;
}

void expect_success(const Outcome& outcome) {
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.error, testing::IsEmpty());
}

Cli::Cli() {
  write_byte_model(path("model"));
  write("data/piqa/validation.jsonl",
        R"({"goal": "Cool the tea", "sol1": "Wait.", "sol2": "Boil it again.", "label": 0})"
        "\n"
        R"({"goal": "Dry a cup", "sol1": "Fill it.", "sol2": "Use a towel.", "label": 1})"
        "\n");
}

Outcome Cli::run(const std::vector<std::string>& arguments, std::string_view input) const {
  return run_qeval(folder_.path(), arguments, input);
}

Outcome Cli::eval(const std::vector<std::string>& arguments) const {
  std::vector<std::string> all{"eval", "-m", path("model"), "-d", path("data")};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run(all);
}

void Cli::write(std::string_view name, std::string_view content) const {
  const std::filesystem::path file = path(name);
  qeval::create_directories(file.parent_path());
  write_file_atomically(file, content);
}

std::string Cli::read(std::string_view name) const {
  return read_file(path(name));
}

void Cli::write_damaged_model(std::string_view name, const std::string& tensor, size_t index,
                              float value) const {
  write_byte_model(path(name));
  const std::string file = std::string(name) + "/model.safetensors";
  std::string bytes = read(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto fields = nlohmann::json::parse(std::string_view(bytes).substr(sizeof header, header));
  const size_t first = fields.at(tensor).at("data_offsets").at(0);
  std::memcpy(bytes.data() + sizeof header + header + first + index * sizeof value, &value, sizeof value);
  write(file, bytes);
}

}  // namespace qeval::test
