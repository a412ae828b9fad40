#pragma once

#include <array>
#include <optional>
#include <vector>

#include "model/rotary.h"
#include "model/weights.h"
#include "quant/methods/learn/block_program.h"
#include "quant/methods/learn/matrix.h"
#include "quant/methods/learn/parameters.h"
#include "quant/methods/learn/weight_quantizer.h"

namespace qeval::quant {

/// The weights of one block in the number type of the training: views of memory that outlives it and that
/// folding writes to. By module; those that the block does not have stay empty.
template <typename Real>
struct BlockWeights {
  struct Norm {
    std::vector<Real>* weight = nullptr;  ///< [NormOp::weights()]
    std::vector<Real>* bias = nullptr;    ///< as many, or an empty vector
  };
  struct Linear {
    Real* weight = nullptr;  ///< [rows, cols], row-major
    int64_t rows = 0, cols = 0;
    std::vector<Real>* bias = nullptr;  ///< [rows], or an empty vector
  };
  std::array<Norm, kBlockModules> norms;
  std::array<Linear, kBlockModules> linears;

  Norm& norm(Module module) { return norms[static_cast<size_t>(module)]; }
  const Norm& norm(Module module) const { return norms[static_cast<size_t>(module)]; }
  Linear& linear(Module module) { return linears[static_cast<size_t>(module)]; }
  const Linear& linear(Module module) const { return linears[static_cast<size_t>(module)]; }
};

/// The rotary tables of a model's layers.
class RotaryTables {
 public:
  /// For sequences of at most `positions` tokens, which must all be of the lengths for which a scaling that
  /// depends on it has one table (Rotary::length_class 0).
  RotaryTables(const model::ModelConfig& config, int64_t positions);
  const model::RotaryTable& of(const model::RotateOp& op) const { return op.local ? *local_ : usual_; }

 private:
  model::RotaryTable usual_;
  std::optional<model::RotaryTable> local_;
};

/// What the passes of one block read. The targets of pointers must outlive it.
template <typename Real>
struct Block {
  const model::ModelConfig* config = nullptr;
  const model::BlockGraph* graph = nullptr;
  const RotaryTables* rotary = nullptr;  ///< for at least as many positions as a sample has tokens
  BlockWeights<Real> weights;
  std::array<QuantSpec, kBlockModules * kSlots> specs;  ///< by BlockParameters::slot_index
  BlockProgram program{};
  /// Where position 0 has grids of its own, those: by slot_index, of every activation point that is
  /// quantized. They are not learned: position 0 of calibration samples holds one token (BOS), and the
  /// measured ranges are those of any.
  std::vector<LeafGrid<Real>> first{};

  const QuantSpec& spec(Module module, Slot slot) const {
    return specs[BlockParameters<Real>::slot_index(module, slot)];
  }
};

/// `first`, where given, has the ranges of every point that `qcfg` quantizes (completed).
template <typename Real>
Block<Real> make_block(const model::ModelConfig& config, const RotaryTables& rotary,
                       const BlockWeights<Real>& weights, const QuantConfig& qcfg, int64_t layer,
                       const std::optional<FirstToken>& first = std::nullopt);

/// What backward needs of a forward pass over one sample of `tokens` tokens: the input of the block and the
/// outputs of its matrix products before they are quantized; all else is computed again, which costs little.
template <typename Real>
struct Kept {
  int64_t tokens = 0;
  std::vector<Scratch<Real>> tensors;  ///< by ProgramTensor::offset
  std::array<WeightGrids<Real>, kBlockModules> grids;
};

/// Numbers per token that the Kepts of all layers hold.
int64_t kept_per_token(const model::ModelConfig& config);

/// Scratch that all blocks of a pass share.
template <typename Real>
struct Workspace {
  std::vector<Scratch<Real>> values, gradients;  ///< of the program's tensors that are in memory
  Scratch<Real> weight, transformed, weight_gradient, head_gradient_k, head_gradient_v;
};

/// y [tokens, hidden] ← the quantized block of x, the sample's residual stream (y may be x). The norms have
/// no eps (RMS), masked probabilities go through their quantizer like the others. `kept` receives what
/// backward needs.
template <typename Real>
void block_forward(const Block<Real>& block, const BlockParameters<Real>& parameters, const Real* x,
                   int64_t tokens, Kept<Real>& kept, Workspace<Real>& workspace, Real* y);

/// The float block: nothing transformed, nothing quantized (but RMS norms without eps). y may be x.
template <typename Real>
void float_block_forward(const Block<Real>& block, const Real* x, int64_t tokens, Workspace<Real>& workspace,
                         Real* y);

/// gradient [tokens, hidden]: dL/dy on entry, dL/dx on return. The gradients of all parameters, learned or
/// not, are added to. Deterministic: the order of every sum is fixed.
template <typename Real>
void block_backward(const Block<Real>& block, BlockParameters<Real>& parameters, Kept<Real>& kept,
                    Workspace<Real>& workspace, Real* gradient);

}  // namespace qeval::quant
