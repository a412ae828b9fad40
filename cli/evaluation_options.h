#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "eval/evaluation.h"

namespace qeval::cli {

/// The options of every command that evaluates: tasks, data, few-shot, split, limit.
void add_task_options(po::options_description& options);

/// What they say, and the protocol, prefix and batch of the scoring options; no output folder.
eval::EvaluationOptions task_options(const po::variables_map& arguments, const ThreadLimit& limit);

/// What the options of `qeval eval` say: those, seed, output folder, and who shares the work.
eval::EvaluationOptions run_options(const po::variables_map& arguments, const ThreadLimit& limit);

}  // namespace qeval::cli
