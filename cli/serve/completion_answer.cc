// What a client gets: the body of an answer.
#include <algorithm>
#include <array>
#include <chrono>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/unicode.h"
#include "cli/serve/completions.h"

namespace qeval::cli::serve {

using nlohmann::json;

/// A token's own text, in the middle of one (a first token may lose its space); bytes that are no characters
/// as `bytes:\xe2\x80`.
std::string Completions::token_text(int32_t token) const {
  if (token >= tokenizer_.vocab_size()) return {};  // a row of the head that has no text
  const std::string once = tokenizer_.decode({{token}});
  const std::string twice = tokenizer_.decode(std::array{token, token});
  std::string own = twice.starts_with(once) ? twice.substr(once.size()) : once;
  if (find_invalid_utf8(own) == std::string::npos) return own;
  std::string shown = "bytes:";
  for (const char c : own) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return shown;
}

/// The four lists of the completions API, a place per token.
class Completions::LogprobLists {
 public:
  LogprobLists(const Completions& completions, int64_t likeliest, size_t first_offset)
      : completions_(completions), likeliest_(likeliest), offset_(first_offset) {}

  void add(const Token& token) {
    const std::string text = completions_.token_text(token.id);
    tokens_.push_back(text);
    offsets_.push_back(offset_);
    offset_ += text.starts_with("bytes:") ? 1 : count_code_points(text);
    values_.push_back(token.log_probability ? json(*token.log_probability) : json(nullptr));
    tops_.push_back(top_of(token, text));
  }

  json take() {
    return {{"tokens", std::move(tokens_)},
            {"token_logprobs", std::move(values_)},
            {"top_logprobs", likeliest_ == 0 ? json(nullptr) : std::move(tops_)},
            {"text_offset", std::move(offsets_)}};
  }

 private:
  json top_of(const Token& token, const std::string& text) const {
    if (!token.log_probability || likeliest_ == 0) return nullptr;
    json top = json::object();
    for (const auto& [id, value] : token.likeliest) {
      const std::string name = completions_.token_text(id);
      if (!top.contains(name)) top[name] = value;  // of two with the same text, the likelier
    }
    if (!top.contains(text)) top[text] = *token.log_probability;
    return top;
  }

  const Completions& completions_;
  int64_t likeliest_;
  size_t offset_;  // of the next token, in code points
  json tokens_ = json::array(), values_ = json::array(), tops_ = json::array(), offsets_ = json::array();
};

std::string Completions::body_of(const CompletionRequest& request, const std::vector<Answer>& answers) {
  json choices = json::array();
  int64_t prompt_tokens = 0, completion_tokens = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const CompletionRequest::Prompt& prompt = request.prompts[i];
    const Answer& answer = answers[i];
    prompt_tokens += std::ssize(prompt.ids);
    completion_tokens += std::ssize(answer.generated);
    json logprobs = nullptr;
    if (request.logprobs) {
      LogprobLists lists(*this, *request.logprobs, request.echo ? 0 : count_code_points(prompt.text));
      if (request.echo) std::ranges::for_each(answer.prompt, [&](const Token& token) { lists.add(token); });
      std::ranges::for_each(answer.generated, [&](const Token& token) { lists.add(token); });
      logprobs = lists.take();
    }
    choices.push_back({{"index", i},
                       {"text", (request.echo ? prompt.text : "") + answer.text},
                       {"logprobs", std::move(logprobs)},
                       {"finish_reason", answer.stopped ? "stop" : "length"}});
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const json body{{"id", fmt::format("cmpl-{}", next_id_++)},
                  {"object", "text_completion"},
                  {"created", std::chrono::duration_cast<std::chrono::seconds>(now).count()},
                  {"model", name_},
                  {"choices", std::move(choices)},
                  {"usage",
                   {{"prompt_tokens", prompt_tokens},
                    {"completion_tokens", completion_tokens},
                    {"total_tokens", prompt_tokens + completion_tokens}}}};
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace qeval::cli::serve
