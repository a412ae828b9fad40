#include "cli/serve/completions.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/plan.h"

namespace qeval::cli::serve {
namespace {

using nlohmann::json;

/// log Σ exp(logits)
double log_sum_exp(std::span<const float> logits) {
  const double most = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return most + std::log(sum);
}

void check(const std::function<bool()>& cancelled) {
  if (cancelled()) throw Cancelled();
}

}  // namespace

Completions::Completions(eval::Session& session, std::string name, int64_t batch_tokens)
    : session_(session),
      tokenizer_(session.tokenizer()),
      name_(std::move(name)),
      batch_tokens_(batch_tokens) {}

bool Completions::is_eos(int32_t token, const CompletionRequest& request) const {
  return !request.ignore_eos && tokenizer_.eos_id() && *tokenizer_.eos_id() == token;
}

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

/// Log-probabilities of all prompts in one plan, so that what they share is computed once. Where something is
/// to be generated, a last token is scored whose value does not matter: its place says what comes next.
void Completions::score_prompts(const CompletionRequest& request, std::vector<Answer>& answers,
                                const std::function<bool()>& cancelled) {
  const bool next = request.max_tokens > 0;
  std::vector<eval::TokenRequest> requests;
  std::vector<size_t> owner;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::vector<int32_t>& ids = request.prompts[i].ids;
    for (const int32_t id : ids) answers[i].prompt.push_back({id});
    eval::TokenRequest scored{ids, std::ssize(ids) - (next ? 0 : 1)};
    if (next) scored.tokens.push_back(0);
    if (scored.scored == 0) continue;
    requests.push_back(std::move(scored));
    owner.push_back(i);
  }
  const eval::Plan plan(requests, batch_tokens_);
  const int64_t wanted = std::max<int64_t>(1, request.logprobs.value_or(0));
  std::vector<std::vector<model::Distribution>> likeliest(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) likeliest[i].resize(static_cast<size_t>(requests[i].scored));
  eval::ScoringRun run(session_.decoder(), plan,
                       {[&](int64_t, int64_t, std::vector<model::DistributionQuery>& asked) {
                          asked.push_back({.likeliest = wanted});
                        },
                        [&](int64_t which, int64_t index, const model::DistributionQuery&,
                            model::Distribution&& found, int32_t) {
                          likeliest[static_cast<size_t>(which)][static_cast<size_t>(index)] =
                              std::move(found);
                        }});
  while (!run.done()) {
    check(cancelled);
    for (const int64_t done : run.step()) {
      const auto i = static_cast<size_t>(done);
      const eval::TokenScores scores = run.take(done);
      Answer& answer = answers[owner[i]];
      for (size_t at = 0; at < scores.top1.size(); ++at) {
        const model::Distribution& found = likeliest[i][at];
        Token token{requests[i].tokens[at + 1], scores.log_probabilities[at], {}};
        for (size_t t = 0; t < found.tokens.size(); ++t) {
          // The same number where it is the same token, so that a client can tell an arg-max by comparing.
          const bool same = found.tokens[t] == token.id;
          token.likeliest.emplace_back(
              found.tokens[t],
              same ? *token.log_probability : static_cast<double>(found.log_probabilities[t]));
        }
        if (at + 1 < answer.prompt.size()) {
          answer.prompt[at + 1] = std::move(token);
        } else {  // what comes next
          token.id = scores.top1[at];
          token.log_probability = token.likeliest.front().second;
          answer.generated.push_back(std::move(token));
        }
      }
    }
  }
}

