// Recurrent mixers and what else stands beyond a dense block, in float32
// (docs/architectures.md#recurrent-mixers). States go from token to token in the order of their positions, so
// that the bits do not depend on how a sequence is cut.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/float_arithmetic.h"
#include "model/kernels/gemm.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

float softplus(float x) {
  return x > 20.0F ? x : std::log1p(std::exp(x));
}

/// `size` numbers from `at` on of a block's state.
const float* state_at(const std::byte* block, int64_t at) {
  return reinterpret_cast<const float*>(block) + at;
}
float* state_at(std::byte* block, int64_t at) {
  return reinterpret_cast<float*>(block) + at;
}

/// Runs body(segment, state) for each segment in order, `state` [size] being what it is to change: a head's
/// share, `at` of the block's.
template <typename Body>
void for_each_segment(std::span<const StateSegment> segments, int64_t at, int64_t size, const Body& body) {
  for (const StateSegment& segment : segments) {
    float* state = state_at(segment.after, at);
    if (segment.before == nullptr) {
      std::fill_n(state, size, 0.0F);
    } else if (segment.before != segment.after) {
      std::copy_n(state_at(segment.before, at), size, state);
    }
    body(segment, state);
  }
}

/// y [n] ← x / √(Σ x² + 1e-6) · factor.
void l2_normalize(const float* x, int64_t n, float factor, float* y) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float scale = factor / std::sqrt(sum + 1e-6F);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale;
}

}  // namespace

void FloatArithmetic::gate(int64_t, const GateOp& op, const Tensor& gate, Tensor& value) const {
  for_each_row(value.rows, [&](int64_t r) {
    const auto* g = gate.row<float>(r);
    auto* y = value.row<float>(r);
    for (int64_t i = 0; i < value.cols; ++i) y[i] *= (op.silu ? g[i] : 1.0F) * sigmoid(g[i]);
  });
}

void FloatArithmetic::scale(int64_t layer, const ScaleOp& op, const Tensor& in, Tensor& out) const {
  if (&in != &out) out.resize(in.rows, in.cols, sizeof(float));
  const float* stored = op.stored ? weights(layer).vectors.at(op.module).data() : nullptr;
  for_each_row(in.rows, [&](int64_t r) {
    const auto* x = in.row<float>(r);
    auto* y = out.row<float>(r);
    for (int64_t i = 0; i < in.cols; ++i) {
      y[i] = x[i] * op.factor * (stored == nullptr ? 1.0F : stored[op.numbers == 1 ? 0 : i]);
    }
  });
}

void FloatArithmetic::clamp(int64_t, const ClampOp& op, Tensor& value) const {
  for_each_row(value.rows, [&](int64_t r) {
    auto* y = value.row<float>(r);
    for (int64_t i = 0; i < value.cols; ++i) y[i] = std::clamp(y[i], -op.limit, op.limit);
  });
}

void FloatArithmetic::convolve(int64_t layer, const ConvolveOp& op, std::span<const StateSegment> segments,
                               Tensor& value) const {
  const float* taps = weights(layer).vectors.at(op.module).data();
  const float* bias = op.bias ? weights(layer).biases.at(op.module).data() : nullptr;
  const int64_t before = op.taps - 1;
  constexpr int64_t kChannels = 64;
  parallel_ranges(op.width, kChannels, [&](int64_t first, int64_t last) {
    const int64_t n = last - first;
    std::vector<float> rows(static_cast<size_t>(op.taps * n));  // a ring of the last rows
    const auto ring = [&](int64_t t) { return rows.data() + (t % op.taps) * n; };
    for (const StateSegment& segment : segments) {
      for (int64_t t = 0; t < before; ++t) {
        if (segment.before == nullptr) {
          std::fill_n(ring(t), n, 0.0F);
        } else {
          std::copy_n(state_at(segment.before, op.state) + t * op.width + first, n, ring(t));
        }
      }
      for (int64_t t = 0; t < segment.count; ++t) {
        auto* y = value.row<float>(segment.first_row + t) + first;
        std::copy_n(y, n, ring(before + t));
        for (int64_t i = 0; i < n; ++i) y[i] = 0.0F;
        for (int64_t j = 0; j < op.taps; ++j) {
          const float* x = ring(t + j);
          for (int64_t i = 0; i < n; ++i) y[i] += taps[(first + i) * op.taps + j] * x[i];
        }
        for (int64_t i = 0; bias != nullptr && i < n; ++i) y[i] += bias[first + i];
        for (int64_t i = 0; op.silu && i < n; ++i) y[i] *= sigmoid(y[i]);
      }
      for (int64_t t = 0; t < before; ++t) {
        std::copy_n(ring(segment.count + t), n, state_at(segment.after, op.state) + t * op.width + first);
      }
    }
  });
}

