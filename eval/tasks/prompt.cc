#include "eval/tasks/prompt.h"

#include <algorithm>
#include <utility>

#include "base/unicode.h"

namespace qeval::eval {
namespace {

std::string joined(const std::vector<Message>& messages) {
  std::string out;
  for (const Message& message : messages) out += message.content + message.ending;
  return out;
}

/// All but the system message as one of the user's, whose end nothing follows.
std::vector<Message> collapsed(std::vector<Message> messages) {
  std::vector<Message> out;
  if (messages.front().role == "system") {
    out.push_back(std::move(messages.front()));
    messages.erase(messages.begin());
  }
  messages.back().ending.clear();
  out.push_back({"user", joined(messages)});
  return out;
}

}  // namespace

std::string prompt_text(std::vector<Message> messages, const PromptStyle& style) {
  if (!style.chat) return joined(messages);
  if (!style.fewshot_as_multiturn) messages = collapsed(std::move(messages));
  auto conversation = nlohmann::ordered_json::array();
  for (Message& message : messages)
    conversation.push_back({{"role", std::move(message.role)}, {"content", std::move(message.content)}});
  return style.chat(conversation);
}

std::string join_texts(std::string_view first, std::string_view second, std::string_view delimiter) {
  std::string out(first);
  const bool apart = strip_right(first).size() == first.size() && strip_left(second).size() == second.size();
  if (!first.empty() && !second.empty() && apart) out += delimiter;
  return out += second;
}

}  // namespace qeval::eval
