#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {

/// `qeval quantize` of the model on a text, and what is made of it.
class QuantizeCli : public Cli {
 protected:
  QuantizeCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
    write("calibration.txt", text);
  }

  Outcome quantize(const std::string& output, std::vector<std::string> arguments) const {
    const std::vector<std::string> common{
        "quantize",          "-m", path("model"), "--calibration", path("calibration.txt"), "--samples", "4",
        "--sequence-length", "32", "-o",          path(output)};
    arguments.insert(arguments.begin(), common.begin(), common.end());
    return run(arguments);
  }
  /// Log-likelihoods of the two documents of piqa.
  nlohmann::json scores(const std::string& model, const std::string& output,
                        const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"eval", "-m",   path(model), "-d",        path("data"),
                                       "-t",   "piqa", "-o",        path(output)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_success(run(arguments));
    nlohmann::json all = nlohmann::json::array();
    std::string lines = read(output + "/samples_piqa.jsonl");
    for (size_t at = 0; at < lines.size();) {
      const size_t end = lines.find('\n', at);
      all.push_back(nlohmann::json::parse(lines.substr(at, end - at)).at("filtered_resps"));
      at = end + 1;
    }
    return all;
  }
  nlohmann::json json(const std::string& file) const { return nlohmann::json::parse(read(file)); }
};

}  // namespace qeval::test
