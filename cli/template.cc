#include <ctime>
#include <iostream>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "base/unicode.h"
#include "cli/command.h"
#include "eval/engine/chat_template.h"

namespace qeval::cli {
namespace {

po::options_description template_options() {
  po::options_description options("Options");
  auto add = options.add_options();
  add("model,m", po::value<std::string>()->value_name("FILE.jinja|MODEL"),
      "a chat template, or a model that has one: a folder or .gguf file; -m may be left out");
  add("name", po::value<std::string>()->value_name("NAME"),
      "which one, where the model has several named ones");
  return options;
}

/// "2026-01-02T03:04:05" as local time.
std::tm parse_time(const std::string& text) {
  std::tm out{};
  const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &out);
  if (end == nullptr || *end != '\0')
    fail("now: {}: accepted: a time such as 2026-01-31T23:59:00", printable(text));
  out.tm_isdst = -1;
  std::mktime(&out);  // the day of the week and of the year
  return out;
}

/// A line of input: the variables of one rendering.
eval::ChatRequest read_case(const nlohmann::ordered_json& json, eval::ChatTemplate& chat) {
  if (!json.is_object()) fail("not a JSON object");
  eval::ChatRequest out;
  out.add_generation_prompt = false;
  out.now = eval::local_time_now();
  const auto refuse = [](const std::string& key, const char* accepted) {
    fail("{}: accepted: {}", key, accepted);
  };
  for (const auto& [key, value] : json.items()) {
    if (key == "messages") {
      if (!value.is_array()) refuse(key, "a list of messages");
      out.messages = value;
    } else if (key == "add_generation_prompt") {
      if (!value.is_boolean()) refuse(key, "true or false");
      out.add_generation_prompt = value.get<bool>();
    } else if (key == "arguments") {
      if (!value.is_object()) refuse(key, "an object of variables");
      out.arguments.update(value);
    } else if (key == "tools" || key == "documents") {
      out.arguments[key] = value;
    } else if (key == "now") {
      if (!value.is_string()) refuse(key, "a time such as 2026-01-31T23:59:00");
      out.now = parse_time(value.get<std::string>());
    } else if (key.ends_with("_token")) {
      if (value.is_null()) {
        chat.special_tokens.erase(key);
      } else if (value.is_string()) {
        chat.special_tokens[key] = value.get<std::string>();
      } else {
        refuse(key, "a token's text or null");
      }
    } else if (key != "talk" && key != "text" && key != "error") {  // a case's name and its answer
      fail(
          "{}: unknown; accepted: messages, add_generation_prompt, arguments, tools, documents, now, "
          "bos_token, "
          "eos_token and other tokens",
          printable(key));
    }
  }
  if (out.messages.is_null()) fail("messages: missing");
  return out;
}

/// A template that may not even be parsed: then every line has that answer.
struct Parsed {
  std::optional<jinja::Template> usable;
  std::optional<jinja::TemplateError> error;
};
Parsed parse(const std::string& source) {
  Parsed out;
  try {
    out.usable.emplace(source);
  } catch (const jinja::TemplateError& error) {
    out.error = error;
  }
  return out;
}

int run_template(const po::variables_map& arguments) {
  const eval::ChatTemplate chat = eval::load_chat_template(
      require(arguments, "model"), optional<std::string>(arguments, "name").value_or(""));
  for (const std::string& warning : chat.warnings)
    std::cerr << "qeval template: warning: " << warning << '\n';
  const Parsed parsed = parse(chat.source);
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = fmt::format("standard input, line {}", number);
    nlohmann::ordered_json answer;
    try {
      if (number == 1) line = without_byte_order_mark(line);
      eval::ChatTemplate of_line = chat;
      const eval::ChatRequest request = read_case(parse_ordered_json(line, "JSON"), of_line);
      if (parsed.error) throw jinja::TemplateError(*parsed.error);
      answer = eval::render_chat(*parsed.usable, of_line, request);
    } catch (const jinja::TemplateError& error) {
      answer = {{"error", error.what()}};
      std::cerr << fmt::format("{}: {}, line {}: {}\n", where, chat.where, error.line,
                               printable(error.what(), 400));
    } catch (const Error& error) {
      fail("{}: {}", where, error.what());
    }
    std::cout << answer.dump() << '\n';
    if (!std::cout) fail("standard output: cannot write");
  }
  return 0;
}

}  // namespace

const Command template_command{
    .name = "template",
    .summary = "Chat prompts by a model's own template, a JSON object per line of standard input",
    .usage = "FILE.jinja|MODEL [--name NAME] < cases.jsonl",
    .example =
        "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}' "
        "| "
        "qeval template model.gguf",
    .options = template_options,
    .run = run_template,
    .positional = "model",
};

}  // namespace qeval::cli
