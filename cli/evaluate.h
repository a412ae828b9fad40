#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "eval/evaluation.h"
#include "eval/results/comparison.h"

namespace qeval::cli {

/// The command that evaluates a model in one arithmetic. `arguments`: the options behind the model that are
/// not said here, quoted for a shell. Without a base, it keeps what other runs are compared with.
std::string eval_command_text(const std::filesystem::path& model, const std::string& arguments,
                              const std::string& arithmetic, const std::optional<std::filesystem::path>& base,
                              const std::filesystem::path& output);

/// Evaluates a model, with warnings and progress on stderr. Throws Error where it is interrupted, saying how
/// to go on; what is finished stays in the output folder.
eval::RunResults evaluate(const eval::SessionOptions& session_options,
                          const eval::EvaluationOptions& options);

/// Takes a prepared evaluation, of these options, to its end in the same way.
eval::RunResults carry_out(eval::Evaluation& evaluation, const eval::EvaluationOptions& options);

void print_comparison(const eval::Comparison& comparison);

}  // namespace qeval::cli
