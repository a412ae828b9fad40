#pragma once

#include <map>
#include <string>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// How prompts were put to a chat model, as results record it. All of it decides what a score means.
struct ChatSettings {
  std::string system_instruction = {};  ///< as given; empty: none
  std::string chat_template = {};       ///< its source; empty: prompts were plain text
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();  ///< variables that it was given
  bool fewshot_as_multiturn = false;

  /// By the names that messages and run.json use, what is not as it is by default.
  std::map<std::string, std::string> by_name() const;
  /// Adds lm-evaluation-harness's fields, and ours, of what is not as it is by default.
  void write(nlohmann::ordered_json& results) const;
  /// The inverse; `where` names the file. Throws Error for a field of the wrong type, and for a hash that is
  /// not that of its text.
  static ChatSettings read(const nlohmann::ordered_json& results, const std::string& where);
};

}  // namespace qeval::eval
