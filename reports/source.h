#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/results/comparison.h"
#include "eval/results/divergence_results.h"
#include "eval/results/results.h"

namespace qeval::reports {

/// A result folder as the report takes it.
struct Source {
  std::filesystem::path folder;
  eval::RunResults results;
  /// Of how the model was quantized; empty where neither results.json nor compare.json says.
  std::string method, variant, scheme;
  std::string label;                  ///< of the row; empty: made of the above
  std::string name;                   ///< in its comparison; empty: of none
  std::vector<std::string> commands;  ///< that reproduce the run, in order
  bool is_base = false;               ///< of a matrix
};

struct SourceList {
  std::vector<Source> runs;
  /// Of the comparison, where there is one that compared a text; labels are the sources' names.
  std::optional<eval::DivergenceResults> text{};
  /// What the one comparison found, where the runs are its and it is finished.
  std::optional<eval::Comparison> comparison{};
  std::vector<std::string> unfinished;  ///< names of the runs of a matrix that have no results yet
};

/// Reads result folders, in order, each once. A folder with compare.json stands for the runs of its matrix
/// that are finished. Throws Error naming the folder where neither file is there or no run is finished, and
/// the file that is damaged.
SourceList read_sources(std::span<const std::filesystem::path> folders);

/// A source made of results alone, with what results.json says of the quantization.
Source make_source(std::filesystem::path folder, eval::RunResults results);

}  // namespace qeval::reports
