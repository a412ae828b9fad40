#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/parallel.h"
#include "eval/evaluation.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

constexpr size_t kShownIds = 32;

}  // namespace

TaskRun::TaskRun(Task task, LoadedTask loaded, const RequestEncoder& encoder,
                 const model::ModelConfig& config, int64_t batch_tokens)
    : task_(std::move(task)),
      loaded_(std::move(loaded)),
      encoded_(loaded_.documents.size()),
      batch_tokens_(batch_tokens),
      scores_(loaded_.documents.size()) {
  parallel_ranges(std::ssize(encoded_), 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Document& document = loaded_.documents[static_cast<size_t>(i)];
      try {
        encoded_[static_cast<size_t>(i)] = encode(document, encoder);
      } catch (const Error& error) {
        fail("task {}, document {}: {}", task_.name, document.doc_id, error.what());
      }
    }
  });
  if (!encoded_.empty()) {
    const auto& ids = encoded_.front().requests.front().tokens;
    first_request_ids_.assign(
        ids.begin(), ids.begin() + std::ssize(std::span(ids).first(std::min(ids.size(), kShownIds))));
  }
  // The whole task's count, so that a resumed run reports what an unbroken one does.
  std::vector<TokenRequest> all;
  for (const EncodedDocument& document : encoded_) {
    all.insert(all.end(), document.requests.begin(), document.requests.end());
  }
  const Plan plan(all, batch_tokens, &config);
  tokens_computed_ = plan.tokens_computed();
  tokens_requested_ = plan.tokens_requested();
  for (const TokenRequest& request : all) tokens_scored_ += request.scored;
}

quant::NgramSketch::Overlap TaskRun::overlap(const quant::NgramSketch& calibration) const {
  quant::NgramSketch::Overlap overlap;
  for (const EncodedDocument& document : encoded_) {
    // A document's choices repeat its context; the windows of a rolling one are all of its text.
    const size_t count = task_.scoring == Scoring::rolling ? document.requests.size() : 1;
    for (size_t i = 0; i < std::min(count, document.requests.size()); ++i) {
      calibration.look_up(document.requests[i].tokens, overlap);
    }
  }
  return overlap;
}

TaskRun::EncodedDocument TaskRun::encode(const Document& document, const RequestEncoder& encoder) const {
  EncodedDocument out;
  if (task_.scoring == Scoring::rolling) {
    out.requests = encoder.windows(document.requests.front().continuation);
    if (out.requests.empty())
      fail("its text of {} bytes has no token to score", document.requests.front().continuation.size());
  } else {
    for (const TextRequest& request : document.requests) {
      EncodedRequest encoded = encoder.encode(request);
      out.requests.push_back(std::move(encoded.tokens));
      out.truncated.push_back(encoded.truncated);
      out.encoded_apart.push_back(encoded.encoded_apart);
    }
  }
  return out;
}

void TaskRun::start_documents(model::Decoder& decoder, const std::vector<size_t>& open) {
  requests_.clear();
  owner_.clear();
  for (const size_t i : open) {
    EncodedDocument& document = encoded_[i];
    document.missing = std::ssize(document.requests);
    scores_[i].resize(document.requests.size());
    for (size_t r = 0; r < document.requests.size(); ++r) {
      requests_.push_back(document.requests[r]);
      owner_.emplace_back(i, r);
    }
  }
  decoder_ = &decoder;
  plan_ = std::make_unique<Plan>(requests_, batch_tokens_, &decoder.model().config);
  run_ = std::make_unique<ScoringRun>(decoder, *plan_, hooks());
}

void TaskRun::observe(bool keep, std::unique_ptr<KeptDistributions> base, bool identical) {
  keep_ = keep;
  base_ = std::move(base);
  identical_ = identical;
  for (size_t i = 0; base_ && i < encoded_.size(); ++i) {
    const int64_t doc_id = loaded_.documents[i].doc_id;
    const std::optional<std::string> hash = base_->token_hash(doc_id);
    if (!hash) fail("task {}, document {}: the base did not score it", task_.name, doc_id);
    if (*hash != token_hash(encoded_[i].requests))
      fail("task {}, document {}: the base scored other token ids", task_.name, doc_id);
  }
}

