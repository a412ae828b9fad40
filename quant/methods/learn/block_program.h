#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "quant/grid/points.h"

namespace qeval::quant {

/// Where the passes over a block have a tensor between two steps.
enum class Place : uint8_t {
  kept,    ///< in memory from the forward pass to the backward pass: the block's input, what products make
  shared,  ///< in memory while the block is passed
  row      ///< a row of it, while that row is computed: nothing but row-wise steps of one part reads it
};

/// A tensor [tokens, width] of a block's passes, written by one step.
struct ProgramTensor {
  int64_t width = 0;
  Place place = Place::row;
  int64_t offset = 0;     ///< of its row among those of its part; of kept ones, their number
  bool replayed = false;  ///< backward needs its value: it is computed again, unless it was kept
  /// The tensor that has its gradient in the same memory: an addition passes it on as it is.
  size_t gradient = 0;
  bool gradient_in_memory = false;  ///< else a row of it, like Place::row
};

/// An operation of the graph, or a rounding at a point, from numbered tensors to another.
struct ProgramStep {
  const model::Operation* operation = nullptr;  ///< null: rounding at `module`, `slot`
  Module module = Module::q;
  Slot slot = Slot::input;
  std::vector<size_t> in;
  size_t out = 0;
  /// Whether this step is the first of the backward pass to add to the gradient of in[i].
  std::vector<bool> is_first{};

  template <typename Op>
  const Op* as() const {
    return operation == nullptr ? nullptr : std::get_if<Op>(operation);
  }
};

/// Steps [first, last) that run together: row-wise ones, row by row; linear maps of one input; or an
/// attention.
struct ProgramPart {
  size_t first = 0, last = 0;
  bool row_wise = false;
  int64_t row_width = 0;  ///< numbers of all tensors in Place::row
  bool replayed = false;  ///< makes a shared tensor that backward needs
};

/// What the passes of a block do, step by step: the block's graph with the roundings of its points in
/// between, and where each tensor lives. Tensor 0 is the block's input. The forward pass runs the parts in
/// order; the backward pass in reverse, the steps of a row-wise part in reverse as well, linear maps of one
/// input in order.
struct BlockProgram {
  std::vector<ProgramStep> steps;
  std::vector<ProgramTensor> tensors;
  std::vector<ProgramPart> parts;
  size_t output = 0;
  int64_t kept = 0;  ///< tensors in Place::kept
};

/// By module and slot: module · kSlots + slot.
using PointSet = std::array<bool, kBlockModules * kSlots>;

/// The program of a layer, with these points rounded. It points into the configuration's graph, which must
/// outlive it.
BlockProgram make_program(const model::ModelConfig& config, int64_t layer, const PointSet& rounded);

}  // namespace qeval::quant
