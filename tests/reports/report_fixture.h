#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/results/results.h"
#include "eval/results/sample_file.h"
#include "reports/build.h"
#include "tests/temporary_folder.h"

namespace qeval::reports {

using test::TemporaryFolder;

/// A question of two choices; right where `right`.
eval::Sample question(int64_t doc_id, bool right);
/// A page of 100 words with this log-likelihood.
eval::Sample page(int64_t doc_id, double log_likelihood);

/// A run made up by a test: its results and its samples, task by task.
struct MadeRun {
  eval::RunResults results;
  std::vector<std::vector<eval::Sample>> samples;  ///< parallel to results.tasks

  MadeRun& add(const std::string& task, std::vector<eval::Sample> documents);
  /// The run as a folder of files.
  Source write(const std::filesystem::path& folder) const;
};

MadeRun made_run(const std::string& model, const std::string& arithmetic);
/// With what a quantized run's details say.
MadeRun quantized_run(const std::string& method, const std::string& scheme);

/// Questions of which the first `right` are answered rightly.
std::vector<eval::Sample> questions(int64_t count, int64_t right);
/// Pages, each of this log-likelihood and a little of its own.
std::vector<eval::Sample> pages(int64_t count, double log_likelihood);

/// float, rtn and mobilequant (which is better) at w8a8, on pages ("wikitext") and 200 questions each of
/// arc_easy and a group of two ("both").
SourceList example_sources(const std::filesystem::path& folder);

}  // namespace qeval::reports
