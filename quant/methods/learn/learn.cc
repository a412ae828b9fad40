#include "quant/methods/learn/learn.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "model/float_arithmetic.h"
#include "quant/methods/learn/fold.h"

namespace qeval::quant {

void require_backward_passes(const model::ModelConfig& config) {
  require_operations(config, "learning", [](const model::Operation& operation) {
    const auto* activate = std::get_if<model::ActivateOp>(&operation);
    return !model::is_beyond_dense(operation) && !std::holds_alternative<model::SplitLatentOp>(operation) &&
           (activate == nullptr || activate->kind != model::Activation::xielu);
  });
}

namespace {

using Activations = std::vector<float>;  // [tokens, hidden]

/// With relative rates, ranges of finer grids stay: they have nothing to win, and a share of the width is
/// much there. Of the probabilities, whose zeros lie at the end of theirs, a thousandth is what every masked
/// key would get.
constexpr int kFinestLearnedBits = 10;

int64_t longest(const std::vector<std::vector<int32_t>>& samples) {
  size_t most = 1;
  for (const auto& sample : samples) most = std::max(most, sample.size());
  return static_cast<int64_t>(most);
}

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

class Learner {
 public:
  Learner(LearnProblem& problem, const LearnSettings& settings, const LearnObserver& observer,
          const Peers& peers = {})
      : problem_(problem),
        settings_(settings),
        observer_(observer),
        peers_(peers),
        config_(problem.model->config),
        embedder_(*problem.model, longest(problem.samples)),
        rotary_(config_, longest(problem.samples)) {
    if (problem.samples.empty()) fail("learning: no calibration samples");
    refuse_operations();
    for (int64_t layer = 0; layer < layers(); ++layer) {
      blocks_.push_back(make_block(config_, rotary_, problem.blocks[static_cast<size_t>(layer)], problem.qcfg,
                                   layer, problem.first));
    }
    state_ = initial_state(problem, settings);
    for (int64_t layer = 0; layer < layers(); ++layer)
      coded_.emplace_back(*problem.model, parameters(layer), layer);
    if (settings.relative_ranges) {
      for (int64_t layer = 0; layer < layers(); ++layer) make_rates_relative(layer);
    }
    if (settings.loss == LearnLoss::logits) logit_loss_.emplace(*problem.model);
  }

  void resume(const LearnState& state) {
    if (state.parameters.size() != state_.parameters.size()) fail("resume: the saved state has other blocks");
    const auto started = std::move(state_.parameters);
    state_ = state;
    for (size_t b = 0; b < started.size(); ++b) copy_rate_factors(started[b], state_.parameters[b]);
    resumed_ = state.step > 0;
  }

  void run() {
    if (settings_.end_to_end()) {
      learn_end_to_end();
    } else {
      learn_block_wise();
    }
    for (int64_t layer = 0; layer < layers(); ++layer)
      export_ranges(parameters(layer), config_, problem_.qcfg, layer, problem_.ranges);
  }

  LearnState& state() { return state_; }

  /// Loss of one sample and the gradient of share · loss, added to all parameters.
  double end_to_end_pass(const std::vector<int32_t>& sample, const Activations& target, double share) {
    const auto tokens = static_cast<int64_t>(sample.size());
    const bool keep = kept_per_token(config_) * tokens * int64_t{sizeof(float)} <= settings_.activation_bytes;
    kept_.resize(keep ? static_cast<size_t>(layers()) : 1);
    inputs_.resize(static_cast<size_t>(keep ? 0 : layers()));
    Activations x = embed(sample);
    for (int64_t layer = 0; layer < layers(); ++layer) {
      if (!keep) inputs_[static_cast<size_t>(layer)] = x;
      forward(layer, x, keep ? layer : 0);
    }
    double loss = 0;
    Activations gradient;
    if (logit_loss_) {
      logit_loss_->add(x, target, share, loss, gradient);
    } else {
      add_output_loss(x, target, share, loss, gradient);
    }
    for (int64_t layer = layers() - 1; layer >= 0; --layer) {
      if (!keep) {
        x = inputs_[static_cast<size_t>(layer)];
        forward(layer, x, 0);
      }
      block_backward(block(layer), parameters(layer), kept_[static_cast<size_t>(keep ? layer : 0)],
                     workspace_, gradient.data());
    }
    return loss;
  }

