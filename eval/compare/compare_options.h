#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/engine/session.h"
#include "eval/evaluation_options.h"
#include "quant/quantize_run.h"

namespace qeval::eval {

/// Which quantized models run in integer-only arithmetic as well.
enum class IntegerRuns : uint8_t {
  none,
  best,  ///< the one nearest to the base in its fake-quantized run (nearest_run)
  all
};

/// How the front end spells the command that makes one entry of a comparison alone.
struct CommandSpelling {
  /// `base`: the results that divergences are measured from; none: the run is the base and keeps what others
  /// are compared with.
  std::function<std::string(const std::filesystem::path& model, const std::string& arithmetic,
                            const std::optional<std::filesystem::path>& base,
                            const std::filesystem::path& output)>
      evaluate;
  std::function<std::string(const std::filesystem::path& model, const quant::QuantizeRun& run,
                            const std::filesystem::path& output)>
      quantize;
};

/// A ready-made checkpoint to compare.
struct GivenModel {
  std::filesystem::path path;
  std::string arithmetic;  ///< empty: the checkpoint's default
  std::string label;       ///< empty: the format of its weights
};

/// A text on which all runs' predictions are compared with the base's.
struct ComparedText {
  std::filesystem::path file;
  int64_t context = 512;
  bool losses = false;  ///< split those of GGUF files into what weights, activations, keys and values cost
};

/// A comparison: a base in float, ready-made checkpoints, and every method in every scheme.
struct CompareOptions {
  SessionOptions session;        ///< the base: model and max_length; its arithmetic is float
  EvaluationOptions evaluation;  ///< what is scored; output, base, command and resume are the comparison's
  std::filesystem::path output;
  std::vector<GivenModel> given{};
  std::optional<ComparedText> text{};
  std::vector<quant::Method> methods;
  std::vector<std::string> schemes;  ///< as parse_scheme takes them
  bool fake = true;                  ///< run the simulation of each
  IntegerRuns integer = IntegerRuns::none;
  /// What all quantizations share: options except method and scheme, samples, calibration, threads, version.
  quant::QuantizeRun quantize;
  /// Rotation and calibration of the methods that begin with them (is_rotated).
  quant::QuantizeOptions rotated{};
  /// Of the learned methods among `methods`, in each scheme: a preset may go by the weights' bits.
  std::map<std::pair<quant::Method, std::string>, quant::LearnSettings> learning;
  CommandSpelling spelling;

  /// Whether a method begins with a rotation: rotate, and one that learns from codes of its own rounding,
  /// which GPTQ makes.
  bool is_rotated(quant::Method method) const {
    return method == quant::Method::rotate || learns_from_codes(method);
  }
  bool learns_from_codes(quant::Method method) const {
    return std::ranges::any_of(
        learning, [&](const auto& of) { return of.first.first == method && of.second.round_first; });
  }
};

}  // namespace qeval::eval
