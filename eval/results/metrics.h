#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/sample.h"
#include "eval/results/statistics.h"

namespace qeval::eval {

struct MetricDefinition {
  std::string_view name;
  Aggregation aggregation = Aggregation::mean;
  bool right_or_wrong = false;  ///< 0 or 1 per document, so that runs can be compared by their flips
  bool of_parts = false;        ///< a share of what a document is judged by, and weighted by how much that is
};

/// The metrics that documents of this scoring can give, in the order they are reported by default:
/// multiple_choice: acc, acc_norm, acc_bytes · multiple_true: acc · last_word: acc, perplexity ·
/// rolling: word_perplexity, byte_perplexity, bits_per_byte, token_perplexity · generation: exact_match, em,
/// f1, contains, IFEval's four (prompt_level_strict_acc, inst_level_strict_acc and the loose ones),
/// exact_match_original, pass@1, pass_at_1.
std::span<const MetricDefinition> metrics_of(Scoring scoring);

/// The one called `name`; throws Error naming the metrics there are. A generated text's metric may have the
/// name of the filter behind a comma ("exact_match,strict-match"): filters are the task's own.
const MetricDefinition& find_metric(Scoring scoring, std::string_view name);

/// Whether more is better of a metric of any scoring (false for perplexities and bits).
bool higher_is_better(std::string_view name);

/// Index of the largest value, the first of equals; NaN is less than any number. −1 where every value is NaN
/// (or there is none): such a document is answered wrongly, whatever its gold.
int64_t arg_max(std::span<const double> values);

/// The choice that a metric of a multiple-choice document takes, as arg_max: by log-likelihood (acc), by
/// log-likelihood / choice_chars (acc_norm) or choice_bytes (acc_bytes), where a choice of length 0 scores
/// −∞. A file may hold no lengths: then by log-likelihood.
int64_t chosen(const Scores& scores, std::string_view metric);

/// Multiple choice: 1 if the choice that the metric takes is gold, else 0. multiple_true: Σ exp(ll) over gold
/// / Σ exp(ll) over all. last_word: acc = greedy; perplexity: ll. rolling: ll with its words, bytes or
/// tokens. generation: the value that the task gave; of a metric of parts times their number, which is its
/// weight.
DocumentTerm document_term(const Scores& scores, std::string_view metric);

/// The term as the samples file shows it: the value, or [value, weight] for a rolling document.
nlohmann::ordered_json document_metric_json(const Scores& scores, std::string_view metric);

struct MetricValue {
  std::string name;  ///< "acc"
  double value = 0;
  std::optional<double> standard_error;  ///< absent where one document, or a NaN, leaves it undefined
};

/// The metrics of a task from its documents alone, in the order each document lists them. Standard errors:
/// means have sample standard deviation / √n; perplexities and bits per byte the standard deviation over
/// bootstrap resamples of whole documents. `documents` must be in ascending order of doc_id and agree in
/// scoring and metrics (Error).
std::vector<MetricValue> compute_metrics(std::span<const Scores> documents,
                                         const BootstrapOptions& bootstrap = {});

/// What the unweighted mean of a metric has behind the metric's name.
inline constexpr std::string_view unweighted_suffix = "_unweighted";

/// The documents' metric behind a task's or group's: "acc" of "acc_unweighted".
std::string_view document_metric(std::string_view metric);

/// What a group needs of each of its tasks.
struct GroupMember {
  double value = 0;
  std::optional<double> standard_error;
  int64_t documents = 0;
};

/// Mean weighted by documents (named `metric`), its standard error pooled: √(Σ n(n−1)·se² / (Σn − k) / Σn)
/// over k members; then the unweighted mean of the members (`metric` + unweighted_suffix), its standard error
/// √(Σ se²) / k. A member of one document has no standard error: it leaves the pooled one as it is and the
/// unweighted one out.
std::vector<MetricValue> aggregate_group(std::string_view metric, std::span<const GroupMember> members);

/// Counts over a task's documents that the results report beside the metrics.
struct TaskCounts {
  int64_t documents = 0;
  int64_t requests = 0;
  int64_t tokens_scored = 0;     ///< continuation tokens
  int64_t tokens_requested = 0;  ///< input tokens of all requests after truncation, as if nothing were shared
  int64_t truncated_requests = 0, truncated_tokens = 0;
  int64_t encoded_apart = 0;                  ///< requests whose context and continuation were encoded apart
  int64_t not_a_number = 0;                   ///< documents with a log-likelihood that is NaN
  int64_t words = 0, bytes = 0, windows = 0;  ///< rolling
  bool operator==(const TaskCounts&) const = default;
};

TaskCounts count(std::span<const Scores> documents);

}  // namespace qeval::eval