  Activations embed(const std::vector<int32_t>& sample) const {
    const int64_t n = config_.hidden_size;
    std::vector<int32_t> positions;
    for (const int32_t token : sample) {
      if (token < 0 || token >= config_.vocab_size) {
        fail("calibration: token {}; accepted: 0 to {}", token, config_.vocab_size - 1);
      }
      positions.push_back(static_cast<int32_t>(positions.size()));
    }
    model::Tensor embedded;
    embedder_.embed(sample, {positions, {}}, embedded);
    const float* first = embedded.row<float>(0);
    return {first, first + std::ssize(sample) * n};
  }

  /// Of the samples that this rank passes; the others' stay empty.
  std::vector<Activations> float_outputs() {
    std::vector<Activations> outputs;
    for (size_t i = 0; i < problem_.samples.size(); ++i)
      outputs.push_back(is_own(i) ? float_output(problem_.samples[i]) : Activations());
    return outputs;
  }

  Activations float_output(const std::vector<int32_t>& sample) {
    Activations x = embed(sample);
    for (int64_t layer = 0; layer < layers(); ++layer) float_forward(layer, x);
    return x;
  }

 private:
  /// What has no backward pass, by name.
  void refuse_operations() const {
    require_backward_passes(config_);
    if (const int64_t most = longest(problem_.samples); config_.length_class(most) != 0) {
      fail(
          "{} model: a calibration sample has {} tokens, and the rotary embedding of sequences that long "
          "depends on "
          "their length; accepted: samples no longer than the model's original context",
          config_.architecture, most);
    }
  }

  int64_t layers() const { return config_.num_layers; }
  const Block<float>& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }
  BlockParameters<float>& parameters(int64_t layer) { return state_.parameters[static_cast<size_t>(layer)]; }
  int64_t tokens(const Activations& x) const { return static_cast<int64_t>(x.size()) / config_.hidden_size; }
  int64_t batches() const {
    return (static_cast<int64_t>(problem_.samples.size()) + settings_.batch_size - 1) / settings_.batch_size;
  }

  /// Whether this rank passes sample i: a batch's samples go to the ranks in turn.
  bool is_own(size_t i) const {
    return static_cast<int64_t>(i) % settings_.batch_size % peers_.size == peers_.rank;
  }

  void forward(int64_t layer, Activations& x, int64_t kept) {
    block_forward(block(layer), parameters(layer), x.data(), tokens(x), kept_[static_cast<size_t>(kept)],
                  workspace_, x.data());
  }
  void float_forward(int64_t layer, Activations& x) {
    float_block_forward(block(layer), x.data(), tokens(x), workspace_, x.data());
  }

  void make_rates_relative(int64_t layer) {
    BlockParameters<float>& learned = parameters(layer);
    for (size_t i = 0; i < learned.scale.size(); ++i) {
      if (learned.scale[i].value.empty()) continue;
      learned.scale[i].rate_factor = std::abs(static_cast<double>(learned.scale[i].value[0]));
      const QuantSpec& spec = block(layer).specs[i];
      if (spec.bits > kFinestLearnedBits) {
        learned.scale[i].rate_factor = learned.offset[i].rate_factor = 0;
        continue;
      }
      const CodeLimits codes = code_limits(spec.bits, spec.symmetric);
      learned.offset[i].rate_factor = static_cast<double>(codes.q_max - codes.q_min);
    }
  }

  static void copy_rate_factors(const BlockParameters<float>& from, BlockParameters<float>& to) {
    for (size_t i = 0; i < from.scale.size(); ++i) {
      to.scale[i].rate_factor = from.scale[i].rate_factor;
      to.offset[i].rate_factor = from.offset[i].rate_factor;
    }
  }

