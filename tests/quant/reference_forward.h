#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "model/rotary.h"
#include "model/weights.h"
#include "quant/grid/points.h"
#include "quant/methods/editable_model.h"

namespace qeval::test {

/// A matrix of floats, row after row.
struct Rows {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;

  Rows(int64_t row_count, int64_t col_count)
      : rows(row_count), cols(col_count), values(static_cast<size_t>(row_count * col_count)) {}
  float& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * cols + c)]; }
  float at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
};

/// The block diagram of docs/specification.md#points written down once more, slowly: loops over elements,
/// sums in double, one sequence, and a visitor that sees and may change the tensor at every point. Nothing is
/// shared with the program's kernels. `visit` gets weights as well (slot weight), as matrices or one row for
/// norms.
class ReferenceForward {
 public:
  using Visitor = std::function<void(const quant::Point&, Rows&)>;

  ReferenceForward(const model::Model& model, Visitor visit) : model_(model), visit_(std::move(visit)) {}

  /// Of the last call of logits(): the residual stream behind every block.
  std::vector<Rows> streams;

  /// Logits [tokens, vocabulary]; the points of final norm and head are not visited.
  Rows logits(const std::vector<int32_t>& tokens) {
    const model::ModelConfig& c = model_.config;
    const auto length = static_cast<int64_t>(tokens.size());
    Rows residual(length, c.hidden_size);
    for (int64_t t = 0; t < length; ++t) {
      model_.embedding.decode_rows(tokens[static_cast<size_t>(t)], 1, &residual.at(t, 0));
      const float scale = c.scale_embedding ? std::sqrt(static_cast<float>(c.hidden_size)) : 1.0F;
      for (int64_t i = 0; i < c.hidden_size; ++i) residual.at(t, i) *= scale;
    }
    streams.clear();
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      block(layer, residual);
      streams.push_back(residual);
    }
    const Rows normed = norm(residual, model_.final_norm.weight, model_.final_norm.bias, true);
    Rows head(model_.head.weight.rows, c.hidden_size);
    model_.head.weight.decode_rows(0, head.rows, head.values.data());
    return product(normed, head, {});
  }

 private:
  using Module = quant::Module;
  using Slot = quant::Slot;

  void visit(int64_t layer, Module module, Slot slot, Rows& rows) const {
    visit_({layer, module, slot}, rows);
  }

  Rows norm(const Rows& x, const std::vector<float>& w, const std::vector<float>& b, bool with_eps) const {
    Rows y(x.rows, x.cols);
    const auto n = static_cast<double>(x.cols);
    for (int64_t r = 0; r < x.rows; ++r) {
      double mean = 0, squares = 0;
      const bool layer_norm = model_.config.norm == model::NormKind::layer;
      for (int64_t i = 0; i < x.cols && layer_norm; ++i) mean += x.at(r, i) / n;
      for (int64_t i = 0; i < x.cols; ++i) squares += (x.at(r, i) - mean) * (x.at(r, i) - mean);
      const double eps = with_eps || layer_norm ? model_.config.norm_eps : 0.0;
      const double factor = 1.0 / std::sqrt(squares / n + eps);
      for (int64_t i = 0; i < x.cols; ++i) {
        const auto at = static_cast<size_t>(i);
        y.at(r, i) = static_cast<float>((x.at(r, i) - mean) * factor * w[at] + (b.empty() ? 0.0F : b[at]));
      }
    }
    return y;
  }

  /// x · wᵀ + b.
  static Rows product(const Rows& x, const Rows& w, const std::vector<float>& b) {
    Rows y(x.rows, w.rows);
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t o = 0; o < w.rows; ++o) {
        double sum = b.empty() ? 0.0 : b[static_cast<size_t>(o)];
        for (int64_t i = 0; i < x.cols; ++i) sum += static_cast<double>(x.at(r, i)) * w.at(o, i);
        y.at(r, o) = static_cast<float>(sum);
      }
    }
    return y;
  }

  Rows block_norm(int64_t layer, Module module, const Rows& residual) const {
    const model::NormWeights& stored = model_.norm(layer, module);
    Rows input = residual, weight(1, residual.cols);
    weight.values = stored.weight;
    visit(layer, module, Slot::input, input);
    visit(layer, module, Slot::weight, weight);
    Rows output = norm(input, weight.values, stored.bias, false);
    visit(layer, module, Slot::output, output);
    return output;
  }

  Rows linear(int64_t layer, Module module, Rows input) const {
    const model::LinearWeights& stored = model_.layers[static_cast<size_t>(layer)].linear(module);
    Rows weight(stored.weight.rows, stored.weight.cols);
    stored.weight.decode_rows(0, weight.rows, weight.values.data());
    visit(layer, module, Slot::input, input);
    visit(layer, module, Slot::weight, weight);
    Rows output = product(input, weight, stored.bias);
    visit(layer, module, Slot::output, output);
    return output;
  }

  void rotate(Rows& heads) const {
    const model::ModelConfig& c = model_.config;
    const std::vector<float> frequencies = model::rotary_frequencies(c.rotary);
    const int64_t half = c.rotary.dim / 2;
    for (int64_t t = 0; t < heads.rows; ++t) {
      for (int64_t head = 0; head < heads.cols; head += c.head_dim) {
        for (int64_t i = 0; i < half; ++i) {
          const float angle = static_cast<float>(t) * frequencies[static_cast<size_t>(i)];
          const double x = heads.at(t, head + i), y = heads.at(t, head + half + i);
          heads.at(t, head + i) = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
          heads.at(t, head + half + i) = static_cast<float>(y * std::cos(angle) + x * std::sin(angle));
        }
      }
    }
  }

  Rows attention(int64_t layer, const Rows& q, const Rows& k, const Rows& v) const {
    const model::ModelConfig& c = model_.config;
    const int64_t length = q.rows, d = c.head_dim, group = c.num_heads / c.num_kv_heads;
    Rows scores(c.num_heads * length, length);
    for (int64_t h = 0; h < c.num_heads; ++h) {
      for (int64_t t = 0; t < length; ++t) {
        for (int64_t s = 0; s < length; ++s) {
          double sum = 0;
          for (int64_t i = 0; i < d; ++i) {
            sum += static_cast<double>(q.at(t, h * d + i)) * k.at(s, h / group * d + i);
          }
          scores.at(h * length + t, s) = static_cast<float>(sum);
        }
      }
    }
    visit(layer, Module::qk_product, Slot::output, scores);
    Rows p(scores.rows, length);
    for (int64_t r = 0; r < scores.rows; ++r) {
      const int64_t t = r % length;
      double most = scores.at(r, 0), sum = 0;
      for (int64_t s = 0; s <= t; ++s) most = std::max(most, static_cast<double>(scores.at(r, s)));
      const auto weight = [&](int64_t s) {
        return std::exp((scores.at(r, s) - most) / std::sqrt(static_cast<double>(d)));
      };
      for (int64_t s = 0; s <= t; ++s) sum += weight(s);
      for (int64_t s = 0; s <= t; ++s) p.at(r, s) = static_cast<float>(weight(s) / sum);
    }
    visit(layer, Module::pv_product, Slot::input, p);
    Rows out(length, c.num_heads * d);
    for (int64_t h = 0; h < c.num_heads; ++h) {
      for (int64_t t = 0; t < length; ++t) {
        for (int64_t i = 0; i < d; ++i) {
          double sum = 0;
          for (int64_t s = 0; s <= t; ++s) {
            sum += static_cast<double>(p.at(h * length + t, s)) * v.at(s, h / group * d + i);
          }
          out.at(t, h * d + i) = static_cast<float>(sum);
        }
      }
    }
    visit(layer, Module::pv_product, Slot::output, out);
    return out;
  }

  Rows activation(int64_t layer, Rows x) const {
    visit(layer, Module::activation, Slot::input, x);
    if (model_.config.activation == model::Activation::silu) {
      Rows gate = x;
      for (float& v : gate.values) v = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(v))));
      visit(layer, Module::activation, Slot::input2, gate);
      for (size_t i = 0; i < x.values.size(); ++i) x.values[i] *= gate.values[i];
    } else {
      for (float& v : x.values) v = static_cast<float>(0.5 * v * std::erfc(-v / std::sqrt(2.0)));
    }
    visit(layer, Module::activation, Slot::output, x);
    return x;
  }

  void block(int64_t layer, Rows& residual) const {
    const Rows normed = block_norm(layer, Module::input_norm, residual);
    Rows q = linear(layer, Module::q, normed), k = linear(layer, Module::k, normed);
    Rows v = linear(layer, Module::v, normed);
    rotate(q);
    rotate(k);
    visit(layer, Module::qk_product, Slot::input, q);
    visit(layer, Module::qk_product, Slot::input2, k);
    visit(layer, Module::pv_product, Slot::input2, v);
    add(residual, linear(layer, Module::o, attention(layer, q, k, v)));
    const Rows second = block_norm(layer, Module::post_attention_norm, residual);
    Rows hidden = activation(layer, linear(layer, Module::gate, second));
    const Rows up = linear(layer, Module::up, second);
    for (size_t i = 0; i < hidden.values.size(); ++i) hidden.values[i] *= up.values[i];
    add(residual, linear(layer, Module::down, std::move(hidden)));
  }

  static void add(Rows& residual, const Rows& update) {
    for (size_t i = 0; i < residual.values.size(); ++i) residual.values[i] += update.values[i];
  }

  const model::Model& model_;
  Visitor visit_;
};

}  // namespace qeval::test
