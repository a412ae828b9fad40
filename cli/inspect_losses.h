#pragma once

#include "cli/command.h"
#include "model/weights.h"
#include "quant/calibrate/calibration.h"

namespace qeval::cli {

/// --losses, --base, --kv-type.
void add_inspect_losses_options(po::options_description& options);

/// Prints what the roundings of a GGUF file cost, against the model of --base, on the samples.
void inspect_losses(const po::variables_map& arguments, const model::Model& model,
                    const quant::Samples& samples);

}  // namespace qeval::cli
