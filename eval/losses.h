#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/weights.h"
#include "quant/arithmetic/ggml_rounding.h"

namespace qeval::eval {

/// What roundings of a GGUF file cost, each part alone: mean KL(original ‖ with the part), nats per token.
struct PartLosses {
  double weights = 0;
  double inputs = 0;  ///< of the linear maps, as llama.cpp rounds them for the file's types
  double kv = 0;      ///< keys and values
};

/// The same of a layer or of a class of matrices.
struct NamedLosses {
  std::string name;  ///< "layer 3", "mlp.w2", "embedding", "lm_head"
  PartLosses losses;
  bool has_weights = true, has_inputs = true, has_kv = false;  ///< which there are
};

struct FileLosses {
  int64_t tokens = 0;
  PartLosses parts;
  double together = 0;  ///< all three at once
  /// Each layer alone, the embedding and the head.
  std::vector<NamedLosses> layers;
  /// Each class in all layers alone; keys and values are one.
  std::vector<NamedLosses> classes;

  /// What the whole has over the sum of its parts, negative where parts cancel one another.
  double interaction() const { return together - parts.weights - parts.inputs - parts.kv; }
};
/// `whole` less the sum of the rows, part by part.
PartLosses interaction(const PartLosses& whole, std::span<const NamedLosses> rows);

/// What of.
struct LossInput {
  const model::Model& base;  ///< the original, in float
  const model::Model& file;  ///< GGUF, of the same shape and vocabulary
  quant::GgmlRow kv_type = quant::GgmlRow::f16;
  std::span<const std::vector<int32_t>> samples;  ///< token ids, two or more each
  /// How many predictions at the end of each sample count, where not all do: windows overlap.
  std::span<const int64_t> scored{};
  bool details = true;                                          ///< layers and classes, too
  std::function<void(int64_t done, int64_t total)> progress{};  ///< runs over a sample
};

/// Runs the base over the samples with each part of the file put in: weights exchanged, inputs, keys and
/// values rounded. A run over the text for every number. Throws Error where the models differ in more than
/// the types of their weights, or where llama.cpp has no such products (quant::GgmlArithmetic).
FileLosses file_losses(const LossInput& input);
/// The first of these Errors by itself, in front of other work.
void require_comparable(const model::Model& base, const model::Model& file);

}  // namespace qeval::eval
