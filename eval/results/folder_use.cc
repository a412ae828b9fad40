#include "eval/results/folder_use.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "eval/results/comparison_file.h"
#include "eval/results/results.h"
#include "eval/results/run_record.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kFiles{results_file, run_file,        shard_file,
                                                 matrix_file,  comparison_file, ".lock"};

std::string_view describe(FolderUse use) {
  switch (use) {
    case FolderUse::none:
      break;
    case FolderUse::run:
      return "a run of qeval eval or merge";
    case FolderUse::methods:
      return "a comparison of qeval compare";
    case FolderUse::arithmetics:
      return "a comparison of qeval eval in several arithmetics";
    case FolderUse::model:
      return "a model (config.json)";
  }
  return "nothing";
}

/// Whether there are documents, or ranks that may hold some.
bool holds_documents(const fs::path& directory) {
  std::error_code code;
  fs::directory_iterator entries(directory, code);
  for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
    if (is_document_file(entries->path().filename().string()) || is_rank_folder(entries->path())) return true;
  }
  return false;
}

}  // namespace

bool is_companion_file(std::string_view name) {
  constexpr std::string_view kUnfinished = "unfinished_";
  if (name.starts_with(kUnfinished)) name.remove_prefix(kUnfinished.size());
  return (name.starts_with("divergence_") && name.ends_with(".jsonl")) ||
         (name.starts_with("logprobs_") && name.ends_with(".bin"));
}

bool is_document_file(std::string_view name) {
  const bool lines = name.starts_with("samples_") || name.starts_with("journal_");
  return (lines && name.ends_with(".jsonl")) || is_companion_file(name);
}

bool is_result_file(std::string_view name) {
  return is_document_file(name) || std::ranges::find(kFiles, name) != kFiles.end();
}

bool is_rank_folder(const fs::path& path) {
  constexpr std::string_view kPrefix = "rank-";
  const std::string name = path.filename().string();
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         name.find_first_not_of("0123456789", kPrefix.size()) == std::string::npos;
}

FolderUse folder_use(const fs::path& directory) {
  std::error_code code;
  const auto holds = [&](const char* name) { return fs::exists(directory / name, code); };
  if (holds(matrix_file)) return FolderUse::methods;
  if (holds(comparison_file)) {
    // With these it is one of methods that has lost its settings.
    return holds("checkpoints") || holds("results") ? FolderUse::methods : FolderUse::arithmetics;
  }
  if (holds(run_file) || holds(results_file) || holds(shard_file) || holds_documents(directory))
    return FolderUse::run;
  return holds("config.json") ? FolderUse::model : FolderUse::none;
}

void require_use(const fs::path& directory, FolderUse use) {
  const FolderUse found = folder_use(directory);
  if (found == FolderUse::none || found == use) return;
  fail("{}: holds {}: choose another directory for results", directory.string(), describe(found));
}

}  // namespace qeval::eval
