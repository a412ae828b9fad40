#include "eval/engine/chat_template.h"

#include "base/error.h"

namespace qeval::eval {
namespace {

std::string with_eos(std::string_view text, std::string_view eos) {
  constexpr std::string_view kPlace = "{eos}";
  std::string out(text);
  if (const size_t at = out.find(kPlace); at != std::string::npos) out.replace(at, kPlace.size(), eos);
  return out;
}

}  // namespace

const ChatTemplate& find_chat_template(std::string_view name) {
  for (const ChatTemplate& chat : kChatTemplates) {
    if (chat.name == name) return chat;
  }
  fail("chat template {}: unknown; accepted: {}", printable(name), chat_template_names());
}

std::string chat_template_names() {
  std::string names;
  for (const ChatTemplate& chat : kChatTemplates)
    names += (names.empty() ? "" : ", ") + std::string(chat.name);
  return names;
}

std::string chat_prompt(const ChatTemplate& chat, std::string_view system, std::string_view message,
                        std::string_view eos) {
  std::string around;
  if (!system.empty()) {
    if (chat.system_before.empty()) fail("chat template {} has no place for a system message", chat.name);
    around = std::string(chat.system_before) + std::string(system) + with_eos(chat.system_after, eos);
  }
  const std::string before(chat.user_before);
  return (chat.system_in_user ? before + around : around + before) + std::string(message) +
         with_eos(chat.user_after, eos);
}

}  // namespace qeval::eval
