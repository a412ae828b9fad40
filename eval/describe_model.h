#pragma once

#include "eval/engine/session.h"
#include "eval/results/model_details.h"

namespace qeval::eval {

/// What results.json tells about the model: counted from its weights and quantization, and what
/// `qeval quantize` left in its folder (quantize.json, training.jsonl). Throws Error for a damaged one.
ModelDetails describe_model(const Session& session);

}  // namespace qeval::eval