  void learn_end_to_end() {
    const std::vector<Activations> targets =
        problem_.targets.empty() ? float_outputs() : std::move(problem_.targets);
    const auto learned = [&] {
      std::vector<Parameter<float>*> all;
      for (int64_t layer = 0; layer < layers(); ++layer) {
        const auto of_block = parameters(layer).learned();
        all.insert(all.end(), of_block.begin(), of_block.end());
      }
      return all;
    };
    for (int64_t layer = 0; layer < layers(); ++layer) take_codes(layer);  // a resumed run's have moved
    optimize(learned(), -1, 0, batches() * settings_.epochs,
             [&](size_t i, double share) { return end_to_end_pass(problem_.samples[i], targets[i], share); });
    for (int64_t layer = 0; layer < layers(); ++layer) fold(layer);
  }

  /// The weights become what learned codes stand for.
  void take_codes(int64_t layer) {
    const auto l = static_cast<size_t>(layer);
    coded_[l].apply(parameters(layer), problem_.blocks[l]);
  }

  /// The last step leaves the scales as they fell out, and so does a state that was saved after it.
  void fold(int64_t layer) {
    parameters(layer).bound_let();
    fold_block(block(layer), parameters(layer));
  }

  void learn_block_wise() {
    std::vector<Activations> float_inputs;  // of the own samples; the others' stay empty
    for (size_t i = 0; i < problem_.samples.size(); ++i)
      float_inputs.push_back(is_own(i) ? embed(problem_.samples[i]) : Activations());
    std::vector<Activations> inputs = float_inputs;
    const int64_t steps = batches() * settings_.epochs;
    for (int64_t layer = 0; layer < layers(); ++layer) {
      for (Activations& x : float_inputs) {
        if (!x.empty()) float_forward(layer, x);  // now the targets
      }
      kept_.resize(1);
      if (state_.step < (layer + 1) * steps) {
        optimize(parameters(layer).learned(), layer, layer * steps, steps, [&](size_t i, double share) {
          Activations y = inputs[i];
          forward(layer, y, 0);
          double loss = 0;
          Activations gradient;
          add_output_loss(y, float_inputs[i], share, loss, gradient);
          block_backward(block(layer), parameters(layer), kept_[0], workspace_, gradient.data());
          return loss;
        });
      }
      fold(layer);
      const BlockParameters<float> folded = folded_parameters(parameters(layer));
      for (Activations& x : inputs) {
        if (x.empty()) continue;
        block_forward(block(layer), folded, x.data(), tokens(x), kept_[0], workspace_, x.data());
      }
    }
  }

  /// Runs the steps [state_.step, first + steps) of an optimisation that began at step `first` of the run.
  /// pass(i, share): loss of sample i, gradients of share · loss added.
  template <typename Pass>
  void optimize(std::vector<Parameter<float>*> learned, int64_t layer, int64_t first, int64_t steps,
                const Pass& pass) {
    AdamW optimizer(std::move(learned));
    if (resumed_ && state_.step > first) {
      for (size_t i = 0; i < std::max(state_.moments.size(), optimizer.moments().size()); ++i) {
        if (i >= state_.moments.size() || i >= optimizer.moments().size() ||
            state_.moments[i].first.size() != optimizer.moments()[i].first.size()) {
          fail("resume: the saved state does not fit this run");
        }
      }
      optimizer.moments() = state_.moments;
      optimizer.set_steps(state_.optimizer_steps);
    }
    resumed_ = false;
    good_.reset();  // of the optimisation before
    const auto samples = static_cast<int64_t>(problem_.samples.size());
    const int64_t all_steps = learning_steps(settings_, samples, layers());
    const int64_t warmup = batches() * settings_.warmup_epochs;
    for (int64_t t = state_.step - first; t < steps; ++t) {
      const int64_t begin = t % batches() * settings_.batch_size;
      const int64_t end = std::min(samples, begin + settings_.batch_size);
      for (int64_t l = 0; l < layers(); ++l) {
        if (layer < 0 || l == layer) parameters(l).bound_let();
      }
      const double loss = batch_gradient(optimizer, layer, begin, end, pass);
      check(loss, optimizer, layer, first + t, problem_.samples[static_cast<size_t>(begin)]);
      StepRecord record{first + t, all_steps, layer, t / batches(), loss, {}};
      for (size_t g = 0; g < record.rates.size(); ++g)
        record.rates[g] = settings_.rates[g].at(t, steps, warmup);
      remember(optimizer);
      optimizer.step(record.rates);
      for (int64_t l = 0; l < layers(); ++l) {
        if (layer < 0 || l == layer) take_codes(l);
      }
      state_.step = first + t + 1;
      if (observer_.step) observer_.step(record);
      show_state(optimizer, false);
    }
  }

