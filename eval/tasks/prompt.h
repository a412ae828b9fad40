#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// A part of a prompt: what one side says.
struct Message {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
  std::string ending = {};  ///< what follows it where the prompt is plain text
};

/// How the messages of a prompt become the text that a model is given.
struct PromptStyle {
  /// Stands in front of everything, before the task's own opening and a blank line.
  std::string system_instruction = {};
  /// The model's chat template: the text of [{"role": …, "content": …}, …], with the opening of the answer
  /// that is to follow. Empty: plain text.
  std::function<std::string(const nlohmann::ordered_json& messages)> chat = {};
  /// The answered examples are turns of the conversation; else all of it is one message of the user's.
  bool fewshot_as_multiturn = false;
};

/// The messages as one text, as lm-evaluation-harness's fewshot_context() joins or renders them. At least one
/// message, the last of them the user's.
std::string prompt_text(std::vector<Message> messages, const PromptStyle& style);

/// Both texts with the delimiter between, unless one of them is empty or has white space where they meet.
std::string join_texts(std::string_view first, std::string_view second, std::string_view delimiter);

}  // namespace qeval::eval
