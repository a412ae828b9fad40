#include "eval/results/protocol_difference.h"

#include "base/setting.h"

namespace qeval::eval {
namespace {

/// Keeps the first of the differences that it is told of.
class FirstDifference {
 public:
  void compare(const std::string& what, const std::string& first, const std::string& second) {
    if (!found_ && first != second) found_ = {what, first, second};
  }
  const std::optional<ProtocolDifference>& found() const { return found_; }

 private:
  std::optional<ProtocolDifference> found_;
};

/// How texts were generated; results of before it was recorded have no such settings.
void compare_generation(const TaskResults& first, const TaskResults& second, FirstDifference& difference) {
  constexpr const char* kField = "generation_kwargs";
  if (!first.config.contains(kField) || !second.config.contains(kField)) return;
  const nlohmann::ordered_json &one = first.config[kField], &other = second.config[kField];
  const auto of = [](const nlohmann::ordered_json& settings, const std::string& name) {
    return settings.contains(name) ? settings[name].dump() : "none";
  };
  for (const auto* settings : {&one, &other}) {
    for (const auto& [name, unused] : settings->items())
      difference.compare(first.name + " " + name, of(one, name), of(other, name));
  }
}

}  // namespace

std::optional<ProtocolDifference> protocol_difference(const RunResults& first, const RunResults& second) {
  FirstDifference difference;
  difference.compare("protocol", first.protocol, second.protocol);
  difference.compare("prefix token", first.prefix_policy, second.prefix_policy);
  const auto told = [](const RunResults& run) {
    return run.add_bos_token.empty() ? "as the tokenizer has it" : run.add_bos_token;
  };
  difference.compare(setting("add-bos-token"), told(first), told(second));
  const auto first_chat = first.chat.by_name(), second_chat = second.chat.by_name();
  for (const char* name :
       {"system_instruction", "chat_template", "chat_template_args", "fewshot_as_multiturn"}) {
    const auto of = [&](const std::map<std::string, std::string>& chat) {
      const auto found = chat.find(name);
      return found == chat.end() ? std::string("none") : found->second;
    };
    difference.compare(name, of(first_chat), of(second_chat));
  }
  difference.compare("maximum length", std::to_string(first.max_length), std::to_string(second.max_length));
  for (const TaskResults& task : first.tasks) {
    const TaskResults* other = second.find_task(task.name);
    if (other == nullptr) continue;
    difference.compare(task.name + " version", task.version, other->version);
    difference.compare(task.name + " split", task.split, other->split);
    difference.compare(task.name + " few-shot", std::to_string(task.num_fewshot),
                       std::to_string(other->num_fewshot));
    compare_generation(task, *other, difference);
  }
  return difference.found();
}

}  // namespace qeval::eval
