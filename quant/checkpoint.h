#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "quant/calibration_text.h"
#include "quant/quantize.h"

namespace qeval::quant {

/// Names in a checkpoint's folder, besides those of QUANTIZATION.md §3.
inline constexpr const char* kRecordFile = "quantize.json";
inline constexpr const char* kTrainingFile = "training.jsonl";
inline constexpr const char* kNgramFile = "calibration_ngrams.json";

/// Refuses a folder that quantize must not write into: the source itself, or one that holds anything but an
/// earlier quantized checkpoint. Creates it where missing.
void prepare_checkpoint_folder(const std::filesystem::path& folder, const model::Model& source);

/// Writes a complete checkpoint in the paper's layout: config.json, model.safetensors (float32), the
/// tokenizer's files, act_dict.json, default_qcfg.json, the calibration's n-gram sketch, and last `record` as
/// quantize.json.
void write_checkpoint(const std::filesystem::path& folder, const QuantizedModel& model,
                      const Samples& samples, const nlohmann::ordered_json& record);

/// How much of an evaluated text a checkpoint was calibrated on: the sketch of a checkpoint folder. Nothing
/// where the folder has none; a malformed one is an Error that names it.
std::optional<NgramSketch> read_ngram_sketch(const std::filesystem::path& folder);

}  // namespace qeval::quant
