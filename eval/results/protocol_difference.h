#pragma once

#include <optional>
#include <string>

#include "eval/results/results.h"

namespace qeval::eval {

/// A rule that two runs were scored by differently: "maximum length", or of a task "piqa split".
struct ProtocolDifference {
  std::string what, first, second;
};

/// The first of the rules by which two runs differ, so that their figures must not stand side by side:
/// protocol, prefix policy, chat settings, maximum length, and of the tasks that both have version, split,
/// few-shot count and settings of generation.
std::optional<ProtocolDifference> protocol_difference(const RunResults& first, const RunResults& second);

}  // namespace qeval::eval
