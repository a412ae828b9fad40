#pragma once

#include "cli/command.h"
#include "model/weights.h"

namespace qeval::cli {

/// --points, --errors, --sensitivity, --compare and what they need: --qcfg, --act-ranges, the calibration
/// options.
void add_inspect_quantization_options(po::options_description& options);

/// Prints what the options ask for of a model's quantization; options that nothing asked for would use are a
/// UsageError. A summary where the model is a quantized checkpoint and nothing more was asked for.
void inspect_quantization(const po::variables_map& arguments, const model::Model& model);

}  // namespace qeval::cli
