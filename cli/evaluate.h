#pragma once

#include "eval/evaluation.h"
#include "eval/results/comparison.h"

namespace qeval::cli {

/// Evaluates a model, with warnings and progress on stderr. Throws Error where it is interrupted, saying how
/// to go on; what is finished stays in the output folder.
eval::RunResults evaluate(const eval::SessionOptions& session_options,
                          const eval::EvaluationOptions& options);

void print_comparison(const eval::Comparison& comparison);

}  // namespace qeval::cli
