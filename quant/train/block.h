#pragma once

#include <array>
#include <vector>

#include "model/rotary.h"
#include "model/weights.h"
#include "quant/train/matrix.h"
#include "quant/train/parameters.h"
#include "quant/train/weight_quantizer.h"

namespace qeval::quant {

/// The weights of one block in the number type of the training: views of memory that outlives it and that
/// folding writes to.
template <typename Real>
struct BlockWeights {
  struct Norm {
    std::vector<Real>* weight = nullptr;  ///< [hidden]
    std::vector<Real>* bias = nullptr;    ///< [hidden], or an empty vector
  };
  struct Linear {
    Real* weight = nullptr;  ///< [rows, cols], row-major
    int64_t rows = 0, cols = 0;
    std::vector<Real>* bias = nullptr;  ///< [rows], or an empty vector
  };
  Norm input_norm, post_attention_norm;
  std::array<Linear, kBlockModules> linear;  ///< by module

  Norm& norm(Module module) { return module == Module::input_norm ? input_norm : post_attention_norm; }
  const Norm& norm(Module module) const {
    return module == Module::input_norm ? input_norm : post_attention_norm;
  }
  Linear& projection(Module module) { return linear[static_cast<size_t>(module)]; }
  const Linear& projection(Module module) const { return linear[static_cast<size_t>(module)]; }
};

/// What the passes of one block read. The targets of pointers must outlive it.
template <typename Real>
struct Block {
  const model::ModelConfig* config = nullptr;
  const model::RotaryTable* rotary = nullptr;  ///< for at least as many positions as a sample has tokens
  BlockWeights<Real> weights;
  std::array<QuantSpec, kBlockModules * kSlots> specs;  ///< by BlockParameters::slot_index

  const QuantSpec& spec(Module module, Slot slot) const {
    return specs[BlockParameters<Real>::slot_index(module, slot)];
  }
};

template <typename Real>
Block<Real> make_block(const model::ModelConfig& config, const model::RotaryTable& rotary,
                       const BlockWeights<Real>& weights, const QuantConfig& qcfg, int64_t layer);

/// What backward needs of a forward pass over one sample of `tokens` tokens: the inputs of the block and the
/// outputs of its matrix products before they are quantized; all else is computed again, which costs little.
/// In numbers per token: 3·hidden + 2·heads·head_dim + 2·kv_heads·head_dim + 2·intermediate.
template <typename Real>
struct Kept {
  int64_t tokens = 0;
  Scratch<Real> x, q, k, v, mixed, o, gate, up, down;
  std::array<WeightGrids<Real>, kBlockModules> grids;
};

/// Numbers per token that Kept holds.
int64_t kept_per_token(const model::ModelConfig& config);

/// Scratch that all blocks of a pass share.
template <typename Real>
struct Workspace {
  Scratch<Real> weight, weight_gradient, normed, q, k, v, head_gradient_k, head_gradient_v, middle, product,
      gradient_q, gradient_k, gradient_v, gradient_mixed, gradient_middle, gradient_normed, gradient_gate,
      gradient_up, update;
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
void block_backward(const Block<Real>& block, BlockParameters<Real>& parameters, const Kept<Real>& kept,
                    Workspace<Real>& workspace, Real* gradient);

}  // namespace qeval::quant