void FloatArithmetic::delta_rule(int64_t layer, const DeltaRuleOp& op, const MixerInputs& in,
                                 std::span<const StateSegment> segments, Tensor& out) const {
  const LayerWeights::StateWeights& own = weights(layer).state;
  const int64_t dk = op.key_dim, dv = op.value_dim, size = dk * dv;
  out.resize(in.v.rows, op.value_heads * dv, sizeof(float));
  parallel_tasks(op.value_heads, [&](int64_t h) {
    std::vector<float> q(static_cast<size_t>(dk)), k(q.size()), delta(static_cast<size_t>(dv));
    const auto index = static_cast<size_t>(h);
    for_each_segment(segments, op.state + h * size, size, [&](const StateSegment& segment, float* state) {
      for (int64_t r = segment.first_row; r < segment.first_row + segment.count; ++r) {
        l2_normalize(in.q.row<float>(r) + op.key_head(h) * dk, dk, 1.0F / std::sqrt(static_cast<float>(dk)),
                     q.data());
        l2_normalize(in.k.row<float>(r) + op.key_head(h) * dk, dk, 1.0F, k.data());
        const float kept =
            std::exp(own.decay[index] * softplus(in.a.row<float>(r)[h] + own.step_bias[index]));
        const float written = sigmoid(in.b.row<float>(r)[h]);
        const float* v = in.v.row<float>(r) + h * dv;
        float* y = out.row<float>(r) + h * dv;
        std::fill(delta.begin(), delta.end(), 0.0F);
        for (int64_t i = 0; i < dk; ++i) {
          float* row = state + i * dv;
          const float key = k[static_cast<size_t>(i)];
          for (int64_t j = 0; j < dv; ++j) {
            row[j] *= kept;
            delta[static_cast<size_t>(j)] += key * row[j];
          }
        }
        for (int64_t j = 0; j < dv; ++j) {
          delta[static_cast<size_t>(j)] = written * (v[j] - delta[static_cast<size_t>(j)]);
          y[j] = 0.0F;
        }
        for (int64_t i = 0; i < dk; ++i) {
          float* row = state + i * dv;
          const float key = k[static_cast<size_t>(i)], query = q[static_cast<size_t>(i)];
          for (int64_t j = 0; j < dv; ++j) {
            row[j] += key * delta[static_cast<size_t>(j)];
            y[j] += query * row[j];
          }
        }
      }
    });
  });
}

void FloatArithmetic::state_space(int64_t layer, const StateSpaceOp& op, const MixerInputs& in,
                                  std::span<const StateSegment> segments, Tensor& out) const {
  const LayerWeights::StateWeights& own = weights(layer).state;
  const int64_t p = op.head_dim, n = op.state_dim, size = p * n;
  const int64_t group = op.heads / op.groups;
  out.resize(in.v.rows, op.heads * p, sizeof(float));
  parallel_tasks(op.heads, [&](int64_t h) {
    const auto index = static_cast<size_t>(h);
    for_each_segment(segments, op.state + h * size, size, [&](const StateSegment& segment, float* state) {
      for (int64_t r = segment.first_row; r < segment.first_row + segment.count; ++r) {
        const float step =
            std::clamp(softplus(in.a.row<float>(r)[h] + own.step_bias[index]), op.least_step, op.most_step);
        const float kept = std::exp(own.decay[index] * step);
        const float* x = in.v.row<float>(r) + h * p;
        const float* k = in.k.row<float>(r) + h / group * n;
        const float* q = in.q.row<float>(r) + h / group * n;
        float* y = out.row<float>(r) + h * p;
        for (int64_t i = 0; i < p; ++i) {
          float* row = state + i * n;
          const float written = step * x[i];
          float sum = 0;
          for (int64_t j = 0; j < n; ++j) {
            row[j] = row[j] * kept + written * k[j];
            sum += row[j] * q[j];
          }
          y[i] = sum + own.skip[index] * x[i];
        }
      }
    });
  });
}

