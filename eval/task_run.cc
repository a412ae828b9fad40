#include "eval/task_run.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "eval/engine/chat_template.h"
#include "model/finite.h"

namespace qeval::eval {

TextLimits text_limits(const Generation& generation, const model::Tokenizer& tokenizer,
                       const std::filesystem::path& model) {
  TextLimits limits{
      .stops = generation.until,
      .end_ids = answer_ends(model),
      .max_tokens = generation.max_tokens,
      .sampling = {
          .temperature = generation.temperature, .top_k = generation.top_k, .top_p = generation.top_p}};
  if (const auto eos = tokenizer.eos_id()) {
    limits.end_ids.push_back(*eos);
    // The harness takes it for a stop string as well, should the model spell it out.
    const std::string spelt = tokenizer.decode({{*eos}});
    if (std::ranges::find(limits.stops, spelt) == limits.stops.end()) limits.stops.push_back(spelt);
  }
  return limits;
}

TaskRun::TaskRun(std::shared_ptr<const EncodedTask> encoded)
    : encoded_(std::move(encoded)), scores_(loaded().documents.size()), missing_(loaded().documents.size()) {}

void TaskRun::start_documents(const TaskMeans& means, const std::vector<size_t>& open) {
  const bool all = std::ssize(open) == encoded_->documents();
  requests_.clear();
  owner_.clear();
  for (const size_t i : open) {
    const std::span<const TokenRequest> requests = encoded_->requests(i);
    missing_[i] = std::ssize(requests);
    scores_[i].resize(requests.size());
    for (size_t r = 0; r < requests.size(); ++r) owner_.emplace_back(i, r);
    if (!all) requests_.insert(requests_.end(), requests.begin(), requests.end());
  }
  decoder_ = &means.decoder;
  if (all) {
    plan_ = &encoded_->plan();
  } else {
    own_plan_ = std::make_unique<const Plan>(requests_, means.batch_tokens, &means.decoder.model().config);
    plan_ = own_plan_.get();
  }
  if (!task().generation) {
    run_ = std::make_unique<ScoringRun>(means.decoder, *plan_, hooks());
    return;
  }
  tokenizer_ = &means.tokenizer;
  TextLimits limits = text_limits(*task().generation, *tokenizer_, means.model);
  stops_ = limits.stops;
  for (const auto& [document, request] : owner_) limits.seeds.push_back(seed_of(document, request));
  generation_ = std::make_unique<GenerationRun>(means.decoder, *tokenizer_, *plan_, std::move(limits),
                                                means.batch_tokens, means.kv_bytes);
}

std::vector<TaskRun::Finished> TaskRun::generate() {
  std::vector<Finished> finished;
  if (generation_->done()) return finished;
  std::vector<int64_t> requests;
  try {
    requests = generation_->step();
  } catch (const TextNotFinite& error) {
    const size_t document = owner_[static_cast<size_t>(error.request)].first;
    throw model::NotFinite(fmt::format("task {}, document {}, {}", task().name,
                                       encoded_->document(document).doc_id, error.what()));
  }
  for (const int64_t request : requests) {
    const auto [document, number] = owner_[static_cast<size_t>(request)];
    std::vector<GeneratedText>& texts = written_[document];
    texts.resize(encoded_->requests(document).size());
    texts[number] = generation_->take(request);
    if (--missing_[document] > 0) continue;
    finished.push_back({make_generated_sample(document, texts), {}});
    written_.erase(document);
  }
  return finished;
}

uint64_t TaskRun::seed_of(size_t document, size_t request) const {
  const std::array<uint64_t, 3> parts{task().generation->seed,
                                      static_cast<uint64_t>(encoded_->document(document).doc_id),
                                      static_cast<uint64_t>(request)};
  return combine(parts);
}

Sample TaskRun::begin_sample(size_t index) const {
  const Document& document = encoded_->document(index);
  Sample sample;
  sample.doc = document.row;
  sample.target = document.target;
  sample.requests = document.requests;
  Scores& scores = sample.scores;
  scores.doc_id = document.doc_id;
  scores.scoring = task().scoring;
  scores.metrics = task().metrics;
  scores.facts = document.facts;
  scores.token_hash = token_hash(encoded_->requests(index));
  return sample;
}

Sample TaskRun::make_generated_sample(size_t index, std::span<const GeneratedText> texts) const {
  constexpr std::pair<GeneratedText::End, TextEnd> kEnds[] = {{GeneratedText::End::stop, TextEnd::stop},
                                                              {GeneratedText::End::eos, TextEnd::eos},
                                                              {GeneratedText::End::length, TextEnd::length}};
  Sample sample = begin_sample(index);
  const Generation& generation = *task().generation;
  sample.generated.arguments = generation.arguments;
  std::vector<uint64_t> hashes;
  for (size_t i = 0; i < texts.size(); ++i) {
    const GeneratedText& text = texts[i];
    sample.generated.responses.push_back(answer_text(*tokenizer_, text.tokens, stops_));
    hashes.push_back(combine(text.logits_hashes));
    Answer& answer = sample.scores.answers.emplace_back(
        Answer{.tokens = std::ssize(text.tokens),
               .truncated = encoded_->truncated(encoded_->first_request(index) + i),
               .input_tokens = std::ssize(encoded_->requests(index)[i].input())});
    for (const auto& [of_text, end] : kEnds) {
      if (of_text == text.end) answer.end = end;
    }
  }
  JudgedTexts judged;
  try {
    judged = judge_texts(generation, encoded_->document(index), sample.generated.responses);
  } catch (const Error& error) {
    fail("task {}, {}", task().name, error.what());
  }
  sample.generated.filtered = std::move(judged.filtered);
  sample.scores.values = std::move(judged.values);
  sample.scores.logits_hash = fmt::format("{:016x}", hashes.size() == 1 ? hashes.front() : combine(hashes));
  return sample;
}

void TaskRun::observe(bool keep, std::unique_ptr<KeptDistributions> base, bool identical) {
  keep_ = keep;
  base_ = std::move(base);
  identical_ = identical;
  for (size_t i = 0; base_ && i < loaded().documents.size(); ++i) {
    const int64_t doc_id = encoded_->document(i).doc_id;
    const std::optional<std::string> hash = base_->token_hash(doc_id);
    if (!hash) fail("task {}, document {}: the base did not score it", task().name, doc_id);
    if (*hash != token_hash(encoded_->requests(i)))
      fail("task {}, document {}: the base scored other token ids", task().name, doc_id);
  }
}

TaskRun::Observed& TaskRun::observed(size_t document) {
  const auto [found, is_new] = observed_.try_emplace(document);
  Observed& out = found->second;
  if (!is_new) return out;
  const int64_t doc_id = encoded_->document(document).doc_id;
  const std::span<const TokenRequest> requests = encoded_->requests(document);
  out.positions = scored_positions(requests);
  const auto count = static_cast<size_t>(out.positions.count);
  out.kept = {doc_id, token_hash(requests), std::vector<model::Distribution>(keep_ ? count : 0)};
  if (!base_) return out;
  out.base = base_->read(doc_id);
  if (out.base.positions.size() != count) {
    fail("task {}, document {}: the base kept {} positions, there are {}", task().name, doc_id,
         out.base.positions.size(), count);
  }
  out.divergence = {doc_id, out.kept.token_hash, std::vector<float>(count), std::vector<float>(count), {}};
  return out;
}

DistributionHooks TaskRun::hooks() {
  if (!keep_ && !base_) return {};
  DistributionHooks hooks;
  hooks.ask = [this](int64_t request, int64_t index, std::vector<model::DistributionQuery>& wanted) {
    const auto [document, r] = owner_[static_cast<size_t>(request)];
    const Observed& seen = observed(document);
    const int64_t position = seen.positions.index[r][static_cast<size_t>(index)];
    if (position < 0) return;
    if (keep_) wanted.push_back({.likeliest = kKeptTokens});
    if (base_) wanted.push_back({.tokens = seen.base.positions[static_cast<size_t>(position)].tokens});
  };
  hooks.tell = [this](int64_t request, int64_t index, const model::DistributionQuery& asked,
                      model::Distribution&& found, int32_t top1) {
    const auto [document, r] = owner_[static_cast<size_t>(request)];
    Observed& seen = observed(document);
    const auto position = static_cast<size_t>(seen.positions.index[r][static_cast<size_t>(index)]);
    if (asked.likeliest > 0) {
      seen.kept.positions[position] = std::move(found);
      return;
    }
    const model::Distribution& base = seen.base.positions[position];
    const PositionDivergence divergence = position_divergence(base, found);
    seen.divergence.kl[position] = divergence.kl;
    seen.divergence.slack[position] = identical_ ? 0.0F : divergence.slack;
    const bool agrees = !base.tokens.empty() && base.tokens.front() == top1;
    if (!agrees) seen.divergence.disagreements.push_back(static_cast<int64_t>(position));
  };
  return hooks;
}

TaskRun::Finished TaskRun::finish(size_t document) {
  Finished out{make_sample(document), {}};
  if (!keep_ && !base_) return out;
  Observed& seen = observed(document);
  std::ranges::sort(seen.divergence.disagreements);
  if (base_) out.records.push_back(divergence_line(seen.divergence) + "\n");
  if (keep_) out.records.push_back(kept_record(seen.kept));
  observed_.erase(document);
  return out;
}

std::vector<TaskRun::Finished> TaskRun::step() {
  if (generation_) return generate();
  std::vector<Finished> finished;
  if (not_finite_) refuse_not_finite(not_finite_->first, not_finite_->second);
  if (run_->done()) return finished;
  for (const int64_t request : run_->step()) {
    const auto [document, index] = owner_[static_cast<size_t>(request)];
    scores_[document][index] = run_->take(request);
    if (!scores_[document][index].is_finite())
      not_finite_ = std::min(not_finite_.value_or(std::pair(document, index)), std::pair(document, index));
    if (--missing_[document] > 0) continue;
    if (std::ranges::all_of(scores_[document], &TokenScores::is_finite)) finished.push_back(finish(document));
  }
  return finished;
}

void TaskRun::refuse_not_finite(size_t document, size_t request) const {
  const char* const what = task().scoring == Scoring::rolling     ? "window"
                           : task().scoring == Scoring::last_word ? "request"
                                                                  : "choice";
  throw model::NotFinite(fmt::format(
      "task {}, document {}, {} {}: {}", task().name, encoded_->document(document).doc_id, what, request + 1,
      why_not_finite(*decoder_, encoded_->requests(document)[request], scores_[document][request])));
}

Sample TaskRun::make_sample(size_t index) {
  const std::span<const TokenRequest> requests = encoded_->requests(index);
  const size_t first = encoded_->first_request(index);
  Sample sample = begin_sample(index);
  Scores& scores = sample.scores;
  std::vector<uint64_t> hashes;
  for (const TokenScores& request : scores_[index]) hashes.push_back(combine(request.logits_hashes));
  scores.logits_hash = fmt::format("{:016x}", combine(hashes));
  const auto answer = [&](size_t r) {
    const TokenScores& token_scores = scores_[index][r];
    const TokenRequest& request = requests[r];
    return Answer{.log_likelihood = token_scores.log_likelihood(),
                  .is_greedy = token_scores.is_greedy(request),
                  .tokens = request.scored,
                  .input_tokens = std::ssize(request.input())};
  };
  if (task().scoring == Scoring::rolling) {
    Answer whole{.is_greedy = true, .windows = std::ssize(requests)};
    for (size_t r = 0; r < requests.size(); ++r) {
      const Answer window = answer(r);
      whole.log_likelihood += window.log_likelihood;
      whole.is_greedy = whole.is_greedy && window.is_greedy;
      whole.tokens += window.tokens;
      whole.input_tokens += window.input_tokens;
    }
    scores.answers = {whole};
  } else {
    for (size_t r = 0; r < requests.size(); ++r) {
      Answer one = answer(r);
      one.truncated = encoded_->truncated(first + r);
      one.encoded_apart = encoded_->encoded_apart(first + r);
      scores.answers.push_back(one);
    }
  }
  scores_[index] = {};
  return sample;
}

}  // namespace qeval::eval
