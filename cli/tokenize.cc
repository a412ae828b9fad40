#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/unicode.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "model/tokenizer/tokenizer.h"

namespace qeval::cli {
namespace {

po::options_description tokenize_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  add("model,m", po::value<std::string>()->value_name("MODEL"),
      "model folder, .gguf file, or a bare tokenizer.json or tokenizer.model");
  add("json-lines", "each input line is a JSON string (for texts that hold line breaks)");
  return options;
}

int run_tokenize(const po::variables_map& arguments) {
  const auto tokenizer = model::load_tokenizer(require(arguments, "model"));
  print_warnings(*tokenizer);
  const bool json_lines = arguments.count("json-lines") != 0;
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    try {
      if (number == 1) line = without_byte_order_mark(line);
      if (line.ends_with('\r')) line.pop_back();  // a line end CRLF
      if (json_lines) {
        const nlohmann::json value = nlohmann::json::parse(line, nullptr, false);
        if (!value.is_string()) fail("not a JSON string");
        line = value.get<std::string>();
      }
      std::cout << nlohmann::json(tokenizer->encode(line)).dump() << '\n';
    } catch (const Error& error) {
      fail("standard input, line {}: {}", number, error.what());
    }
  }
  return 0;
}

}  // namespace

const Command tokenize_command{
    .name = "tokenize",
    .summary = "Token ids of text, a JSON list per line of standard input, without special tokens",
    .usage = "-m MODEL [--json-lines] < text",
    .example = "echo 'Once upon a time' | qeval tokenize -m model.gguf",
    .options = tokenize_options,
    .run = run_tokenize,
};

}  // namespace qeval::cli
