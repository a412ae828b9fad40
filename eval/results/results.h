#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/chat_settings.h"
#include "eval/results/metrics.h"

namespace qeval::eval {

/// One task's part of results.json.
struct TaskResults {
  std::string name;
  std::string version;  ///< of the task's definition
  std::string split;    ///< "test"
  int64_t num_fewshot = 0;
  int64_t original_documents = 0;  ///< in the split; counts.documents of them were scored
  std::vector<MetricValue> metrics;
  TaskCounts counts;
  int64_t tokens_computed = 0;  ///< input tokens that the plan computes for these documents, prefixes shared
  std::string data_hash;        ///< SHA-256 of the data file
  std::string prompt_hash;      ///< SHA-256 of every context and continuation that was asked
  /// SHA-256 of what the answers are judged by: scoring, metrics, right answers, lengths of the choices.
  /// Empty in results of before it was recorded.
  std::string answer_hash;
  std::string samples_hash;  ///< SHA-256 of samples_TASK.jsonl; empty where no samples file was kept
  /// SHA-256 of the task's companion files (companion_file.h) by their names: divergences, kept
  /// distributions.
  std::map<std::string, std::string> companion_hashes;
  /// Fingerprint of the documents' logits_hash, in order: runs of integer arithmetic agree in it on any CPU,
  /// batch size and number of threads; of floating-point ones on one CPU path.
  std::string logits_hash;
  std::vector<int64_t>
      first_request_ids;  ///< the ids of the first document's first request (the first few suffice)
  nlohmann::ordered_json config = nlohmann::ordered_json::object();  ///< whatever else describes the task

  /// The metric called `metric_name`, or nullptr.
  const MetricValue* find(std::string_view metric_name) const;
};

struct GroupResults {
  std::string name;
  std::vector<std::string> members;  ///< tasks or groups, in order
  std::vector<MetricValue>
      metrics;            ///< empty for a group that is only a list (of tasks that measure unlike things)
  int64_t documents = 0;  ///< over all tasks below it
  /// The mean that stands for the group is that over all its documents ("acc"); else the plain mean of its
  /// tasks ("acc_unweighted").
  bool weighted = true;

  const MetricValue* find(std::string_view metric_name) const;
};

struct ModelInfo {
  std::string name;        ///< as given to -m, its last component
  std::string arithmetic;  ///< "float", "fake", "integer"
  std::string format;      ///< "safetensors", "gguf"…
  std::string weight_hash;
  std::string quantization_hash;  ///< of the quantization configuration and ranges; empty in float
  nlohmann::ordered_json details =
      nlohmann::ordered_json::object();  ///< scheme, bits, size in bytes: shown as found
};

struct Environment {
  std::string cpu;       ///< model name
  std::string cpu_path;  ///< "avx512", "avx2", "portable"
  int64_t threads = 0;
  std::string version;   ///< of qeval
  std::string commit{};  ///< that the program was built from; empty where it is not known
};

/// All of results.json. What may differ between two runs of the same evaluation stands in date, seconds,
/// peak_rss_bytes and environment; the rest is reproducible to the byte.
struct RunResults {
  std::vector<TaskResults> tasks;    ///< in the order they were asked for
  std::vector<GroupResults> groups;  ///< members before the groups that hold them
  ModelInfo model;
  Environment environment;
  std::string protocol;       ///< "lm-eval-0.4"
  std::string prefix_policy;  ///< what an empty context becomes: "bos", "eos", "none"
  /// --add-bos-token: "true", "false", "always"; empty: as the tokenizer's files have it.
  std::string add_bos_token;
  ChatSettings chat;
  std::string tokenizer_hash;
  int64_t max_length = 0;
  std::string limit;  ///< as given, empty for all documents
  uint64_t seed = 0;  ///< of the few-shot examples
  BootstrapOptions bootstrap;
  std::string command;  ///< the command line that reproduces the run
  double date = 0;      ///< seconds since 1970, when the run began
  double seconds = 0;   ///< wall time of the run that wrote the file
  int64_t peak_rss_bytes = 0;

  int64_t tokens_requested() const;  ///< over all tasks
  int64_t tokens_computed() const;
  const TaskResults* find_task(std::string_view name) const;
  const GroupResults* find_group(std::string_view name) const;
};

/// The tasks below a group, each once, in order; of a task itself. A name that is neither of both, as a
/// damaged file may have, stands for itself, too.
std::vector<std::string> tasks_of(const RunResults& run, const std::string& task_or_group);

/// TaskResults::logits_hash of documents in ascending order of doc_id.
std::string logits_hash(std::span<const Scores> documents);

/// A task's results from its documents, in ascending order of doc_id: metrics, counts and hash. The caller
/// fills in the rest.
TaskResults make_task_results(std::string name, std::span<const Scores> documents,
                              const BootstrapOptions& bootstrap);

/// A group's results: each metric of `aggregated` over the tasks below `members` (tasks or groups of `run`,
/// which must be there: Error). `aggregated` empty makes a mere list.
GroupResults make_group_results(const RunResults& run, std::string name, std::vector<std::string> members,
                                const std::vector<std::string>& aggregated, bool weighted = true);

/// What a group averages: its metrics without the unweighted means of the same.
std::vector<std::string> aggregated_metrics(const GroupResults& group);

/// SHA-256 of all that results.json holds but what may differ between two runs of the same evaluation (date,
/// seconds, peak_rss_bytes, environment, command; the costs of quantizing the model) and the field
/// "content_hash", where it is kept.
std::string content_hash(const nlohmann::ordered_json& results);

/// lm-evaluation-harness's layout: results ("acc,none", "acc_stderr,none", …; a standard error that is
/// undefined is left out), groups, group_subtasks, configs, versions, n-shot, higher_is_better, n-samples,
/// config, date; then ours. A value that is NaN is written as null, infinities as "Infinity" and "-Infinity".
nlohmann::ordered_json to_json(const RunResults& run);

/// The inverse. `where` names the file in messages. Throws Error for a missing field or a field of the wrong
/// type; unknown fields are ignored.
RunResults run_results_from_json(const nlohmann::ordered_json& json, const std::string& where);

inline constexpr const char* results_file = "results.json";

/// DIRECTORY/results.json, replaced atomically; created folder included.
void write_results(const std::filesystem::path& directory, const RunResults& run);
RunResults read_results(const std::filesystem::path& directory);

}  // namespace qeval::eval
