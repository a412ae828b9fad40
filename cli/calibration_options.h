#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/option_values.h"
#include "model/weights.h"
#include "quant/calibrate/calibration.h"
#include "quant/methods/learn/preset.h"
#include "quant/methods/warnings.h"

namespace qeval::cli {

/// --calibration, --calibration-ids, --samples, --sequence-length, --seed. `has_presets`: the command's
/// --preset decides how many samples are the default.
void add_calibration_options(po::options_description& options, bool has_presets);

/// The calibration text that the options name, empty where they name none; of a text samples of the size
/// `otherwise` where --samples or --sequence-length say nothing. Options that need another one which is
/// missing are a UsageError. What is wrong with the text but no error is printed, and appended to `warnings`.
quant::Samples read_samples(const po::variables_map& arguments, const model::Model& model,
                            quant::SampleSize otherwise = {},
                            std::vector<quant::Warning>* warnings = nullptr);

/// What quantize.json says of the samples: file, counts, hash, seed; null where there are none.
nlohmann::ordered_json calibration_json(const po::variables_map& arguments, const quant::Samples& samples);

}  // namespace qeval::cli