void Completions::generate(const CompletionRequest& request, const std::vector<int32_t>& prompt,
                           Answer& answer, const std::function<bool()>& cancelled) {
  model::Generator generator(session_.decoder(), std::ssize(prompt) + request.max_tokens);
  model::Sampler sampler(request.sampling);
  std::vector<int32_t> all = prompt;
  const size_t prompt_bytes = tokenizer_.decode(prompt).size();
  // The prompt in parts, so that a client who leaves is noticed.
  std::vector<float> logits;
  for (int64_t first = 0; first < std::ssize(prompt); first += batch_tokens_) {
    check(cancelled);
    logits = generator.extend(
        std::span(prompt).subspan(static_cast<size_t>(first),
                                  static_cast<size_t>(std::min(batch_tokens_, std::ssize(prompt) - first))));
  }
  while (std::ssize(answer.generated) < request.max_tokens) {
    Token token{sampler.draw(logits)};
    if (is_eos(token.id, request)) {
      answer.stopped = true;
      break;
    }
    if (request.logprobs) {
      const double total = log_sum_exp(logits);
      token.log_probability = static_cast<double>(logits[static_cast<size_t>(token.id)]) - total;
      std::vector<int32_t> order(logits.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
      const auto wanted = std::min<int64_t>(std::max<int64_t>(1, *request.logprobs), std::ssize(order));
      std::ranges::partial_sort(order, order.begin() + wanted, [&](int32_t a, int32_t b) {
        const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
        return x != y ? x > y : a < b;
      });
      for (int64_t i = 0; i < wanted; ++i) {
        const int32_t id = order[static_cast<size_t>(i)];
        token.likeliest.emplace_back(id, static_cast<double>(logits[static_cast<size_t>(id)]) - total);
      }
    }
    all.push_back(token.id);
    answer.generated.push_back(std::move(token));
    const std::string so_far = tokenizer_.decode(all);
    answer.text = so_far.substr(std::min(prompt_bytes, so_far.size()));
    size_t end = std::string::npos;
    for (const std::string& stop : request.stop) end = std::min(end, answer.text.find(stop));
    if (end != std::string::npos) {
      answer.text.resize(end);
      answer.stopped = true;
      break;
    }
    if (std::ssize(answer.generated) == request.max_tokens) break;
    check(cancelled);
    logits = generator.extend({{all.back()}});
  }
}

std::string Completions::answer(const CompletionRequest& request, const std::function<bool()>& cancelled) {
  std::vector<Answer> answers(request.prompts.size());
  {
    const std::scoped_lock lock(working_);
    check(cancelled);
    const bool score = request.echo && request.logprobs;
    if (score) score_prompts(request, answers, cancelled);
    // One greedy token came out of the scoring.
    const bool over =
        request.max_tokens == 0 || (score && request.max_tokens == 1 && request.sampling.temperature == 0);
    for (size_t i = 0; i < answers.size(); ++i) {
      Answer& answer = answers[i];
      if (!over) {
        answer.generated.clear();
        generate(request, request.prompts[i].ids, answer, cancelled);
      } else if (!answer.generated.empty()) {
        const int32_t token = answer.generated.front().id;
        answer.stopped = is_eos(token, request);
        // The token's place stays in the lists, which clients count on: only its text is left out.
        if (!answer.stopped && token < tokenizer_.vocab_size()) {
          std::vector<int32_t> all = request.prompts[i].ids;
          const size_t before = tokenizer_.decode(all).size();
          all.push_back(token);
          const std::string whole = tokenizer_.decode(all);
          answer.text = whole.substr(std::min(before, whole.size()));
        }
      }
    }
  }

  json choices = json::array();
  int64_t prompt_tokens = 0, completion_tokens = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    Answer& answer = answers[i];
    prompt_tokens += std::ssize(request.prompts[i].ids);
    completion_tokens += std::ssize(answer.generated);
    json logprobs = nullptr;
    if (request.logprobs) {
      json tokens = json::array(), values = json::array(), tops = json::array(), offsets = json::array();
      size_t offset = request.echo ? 0 : count_code_points(request.prompts[i].text);
      const auto add = [&](const Token& token) {
        const std::string text = token_text(token.id);
        tokens.push_back(text);
        offsets.push_back(offset);
        offset += text.starts_with("bytes:") ? 1 : count_code_points(text);
        values.push_back(token.log_probability ? json(*token.log_probability) : json(nullptr));
        if (!token.log_probability || *request.logprobs == 0) {
          tops.push_back(nullptr);
          return;
        }
        json top = json::object();
        for (const auto& [id, value] : token.likeliest) {
          const std::string name = token_text(id);
          if (!top.contains(name)) top[name] = value;  // of two with the same text, the likelier
        }
        if (!top.contains(text)) top[text] = *token.log_probability;
        tops.push_back(std::move(top));
      };
      if (request.echo) std::ranges::for_each(answer.prompt, add);
      std::ranges::for_each(answer.generated, add);
      logprobs = {{"tokens", std::move(tokens)},
                  {"token_logprobs", std::move(values)},
                  {"top_logprobs", *request.logprobs == 0 ? json(nullptr) : std::move(tops)},
                  {"text_offset", std::move(offsets)}};
    }
    choices.push_back({{"index", i},
                       {"text", (request.echo ? request.prompts[i].text : "") + answer.text},
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
