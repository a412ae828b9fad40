#pragma once

#include <string>

#include "eval/results/comparison.h"

namespace qeval::eval {

/// The headline metrics of a comparison as a table for a terminal: per run and task the base's value, this
/// one's, the difference with its 95 % interval if it has one (of perplexities: relative), the p-value after
/// Holm's correction, flips, mean and 99 % KL in nats and top-1 agreement where they were measured.
std::string render_comparison(const Comparison& comparison);

}  // namespace qeval::eval
