#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "tests/tiny_model.h"

namespace qeval::model {
namespace {

using Rows = std::vector<std::vector<double>>;

/// The block diagram in double, one token at a time, as a textbook has it: slow, and written apart from the
/// decoder.
class Reference {
 public:
  explicit Reference(const Model& model) : m_(model), c_(model.config) {}

  /// Log-probabilities [tokens, vocabulary] of a sequence.
  Rows run(const std::vector<int32_t>& tokens) const {
    Rows x;
    for (const int32_t token : tokens) {
      std::vector<double> row = decoded(m_.embedding, token);
      if (c_.scale_embedding) {
        for (double& v : row) v *= std::sqrt(static_cast<double>(c_.hidden_size));
      }
      x.push_back(row);
    }
    for (size_t i = 0; i < m_.layers.size(); ++i)
      run_block(m_.layers[i], c_.layers.empty() ? 0 : c_.layers[i].window, x);
    for (auto& row : x) {
      row = linear(m_.head, norm(m_.final_norm, row, true));
      double sum = 0;
      for (const double v : row) sum += std::exp(v);
      for (double& v : row) v -= std::log(sum);
    }
    return x;
  }

 private:
  static std::vector<double> decoded(const Matrix& matrix, int64_t row) {
    std::vector<float> values(static_cast<size_t>(matrix.cols));
    matrix.decode_rows(row, 1, values.data());
    return {values.begin(), values.end()};
  }
  static std::vector<double> linear(const LinearWeights& w, const std::vector<double>& x) {
    std::vector<double> y;
    for (int64_t r = 0; r < w.weight.rows; ++r) {
      const auto row = decoded(w.weight, r);
      double sum = w.bias.empty() ? 0 : w.bias[static_cast<size_t>(r)];
      for (size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
      y.push_back(sum);
    }
    return y;
  }
  std::vector<double> norm(const NormWeights& w, const std::vector<double>& x, bool final) const {
    const auto n = static_cast<double>(x.size());
    double mean = 0;
    double square = 0;
    for (const double v : x) {
      mean += v / n;
      square += v * v / n;
    }
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      if (c_.norm == NormKind::layer) {
        y[i] = (x[i] - mean) / std::sqrt(square - mean * mean + c_.norm_eps) * w.weight[i] + w.bias[i];
      } else {
        const double eps = c_.l2norm_as_rmsnorm && !final ? 0 : c_.norm_eps;
        y[i] = x[i] / std::sqrt(square + eps) * w.weight[i];
      }
    }
    return y;
  }
  double activate(double x) const {
    switch (c_.activation) {
      case Activation::silu:
        return x / (1 + std::exp(-x));
      case Activation::gelu_erf:
        return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
      case Activation::gelu_tanh:
        return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      default:
        break;
    }
    return 0;
  }
  void rotate(std::vector<double>& heads, size_t position) const {
    const auto half = static_cast<size_t>(c_.rotary.dim / 2);
    for (size_t h = 0; h < heads.size(); h += static_cast<size_t>(c_.head_dim)) {
      for (size_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(c_.rotary.theta, -2.0 * static_cast<double>(i) / static_cast<double>(c_.rotary.dim));
        const double a = heads[h + i];
        const double b = heads[h + i + half];
        heads[h + i] = a * std::cos(angle) - b * std::sin(angle);
        heads[h + i + half] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  /// `window`: how many keys a query sees, its own included; 0: all.
  void run_block(const LayerWeights& layer, int64_t window, Rows& x) const {
    Rows q;
    Rows k;
    Rows v;
    for (size_t t = 0; t < x.size(); ++t) {
      const auto h = norm(layer.norm(Module::input_norm), x[t], false);
      q.push_back(linear(layer.linear(Module::q), h));
      k.push_back(linear(layer.linear(Module::k), h));
      v.push_back(linear(layer.linear(Module::v), h));
      rotate(q[t], t);
      rotate(k[t], t);
    }
    const auto d = static_cast<size_t>(c_.head_dim);
    const auto group = static_cast<size_t>(c_.num_heads / c_.num_kv_heads);
    for (size_t t = 0; t < x.size(); ++t) {
      std::vector<double> mixed(static_cast<size_t>(c_.num_heads) * d);
      for (size_t h = 0; h < static_cast<size_t>(c_.num_heads); ++h) {
        const size_t kv = h / group * d;
        std::vector<double> p(t + 1);
        double sum = 0;
        const size_t first =
            window > 0 && std::ssize(p) > window ? p.size() - static_cast<size_t>(window) : 0;
        for (size_t s = first; s <= t; ++s) {
          double dot = 0;
          for (size_t i = 0; i < d; ++i) dot += q[t][h * d + i] * k[s][kv + i];
          double score = dot / std::sqrt(static_cast<double>(d));
          if (c_.score_softcap > 0) score = c_.score_softcap * std::tanh(score / c_.score_softcap);
          sum += p[s] = std::exp(score);
        }
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < d; ++i) mixed[h * d + i] += p[s] / sum * v[s][kv + i];
        }
      }
      const auto o = linear(layer.linear(Module::o), mixed);
      for (size_t i = 0; i < o.size(); ++i) x[t][i] += o[i];
    }
    for (auto& row : x) {
      const auto h = norm(layer.norm(Module::post_attention_norm), row, false);
      auto gate = linear(layer.linear(Module::gate), h);
      const auto up = linear(layer.linear(Module::up), h);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(gate[i]) * up[i];
      const auto down = linear(layer.linear(Module::down), gate);
      for (size_t i = 0; i < down.size(); ++i) row[i] += down[i];
    }
  }

  const Model& m_;
  const ModelConfig& c_;
};

std::vector<int32_t> random_tokens(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 61);
  return tokens;
}

/// Log-probabilities of every token at every position of one sequence, through the decoder in one batch.
Rows run_decoder(const Model& model, const std::vector<int32_t>& tokens) {
  const auto arithmetic = make_float_arithmetic(model, model.config.max_position_embeddings);
  Decoder decoder(model, *arithmetic);
  KvSpan kv(*arithmetic, std::ssize(tokens), 1);
  Batch batch{.tokens = tokens, .positions = {}, .segments = {}};
  std::vector<TokenQuery> queries;
  for (size_t t = 0; t < tokens.size(); ++t) {
    batch.positions.push_back(static_cast<int32_t>(t));
    for (int32_t v = 0; v < model.config.vocab_size; ++v) queries.push_back({static_cast<int64_t>(t), v});
  }
  batch.segments.push_back({.first_row = 0, .length = std::ssize(tokens), .first_position = 0, .kv = &kv});
  decoder.forward(batch);
  const auto answers = decoder.answer(queries);
  Rows rows(tokens.size());
  for (size_t i = 0; i < answers.size(); ++i)
    rows[static_cast<size_t>(queries[i].row)].push_back(answers[i].log_probability);
  return rows;
}

struct Variant {
  const char* name;
  std::function<void(ModelConfig&)> change;
};

class DecoderTest : public testing::TestWithParam<Variant> {};

TEST_P(DecoderTest, AgreesWithATextbookForwardPass) {
  test::TinyModel tiny;
  GetParam().change(tiny.config);
  const Model model = tiny.build();
  const auto tokens = random_tokens(50, 2);
  const Rows want = Reference(model).run(tokens);
  const Rows got = run_decoder(model, tokens);
  for (size_t t = 0; t < want.size(); ++t) {
    for (size_t v = 0; v < want[t].size(); ++v) ASSERT_NEAR(got[t][v], want[t][v], 2e-4) << t << " " << v;
  }
}

/// Keys and values are multiplied a stretch at a time: here more than a stretch of either.
TEST(Decoder, ALongContextIsATextbooksToo) {
  test::TinyModel tiny;
  tiny.config.max_position_embeddings = 640;
  const Model model = tiny.build();
  const auto tokens = random_tokens(601, 4);
  const Rows want = Reference(model).run(tokens);
  const Rows got = run_decoder(model, tokens);
  for (size_t t = 0; t < want.size(); ++t) {
    for (size_t v = 0; v < want[t].size(); ++v) ASSERT_NEAR(got[t][v], want[t][v], 2e-4) << t << " " << v;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, DecoderTest,
    testing::Values(Variant{"llama", [](ModelConfig&) {}},
                    Variant{"biases", [](ModelConfig& c) { c.qkv_bias = c.o_bias = c.mlp_bias = true; }},
                    Variant{"one_kv_head_gelu",
                            [](ModelConfig& c) {
                              c.num_kv_heads = 1;
                              c.activation = Activation::gelu_tanh;
                              c.scale_embedding = true;
                            }},
                    Variant{"gelu_erf_multi_head",
                            [](ModelConfig& c) {
                              c.num_kv_heads = 4;
                              c.activation = Activation::gelu_erf;
                            }},
                    Variant{"layer_norm", [](ModelConfig& c) { c.norm = NormKind::layer; }},
                    Variant{"window",
                            [](ModelConfig& c) {
                              c.layers = {{.window = 7}, {.window = 0}};
                            }},
                    Variant{"capped_scores", [](ModelConfig& c) { c.score_softcap = 0.3F; }},
                    Variant{"l2_norm",
                            [](ModelConfig& c) {
                              c.l2norm_as_rmsnorm = true;
                              c.norm_eps = 0.5;  // so that the final norm's eps shows
                            }}),
    [](const auto& variant) { return std::string(variant.param.name); });

TEST(Decoder, AppendingToAKeptSpanGivesTheBitsOfOneBatch) {
  for (const int64_t window : {0, 7}) {
    SCOPED_TRACE(window);
    test::TinyModel tiny;
    tiny.config.layers = {{.window = window}, {.window = 0}};
    const Model model = tiny.build();
    const auto arithmetic = make_float_arithmetic(model, 256);
    const auto tokens = random_tokens(40, 3);
    const Rows want = run_decoder(model, tokens);
    Decoder decoder(model, *arithmetic);
    KvSpan kv(*arithmetic, 64, model.config.num_layers);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 17}, {17, 1}, {18, 22}}) {
      Batch batch;
      std::vector<TokenQuery> queries;
      for (int64_t t = first; t < first + count; ++t) {
        batch.tokens.push_back(tokens[static_cast<size_t>(t)]);
        batch.positions.push_back(static_cast<int32_t>(t));
        queries.push_back({t - first, 5});
      }
      batch.segments.push_back(
          {.first_row = 0, .length = count, .first_position = first, .kv = &kv, .kv_at = first});
      decoder.forward(batch);
      const auto answers = decoder.answer(queries);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(answers[static_cast<size_t>(i)].log_probability, want[static_cast<size_t>(first + i)][5]);
      }
    }
  }
}

