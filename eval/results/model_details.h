#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/results.h"

namespace qeval::eval {

/// One point of a learning curve.
struct TrainingLoss {
  int64_t step = 0;  ///< from 0, over the whole run
  double loss = 0;
};

/// How far a block's output is off when the model computes quantized.
struct LayerError {
  int64_t layer = 0;
  double error = 0;  ///< as the checkpoint's quantize.json defines it (its "layer_errors_unit")
};

/// What reports tell about the model of a run, besides its identity: `model.details` of results.json. A
/// reader must expect any of it to be absent (runs of older versions): such fields keep their defaults.
struct ModelDetails {
  int64_t parameters = 0;  ///< elements of all weights, biases included, tied ones once
  /// Bytes of the weights as the run's number format stores them. Quantized: the projections' codes at
  /// bits / 8 bytes per element with 4 bytes per scale, and 4 per zero point where asymmetric; norm weights
  /// at their bits; biases at 4 bytes; embedding and head, where left in float, at 2 bytes (float16). Float:
  /// as the checkpoint stores them.
  int64_t size_bytes = 0;
  double weight_bits = 0;    ///< mean over the elements of the projections, without scales; float: as stored
  int activation_bits = 32;  ///< of the points that schemes vary; 32: left in float
  std::string scheme;        ///< "w8a8"; "float" for unquantized runs; empty where not recorded
  std::string format;        ///< how the checkpoint stores its matrices: "BF16", "Q4_1", "GPTQ 4-bit g128"
  /// "210 of 211": linear maps that integer arithmetic computed in integers, of a checkpoint whose format
  /// rounds activations; everything else was float32, so that kernels differ in last digits. Else empty.
  std::string integer_linears{};
  /// The checkpoint's quantize.json as it stands (method, settings, calibration, seconds, peak_rss_bytes,
  /// command …); null for a model that has none.
  nlohmann::ordered_json quantize;
  std::vector<TrainingLoss> training_loss;  ///< of learned methods: at most most_losses points, evenly spaced
  std::vector<LayerError> layer_errors;     ///< where the checkpoint records them

  static constexpr size_t most_losses = 300;

  /// Fields of `quantize`, empty or absent where it has none of them.
  std::string method() const;
  std::string variant() const;
  std::optional<double> quantize_seconds() const;
  std::optional<int64_t> quantize_peak_bytes() const;
};

/// {"parameters", "size_bytes", "weight_bits", "activation_bits", "scheme", "format", "integer_linears",
/// "quantize", "training_loss": [[step, loss], …], "layer_errors": [{"layer": i, "error": x}, …]}; empty
/// lists and a null record are left out.
nlohmann::ordered_json to_json(const ModelDetails& details);

/// The details of a run. Throws Error naming field and `where` for one of the wrong type.
ModelDetails model_details(const ModelInfo& model, const std::string& where);

}  // namespace qeval::eval
