#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "eval/encoded_tasks.h"
#include "eval/engine/generation_run.h"
#include "eval/engine/plan.h"
#include "eval/engine/scored_positions.h"
#include "eval/kept_distributions.h"
#include "eval/results/divergence.h"
#include "eval/results/sample.h"

namespace qeval::eval {

/// How a task's documents are computed.
struct TaskMeans {
  model::Decoder& decoder;
  const model::Tokenizer& tokenizer;
  std::filesystem::path model;  ///< whose files say where an answer ends
  int64_t batch_tokens, kv_bytes;
};

/// How long an answer of `model`, whose files say where one ends, is written; without seeds.
TextLimits text_limits(const Generation& generation, const model::Tokenizer& tokenizer,
                       const std::filesystem::path& model);

/// One task under way: its documents scored, or answered, batch by batch.
class TaskRun {
 public:
  explicit TaskRun(std::shared_ptr<const EncodedTask> encoded);

  const EncodedTask& encoded() const { return *encoded_; }
  const Task& task() const { return encoded_->task(); }
  const LoadedTask& loaded() const { return encoded_->loaded(); }

  /// Keeps distributions, or compares them with a base's, from here on. Throws Error naming the first
  /// document that `base` lacks or scored from other token ids. With `identical`, base and this run are the
  /// same model in the same arithmetic, so that what the base did not keep is known to agree as well.
  void observe(bool keep, std::unique_ptr<KeptDistributions> base, bool identical);

  /// A document with its records for the companion files: the divergence's first.
  struct Finished {
    Sample sample;
    std::vector<std::string> records;
  };

  /// Prepares the documents of which `wanted(doc_id)` is true.
  template <typename Wanted>
  void start(const TaskMeans& means, const Wanted& wanted) {
    std::vector<size_t> open;
    for (size_t i = 0; i < loaded().documents.size(); ++i) {
      if (wanted(loaded().documents[i].doc_id)) open.push_back(i);
    }
    start_documents(means, open);
  }
  bool done() const {
    if (generation_) return generation_->done();
    return run_ == nullptr || (run_->done() && !not_finite_);
  }
  /// Computes the next batch and returns the documents that are complete with it. Where one has a score that
  /// is not finite, the next step throws model::NotFinite naming document, request and layer: after the
  /// others of its batch are kept.
  std::vector<Finished> step();
  int64_t tokens_done() const {
    return generation_ ? generation_->tokens_done() : run_ ? run_->tokens_done() : 0;
  }
  int64_t tokens_to_do() const {
    if (generation_) return generation_->tokens_to_do();
    return plan_ != nullptr ? plan_->tokens_computed() : 0;
  }

 private:
  void start_documents(const TaskMeans& means, const std::vector<size_t>& open);
  std::vector<Finished> generate();
  Sample make_generated_sample(size_t document, std::span<const GeneratedText> texts) const;
  /// Of a document's texts, which are drawn: the task's seed, document and number make it.
  uint64_t seed_of(size_t document, size_t request) const;
  /// Of a document, whatever is computed of it: its texts and hash.
  Sample begin_sample(size_t document) const;
  [[noreturn]] void refuse_not_finite(size_t document, size_t request) const;
  Sample make_sample(size_t document);
  Finished finish(size_t document);
  DistributionHooks hooks();

  /// What is seen of a document's distributions while it is under way.
  struct Observed {
    ScoredPositions positions;
    KeptDocument base, kept;
    DocumentDivergence divergence;
  };
  Observed& observed(size_t document);

  std::shared_ptr<const EncodedTask> encoded_;
  std::vector<TokenRequest> requests_;                   ///< of the open documents where not all are, flat
  std::vector<std::pair<size_t, size_t>> owner_;         ///< document and its request, per request planned
  std::vector<std::vector<TokenScores>> scores_;         ///< per document and request
  std::vector<int64_t> missing_;                         ///< per document, requests not scored yet
  std::optional<std::pair<size_t, size_t>> not_finite_;  ///< a document and its request that has no score
  bool keep_ = false, identical_ = false;
  std::unique_ptr<KeptDistributions> base_;
  std::unordered_map<size_t, Observed> observed_;  ///< of the documents under way
  const model::Decoder* decoder_ = nullptr;
  std::unique_ptr<const Plan> own_plan_;  ///< of requests_
  const Plan* plan_ = nullptr;            ///< the task's, where all documents are open
  std::unique_ptr<ScoringRun> run_;
  const model::Tokenizer* tokenizer_ = nullptr;
  std::vector<std::string> stops_;  ///< that end a text
  std::unique_ptr<GenerationRun> generation_;
  std::unordered_map<size_t, std::vector<GeneratedText>> written_;  ///< of the documents under way
};

}  // namespace qeval::eval
