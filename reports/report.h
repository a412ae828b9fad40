#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/block_statistics.h"
#include "eval/results/divergence_results.h"
#include "eval/results/model_details.h"
#include "eval/results/statistics.h"

namespace qeval::reports {

/// How a figure is shown. Stored values are always what results.json holds.
enum class Unit : uint8_t {
  fraction,    ///< 0 … 1, shown in percent
  perplexity,  ///< shown as it is; differences are relative
  bits,        ///< per byte; shown as it is
};

/// One measured thing: a metric of a task, or of a group of tasks.
struct Column {
  std::string task;    ///< "arc_challenge", as in results.json
  std::string title;   ///< "ARC-C"
  std::string metric;  ///< "acc_norm"
  Unit unit = Unit::fraction;
  bool higher_is_better = true;
  int64_t documents = 0;  ///< scored; the same in every row
};

/// A run against the baseline, paired by document.
struct Difference {
  /// other − base; of perplexities other / base − 1, the relative increase.
  double delta = 0;
  std::optional<eval::Interval> interval;  ///< 95 %, of delta; absent as in PairedDifference
  double p = 1;                            ///< of this comparison alone; NaN where it could not be tested
  double p_holm = 1;     ///< adjusted for all comparisons of the report's main table (Holm); NaN likewise
  int significance = 0;  ///< 0 none, 1, 2, 3: p_holm below 0.05, 0.01, 0.001
  bool worse = false;    ///< delta points to the worse side
  bool has_flips = false;
  int64_t lost = 0, gained = 0;  ///< documents right in the baseline and wrong here, and the reverse
};

/// How far a run's distributions over the next token are from the baseline's, over scored positions.
struct Divergence {
  int64_t positions = 0;
  double mean_kl = 0, kl_99 = 0;  ///< KL(baseline ‖ run) in nats: mean, 99 % quantile; lower bounds
  double mean_kl_upper = 0;       ///< the mean is at most this
  double top1_agreement = 0;      ///< share of positions with the same most likely token
};

/// How far texts that the model wrote agree with the baseline's for the same prompts, as eval::WrittenTexts
/// has it, over the tasks of a column.
struct Texts {
  int64_t documents = 0, equal = 0;
  double agreement = 0;                    ///< mean of common prefix / longer text
  std::optional<double> first_difference;  ///< median, code points; of a single task only
  double base_tokens = 0, tokens = 0;      ///< generated per document
  /// A habit of texts: documents that have it in the baseline and here, and the exact test's p.
  struct Habit {
    int64_t base = 0, here = 0;
    double p = 1;
  };
  Habit unended;  ///< broken off at the most tokens that the task allows
  Habit looping;  ///< with an end that says one thing over and over
};

struct Cell {
  double value = 0;
  std::optional<double> standard_error;
  std::optional<Difference> difference = {};  ///< absent for the baseline, and where nothing is compared
  std::optional<Divergence> divergence = {};
  std::optional<Texts> texts = {};
};

/// How far a run's predictions are from the baseline's, over the whole text or all tasks.
struct Nearness {
  eval::Estimate kl;  ///< mean KL(baseline ‖ run) in nats, with its interval
  /// Only of a text: PPL(run) / PPL(baseline), and shares of positions.
  std::optional<eval::Estimate> perplexity_ratio{}, acceptance{}, top1_agreement{};
  std::optional<eval::SplitLoss> losses{};  ///< of a GGUF file, on the text
  bool tied = false;  ///< with the nearest run: the interval of their paired difference holds 0
};

/// Flips over all documents that a run shares with the baseline and that are right or wrong.
struct Pooled {
  int64_t documents = 0, lost = 0, gained = 0;
  bool equivalent = false;  ///< shown by two one-sided tests, within Report::margin
};

/// What a run costs; absent what its results do not say.
struct Costs {
  std::optional<int64_t> parameters, size_bytes;
  std::optional<double> weight_bits, activation_bits;  ///< weights: mean over the projections' elements
  std::optional<double> quantize_seconds;
  std::optional<int64_t> quantize_peak_bytes;
  std::optional<double> tokens_per_second;  ///< input tokens computed per second of the evaluation
  double seconds = 0;                       ///< wall time of the evaluation
  int64_t peak_rss_bytes = 0;
};

struct LossPoint {
  double step = 0, loss = 0;
};

/// One run.
struct Row {
  std::string label;                                ///< "MobileQuant w8a8"; unlike any other row's
  std::string method, variant, scheme, arithmetic;  ///< as results have them; method empty in float
  std::string format;  ///< of the stored weights; empty in runs of older versions
  std::string model, folder;
  bool is_baseline = false;
  std::vector<std::optional<Cell>> cells;    ///< per column of Report::columns
  std::vector<std::optional<Cell>> details;  ///< per column of Report::details; no p-values
  Costs costs;
  std::optional<Nearness> nearness{};
  std::optional<Pooled> pooled{};
  /// Mean over the tasks of accuracy here / accuracy of the baseline, as cards of quantized models give it.
  std::optional<double> recovery{};
  std::vector<eval::LayerError> layer_errors;  ///< in the order of layers
  std::string layer_error_unit;  ///< what they are, in words; empty where the results do not say
  std::vector<eval::LayerError> worst_layers;  ///< the three largest, largest first
  std::vector<LossPoint> training_loss;
  std::string weight_hash, quantization_hash;
  std::vector<std::string> commands;  ///< what reproduces the run, in order
  std::string cpu, cpu_path, version, commit;
  double date = 0;  ///< seconds since 1970, when the run began
  int64_t threads = 0;
};

/// What the scores of one task mean.
struct TaskProtocol {
  std::string task, version, split;
  int64_t num_fewshot = 0;
  int64_t documents = 0, original_documents = 0;
  std::string data_hash, prompt_hash;
  std::vector<int64_t> first_request_ids;  ///< the first few
};

/// How all runs of the report were scored.
struct Conventions {
  std::string name, prefix_policy, add_bos_token, tokenizer_hash, limit;
  int64_t max_length = 0;
  uint64_t fewshot_seed = 0;
  eval::BootstrapOptions bootstrap;  ///< of standard errors
  int comparison_resamples = 0;      ///< of intervals and p-values that the bootstrap makes
  std::vector<TaskProtocol> tasks;
};

struct Choice {
  std::string text;
  double base = 0, other = 0;  ///< log-likelihoods, nats
  bool gold = false, chosen_by_base = false, chosen_by_other = false;
};

/// A document that is right in one of two runs and wrong in the other, or whose text no longer ends.
struct Example {
  size_t row = 0, column = 0;  ///< of the report
  std::string task;            ///< the document's own, where the column is a group
  int64_t doc_id = 0;
  bool gained = false;  ///< wrong in the baseline, right here
  /// Neither lost nor gained: its text ended by itself and free of loops in the baseline, and here does not.
  bool runaway = false;
  std::string question = {};
  std::vector<Choice> choices = {};
  /// Where the model wrote an answer: what it wrote, of which the first `common` bytes are the same, what was
  /// taken out of it, and the right answer.
  struct Written {
    std::string target, base, other, base_answer, other_answer;
    size_t common = 0;
  };
  std::optional<Written> written = {};
};

/// A row of the paper's tables beside ours, all values as in Cell and Difference (fractions, not percent).
struct PaperRow {
  std::string label;
  std::vector<std::optional<double>> paper, paper_delta;  ///< per column of PaperTable
  std::vector<std::optional<double>> ours, ours_delta;    ///< all empty where we have no such run
  bool beyond = false;                                    ///< the paper prints its perplexity as ">1e3"
};

struct PaperTable {
  std::string model;                 ///< as in the paper
  bool same_family = false;          ///< as the report's model; else it is there for orientation
  std::vector<std::string> columns;  ///< titles
  std::vector<Unit> units;           ///< per column; differences of perplexities are relative, in percent
  std::vector<PaperRow> rows;
};

/// Everything a report says, computed. Renderers add nothing to it but layout.
struct Report {
  std::string title;  ///< the baseline's model
  std::vector<std::string> verdict;
  std::vector<Column> columns;  ///< of the main table: one per task or group
  std::vector<Column> details;  ///< every metric of every task and group
  std::vector<Row> rows;        ///< baseline first
  bool has_baseline = false;
  std::string nearness_of{};  ///< what nearness was measured on, in words; empty: on nothing
  double margin = 0.01;       ///< within which runs count as equivalent, as a fraction
  int64_t comparisons = 0;    ///< that were tested and share Holm's correction
  std::vector<Example> examples;
  int64_t flips = 0;  ///< over the main table; `examples` may show fewer
  std::vector<PaperTable> paper;
  Conventions protocol;
  std::vector<std::string> notes;  ///< what a sceptical reader must know
  std::string version, commit;     ///< of qeval, of the baseline's run; the commit may be empty
  /// All of the above's sources as eval::to_json(Comparison) gives them: every run's results and every
  /// comparison, of tasks below groups too.
  nlohmann::ordered_json comparison;
};

}  // namespace qeval::reports