  /// The loss of samples [begin, end), and its gradient in the parameters of the optimiser: the samples' own,
  /// each computed by itself, added in their order.
  template <typename Pass>
  double batch_gradient(const AdamW& optimizer, int64_t layer, int64_t begin, int64_t end, const Pass& pass) {
    const auto clear = [&](bool codes) {
      for (int64_t l = 0; l < layers(); ++l) {
        if (layer < 0 || l == layer) parameters(l).clear_gradients(codes);
      }
    };
    const double share = 1.0 / static_cast<double>(end - begin);
    if (peers_.alone() && end - begin == 1) {
      clear(true);
      return pass(static_cast<size_t>(begin), share);
    }
    // A sample adds to a code's gradient once, so that where all samples are this process's own, their sum in
    // place has the same bits. There are as many such numbers as weights: copying them is dear.
    const auto stays = [&](const Parameter<float>& p) {
      return peers_.alone() && p.group == ParameterGroup::code;
    };
    double loss = 0;
    std::vector<float> gradient, sum;
    for (int64_t first = begin; first < end; first += peers_.size) {
      clear(!peers_.alone() || first == begin);
      const bool passes = first + peers_.rank < end;
      const double own = passes ? pass(static_cast<size_t>(first + peers_.rank), share) : 0.0;
      gradient.clear();
      for (const Parameter<float>* p : optimizer.parameters()) {
        if (!stays(*p)) gradient.insert(gradient.end(), p->gradient.begin(), p->gradient.end());
      }
      sum.resize(gradient.size());
      std::vector<bool> counts;
      for (int64_t rank = 0; rank < peers_.size; ++rank) counts.push_back(first + rank < end);
      loss = add_losses(loss, own, counts);
      add_in_order(peers_, counts, gradient, sum);
    }
    auto from = sum.begin();
    for (Parameter<float>* p : optimizer.parameters()) {
      if (stays(*p)) continue;
      const auto count = static_cast<std::ptrdiff_t>(p->gradient.size());
      std::copy(from, from + count, p->gradient.begin());
      from += count;
    }
    return loss;
  }

  /// `loss`, of the samples before, and every rank's own, in their order.
  double add_losses(double loss, double own, const std::vector<bool>& counts) const {
    const std::vector<std::string> all = gather(peers_, {reinterpret_cast<const char*>(&own), sizeof own});
    for (size_t rank = 0; rank < all.size(); ++rank) {
      double theirs = 0;
      if (all[rank].size() != sizeof theirs) fail("learning: rank {} is at another step", rank);
      std::memcpy(&theirs, all[rank].data(), sizeof theirs);
      if (counts[rank]) loss += theirs;
    }
    return loss;
  }

  /// Shows the observer the state with the optimiser's part, which is the optimiser's otherwise: there may be
  /// as many moments as the model has weights.
  void show_state(AdamW& optimizer, bool failing) {
    if (!observer_.state) return;
    state_.optimizer_steps = optimizer.steps();
    std::swap(state_.moments, optimizer.moments());
    observer_.state(state_, failing);
    std::swap(state_.moments, optimizer.moments());
  }

  /// Keeps the state before a step, whose loss is known to be finite. Of codes nothing is kept: they cannot
  /// leave their grids, and there are too many.
  void remember(AdamW& optimizer) {
    if (!good_) good_.emplace();
    good_->step = state_.step;
    good_->optimizer_steps = optimizer.steps();
    good_->kept.resize(optimizer.parameters().size());
    for (size_t i = 0; i < good_->kept.size(); ++i) {
      const Parameter<float>& p = *optimizer.parameters()[i];
      if (p.group != ParameterGroup::code) good_->kept[i] = {p.value, optimizer.moments()[i]};
    }
  }

