#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/row.h"
#include "eval/tasks/prompt.h"
#include "eval/tasks/task.h"

namespace qeval::eval {

struct LoadOptions {
  std::filesystem::path data = {};          ///< the data directory; unused by shipped and user tasks
  std::optional<std::string> split = {};    ///< instead of the task's own
  std::optional<int64_t> num_fewshot = {};  ///< examples in front of each prompt, instead of the task's own
  uint64_t seed = 1234;                     ///< of the draw of examples
  std::optional<double> limit = {};  ///< documents from the front: a count (>= 1), or a fraction of all (< 1)
  PromptStyle style = {};            ///< running text has no prompt, and none of it
  bool run_code = false;             ///< tasks that run what the model writes are wanted
};

/// A task ready to run.
struct LoadedTask {
  std::vector<Document> documents;        ///< the first of the split, in its order
  std::vector<datasets::DataFile> files;  ///< everything read, the scored split's first
  std::string split;                      ///< the split that was scored
  int64_t num_fewshot = 0;                ///< examples in front of each prompt
  int64_t split_size = 0;                 ///< documents that the split has, before the limit
  std::string prompt_hash;                ///< SHA-256 over the text of every request, in order
  /// SHA-256 over what the model's answers are judged by: scoring, metrics, and of every document the target
  /// and the facts.
  std::string answer_hash;
};

/// Reads the task's rows and makes their requests. The whole file is read and checked to be rows; the fields
/// of a row are checked when it is scored or serves as an example. Throws Error naming the file, line and
/// field for a row that cannot be asked, the path for a file that is missing, and what is there and what is
/// needed for few-shot examples that cannot be had; UsageError for a limit that is neither a whole number of
/// documents nor a fraction, and for a task that runs what the model writes where that is not wanted.
LoadedTask load_documents(const Task& task, const LoadOptions& options);

/// How many of `count` documents the limit keeps: a fraction is rounded up. Throws UsageError as
/// load_documents does.
int64_t limited_count(std::optional<double> limit, int64_t count);

}  // namespace qeval::eval
