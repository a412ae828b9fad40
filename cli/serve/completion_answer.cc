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

namespace {

/// Bytes as an answer shows them: those that are no characters as `bytes:\xe2\x80`.
std::string shown_bytes(const std::string& bytes) {
  if (find_invalid_utf8(bytes) == std::string::npos) return bytes;
  std::string out = "bytes:";
  for (const char c : bytes) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return out;
}

/// Where in a text the tokens stand that it is made of, as characters from its beginning.
class TokenPlaces {
 public:
  explicit TokenPlaces(std::string_view text) : text_(text), character_(text.size() + 1) {
    size_t count = 0;
    for (size_t at = 0; at < text.size(); ++count) {
      for (const size_t end = at + character_length(at); at < end; ++at) character_[at] = count;
    }
    character_.back() = count;
  }

  /// The character at which the next token begins. `bytes` are its own in the middle of a text; a token that
  /// the text does not spell, such as a BOS in front, has `may_be_absent`.
  size_t next(std::string_view bytes, bool may_be_absent) {
    const size_t at = at_;
    if (text_.substr(at).starts_with(bytes)) {
      at_ += bytes.size();
    } else if (may_be_absent) {
      return character_[at];
    } else if (!began_ && bytes.starts_with(' ') && text_.substr(at).starts_with(bytes.substr(1))) {
      at_ += bytes.size() - 1;  // a text's first token may lose its space
    } else {                    // the tokenizer rewrote the text: about as long
      at_ = std::min(at + bytes.size(), text_.size());
    }
    began_ = began_ || !may_be_absent;
    return character_[at];
  }

 private:
  /// Bytes of the character at `at`. What is not UTF-8 is sent as a replacement character, which stands for a
  /// character's beginning or for a single byte.
  size_t character_length(size_t at) const {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text_[i]); };
    const unsigned char lead = byte(at);
    const size_t whole = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    size_t length = 1;
    while (length < whole && at + length < text_.size() && (byte(at + length) & 0xC0) == 0x80) ++length;
    return length;
  }

  std::string_view text_;
  std::vector<size_t> character_;  // per byte and at the end, the character that it is part of
  size_t at_ = 0;                  // bytes of the text that the tokens so far spell
  bool began_ = false;             // one of them is of the text
};

}  // namespace

/// A token's own bytes, in the middle of a text (a first token may lose its space).
std::string Completions::token_bytes(int32_t token) const {
  if (token >= tokenizer_.vocab_size()) return {};  // a row of the head that has no text
  const std::string once = tokenizer_.decode({{token}});
  const std::string twice = tokenizer_.decode(std::array{token, token});
  return twice.starts_with(once) ? twice.substr(once.size()) : once;
}

/// The four lists of the completions API, a place per token.
class Completions::LogprobLists {
 public:
  /// `sent`: the text of the answer, which the tokens' places are counted in.
  LogprobLists(const Completions& completions, int64_t likeliest, std::string_view sent)
      : completions_(completions), likeliest_(likeliest), places_(sent) {}

  void add(const Token& token) {
    const std::string bytes = completions_.token_bytes(token.id);
    const model::Tokenizer& tokenizer = completions_.tokenizer_;
    const std::string text = shown_bytes(bytes);
    tokens_.push_back(text);
    offsets_.push_back(places_.next(bytes, token.id == tokenizer.bos_id() || token.id == tokenizer.eos_id()));
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
      const std::string name = shown_bytes(completions_.token_bytes(id));
      if (!top.contains(name)) top[name] = value;  // of two with the same text, the likelier
    }
    if (!top.contains(text)) top[text] = *token.log_probability;
    return top;
  }

  const Completions& completions_;
  int64_t likeliest_;
  TokenPlaces places_;
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
    const std::string text = (request.echo ? prompt.text : "") + answer.text;
    if (request.logprobs) {
      LogprobLists lists(*this, *request.logprobs, text);
      if (request.echo) std::ranges::for_each(answer.prompt, [&](const Token& token) { lists.add(token); });
      std::ranges::for_each(answer.generated, [&](const Token& token) { lists.add(token); });
      logprobs = lists.take();
    }
    if (request.chat) {
      choices.push_back({{"index", i},
                         {"message", {{"role", "assistant"}, {"content", text}}},
                         {"logprobs", nullptr},
                         {"finish_reason", answer.stopped ? "stop" : "length"}});
      continue;
    }
    choices.push_back({{"index", i},
                       {"text", text},
                       {"logprobs", std::move(logprobs)},
                       {"finish_reason", answer.stopped ? "stop" : "length"}});
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const json body{{"id", fmt::format("{}-{}", request.chat ? "chatcmpl" : "cmpl", next_id_++)},
                  {"object", request.chat ? "chat.completion" : "text_completion"},
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
