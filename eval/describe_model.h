#pragma once

#include <string>
#include <vector>

#include "eval/engine/session.h"
#include "eval/results/model_details.h"

namespace qeval::eval {

/// What results.json tells about the model: counted from its weights and quantization, and what
/// `qeval quantize` left in its folder (quantize.json, training.jsonl). Throws Error for a damaged one.
ModelDetails describe_model(const Session& session);

/// What a run is called where nobody names it: the number format of the checkpoint's weights ("Q4_1", "GPTQ
/// 4-bit g128", "BF16"), or how qeval quantized it ("smoothquant w8a8"); with the arithmetic where that is
/// not what the label implies.
std::string run_label(const Session& session);

/// Labels unlike one another: of those that are the same, each is followed by its checkpoint's name where the
/// names differ, and by a number where the result is still the same. Parallel to the checkpoints' names.
std::vector<std::string> distinct_labels(std::vector<std::string> labels,
                                         const std::vector<std::string>& names);

}  // namespace qeval::eval
