#pragma once

#include "eval/base_run.h"
#include "eval/encoded_tasks.h"
#include "eval/engine/session.h"
#include "eval/evaluation_options.h"
#include "eval/results/results.h"
#include "eval/results/run_record.h"

namespace qeval::eval {

/// Names and hashes of the session's model; without its details.
ModelInfo model_info(Session& session);

/// What results.json has of a run before anything is scored: the model and its quantization, rules, limits
/// and seeds. No tasks; the model's details are left out.
RunResults run_settings(Session& session, const EvaluationOptions& options, const EncodedTasks& tasks);

/// What it has of a task before anything is scored; no metrics, no counts.
TaskResults task_settings(const EncodedTask& task);

/// All that the scores depend on: an unfinished run is continued by one with the same values, and refused to
/// any other. `base`: the run that divergences are measured from.
Fingerprint run_fingerprint(Session& session, const EvaluationOptions& options, const EncodedTasks& tasks,
                            const BaseRun* base);

/// Of the files that say what is quantized and how; empty in float.
std::string quantization_hash(const Session& session);

}  // namespace qeval::eval
