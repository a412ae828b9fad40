#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "eval/results/comparison.h"
#include "reports/report.h"
#include "reports/source.h"

namespace qeval::reports {

struct BuildOptions {
  std::optional<std::filesystem::path> baseline;  ///< folder of one of the sources
  bool paper = false;                             ///< set the paper's figures beside ours
  /// A comparison of the sources' folders that was just made: it is not computed again where base and runs
  /// are the report's.
  const eval::Comparison* comparison = nullptr;
  double margin = 0.01;  ///< of equivalence, as a fraction
  bool examples = true;  ///< keep flipped documents, with their text
};

/// Computes a report from finished runs; all arithmetic of a report happens here.
///
/// The baseline is the one asked for, else the base of the one matrix, else the only float run; several runs
/// without one are an Error that names --baseline. A single run makes a report without differences. Runs
/// whose tasks were scored on other documents, from other token ids or by another protocol are refused,
/// naming folder, task and document. Differences need the samples files of all runs.
Report build_report(SourceList sources, const BuildOptions& options = {});

}  // namespace qeval::reports
