#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/peers.h"
#include "quant/methods/learn/block.h"
#include "quant/methods/learn/loss.h"
#include "quant/methods/learn/optimizer.h"

namespace qeval::quant {

/// The learned methods (docs/specification.md#methods).
enum class LearnMethod : uint8_t {
  omniquant,   ///< LET and LWC, block by block
  lrl,         ///< the same, with the ranges of activations
  mobilequant  ///< all three, of all blocks at once, end to end
};

struct LearnSettings {
  LearnMethod method = LearnMethod::mobilequant;
  bool modified = true;  ///< transform up → down as well
  int64_t epochs = 2;
  int64_t warmup_epochs = 0;
  int64_t batch_size = 1;              ///< samples per step, whose gradients are averaged
  LearnLoss loss = LearnLoss::output;  ///< end to end only; block by block always sees the block's output
  RateSchedules rates{{{1e-3, 1e-4}, {1e-2, 1e-3}, {1e-6, 1e-7}}};
  /// The rates of the ranges are shares of each scale's start and of the codes' span (offsets), not numbers
  /// of their own: a step moves the ends of every range by about that share of its width.
  bool relative_ranges = false;
  /// Weights become codes before learning (LearnProblem::codes); end to end only.
  bool round_first = false;
  /// Activations kept for backward (bytes); beyond, a block's are computed a second time.
  int64_t activation_bytes = int64_t{1} << 30;

  bool end_to_end() const { return method == LearnMethod::mobilequant; }
  bool operator==(const LearnSettings&) const = default;
};

/// What is learned on: the float model's embeddings and blocks, what to quantize, where ranges start, and the
/// calibration samples.
struct LearnProblem {
  const model::Model* model = nullptr;      ///< configuration and embedding
  std::vector<BlockWeights<float>> blocks;  ///< the weights to start from; folded by learn()
  QuantConfig qcfg;
  ActRanges ranges;                           ///< start; learn() puts the learned ones in their place
  std::vector<std::vector<int32_t>> samples;  ///< token ids
  std::optional<FirstToken> first{};          ///< grids of position 0 (completed), which stay as they are
  /// Where weights are codes (LearnOptions::codes): their grids. The blocks have the codes' values; learn()
  /// leaves it to the caller to take the factors and codes that it returns (take_learned).
  std::optional<QuantConfig> codes{};
  /// What the float model makes of each sample, [tokens, hidden] behind the last block; empty: what the
  /// blocks make of it. Needed where the blocks' weights are rounded. Of samples that other ranks pass it is
  /// empty.
  std::vector<std::vector<float>> targets{};
};

/// One optimiser step, as a line of training.jsonl has it.
struct StepRecord {
  int64_t step = 0;    ///< from 0, over the whole run
  int64_t steps = 0;   ///< of the whole run
  int64_t layer = -1;  ///< block-wise methods: the block that learns; end to end −1, null in the file
  int64_t epoch = 0;
  double loss = 0;  ///< of LearnSettings::loss, mean over the batch
  Rates rates{};
};
std::string step_json(const StepRecord& record);

/// How far a run has come: enough to continue it.
struct LearnState {
  int64_t step = 0;                                ///< steps done, over the whole run
  std::vector<BlockParameters<float>> parameters;  ///< of all blocks
  std::vector<AdamW::Moments> moments;             ///< of the optimiser at work
  int64_t optimizer_steps = 0;
};

/// What learn() tells while it runs; empty functions are not called.
struct LearnObserver {
  std::function<void(const StepRecord&)> step;
  /// Called after every step with the state to save if it is time to; and before learn() fails on a loss that
  /// is not finite, with the last state whose loss was, as it was before its step (`failing`).
  std::function<void(const LearnState&, bool failing)> state;
};

/// Throws Error naming the first operation of the model that has no backward pass.
void require_backward_passes(const model::ModelConfig& config);

/// Optimiser steps of a whole run.
int64_t learning_steps(const LearnSettings& settings, int64_t samples, int64_t layers);

/// LearnProblem::targets, of blocks that are still in float.
std::vector<std::vector<float>> float_targets(LearnProblem& problem, const LearnSettings& settings,
                                              const Peers& peers = {});

/// The state before the first step.
LearnState initial_state(const LearnProblem& problem, const LearnSettings& settings);

/// Learns, folds what was learned into problem.blocks and puts the learned ranges into problem.ranges. With
/// `resume`, continues from there. Returns the learned parameters. A loss or gradient that is not finite is
/// an Error that names the block and the step. Parallel; the same bits for any number of threads.
///
/// With `peers`, who must call this together with the same problem, the samples of a batch are dealt out to
/// the ranks in turn. A batch's gradient is the sum of its samples' in the order of samples, each computed by
/// itself, so that it, and all that follows from it, has the same bits for any number of ranks. Every rank
/// returns the parameters; observers are called on every rank.
std::vector<BlockParameters<float>> learn(LearnProblem& problem, const LearnSettings& settings,
                                          const LearnObserver& observer, const LearnState* resume = nullptr,
                                          const Peers& peers = {});

/// The gradient of the settings' loss, end to end (settings.end_to_end()), on the first sample at the
/// starting point, in the parameters of every block, ranges included; the loss comes back too.
struct Gradients {
  double loss = 0;
  std::vector<BlockParameters<float>> parameters;
};
Gradients end_to_end_gradients(LearnProblem problem, const LearnSettings& settings);

}  // namespace qeval::quant
