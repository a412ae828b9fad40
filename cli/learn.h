#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "cli/command.h"
#include "quant/quantize.h"
#include "quant/train/learn.h"

namespace qeval::cli {

/// The options of `qeval quantize` that only learned methods use.
void add_learn_options(po::options_description& options);
std::span<const char* const> learn_option_names();

/// The learned method of this name (quant::Method), nothing for the others.
std::optional<quant::LearnMethod> learn_method(quant::Method method);

quant::LearnSettings learn_settings(const po::variables_map& arguments, quant::LearnMethod method,
                                    quant::Variant variant, const model::ModelConfig& config);
nlohmann::ordered_json learn_json(const quant::LearnSettings& settings);

/// Learns on `model`, which must have editable weights, and writes training.jsonl and, now and then, the
/// state that --resume reads to `output`. With `fingerprint` as identity of weights, calibration and
/// settings.
void run_learning(const po::variables_map& arguments, const quant::LearnSettings& settings,
                  const quant::Samples& samples, const std::string& fingerprint,
                  const std::filesystem::path& output, quant::QuantizedModel& model);

/// Writes the loss and the gradients of --gradients-only as safetensors: "loss", "LAYER.NAME".
void write_gradients(const std::filesystem::path& file, const quant::Samples& samples, quant::Variant variant,
                     quant::QuantizedModel& model);

}  // namespace qeval::cli
