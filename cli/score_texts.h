#pragma once

#include "cli/command.h"

namespace qeval::cli {

/// `qeval score --task TASK`: texts that some model wrote, from standard input, judged by the task's filters
/// and metrics. A line is {"doc_id": N, "text": "…"}, or one of a samples file, whose `resps` are taken;
/// other keys are passed over. Writes a line per document and one of the means; returns the exit status.
int score_texts(const po::variables_map& arguments);

}  // namespace qeval::cli
