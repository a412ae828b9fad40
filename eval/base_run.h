#pragma once

#include <filesystem>
#include <string>

#include "eval/encoded_tasks.h"
#include "eval/results/divergence.h"
#include "eval/results/results.h"

namespace qeval::eval {

/// A finished run to measure divergences from.
struct BaseRun {
  /// Throws Error where the folder holds no finished run.
  explicit BaseRun(std::filesystem::path folder);
  /// Throws Error where the base did not score this task, or kept nothing of it.
  DivergenceBase identity(const std::string& task) const;
  /// Of a task that generates: throws Error naming the first document whose prompt the base did not continue,
  /// or that had other token ids there.
  void require_same_prompts(const EncodedTask& task) const;
  /// Throws Error naming what differs unless the base was scored by the rules of `run` and on as many
  /// documents of each of its tasks: runs are compared document by document, and a difference in the end
  /// would be noticed only after all the work. Of `run`, only settings and counts of documents are looked at.
  void require_same_rules(const RunResults& run) const;

  std::filesystem::path directory;
  RunResults results;

 private:
  const TaskResults& task(const std::string& name) const;
};

}  // namespace qeval::eval
