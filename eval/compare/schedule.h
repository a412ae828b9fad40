#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eval/compare/layout.h"
#include "eval/engine/cost_model.h"
#include "eval/evaluation.h"

namespace qeval::eval {

/// One step of a comparison's work and what it is expected to take.
struct CompareStep {
  std::string name;    ///< "quantize mobilequant w8a8", "evaluate mobilequant w8a8"
  int64_t tokens = 0;  ///< computed forwards, or learned on
  double seconds = 0;  ///< estimated
  double left = 0;     ///< of the seconds, those of what an interrupted run has not done
  bool finished = false;
};

/// Seconds that parts of the session's forward pass take, fitted to a short pass and a longer one.
TokenCosts measure_costs(Session& session);

/// What decides the steps' costs.
struct ScheduleInput {
  const CompareOptions& options;
  const CompareLayout& layout;
  const Evaluation& evaluation;  ///< of the base, with all its documents
  int64_t layers = 0;            ///< of the base
  TokenCosts costs;              ///< in seconds
  int64_t ranks = 1;
  int64_t text_tokens = 0;                                        ///< input tokens of the text's windows
  std::function<bool(const std::string& entry)> text_measured{};  ///< whether an entry's is known
  /// The integer run of the best model, once it can be known; called where all fake runs are finished.
  std::function<ComparisonEntry()> best;
};

/// The steps of a comparison in order, with the time they take on that many machines like this one.
std::vector<CompareStep> schedule(const ScheduleInput& input);

/// Bytes that the work leaves in the folder, about: checkpoints of `made` models, and the base's
/// log-probabilities at `scored` positions.
int64_t compare_disk_bytes(const model::Model& base, int64_t made, int64_t scored);

}  // namespace qeval::eval