/// Pieces that every window has passed are left out; one whose last key is still seen is not.
TEST(Decoder, AWindowReachesTheLastKeyOfAnAncestor) {
  test::TinyModel tiny;
  tiny.config.layers.assign(2, {.window = 7});
  const Model model = tiny.build();
  const auto arithmetic = make_float_arithmetic(model, 256);
  const auto tokens = random_tokens(20, 5);
  const Rows want = run_decoder(model, tokens);
  Decoder decoder(model, *arithmetic);
  std::vector<std::unique_ptr<KvSpan>> spans;
  std::vector<Segment::Ancestor> ancestors;
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 11}, {11, 5}, {16, 4}}) {
    spans.push_back(std::make_unique<KvSpan>(*arithmetic, count, model.config.num_layers));
    Batch batch;
    std::vector<TokenQuery> queries;
    for (int64_t t = first; t < first + count; ++t) {
      batch.tokens.push_back(tokens[static_cast<size_t>(t)]);
      batch.positions.push_back(static_cast<int32_t>(t));
      queries.push_back({t - first, 5});
    }
    batch.segments.push_back({.first_row = 0,
                              .length = count,
                              .first_position = first,
                              .kv = spans.back().get(),
                              .ancestors = ancestors});
    decoder.forward(batch);
    const auto answers = decoder.answer(queries);
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(answers[static_cast<size_t>(i)].log_probability, want[static_cast<size_t>(first + i)][5])
          << first + i;
    }
    ancestors.push_back({spans.back().get(), count});
  }
}