namespace {

/// ‖row‖'s mean square.
float mean_square(const float* x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum / static_cast<float>(n);
}

/// y [n], with as large a mean square as x's.
void match_size(const float* x, float* y, int64_t n) {
  const float scale = std::sqrt(mean_square(x, n)) / std::sqrt(std::max(mean_square(y, n), 1e-5F));
  for (int64_t i = 0; i < n; ++i) y[i] *= scale;
}

/// The streams of one row: the active one apart.
class Streams {
 public:
  Streams(const AltupOp& op, float* active, float* others) : op_(op), active_(active), others_(others) {}
  float* operator[](int64_t j) const {
    return j == op_.active ? active_ : others_ + (j < op_.active ? j : j - 1) * op_.width;
  }

 private:
  const AltupOp& op_;
  float *active_, *others_;
};

/// tanh(router(norm(x)) / width) of one row.
std::vector<float> modalities(const AltupOp& op, const AltupWeights& w, const float* x) {
  std::vector<float> normed(static_cast<size_t>(op.width)), result;
  kernels().rms_norm(x, w.router_norm.data(), static_cast<float>(op.eps), op.width, normed.data());
  for (float& value : normed) value /= static_cast<float>(op.width);
  for (int64_t j = 0; j < op.streams; ++j) {
    float sum = 0;
    for (int64_t i = 0; i < op.width; ++i) {
      sum += w.router[static_cast<size_t>(j * op.width + i)] * normed[static_cast<size_t>(i)];
    }
    result.push_back(std::tanh(sum));
  }
  return result;
}

float dot(const std::vector<float>& matrix, int64_t row, const std::vector<float>& x) {
  float sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += matrix[static_cast<size_t>(row) * x.size() + i] * x[i];
  return sum;
}

void predict(const AltupOp& op, const AltupWeights& w, const Streams& x) {
  const std::vector<float> m = modalities(op, w, x[op.active]);
  const auto size = static_cast<size_t>(op.streams * op.width);
  std::vector<float> out(size);
  for (int64_t j = 0; j < op.streams; ++j) {
    float* y = out.data() + j * op.width;
    std::copy_n(x[j], op.width, y);
    for (int64_t s = 0; s < op.streams; ++s) {
      const float c = dot(w.prediction, j * op.streams + s, m);
      for (int64_t i = 0; i < op.width; ++i) y[i] += c * x[s][i];
    }
  }
  for (int64_t j = 0; j < op.streams; ++j) std::copy_n(out.data() + j * op.width, op.width, x[j]);
}

void correct(const AltupOp& op, const AltupWeights& w, const float* predicted, const Streams& x) {
  float* active = x[op.active];
  const std::vector<float> m = modalities(op, w, active);
  std::vector<float> innovation(static_cast<size_t>(op.width));
  for (int64_t i = 0; i < op.width; ++i) innovation[static_cast<size_t>(i)] = active[i] - predicted[i];
  std::copy_n(predicted, op.width, active);
  for (int64_t j = 0; j < op.streams; ++j) {
    const float c = dot(w.correction, j, m) + 1.0F;
    for (int64_t i = 0; i < op.width; ++i) x[j][i] += c * innovation[static_cast<size_t>(i)];
  }
}

}  // namespace

