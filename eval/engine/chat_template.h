#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qeval::eval {

/// What a chat model expects around a user's message.
struct ChatTemplate {
  std::string_view name;
  std::string_view system_before, system_after;  ///< around a system message; both empty: it has no place
  std::string_view user_before, user_after;      ///< what follows the user's message begins the answer
  std::string_view stop;                         ///< the token that ends an answer, besides EOS; may be empty
  bool system_in_user = false;                   ///< the system message stands at the beginning of the user's
};

/// The templates, by the name that `--chat` takes. "{eos}" in them stands for the tokenizer's EOS token.
inline constexpr ChatTemplate kChatTemplates[] = {
    {"chatml", "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n",
     "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"},
    {"zephyr", "<|system|>\n", "{eos}\n", "<|user|>\n", "{eos}\n<|assistant|>\n", ""},
    {"gemma", "", "", "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"},
    {"llama-2", "<<SYS>>\n", "\n<</SYS>>\n\n", "[INST] ", " [/INST]", "", true},
    {"llama-3", "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n",
     "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
};

/// The template called `name`; Error naming those there are.
const ChatTemplate& find_chat_template(std::string_view name);
/// All names, "chatml, zephyr, …".
std::string chat_template_names();

/// The text that asks `message`; `eos` is the text of the EOS token. `system` may be empty; Error where it is
/// not and the template has no place for it.
std::string chat_prompt(const ChatTemplate& chat, std::string_view system, std::string_view message,
                        std::string_view eos);

}  // namespace qeval::eval
