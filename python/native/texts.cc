#include "python/native/texts.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/hash.h"
#include "cli/option_values.h"
#include "eval/engine/chat_template.h"
#include "eval/engine/generation_run.h"
#include "eval/task_run.h"
#include "eval/tasks/generation_settings.h"
#include "python/native/fields.h"

namespace qeval::python {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kKvBytes = int64_t{1} << 30;  // as an evaluation has it; changes no text

std::vector<eval::TokenRequest> encode(const eval::RequestEncoder& encoder, const ordered_json& prompts,
                                       int64_t max_tokens, bool may_cut) {
  std::vector<eval::TokenRequest> requests;
  for (const ordered_json& prompt : prompts) {
    try {
      eval::EncodedRequest encoded = encoder.encode_prompt(prompt.get_ref<const std::string&>(), max_tokens);
      if (encoded.truncated > 0 && !may_cut) {
        const int64_t room = std::ssize(encoded.tokens.input());
        fail("{} tokens of prompt and {} new ones; accepted: {} in all, or a longer --max-length",
             room + encoded.truncated, max_tokens, room + max_tokens);
      }
      requests.push_back(std::move(encoded.tokens));
    } catch (const Error& error) {
      fail("prompt {}: {}", requests.size(), error.what());
    }
  }
  return requests;
}

std::vector<eval::GeneratedText> run(eval::Session& session, std::span<const eval::TokenRequest> requests,
                                     eval::TextLimits limits, int64_t batch_tokens,
                                     const Observer& observer) {
  const eval::Plan plan(requests, batch_tokens, &session.model().config);
  eval::GenerationRun generation(session.decoder(), session.tokenizer(), plan, std::move(limits),
                                 batch_tokens, kKvBytes);
  std::vector<eval::GeneratedText> texts(requests.size());
  while (!generation.done()) {
    observer.progress("generate", generation.tokens_done(), generation.tokens_to_do());
    try {
      for (const int64_t i : generation.step()) texts[static_cast<size_t>(i)] = generation.take(i);
    } catch (const eval::TextNotFinite& error) {
      fail("prompt {}: {}", error.request, error.what());
    }
  }
  observer.progress("generate", generation.tokens_to_do(), generation.tokens_to_do());
  return texts;
}

std::string name(eval::GeneratedText::End end) {
  if (end == eval::GeneratedText::End::stop) return "stop";
  return end == eval::GeneratedText::End::eos ? "eos" : "length";
}

/// What `qeval generate` prints of an answer: what it adds to the bytes of its prompt, since those of a token
/// may depend on the tokens before it.
std::string continuation(const model::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                         std::span<const int32_t> answer, std::span<const std::string> stops) {
  std::vector<int32_t> all(prompt.begin(), prompt.end());
  const size_t before = tokenizer.decode(all).size();
  all.insert(all.end(), answer.begin(), answer.end());
  std::string text = tokenizer.decode(all);
  text.erase(0, std::min(before, text.size()));
  for (const std::string& stop : stops) text.resize(std::min(text.size(), text.find(stop)));
  return text;
}

/// UsageError with the option's name where one is out of range.
void check_sampling(const eval::SamplingOptions& options) {
  try {
    const eval::Sampler sampler(options);
  } catch (const Error& error) {  // which names the setting
    throw UsageError(std::string("--") + error.what());
  }
}

std::shared_ptr<const eval::Generation> generation_of(const ordered_json& settings,
                                                      std::vector<std::string>& warnings) {
  try {
    return with_settings(eval::Generation{}, settings, warnings);
  } catch (const Error& error) {  // which names the option
    throw UsageError(error.what());
  }
}

}  // namespace

ordered_json continue_texts(eval::Session& session, const eval::RequestEncoder& encoder, int64_t batch_tokens,
                            const ordered_json& request, const Observer& observer) {
  const auto max_tokens = cli::in_range<int64_t>(
      "tokens", whole_number<int64_t>(request.at("max_tokens"), "--tokens"), 1, int64_t{1} << 32);
  const model::Tokenizer& tokenizer = session.tokenizer();
  eval::TextLimits limits{.stops = request.at("stop").get<std::vector<std::string>>(),
                          .end_ids = {},
                          .max_tokens = max_tokens,
                          .sampling = {.temperature = real_number(request.at("temperature"), "--temperature"),
                                       .top_k = whole_number<int64_t>(request.at("top_k"), "--top-k"),
                                       .top_p = real_number(request.at("top_p"), "--top-p")}};
  if (std::ranges::any_of(limits.stops, [](const std::string& stop) { return stop.empty(); }))
    throw UsageError("stop: an empty text ends nothing");
  check_sampling(limits.sampling);
  if (!request.at("ignore_eos").get<bool>()) {
    if (tokenizer.eos_id()) limits.end_ids.push_back(*tokenizer.eos_id());
    if (request.at("composed").get<bool>()) {
      for (const int32_t id : eval::answer_ends(session.model().path)) limits.end_ids.push_back(id);
    }
  }
  const std::vector<eval::TokenRequest> requests =
      encode(encoder, request.at("prompts"), limits.max_tokens, false);
  const auto seed = whole_number<uint64_t>(request.at("seed"), "--seed");
  for (uint64_t i = 0; i < requests.size(); ++i) limits.seeds.push_back(seed + i);
  const std::vector<std::string> stops = limits.stops;
  const std::vector<eval::GeneratedText> texts =
      run(session, requests, std::move(limits), batch_tokens, observer);
  ordered_json answers = ordered_json::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    std::span<const int32_t> tokens = texts[i].tokens;
    if (texts[i].end == eval::GeneratedText::End::eos) tokens = tokens.first(tokens.size() - 1);
    answers.push_back({{"text", continuation(tokenizer, requests[i].input(), tokens, stops)},
                       {"tokens", tokens},
                       {"finish", name(texts[i].end)}});
  }
  return answers;
}

ordered_json answer_prompts(eval::Session& session, const eval::RequestEncoder& encoder, int64_t batch_tokens,
                            const ordered_json& request, std::vector<std::string>& warnings,
                            const Observer& observer) {
  const std::shared_ptr<const eval::Generation> generation = generation_of(request.at("settings"), warnings);
  const model::Tokenizer& tokenizer = session.tokenizer();
  eval::TextLimits limits = text_limits(*generation, tokenizer, session.model().path);
  const std::vector<eval::TokenRequest> requests =
      encode(encoder, request.at("prompts"), limits.max_tokens, true);
  for (uint64_t i = 0; i < requests.size(); ++i)
    limits.seeds.push_back(combine(std::array<uint64_t, 2>{generation->seed, i}));
  const std::vector<std::string> stops = limits.stops;
  ordered_json answers = ordered_json::array();
  for (const eval::GeneratedText& text : run(session, requests, std::move(limits), batch_tokens, observer))
    answers.push_back(eval::answer_text(tokenizer, text.tokens, stops));
  return answers;
}

}  // namespace qeval::python