TaskRun::Observed& TaskRun::observed(size_t document) {
  const auto [found, is_new] = observed_.try_emplace(document);
  Observed& out = found->second;
  if (!is_new) return out;
  const int64_t doc_id = loaded_.documents[document].doc_id;
  const auto& requests = encoded_[document].requests;
  out.positions = scored_positions(requests);
  const auto count = static_cast<size_t>(out.positions.count);
  out.kept = {doc_id, token_hash(requests), std::vector<model::Distribution>(keep_ ? count : 0)};
  if (!base_) return out;
  out.base = base_->read(doc_id);
  if (out.base.positions.size() != count) {
    fail("task {}, document {}: the base kept {} positions, there are {}", task_.name, doc_id,
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
  std::vector<Finished> finished;
  if (not_finite_) refuse_not_finite(not_finite_->first, not_finite_->second);
  if (run_->done()) return finished;
  for (const int64_t request : run_->step()) {
    const auto [document, index] = owner_[static_cast<size_t>(request)];
    scores_[document][index] = run_->take(request);
    if (!scores_[document][index].is_finite())
      not_finite_ = std::min(not_finite_.value_or(std::pair(document, index)), std::pair(document, index));
    if (--encoded_[document].missing > 0) continue;
    if (std::ranges::all_of(scores_[document], &TokenScores::is_finite)) finished.push_back(finish(document));
  }
  return finished;
}

void TaskRun::refuse_not_finite(size_t document, size_t request) const {
  const char* const what = task_.scoring == Scoring::rolling     ? "window"
                           : task_.scoring == Scoring::last_word ? "request"
                                                                 : "choice";
  throw model::NotFinite(fmt::format(
      "task {}, document {}, {} {}: {}", task_.name, loaded_.documents[document].doc_id, what, request + 1,
      why_not_finite(*decoder_, encoded_[document].requests[request], scores_[document][request])));
}

Sample TaskRun::make_sample(size_t index) {
  const Document& document = loaded_.documents[index];
  EncodedDocument& encoded = encoded_[index];
  Sample sample;
  sample.doc = document.row;
  sample.target = document.target;
  sample.requests = document.requests;
  Scores& scores = sample.scores;
  scores.doc_id = document.doc_id;
  scores.scoring = task_.scoring;
  scores.metrics = task_.metrics;
  scores.facts = document.facts;
  scores.token_hash = token_hash(encoded.requests);
  std::vector<uint64_t> hashes;
  for (const TokenScores& request : scores_[index]) hashes.push_back(combine(request.logits_hashes));
  scores.logits_hash = fmt::format("{:016x}", combine(hashes));
  const auto answer = [&](size_t r) {
    const TokenScores& token_scores = scores_[index][r];
    const TokenRequest& request = encoded.requests[r];
    return Answer{.log_likelihood = token_scores.log_likelihood(),
                  .is_greedy = token_scores.is_greedy(request),
                  .tokens = request.scored,
                  .input_tokens = std::ssize(request.input())};
  };
  if (task_.scoring == Scoring::rolling) {
    Answer whole{.is_greedy = true, .windows = std::ssize(encoded.requests)};
    for (size_t r = 0; r < encoded.requests.size(); ++r) {
      const Answer window = answer(r);
      whole.log_likelihood += window.log_likelihood;
      whole.is_greedy = whole.is_greedy && window.is_greedy;
      whole.tokens += window.tokens;
      whole.input_tokens += window.input_tokens;
    }
    scores.answers = {whole};
  } else {
    for (size_t r = 0; r < encoded.requests.size(); ++r) {
      Answer one = answer(r);
      one.truncated = encoded.truncated[r];
      one.encoded_apart = encoded.encoded_apart[r];
      scores.answers.push_back(one);
    }
  }
  scores_[index] = {};
  return sample;
}

}  // namespace qeval::eval
