#pragma once

#include <string>
#include <vector>

#include "eval/results/results.h"

namespace qeval::eval {

/// What tables show of a task, and the one of its metrics that is tested: acc_norm before acc,
/// word_perplexity before other perplexities, else the first. Empty where there are none.
std::string headline_metric(const TaskResults& task);

/// Likewise of a group, among the metrics that it averages; where its means are not weighted, the unweighted
/// mean of it ("acc_norm_unweighted").
std::string headline_metric(const GroupResults& group);

/// The groups that stand in a main table in place of their tasks, and are tested, in the run's order: those
/// with metrics of their own whose set of tasks is no proper subset of another such group's. (The areas of
/// MMLU are inside it: what they would add is a test of the same documents again.)
std::vector<const GroupResults*> outer_groups(const RunResults& run);

}  // namespace qeval::eval
