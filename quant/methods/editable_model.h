#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/parallel.h"
#include "model/arithmetic.h"
#include "quant/grid/points.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {

/// A model whose blocks' weights lie in memory as float32, to be transformed: scaled, clipped, folded,
/// rotated. Embedding, positions and head stay views into the source's checkpoint until edit_ends().
class EditableModel {
 public:
  /// Copies the block weights of `source`.
  explicit EditableModel(const model::Model& source);
  EditableModel(const EditableModel&) = delete;
  EditableModel& operator=(const EditableModel&) = delete;
  EditableModel(EditableModel&&) = default;
  EditableModel& operator=(EditableModel&&) = default;

  /// The model as it stands, to be run or written; valid as long as this object.
  const model::Model& model() const { return model_; }

  /// A projection's weight [rows, cols] and its bias ([rows], or empty where it has none).
  struct Linear {
    int64_t rows, cols;
    float* weight;
    std::vector<float>& bias;

    float* row(int64_t r) const { return weight + r * cols; }
  };
  Linear linear(int64_t layer, Module module);
  /// The same of a module of experts: all of them.
  std::vector<Linear> linears(int64_t layer, Module module);
  /// `expert`: which, of a module of experts.
  const model::Matrix& weight(int64_t layer, Module module, int64_t expert = 0) const {
    return model_.layers[static_cast<size_t>(layer)].all(module)[static_cast<size_t>(expert)]->weight;
  }
  /// A projection's weight becomes these codes, and cannot be edited any more.
  void set_codes(int64_t layer, Module module, const QuantizedMatrix& codes, int64_t expert = 0);
  std::vector<float>& bias(int64_t layer, Module module) {
    return model_.layers[static_cast<size_t>(layer)].linears.at(module).bias;
  }
  /// A norm of a block.
  model::NormWeights& norm(int64_t layer, Module module) {
    return model_.layers[static_cast<size_t>(layer)].norms.at(module);
  }

  /// Copies embedding, learned positions and head as well, the head apart from the embedding.
  void edit_ends();
  /// After edit_ends().
  Linear embedding() { return view(model_.embedding, embedding_, no_bias_); }
  Linear positions() { return view(model_.positions, positions_, no_bias_); }
  Linear head() { return view(model_.head.weight, head_, model_.head.bias); }
  model::NormWeights& final_norm() { return model_.final_norm; }
  /// Whose graph must stay in step with the weights.
  model::ModelConfig& config() { return model_.config; }

 private:
  static Linear view(const model::Matrix& matrix, AlignedBuffer& buffer, std::vector<float>& bias) {
    return {matrix.rows, matrix.cols, buffer.as<float>(), bias};
  }

  model::Model model_;
  AlignedBuffer embedding_, positions_, head_;
  std::vector<float> no_bias_;
  std::vector<std::map<Module, AlignedBuffer>> weights_;               ///< [layers], of the linears
  std::vector<std::map<Module, std::vector<AlignedBuffer>>> experts_;  ///< [layers]
};

}  // namespace qeval::quant
