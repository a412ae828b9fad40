#include "cli/chat_options.h"

#include <algorithm>
#include <string_view>

#include "base/unicode.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "eval/engine/chat_template.h"

namespace qeval::cli {

namespace {

nlohmann::ordered_json parse_template_arguments(std::string_view left) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (left.starts_with('{')) {
    nlohmann::ordered_json object = nlohmann::ordered_json::parse(left, nullptr, false);
    if (!object.is_object()) refuse("chat-template-args", fmt::format("{}: no JSON object", printable(left)));
    return object;
  }
  while (!left.empty()) {
    const size_t end = std::min(left.find(','), left.size());
    const std::string_view one = left.substr(0, end);
    left.remove_prefix(std::min(end + 1, left.size()));
    const size_t sign = one.find('=');
    if (sign == std::string_view::npos || sign == 0) {
      refuse("chat-template-args", fmt::format("{}: accepted: K=V,..., or a JSON object", printable(one)));
    }
    const std::string value(one.substr(sign + 1)), lowered = lower(value);
    const nlohmann::ordered_json number = nlohmann::ordered_json::parse(value, nullptr, false);
    nlohmann::ordered_json& place = out[std::string(one.substr(0, sign))];
    if (lowered == "true" || lowered == "false") {
      place = lowered == "true";
    } else if (number.is_number()) {
      place = number;
    } else {
      place = value;
    }
  }
  return out;
}

}  // namespace

po::typed_value<std::string>* template_arguments_value() {
  return po::value<std::string>()->value_name("K=V,...");
}

nlohmann::ordered_json template_arguments(const po::variables_map& arguments) {
  const auto given = optional<std::string>(arguments, "chat-template-args");
  nlohmann::ordered_json out =
      parse_template_arguments(given ? std::string_view(*given) : std::string_view());
  for (const auto& [key, value] : out.items()) {
    if (eval::is_reserved_variable(key))
      refuse("chat-template-args", fmt::format("{}: the template has it from the conversation", key));
  }
  return out;
}

void add_chat_options(po::options_description& options) {
  auto add = options.add_options();
  add("apply-chat-template", po::value<std::string>()->value_name("NAME")->implicit_value(""),
      "put prompts into the model's own chat template; NAME picks one where it has several");
  add("system-instruction", po::value<std::string>()->value_name("TEXT"),
      "stands in front of every prompt; with --apply-chat-template as the system message");
  add("fewshot-as-multiturn", po::value<std::string>()->value_name("WHETHER")->implicit_value("true"),
      "with --apply-chat-template: examples are turns of the conversation (true, the default), or all is one "
      "message of the user's (false)");
  add("chat-template-args", template_arguments_value(),
      "variables for the template, with --apply-chat-template: enable_thinking=false");
}

std::optional<eval::ChatOptions> chat_options(const po::variables_map& arguments) {
  const auto name = optional<std::string>(arguments, "apply-chat-template");
  if (!name) {
    for (const char* option : {"fewshot-as-multiturn", "chat-template-args"}) {
      if (arguments.count(option) != 0) refuse(option, "not used without --apply-chat-template");
    }
    return {};
  }
  if (protocol(arguments) == eval::Protocol::lm_eval_0_3) {
    refuse("apply-chat-template", "protocol lm-eval-0.3 knows no chat templates; accepted with lm-eval-0.4");
  }
  const std::string multiturn = optional<std::string>(arguments, "fewshot-as-multiturn").value_or("true");
  if (multiturn != "true" && multiturn != "false") {
    refuse("fewshot-as-multiturn", fmt::format("{}: unknown; accepted: true, false", printable(multiturn)));
  }
  return eval::ChatOptions{.template_name = *name,
                           .arguments = template_arguments(arguments),
                           .fewshot_as_multiturn = multiturn == "true"};
}

}  // namespace qeval::cli
