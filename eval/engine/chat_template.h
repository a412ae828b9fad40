#pragma once

#include <ctime>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/engine/jinja/template.h"

namespace qeval::eval {

/// A model's own chat template, and the special tokens that it may print.
struct ChatTemplate {
  std::string where;                                  ///< the file, and within it what: for messages
  std::string source;                                 ///< Jinja, as it is stored
  std::map<std::string, std::string> special_tokens;  ///< by role: "bos_token", "eos_token", …
  std::vector<std::string> warnings;
};

/// The chat template of `path`: a file NAME.jinja; a model folder with chat_template.jinja (and
/// additional_chat_templates/NAME.jinja), else what tokenizer_config.json has as `chat_template`, else the
/// metadata of tokenizer.gguf; or a GGUF file. Where a model has several, `name` picks one, and without a
/// name the one called "default" is taken, as transformers and lm-evaluation-harness do; a name for a model
/// with a single template is a warning. Error naming what there is where nothing fits, or a file is a Git LFS
/// pointer.
ChatTemplate load_chat_template(const std::filesystem::path& path, std::string_view name = {});

/// What a template is rendered with.
struct ChatRequest {
  nlohmann::ordered_json messages;  ///< [{"role": …, "content": …}, …]
  bool add_generation_prompt = true;
  nlohmann::ordered_json arguments =
      nlohmann::ordered_json::object();  ///< more variables, such as enable_thinking
  std::tm now{};                         ///< local time
};
/// Whether templates know a variable of this name that is not an argument of the user's: the conversation and
/// what belongs to it, special tokens.
bool is_reserved_variable(std::string_view name);
/// Raises jinja::TemplateError.
std::string render_chat(const jinja::Template& parsed, const ChatTemplate& chat, const ChatRequest& request);
/// Parses and renders; Error naming the template and its line.
std::string chat_prompt(const ChatTemplate& chat, const ChatRequest& request);

/// Makes prompts of a chat template, all at one time of day. What lm-evaluation-harness does where a template
/// refuses the conversation is done, too: it is rendered again without the system message.
class ChatRenderer {
 public:
  /// `arguments`: more variables. Error naming the template and its line where it cannot be parsed.
  ChatRenderer(ChatTemplate chat, nlohmann::ordered_json arguments);

  /// The conversation as a prompt that an answer follows, or as it stands. Error naming the template and its
  /// line.
  std::string operator()(const nlohmann::ordered_json& messages, bool add_generation_prompt = true);

  const ChatTemplate& chat() const { return chat_; }
  const nlohmann::ordered_json& arguments() const { return arguments_; }
  /// Whether a system message was left out of a prompt.
  bool dropped_system() const { return dropped_system_; }

 private:
  ChatTemplate chat_;
  nlohmann::ordered_json arguments_;
  std::tm now_;
  jinja::Template parsed_;
  bool dropped_system_ = false;
};

/// The local time.
std::tm local_time_now();

/// The tokens after which an answer ends, besides the tokenizer's EOS: `eos_token_id` of
/// generation_config.json, or of config.json where there is none, or a GGUF file's end of a turn.
std::vector<int32_t> answer_ends(const std::filesystem::path& model);

}  // namespace qeval::eval
