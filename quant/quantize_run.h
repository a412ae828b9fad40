#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/peers.h"
#include "quant/checkpoint/checkpoint.h"
#include "quant/methods/learn/learn.h"
#include "quant/methods/quantize.h"
#include "quant/methods/warnings.h"

namespace qeval::quant {

/// All that makes one quantized checkpoint: what `qeval quantize` does once its options are read.
struct QuantizeRun {
  QuantizeOptions options;
  CheckpointFormat format = CheckpointFormat::packed;
  std::string scheme;           ///< the name that options.scheme began as, for the record
  std::string act_ranges_file;  ///< where options.act_ranges are from, for the record
  Samples samples;
  nlohmann::ordered_json calibration;     ///< what the record says about the samples; null without any
  std::vector<Warning> warnings;          ///< about the samples, for the record
  std::optional<LearnSettings> learning;  ///< of learned methods
  /// Between two savings of the learning's state; an interruption saves it, too.
  std::chrono::minutes save_interval{5};
  /// Whether a learning run that was interrupted in the folder is continued: never; always, a folder without
  /// one being an Error; or where there is one.
  enum class Resume : uint8_t { no, required, if_interrupted } resume = Resume::no;
  std::string command, version;  ///< for the record
  int64_t threads = 0;
  Peers peers{};  ///< who shares the calibration and the learning; the first one writes the folder
};

/// Progress of the work: what is being done, tokens done and in all.
/// From the first step of learning on it begins with kLearningStep; interrupted there (by an exception of the
/// callback), the state of the run is saved.
inline constexpr std::string_view kLearningStep = "learning";
using TokenProgress = std::function<void(const std::string& step, int64_t done, int64_t total)>;

/// Quantizes `model` into the folder (with peers: all of them, together): weights, tokenizer, ranges,
/// training.jsonl, and last quantize.json, whose presence says that the checkpoint is whole. The same bits
/// for the same run, whatever the threads, the peers and the interruptions. `observations`, where given, must
/// be of this model and these samples. Returns what the record's warnings say beyond `run.warnings` (the
/// first rank all of it).
std::vector<Warning> quantize_to_folder(const model::Model& model, const QuantizeRun& run,
                                        const std::filesystem::path& folder,
                                        const TokenProgress& progress = {},
                                        Observations* observations = nullptr);

/// The learning steps that were done in the folder when its run was interrupted, and need not be done again;
/// 0 where there is no such run.
int64_t interrupted_steps(const std::filesystem::path& folder);

/// Tokens on which a checkpoint's layer errors are measured: those of the first few samples.
int64_t layer_error_tokens(const Samples& samples);

/// What learning starts from: the edited weights of `model`, which must outlive the problem and be in float.
LearnProblem learn_problem(const Samples& samples, QuantizedModel& model);

/// The same where weights become codes first: rounds the model's weights (round_weights; an Error where that
/// makes no codes) and learns from what they are then. `values` holds these and must outlive the problem.
LearnProblem coded_learn_problem(const Samples& samples, QuantizedModel& model,
                                 const QuantizeOptions& options, const LearnSettings& settings,
                                 std::vector<AlignedBuffer>& values, const ProgressFunction& progress = {},
                                 const Peers& peers = {});

/// What quantize.json says of the settings of learning: those that decide its result.
nlohmann::ordered_json learn_json(const LearnSettings& settings);

/// The learned method of this name, nothing for the others.
std::optional<LearnMethod> learn_method(Method method);

}  // namespace qeval::quant
