#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "model/architectures/architecture.h"
#include "model/checkpoint/quantized/format.h"
#include "model/weights.h"

namespace qeval::model {

/// The tensors of a checkpoint by the modules of a model, as a layout's names say, every one checked against
/// the configuration and remembered.
class NamedTensors {
 public:
  /// `quantization` may be null. All must outlive this; `model` receives what is made of transposed tensors,
  /// and warnings.
  NamedTensors(const Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& names,
               const Quantization* quantization, Model& model)
      : checkpoint_(checkpoint), config_(config), names_(names), quantization_(quantization), model_(model) {}

  /// What nothing reads is a model that we do not understand.
  void check_unused() const;

 protected:
  const TensorView& tensor(const std::string& name, const std::vector<int64_t>& shape);
  const TensorPlace& place(Module module) const { return names_.modules.at(module); }
  std::string name_in_file(Module module, int64_t layer, int64_t head = 0) const;
  std::string unified_name(Module module, int64_t layer) const;
  /// The matrix of a module, quantized or not, and what is asked of its input and output.
  LinearWeights weights(const TensorPlace& place, const std::string& unified, ModuleRequest::Kind kind,
                        int64_t rows, int64_t cols);
  /// A bias that the architecture lacks and that a quantizer wrote all the same: zeros mean nothing.
  void skip_zero_bias(const std::string& name);
  /// A matrix as `place` says it lies in the file.
  Matrix matrix(const TensorPlace& place, const std::string& unified, int64_t rows, int64_t cols);
  /// All numbers of a tensor, whatever its shape.
  std::vector<float> numbers(const std::string& name, int64_t count);
  std::vector<float> vector(const std::string& name, const std::vector<int64_t>& shape);
  /// The weights of all experts of a linear map.
  std::vector<LinearWeights> experts(const LinearOp& op, int64_t layer);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames& names_;
  const Quantization* quantization_;
  Model& model_;

 private:
  /// Rows of `result` ← columns from `first` on of the stored [cols, …], `step` apart.
  void transpose(const TensorView& view, int64_t first, Matrix& result, int64_t step = 1);
  std::string expert_name(Module module, int64_t layer, int64_t expert) const;
  std::vector<LinearWeights> stacked_experts(const LinearOp& op, int64_t layer);
  /// One expert's part [rows, cols], or transposed, of a stacked tensor.
  void place_expert(const TensorView& view, int64_t expert, const TensorPlace& place, int64_t rows,
                    Matrix& matrix);

  std::unordered_set<std::string> used_;
};

}  // namespace qeval::model
