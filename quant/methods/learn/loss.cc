#include "quant/methods/learn/loss.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace qeval::quant {
namespace {

/// Tokens whose logits (of target and output) are in memory at once: 50 MB for 49,152 words.
constexpr int64_t kRowsPerTile = 128;

/// What LayerNorm and RMSNorm (mean 0) make of a row: (x − mean) · factor · w + b.
template <typename Real>
struct NormedRow {
  double mean = 0, factor = 0;

  NormedRow(const model::ModelConfig& config, const Real* x) {
    const int64_t n = config.hidden_size;
    if (config.norm == model::NormKind::layer) {
      for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]);
      mean /= static_cast<double>(n);
    }
    double square = 0;
    for (int64_t i = 0; i < n; ++i)
      square += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
    factor = 1 / std::sqrt(square / static_cast<double>(n) + config.norm_eps);
  }
};

/// logits → log-softmax, in place.
template <typename Real>
void log_softmax(Real* x, int64_t n) {
  const Real largest = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(std::exp(x[i] - largest));
  const auto shift = static_cast<Real>(static_cast<double>(largest) + std::log(sum));
  for (int64_t i = 0; i < n; ++i) x[i] -= shift;
}

struct LossName {
  LearnLoss loss;
  std::string_view name;
};
constexpr std::array kLosses{LossName{LearnLoss::output, "output"}, LossName{LearnLoss::logits, "logits"}};

}  // namespace

std::string_view loss_name(LearnLoss loss) {
  return kLosses[static_cast<size_t>(loss)].name;
}

LearnLoss parse_loss(std::string_view name) {
  for (const LossName& known : kLosses) {
    if (known.name == name) return known.loss;
  }
  fail("{}: unknown loss; accepted: output, logits", printable(name));
}

void add_output_loss(const std::vector<float>& y, const std::vector<float>& target, double share,
                     double& loss, std::vector<float>& gradient) {
  const double count = static_cast<double>(y.size());
  gradient.resize(y.size());
  double sum = 0;
  const auto factor = static_cast<float>(2 * share / count);
  for (size_t i = 0; i < y.size(); ++i) {
    const float difference = y[i] - target[i];
    sum += static_cast<double>(difference) * static_cast<double>(difference);
    gradient[i] = factor * difference;
  }
  loss += share * sum / count;
}

template <typename Real>
LogitLoss<Real>::LogitLoss(const model::Model& model) : config_(model.config) {
  const auto copy = [](const std::vector<float>& from) {
    return std::vector<Real>(from.begin(), from.end());
  };
  norm_weight_ = copy(model.final_norm.weight);
  norm_bias_ = copy(model.final_norm.bias);
  head_bias_ = copy(model.head.bias);
  const model::Matrix& head = model.head.weight;
  if (head.cols != config_.hidden_size) {
    fail("{} model: the loss on logits has no embedding that is narrower than the model; accepted: output",
         config_.architecture);
  }
  head_.resize(static_cast<size_t>(head.rows * head.cols));
  constexpr int64_t kRows = 64;
  parallel_ranges((head.rows + kRows - 1) / kRows, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kRows;
    const int64_t rows = std::min(head.rows, last * kRows) - begin;
    std::vector<float> decoded(static_cast<size_t>(rows * head.cols));
    head.decode_rows(begin, rows, decoded.data());
    std::ranges::copy(decoded, head_.begin() + begin * head.cols);
  });
}