TEST(Decoder, RowsThatNobodyReadsChangeNothingForTheOthers) {
  test::TinyModel tiny;
  const Model model = tiny.build();
  const auto arithmetic = make_float_arithmetic(model, 256);
  const auto tokens = random_tokens(70, 4);
  const Rows want = run_decoder(model, tokens);
  Decoder decoder(model, *arithmetic);
  for (const std::vector<int64_t>& read : {std::vector<int64_t>{0}, {3, 17, 18, 69}, {40, 41, 42}, {}}) {
    KvSpan first(*arithmetic, 30, 1), second(*arithmetic, 40, 1);
    Batch batch{.tokens = tokens, .positions = {}, .segments = {}, .read = read};
    for (int32_t t = 0; t < 70; ++t) batch.positions.push_back(t);
    // Two segments, of which the second sees the first. In one span they would race: they are stored at once.
    batch.segments.push_back({.length = 30, .kv = &first});
    batch.segments.push_back(
        {.first_row = 30, .length = 40, .first_position = 30, .kv = &second, .ancestors = {{&first, 30}}});
    decoder.forward(batch);
    std::vector<TokenQuery> queries;
    for (const int64_t row : read) queries.push_back({row, 5});
    const auto answers = decoder.answer(queries);
    for (size_t i = 0; i < read.size(); ++i) {
      ASSERT_EQ(answers[i].log_probability, want[static_cast<size_t>(read[i])][5]) << read[i];
    }
    if (read.empty()) continue;
    const auto logits = decoder.logits(std::span(read).last(1));
    EXPECT_EQ(answers.back().top1, std::ranges::max_element(logits) - logits.begin());
  }
}

TEST(Decoder, LogitsAndAnswersTellTheSame) {
  test::TinyModel tiny;
  tiny.config.vocab_size = 700;  // several vocabulary tiles, the last one ragged
  const Model model = tiny.build();
  const auto arithmetic = make_float_arithmetic(model, 256);
  Decoder decoder(model, *arithmetic);
  KvSpan kv(*arithmetic, 3, 1);
  Batch batch{.tokens = {1, 2, 3}, .positions = {0, 1, 2}, .segments = {}};
  batch.segments.push_back({.first_row = 0, .length = 3, .first_position = 0, .kv = &kv});
  decoder.forward(batch);
  const int64_t rows[] = {2};
  const auto logits = decoder.logits(rows);
  const TokenQuery query[] = {{2, 699}};
  const auto answer = decoder.answer(query);
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v));
  EXPECT_NEAR(answer[0].log_probability, static_cast<double>(logits[699]) - std::log(sum), 1e-5);
  EXPECT_EQ(answer[0].top1, std::ranges::max_element(logits) - logits.begin());
}

}  // namespace
}  // namespace qeval::model
