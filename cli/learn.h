#pragma once

#include <chrono>
#include <filesystem>
#include <span>

#include "cli/command.h"
#include "quant/methods/learn/learn.h"
#include "quant/methods/learn/preset.h"
#include "quant/quantize_run.h"

namespace qeval::cli {

/// The options that only learned methods use, which of them is in method_options.h.
void add_learn_options(po::options_description& options);

/// The settings of a learned method: those of its preset for weights of so many bits, and the options that
/// the method uses.
quant::LearnSettings learn_settings(const po::variables_map& arguments, quant::Method method,
                                    quant::Variant variant, const model::ModelConfig& config,
                                    int weight_bits);
/// What calibration draws from a text where --samples or --sequence-length say nothing: what --preset asks
/// for where it was given, the most of what it asks for several of `methods`, which share them.
quant::SampleSize default_samples(const po::variables_map& arguments, std::span<const quant::Method> methods);

/// Says so where a batch has fewer samples than there are ranks.
void warn_of_idle_ranks(int64_t batch_size);
std::chrono::minutes save_interval(const po::variables_map& arguments);

/// Writes the settings' loss and its gradients (--gradients-only) as safetensors: "loss", "LAYER.NAME".
void write_gradients(const std::filesystem::path& file, const quant::Samples& samples,
                     const quant::LearnSettings& settings, quant::QuantizedModel& model);

}  // namespace qeval::cli
