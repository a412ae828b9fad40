#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/directory_lock.h"
#include "eval/evaluation.h"
#include "eval/results/comparison_file.h"

namespace qeval::cli {

/// One model in several arithmetics (eval --arithmetic A,B): a folder each below the output folder, and the
/// comparison with the first of them in the output folder itself. Float, where it is among them, is the
/// first.
class Arithmetics {
 public:
  /// `arguments` are the options behind "qeval eval" that all of them share, quoted for a shell. Throws
  /// UsageError naming the option where `evaluation` or `session` has what several cannot have.
  Arithmetics(std::vector<std::string> names, eval::SessionOptions session,
              eval::EvaluationOptions evaluation, std::string arguments);

  /// The name of the one that the others are compared with.
  const std::string& base() const { return names_.front(); }
  eval::SessionOptions session(const std::string& name) const;
  eval::EvaluationOptions evaluation(const std::string& name) const;

  /// Throws Error where the output folder holds something else, or the model cannot be computed in one of
  /// them. Loads the model in each and makes nothing. Returns the runs.
  eval::ComparisonFile check() const;
  /// Checks, evaluates each, compares, and prints the tables.
  void run() const;

 private:
  /// The session of one of them; the checkpoint is loaded by the first.
  std::unique_ptr<eval::Session> open(const std::string& name) const;
  std::filesystem::path folder(const std::string& name) const { return *evaluation_.output / name; }
  std::string command(const std::string& name) const;
  /// The output folder, locked; from here on it says what it is used for.
  std::unique_ptr<DirectoryLock> begin(const eval::ComparisonFile& file) const;

  std::vector<std::string> names_;
  eval::SessionOptions session_;
  eval::EvaluationOptions evaluation_;
  std::string arguments_;
  mutable std::shared_ptr<eval::LoadedModel> model_;
};

}  // namespace qeval::cli