template <typename Real>
void LogitLoss<Real>::finish(Real* logits) const {
  const auto factor = static_cast<Real>(config_.logit_factor), cap = static_cast<Real>(config_.logit_softcap);
  for (int64_t i = 0; i < config_.vocab_size && factor != 1; ++i) logits[i] *= factor;
  for (int64_t i = 0; i < config_.vocab_size && cap != 0; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
}

template <typename Real>
void LogitLoss<Real>::normalize(const Real* x, int64_t rows, Real* out) const {
  const int64_t n = config_.hidden_size;
  if (!config_.graph.final_norm) {
    std::copy_n(x, rows * n, out);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const NormedRow<Real> row(config_, x + r * n);
    for (int64_t i = 0; i < n; ++i) {
      const auto w = static_cast<size_t>(i);
      out[r * n + i] =
          static_cast<Real>((static_cast<double>(x[r * n + i]) - row.mean) * row.factor) * norm_weight_[w];
      if (!norm_bias_.empty()) out[r * n + i] += norm_bias_[w];
    }
  }
}

template <typename Real>
void LogitLoss<Real>::normalize_backward(const Real* x, const Real* d_out, int64_t rows, Real* dx) const {
  const int64_t n = config_.hidden_size;
  if (!config_.graph.final_norm) {
    std::copy_n(d_out, rows * n, dx);
    return;
  }
  const bool centered = config_.norm == model::NormKind::layer;
  for (int64_t r = 0; r < rows; ++r) {
    const NormedRow<Real> row(config_, x + r * n);
    const auto normed = [&](int64_t i) {
      return (static_cast<double>(x[r * n + i]) - row.mean) * row.factor;
    };
    const auto inner = [&](int64_t i) {
      return static_cast<double>(d_out[r * n + i]) *
             static_cast<double>(norm_weight_[static_cast<size_t>(i)]);
    };
    double sum = 0;
    double along = 0;
    for (int64_t i = 0; i < n; ++i) {
      sum += inner(i);
      along += inner(i) * normed(i);
    }
    const double mean = centered ? sum / static_cast<double>(n) : 0.0;
    along /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i)
      dx[r * n + i] = static_cast<Real>(row.factor * (inner(i) - mean - normed(i) * along));
  }
}

template <typename Real>
void LogitLoss<Real>::add(const std::vector<Real>& y, const std::vector<Real>& target, double share,
                          double& loss, std::vector<Real>& gradient) {
  const int64_t n = config_.hidden_size;
  const int64_t words = config_.vocab_size;
  const int64_t tokens = static_cast<int64_t>(y.size()) / n;
  gradient.resize(y.size());
  const double weight = share / static_cast<double>(tokens);
  const Operand<Real> head = operand(head_.data(), words, n);
  for (int64_t first = 0; first < tokens; first += kRowsPerTile) {
    const int64_t rows = std::min(kRowsPerTile, tokens - first);
    Real* normed = normed_.get(2 * rows * n);
    normalize(target.data() + first * n, rows, normed);
    normalize(y.data() + first * n, rows, normed + rows * n);
    Real* logits = logits_.get(2 * rows * words);
    product(operand<Real>(normed, 2 * rows, n), head.transposed(), logits, words);
    std::vector<double> divergence(static_cast<size_t>(rows));
    parallel_tasks(rows, [&](int64_t r) {
      Real* log_p = logits + r * words;
      Real* log_q = logits + (rows + r) * words;
      if (!head_bias_.empty()) {
        for (int64_t i = 0; i < words; ++i) {
          log_p[i] += head_bias_[static_cast<size_t>(i)];
          log_q[i] += head_bias_[static_cast<size_t>(i)];
        }
      }
      finish(log_p);
      finish(log_q);
      std::vector<Real> slopes;  // of the soft cap, tanh'
      if (const auto cap = static_cast<Real>(config_.logit_softcap); cap != 0) {
        for (int64_t i = 0; i < words; ++i) slopes.push_back(1 - log_q[i] / cap * (log_q[i] / cap));
      }
      log_softmax(log_p, words);
      log_softmax(log_q, words);
      double sum = 0;
      for (int64_t i = 0; i < words; ++i) {
        const Real probability = std::exp(log_p[i]);
        sum += static_cast<double>(probability) * static_cast<double>(log_p[i] - log_q[i]);
        log_q[i] = static_cast<Real>(weight) * (std::exp(log_q[i]) - probability);  // dL/dlogit
        if (!slopes.empty()) log_q[i] *= slopes[static_cast<size_t>(i)];
        if (config_.logit_factor != 1) log_q[i] *= static_cast<Real>(config_.logit_factor);
      }
      divergence[static_cast<size_t>(r)] = sum;
    });
    for (const double d : divergence) loss += weight * d;
    Real* d_normed = d_normed_.get(rows * n);
    product(operand<Real>(logits + rows * words, rows, words), head, d_normed, n);
    normalize_backward(y.data() + first * n, d_normed, rows, gradient.data() + first * n);
  }
}

template class LogitLoss<float>;
template class LogitLoss<double>;

}  // namespace qeval::quant
