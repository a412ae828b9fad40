#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "quant/calibrate/calibration_text.h"
#include "quant/methods/quantize.h"

namespace qeval::quant {

/// How a checkpoint's weights are stored: as codes in the layout of compressed-tensors (packed.h), or as
/// floats in that of the paper's code.
enum class CheckpointFormat : uint8_t { packed, mobilequant };
CheckpointFormat parse_checkpoint_format(std::string_view name);
std::string_view name(CheckpointFormat format);
inline constexpr std::string_view kCheckpointFormatNames = "packed, mobilequant";

/// Names in a checkpoint's folder, besides those of docs/specification.md#unified-layout.
inline constexpr const char* kRecordFile = "quantize.json";
inline constexpr const char* kTrainingFile = "training.jsonl";
inline constexpr const char* kNgramFile = "calibration_ngrams.json";
/// The state of a learning run that is not finished (quant/methods/learn/learn_state.h).
inline constexpr const char* kStateFile = "training_state.bin";
/// There from before the first change of the folder until the checkpoint in it is whole.
inline constexpr const char* kUnfinishedFile = "quantize.unfinished";

/// Makes room for a checkpoint: creates the folder where it is missing, and removes all that an earlier run
/// of `qeval quantize` left in it, but for the log and the state of a learning run that is to be continued
/// (`keep_learning`). Refuses a folder that quantize must not write into: the source itself, or one that
/// holds anything but such a run's checkpoint, finished or not. Killed at any moment, it leaves either the
/// whole earlier checkpoint or a folder that no model loads from.
void prepare_checkpoint_folder(const std::filesystem::path& folder, const model::Model& source,
                               bool keep_learning = false);

/// Writes a complete checkpoint into a folder that was made ready: the tokenizer's files, act_dict.json,
/// default_qcfg.json, prefix.json where there is a prefix, the calibration's n-gram sketch, model.safetensors
/// (codes, see packed.h, or float32 in the paper's layout), config.json, and last `record` as quantize.json.
/// Before config.json the folder loads as no model.
void write_checkpoint(const std::filesystem::path& folder, const QuantizedModel& model,
                      const Samples& samples, const nlohmann::ordered_json& record, CheckpointFormat format);

/// How much of an evaluated text a checkpoint was calibrated on: the sketch of a checkpoint folder. Nothing
/// where the folder has none; a malformed one is an Error that names it.
std::optional<NgramSketch> read_ngram_sketch(const std::filesystem::path& folder);

}  // namespace qeval::quant
