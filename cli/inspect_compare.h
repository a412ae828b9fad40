#pragma once

#include "cli/command.h"
#include "model/weights.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/calibrate/calibration.h"

namespace qeval::cli {

/// --compare.
void add_inspect_compare_options(po::options_description& options);

/// Prints how far each integer operation is from the simulated one, fed the same input, over the samples:
/// worst first, the points that the pattern names. Throws UsageError for arithmetics other than fake,integer.
void inspect_compare(const po::variables_map& arguments, const model::Model& model,
                     const quant::Samples& samples, const quant::Quantization& quantization);

}  // namespace qeval::cli
