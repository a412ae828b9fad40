#pragma once

#include <string>

#include "eval/results/results.h"

namespace qeval::eval {

/// What tables show of a task, and the one of its metrics that is tested: acc_norm before acc,
/// word_perplexity before other perplexities, else the first. Empty where there are none.
std::string headline_metric(const TaskResults& task);

/// Likewise of a group, among the metrics that it averages; where its means are not weighted, the unweighted
/// mean of it ("acc_norm_unweighted").
std::string headline_metric(const GroupResults& group);

}  // namespace qeval::eval
