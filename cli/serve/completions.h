#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "eval/engine/generation.h"
#include "eval/engine/session.h"
#include "eval/engine/shared_decoder.h"

namespace qeval::cli::serve {

/// A request that is well-formed and within bounds.
struct CompletionRequest {
  struct Prompt {
    std::vector<int32_t> ids;  ///< at least one
    std::string text;
  };
  std::vector<Prompt> prompts;  ///< at least one
  int64_t max_tokens = 16;
  bool echo = false;
  std::optional<int64_t> logprobs;  ///< how many of the likeliest tokens to name; none: no log-probabilities
  bool ignore_eos = false;
  std::vector<std::string> stop;
  eval::SamplingOptions sampling{.temperature = 1};
  bool chat = false;  ///< a conversation's, and answered as one
};

/// The client has gone, or the server is ending: the work is given up.
class Cancelled {};

/// Answers requests of the completions API and of its form for conversations with one model; the texts of all
/// requests under way are continued together. Thread-safe.
class Completions {
 public:
  /// `name` is what the model is called in requests and answers. `session` must outlive the object.
  Completions(eval::Session& session, std::string name, int64_t batch_tokens);

  const std::string& name() const { return name_; }
  int64_t max_length() const { return session_.max_length(); }

  /// Reads a request's body. Throws Error naming the field, what it holds and what is accepted: anything that
  /// would change the answer and is not supported is refused, not ignored.
  CompletionRequest parse(std::string_view body) const;
  /// Likewise of a conversation, which the model's chat template makes a prompt of.
  CompletionRequest parse_chat(std::string_view body) const;

  /// The answer's body. `cancelled` is asked between batches and tokens, from the calling thread; where it
  /// says so, throws Cancelled.
  std::string answer(const CompletionRequest& request, const std::function<bool()>& cancelled);

  /// Bodies of the tokenizer's end points (as vLLM has them), from the bodies of their requests.
  std::string tokenize(std::string_view body) const;
  std::string detokenize(std::string_view body) const;
  std::string tokenizer_info() const;
  std::string models() const;

 private:
  /// A token of an answer. `log_probability` is missing at the first of a text.
  struct Token {
    int32_t id;
    std::optional<double> log_probability{};
    std::vector<std::pair<int32_t, double>> likeliest{};  ///< the arg-max first
  };
  struct Answer {
    std::vector<Token> prompt;  ///< as far as asked for
    std::vector<Token> generated;
    std::string text;  ///< of what was generated
    bool stopped = false;
  };

  class LogprobLists;

  std::vector<Answer> compute(const CompletionRequest& request, const std::function<bool()>& cancelled);
  std::string body_of(const CompletionRequest& request, const std::vector<Answer>& answers);
  void score_prompts(const CompletionRequest& request, std::vector<Answer>& answers,
                     const std::function<bool()>& cancelled);
  void generate(const CompletionRequest& request, const std::vector<int32_t>& prompt, Answer& answer,
                const std::function<bool()>& cancelled);
  /// All prompts of a request, side by side.
  void generate_all(const CompletionRequest& request, std::vector<Answer>& answers,
                    const std::function<bool()>& cancelled);
  void take_scored(const CompletionRequest& request, const std::vector<int32_t>& prompt,
                   Answer& answer) const;
  bool is_eos(int32_t token, const CompletionRequest& request) const;
  /// The text of `ids` from this byte on.
  std::string text_behind(size_t bytes, const std::vector<int32_t>& ids) const;
  std::string token_bytes(int32_t token) const;
  std::vector<int32_t> with_bos(std::vector<int32_t> ids) const;
  /// Begins with the model's prefix, where it has one.
  std::vector<int32_t> with_start(std::vector<int32_t> ids) const;

  void read_field(const std::string& field, const nlohmann::json& value, CompletionRequest& request) const;
  void add_prompts(const nlohmann::json& value, CompletionRequest& request) const;
  void check_lengths(const CompletionRequest& request) const;

  eval::Session& session_;
  const model::Tokenizer& tokenizer_;
  std::string name_;
  int64_t batch_tokens_;
  eval::SharedDecoder shared_;
  std::vector<int32_t> answer_ends_;  ///< that end a turn, besides the tokenizer's EOS
  std::atomic<int64_t> next_id_{1};
};

}  // namespace qeval::cli::serve
