#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/distributed/split.h"
#include "eval/engine/plan.h"
#include "eval/engine/session.h"
#include "eval/evaluation_options.h"
#include "eval/requests.h"
#include "eval/results/chat_settings.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/registry.h"
#include "quant/calibrate/calibration_text.h"

namespace qeval::eval {

/// A task as it is read, its documents as token requests, and the plan of computing all of them. Does not
/// change once it is made, so that several evaluations of one checkpoint share it.
class EncodedTask {
 public:
  /// Encodes every document. Throws Error naming task and document for a request that cannot be scored.
  EncodedTask(Task task, LoadedTask loaded, const RequestEncoder& encoder, const model::ModelConfig& config,
              int64_t batch_tokens);
  EncodedTask(const EncodedTask&) = delete;
  EncodedTask& operator=(const EncodedTask&) = delete;

  const Task& task() const { return task_; }
  const LoadedTask& loaded() const { return loaded_; }
  int64_t documents() const { return std::ssize(loaded_.documents); }
  const Document& document(size_t index) const { return loaded_.documents[index]; }

  /// Those of all documents, one document's behind the other's: per choice, or the windows of a rolling
  /// document, or a prompt with one token more.
  std::span<const TokenRequest> requests() const { return requests_; }
  std::span<const TokenRequest> requests(size_t document) const {
    return std::span(requests_).subspan(first_[document], first_[document + 1] - first_[document]);
  }
  /// Where a document's first request stands among requests().
  size_t first_request(size_t document) const { return first_[document]; }
  /// Of a request among requests(): tokens that are missing from the left of its context, and whether context
  /// and continuation were encoded each alone. 0 and false of windows.
  int64_t truncated(size_t request) const { return truncated_[request]; }
  bool encoded_apart(size_t request) const { return encoded_apart_[request]; }

  /// Of requests(), in batches of the size that was asked for.
  const Plan& plan() const { return *plan_; }
  /// Continuation tokens of all requests, or the most that may be generated.
  int64_t tokens_scored() const { return tokens_scored_; }
  /// Ids of the first request: shows prefix and special tokens at a glance.
  std::vector<int64_t> first_request_ids() const;
  /// How much of the task's text a checkpoint was calibrated on.
  quant::NgramSketch::Overlap overlap(const quant::NgramSketch& calibration) const;

  /// The costs of the documents of which `wanted(doc_id)` is true; `document` is the doc_id.
  template <typename Wanted>
  std::vector<DocumentCost> costs(const TokenCosts& token_costs, const Wanted& wanted) const {
    std::vector<DocumentRequests> chosen;
    for (size_t i = 0; i < loaded_.documents.size(); ++i) {
      const int64_t doc_id = loaded_.documents[i].doc_id;
      if (wanted(doc_id)) chosen.push_back({static_cast<size_t>(doc_id), requests(i)});
    }
    return document_costs(chosen, token_costs);
  }

 private:
  Task task_;
  LoadedTask loaded_;
  std::vector<TokenRequest> requests_;
  std::vector<size_t> first_;  ///< per document, and one past the last
  std::vector<int64_t> truncated_;
  std::vector<bool> encoded_apart_;
  std::unique_ptr<const Plan> plan_;
  int64_t tokens_scored_ = 0;
};

/// All that an evaluation reads before it computes: what `-t` selects, encoded.
struct EncodedTasks {
  Selection selection;
  std::vector<std::shared_ptr<const EncodedTask>> tasks;
  std::string prefix_policy, add_bos_policy;  ///< as RequestEncoder says them
  ChatSettings chat;                          ///< for the results
  std::vector<std::string> warnings;          ///< of the chat template, a line each

  std::vector<std::string> names() const;
};

/// Reads and encodes the tasks of `options` for the session's checkpoint, cut to its longest input.
EncodedTasks encode_tasks(Session& session, const EvaluationOptions& options);

}  // namespace qeval::eval
