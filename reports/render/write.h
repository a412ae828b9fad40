#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "reports/report.h"
#include "reports/source.h"

namespace qeval::reports {

/// Where a report goes; what is absent is not written.
struct Outputs {
  std::optional<std::filesystem::path> markdown = {};  ///< with STEM-PLOT.svg files beside it
  std::optional<std::filesystem::path> html = {}, csv = {}, latex = {}, json = {}, card = {};
  /// A folder: RUN.yaml of each run, for the `.eval_results` of its model's repository.
  std::optional<std::filesystem::path> evaluation_results = {};
};

/// Writes the files, each atomically, creating folders where missing. Plots beside the Markdown that an
/// earlier report of the same name left and this one lacks are removed. Throws Error naming the path that
/// cannot be written, two outputs of the same name, and an output that would replace, or look like, a file of
/// the folders `sources`.
void write_report(const Report& report, const Outputs& outputs,
                  std::span<const std::filesystem::path> sources = {});

}  // namespace qeval::reports
