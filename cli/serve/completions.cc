#include "cli/serve/completions.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <mutex>
#include <numeric>
#include <span>
#include <thread>

#include "eval/engine/chat_template.h"
#include "eval/engine/plan.h"
#include "model/finite.h"

namespace qeval::cli::serve {
namespace {

constexpr int64_t kKvBytes = int64_t{2} << 30;  // of all texts under way

/// log Σ exp(logits)
double log_sum_exp(std::span<const float> logits) {
  const double most = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return most + std::log(sum);
}

void stop_if(const std::function<bool()>& cancelled) {
  if (cancelled()) throw Cancelled();
}

/// The `count` largest logits' tokens, the first of equals first, with their log-probabilities.
std::vector<std::pair<int32_t, double>> likeliest_of(std::span<const float> logits, int64_t count,
                                                     double log_total) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = std::min(count, std::ssize(order));
  std::ranges::partial_sort(order, order.begin() + wanted, [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  std::vector<std::pair<int32_t, double>> out;
  out.reserve(static_cast<size_t>(wanted));
  for (const int32_t id : std::span(order).first(static_cast<size_t>(wanted)))
    out.emplace_back(id, static_cast<double>(logits[static_cast<size_t>(id)]) - log_total);
  return out;
}

/// Where the first of the stop strings begins, or npos.
size_t find_stop(const std::string& text, std::span<const std::string> stops) {
  size_t at = std::string::npos;
  for (const std::string& stop : stops) at = std::min(at, text.find(stop));
  return at;
}

}  // namespace

Completions::Completions(eval::Session& session, std::string name, int64_t batch_tokens)
    : session_(session),
      tokenizer_(session.tokenizer()),
      name_(std::move(name)),
      batch_tokens_(batch_tokens),
      shared_(session.decoder(), batch_tokens, kKvBytes),
      answer_ends_(eval::answer_ends(session.model().path)) {}

bool Completions::is_eos(int32_t token, const CompletionRequest& request) const {
  if (request.ignore_eos) return false;
  if (request.chat && std::ranges::find(answer_ends_, token) != answer_ends_.end()) return true;
  return tokenizer_.eos_id() && *tokenizer_.eos_id() == token;
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
  const eval::Plan plan(requests, batch_tokens_, &session_.model().config);
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
    stop_if(cancelled);
    for (const int64_t done : run.step()) {
      const auto i = static_cast<size_t>(done);
      const eval::TokenScores scores = run.take(done);
      if (!scores.is_finite()) {
        throw model::NotFinite(fmt::format("prompt {}: {}", owner[i] + 1,
                                           eval::why_not_finite(session_.decoder(), requests[i], scores)));
      }
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
  const auto check_it = [&] { stop_if(cancelled); };
  eval::SharedDecoder::Text text(shared_, std::ssize(prompt) + request.max_tokens, check_it);
  eval::Sampler sampler(request.sampling);
  std::vector<int32_t> all = prompt;
  const size_t prompt_bytes = tokenizer_.decode(prompt).size();
  const auto next = [&](std::span<const float> logits) -> std::optional<int32_t> {
    Token token{sampler.draw(logits)};
    if (is_eos(token.id, request)) {
      answer.stopped = true;
      return {};
    }
    if (request.logprobs) {
      const double total = log_sum_exp(logits);
      token.log_probability = static_cast<double>(logits[static_cast<size_t>(token.id)]) - total;
      token.likeliest = likeliest_of(logits, std::max<int64_t>(1, *request.logprobs), total);
    }
    all.push_back(token.id);
    answer.generated.push_back(std::move(token));
    answer.text = text_behind(prompt_bytes, all);
    if (const size_t end = find_stop(answer.text, request.stop); end != std::string::npos) {
      answer.text.resize(end);
      answer.stopped = true;
      return {};
    }
    return std::ssize(answer.generated) < request.max_tokens ? std::optional(all.back()) : std::nullopt;
  };
  // The prompt in parts, so that a client who leaves is noticed.
  std::vector<float> logits;
  const std::span<const int32_t> whole = prompt;
  for (size_t at = 0; at < whole.size(); at += static_cast<size_t>(batch_tokens_)) {
    check_it();
    logits = text.extend(whole.subspan(at, std::min(whole.size() - at, static_cast<size_t>(batch_tokens_))));
  }
  for (std::optional<int32_t> token = next(logits); token; token = next(logits)) {
    check_it();
    logits = text.extend({&*token, 1});
  }
}

void Completions::generate_all(const CompletionRequest& request, std::vector<Answer>& answers,
                               const std::function<bool()>& cancelled) {
  if (answers.size() == 1) return generate(request, request.prompts[0].ids, answers[0], cancelled);
  constexpr size_t kThreads = 32;  // of one request
  std::atomic<size_t> next = 0, ended = 0;
  std::atomic<bool> given_up = false;
  std::mutex mutex;
  std::exception_ptr error;
  std::vector<std::thread> threads;
  const size_t count = std::min(kThreads, answers.size());
  for (size_t t = 0; t < count; ++t) {
    threads.emplace_back([&] {
      try {
        for (size_t i = next++; i < answers.size() && !given_up; i = next++)
          generate(request, request.prompts[i].ids, answers[i], [&] { return given_up.load(); });
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!error) error = std::current_exception();
        given_up = true;
      }
      ++ended;
    });
  }
  // The client is looked after by the thread that has its connection.
  while (ended < count) {
    if (cancelled()) given_up = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  stop_if(cancelled);
}

std::string Completions::text_behind(size_t bytes, const std::vector<int32_t>& ids) const {
  const std::string whole = tokenizer_.decode(ids);
  return whole.substr(std::min(bytes, whole.size()));
}

/// The answer of a prompt whose scoring gave the one greedy token that was asked for.
void Completions::take_scored(const CompletionRequest& request, const std::vector<int32_t>& prompt,
                              Answer& answer) const {
  const int32_t token = answer.generated.front().id;
  answer.stopped = is_eos(token, request);
  // The token's place stays in the lists, which clients count on: only its text is left out.
  if (answer.stopped || token >= tokenizer_.vocab_size()) return;
  std::vector<int32_t> all = prompt;
  all.push_back(token);
  answer.text = text_behind(tokenizer_.decode(prompt).size(), all);
}

std::vector<Completions::Answer> Completions::compute(const CompletionRequest& request,
                                                      const std::function<bool()>& cancelled) {
  std::vector<Answer> answers(request.prompts.size());
  stop_if(cancelled);
  const bool score = request.echo && request.logprobs;
  if (score) {
    const eval::SharedDecoder::Alone alone(shared_);
    score_prompts(request, answers, cancelled);
  }
  const bool scoring_generates = score && request.max_tokens == 1 && request.sampling.temperature == 0;
  if (request.max_tokens == 0) return answers;
  if (!scoring_generates) {
    for (Answer& answer : answers) answer.generated.clear();
    generate_all(request, answers, cancelled);
    return answers;
  }
  for (size_t i = 0; i < answers.size(); ++i) take_scored(request, request.prompts[i].ids, answers[i]);
  return answers;
}

std::string Completions::answer(const CompletionRequest& request, const std::function<bool()>& cancelled) {
  return body_of(request, compute(request, cancelled));
}

}  // namespace qeval::cli::serve