void FloatArithmetic::altup(int64_t layer, const AltupOp& op, const Tensor& predicted, const Tensor& update,
                            Tensor& active, Tensor& others) const {
  const int64_t n = op.width, more = op.streams - 1;
  using Step = AltupOp::Step;
  // Tables of the projections' results: one behind the other.
  Tensor made;
  if (op.step == Step::split) others.resize(active.rows, more * n, sizeof(float));
  if (op.step == Step::split || op.step == Step::merge) {
    made.resize(active.rows, more * n, sizeof(float));
    const auto& maps = op.step == Step::split ? model_.altup_projections : model_.altup_unembeddings;
    for (int64_t j = 0; j < more; ++j) {
      Tensor in, out;
      in.resize(active.rows, n, sizeof(float));
      out.resize(active.rows, n, sizeof(float));
      for_each_row(active.rows, [&](int64_t r) {
        std::copy_n(op.step == Step::split ? active.row<float>(r) : others.row<float>(r) + j * n, n,
                    in.row<float>(r));
      });
      const Product product{view(maps[static_cast<size_t>(j)]), out.row<float>(0)};
      model::multiply(in.row<float>(0), in.rows, {&product, 1});
      for_each_row(active.rows, [&](int64_t r) {
        std::copy_n(out.row<float>(r), n, made.row<float>(r) + j * n);
        match_size(active.row<float>(r), made.row<float>(r) + j * n, n);
      });
    }
  }
  for_each_row(active.rows, [&](int64_t r) {
    const Streams x(op, active.row<float>(r), others.row<float>(r));
    switch (op.step) {
      case Step::split:
        std::copy_n(made.row<float>(r), more * n, others.row<float>(r));
        break;
      case Step::predict:
        predict(op, *weights(layer).altup, x);
        break;
      case Step::correct:
        correct(op, *weights(layer).altup, predicted.row<float>(r), x);
        break;
      case Step::add:
        for (int64_t j = 0; j < more; ++j)
          kernels().add(update.row<float>(r), n, others.row<float>(r) + j * n);
        break;
      case Step::merge:
        for (int64_t j = 0; j < more; ++j) kernels().add(made.row<float>(r) + j * n, n, active.row<float>(r));
        for (int64_t i = 0; i < n; ++i) active.row<float>(r)[i] /= static_cast<float>(op.streams);
        break;
    }
  });
}

void FloatArithmetic::project_layers(const Tensor& embedded, Tensor& out) const {
  const Product product{view(model_.layer_projection), out.row<float>(0)};
  model::multiply(embedded.row<float>(0), embedded.rows, {&product, 1});
}

void FloatArithmetic::embed_layers(std::span<const int32_t> tokens, const Tensor& embedded,
                                   Tensor& out) const {
  const ModelConfig& c = config();
  const int64_t n = c.layer_inputs->size, width = c.num_layers * n;
  out.resize(embedded.rows, width, sizeof(float));
  project_layers(embedded, out);
  const float factor = 1.0F / std::sqrt(static_cast<float>(c.hidden_size));
  const float scale = std::sqrt(static_cast<float>(n)), half = std::sqrt(0.5F);
  // Like the norms of the blocks, which other programs give the same eps.
  constexpr float kNone = 1e-24F;
  const float eps = c.l2norm_as_rmsnorm ? kNone : static_cast<float>(c.norm_eps);
  for_each_row(out.rows, [&](int64_t r) {
    auto* row = out.row<float>(r);
    std::vector<float> own(static_cast<size_t>(width)), normed(static_cast<size_t>(n));
    const int32_t token = tokens[static_cast<size_t>(r)];
    model_.layer_embedding.decode_rows(token < c.layer_inputs->vocab_size ? token : 0, 1, own.data());
    for (int64_t i = 0; i < width; ++i) row[i] *= factor;
    for (int64_t at = 0; at < width; at += n) {
      kernels().rms_norm(row + at, model_.layer_projection_norm.weight.data(), eps, n, normed.data());
      for (int64_t i = 0; i < n; ++i) {
        row[at + i] = (normed[static_cast<size_t>(i)] + own[static_cast<size_t>(at + i)] * scale) * half;
      }
    }
  });
}

}  // namespace qeval::model