  /// Back to what was kept. At an optimisation's first step the state is as it was found.
  void restore(AdamW& optimizer) {
    if (!good_) return;
    for (size_t i = 0; i < good_->kept.size(); ++i) {
      Parameter<float>& p = *optimizer.parameters()[i];
      if (p.group == ParameterGroup::code) continue;
      p.value = good_->kept[i].value;
      optimizer.moments()[i] = good_->kept[i].moments;
    }
    state_.step = good_->step;
    optimizer.set_steps(good_->optimizer_steps);
    good_.reset();
  }

  void check(double loss, AdamW& optimizer, int64_t layer, int64_t step, const std::vector<int32_t>& sample) {
    std::string what;
    if (!std::isfinite(loss)) {
      what = fmt::format("the loss of {} is {}",
                         layer >= 0 ? fmt::format("layer {}", layer) : first_bad_layer(sample), loss);
    } else {
      for (const Parameter<float>* p : optimizer.parameters()) {
        if (all_finite(p->gradient)) continue;
        what = fmt::format("the gradient of {} is not finite", p->name);
        break;
      }
    }
    if (what.empty()) return;
    restore(optimizer);
    show_state(optimizer, true);
    throw JointError(fmt::format(  // the sum, and so the failure, is every rank's
        "learning stopped at step {}: {}; the last good state is kept, but continues with these rates only: "
        "start anew with lower ones",
        step, what));
  }

  std::string first_bad_layer(const std::vector<int32_t>& sample) {
    Activations x = embed(sample);
    if (kept_.empty()) kept_.resize(1);  // a rank without samples
    for (int64_t layer = 0; layer < layers(); ++layer) {
      forward(layer, x, 0);
      if (!all_finite(x)) return fmt::format("layer {}", layer);
    }
    return "the last layer";
  }

  /// What of the state one step changes, before it.
  struct Good {
    struct Kept {
      std::vector<float> value;
      AdamW::Moments moments;
    };
    int64_t step = 0, optimizer_steps = 0;
    std::vector<Kept> kept;  ///< by parameter of the optimiser
  };

  LearnProblem& problem_;
  const LearnSettings& settings_;
  const LearnObserver& observer_;
  const Peers peers_;
  const model::ModelConfig& config_;
  const model::FloatArithmetic embedder_;
  RotaryTables rotary_;
  std::vector<Block<float>> blocks_;
  LearnState state_;
  std::vector<CodedWeights> coded_;
  std::optional<LogitLoss<float>> logit_loss_;
  bool resumed_ = false;
  std::optional<Good> good_;
  std::vector<Kept<float>> kept_;
  std::vector<Activations> inputs_;
  Workspace<float> workspace_;
};

}  // namespace

int64_t learning_steps(const LearnSettings& settings, int64_t samples, int64_t layers) {
  const int64_t batches = (samples + settings.batch_size - 1) / settings.batch_size;
  return batches * settings.epochs * (settings.end_to_end() ? 1 : layers);
}

std::vector<BlockParameters<float>> learn(LearnProblem& problem, const LearnSettings& settings,
                                          const LearnObserver& observer, const LearnState* resume,
                                          const Peers& peers) {
  Learner learner(problem, settings, observer, peers);
  if (resume != nullptr) learner.resume(*resume);
  learner.run();
  return std::move(learner.state().parameters);
}

std::vector<std::vector<float>> float_targets(LearnProblem& problem, const LearnSettings& settings,
                                              const Peers& peers) {
  const LearnObserver observer;
  return Learner(problem, settings, observer, peers).float_outputs();
}

Gradients end_to_end_gradients(LearnProblem problem, const LearnSettings& settings) {
  assert(settings.end_to_end());
  const LearnObserver observer;
  Learner learner(problem, settings, observer);
  const std::vector<int32_t>& sample = problem.samples.front();
  Gradients gradients;
  const std::vector<float> target =
      problem.targets.empty() ? learner.float_output(sample) : problem.targets.front();
  gradients.loss = learner.end_to_end_pass(sample, target, 1);
  gradients.parameters = std::move(learner.state().parameters);
  return gradients;
}

}  // namespace qeval::quant
