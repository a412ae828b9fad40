#pragma once

#include <chrono>
#include <filesystem>
#include <span>

#include "cli/command.h"
#include "quant/quantize_run.h"
#include "quant/train/learn.h"

namespace qeval::cli {

/// The options that only learned methods use.
void add_learn_options(po::options_description& options);
std::span<const char* const> learn_option_names();

quant::LearnSettings learn_settings(const po::variables_map& arguments, quant::LearnMethod method,
                                    quant::Variant variant, const model::ModelConfig& config);
/// How many samples calibration draws from a text where --samples says nothing: what --preset asks for where
/// it was given, the most of what it asks for several of `methods`, which share them.
int64_t default_samples(const po::variables_map& arguments, std::span<const quant::Method> methods);

/// Says so where a batch has fewer samples than there are ranks.
void warn_of_idle_ranks(const quant::LearnSettings& settings);
std::chrono::minutes save_interval(const po::variables_map& arguments);

/// Writes the loss and the gradients of --gradients-only as safetensors: "loss", "LAYER.NAME".
void write_gradients(const std::filesystem::path& file, const quant::Samples& samples, quant::Variant variant,
                     quant::QuantizedModel& model);

}  // namespace qeval::cli
