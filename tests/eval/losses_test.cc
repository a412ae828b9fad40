#include "eval/losses.h"

#include <cmath>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/decoder.h"
#include "quant/arithmetic/ggml_arithmetic.h"

namespace qeval::eval {
namespace {

using testing::HasSubstr;

model::Model golden(const std::string& name) {
  return model::load_model(std::string(QEVAL_GOLDENS_DIR) + "/quantized/" + name + "/model.gguf");
}

const std::vector<std::vector<int32_t>> kSamples{{1, 17, 99, 4, 56, 23, 23, 80, 5}, {1, 90, 3, 44, 120}};

/// Mean KL of two models' predictions, over their logits as they are.
double divergence(const model::Model& base, const model::Model& model, const model::Arithmetic& arithmetic) {
  const model::FloatArithmetic exact(base, 16);
  double sum = 0;
  int64_t count = 0;
  for (const auto& sample : kSamples) {
    const auto logits = [&](const model::Model& of, const model::Arithmetic& own) {
      model::Decoder decoder(of, own);
      const int64_t length = std::ssize(sample) - 1;
      model::KvSpan kv(own, length, of.config.num_layers);
      model::Batch batch{.tokens = {sample.begin(), sample.end() - 1}, .positions = {}, .segments = {}};
      std::vector<int64_t> rows(static_cast<size_t>(length));
      std::iota(rows.begin(), rows.end(), 0);
      batch.positions.assign(rows.begin(), rows.end());
      batch.segments.push_back({.length = length, .kv = &kv});
      decoder.forward(batch);
      return decoder.logits(rows);
    };
    const std::vector<float> p = logits(base, exact), q = logits(model, arithmetic);
    const auto n = static_cast<size_t>(base.config.vocab_size);
    for (size_t row = 0; row + 1 < sample.size(); ++row, ++count) {
      const auto log_sum = [&](const std::vector<float>& x) {
        double total = 0;
        for (size_t i = row * n; i < (row + 1) * n; ++i) total += std::exp(static_cast<double>(x[i]));
        return std::log(total);
      };
      const double from = log_sum(p), to = log_sum(q);
      for (size_t i = row * n; i < (row + 1) * n; ++i) {
        const double a = static_cast<double>(p[i]) - from, b = static_cast<double>(q[i]) - to;
        sum += std::exp(a) * (a - b);
      }
    }
  }
  return sum / static_cast<double>(count);
}

const NamedLosses& row(const std::vector<NamedLosses>& rows, const std::string& name) {
  for (const NamedLosses& own : rows) {
    if (own.name == name) return own;
  }
  ADD_FAILURE() << name;
  return rows.front();
}

TEST(FileLosses, ArePartByPartWhatTheModelsThemselvesDiffer) {
  const model::Model base = golden("gguf-iq4-nl"), file = golden("gguf-mxfp4");
  int64_t runs = 0;
  const FileLosses losses = file_losses({.base = base,
                                         .file = file,
                                         .kv_type = quant::GgmlRow::q4_0,
                                         .samples = kSamples,
                                         .progress = [&](int64_t, int64_t total) { runs = total; }});
  EXPECT_EQ(losses.tokens, 12);
  const model::FloatArithmetic weights(file, 16);
  EXPECT_NEAR(losses.parts.weights, divergence(base, file, weights), 1e-6 * losses.parts.weights + 1e-9);
  EXPECT_GT(losses.parts.weights, 0);
  // Sums of floats there, of codes here.
  const quant::GgmlArithmetic together(file, 16, quant::GgmlRow::q4_0, "ggml-q4_0");
  EXPECT_NEAR(losses.together, divergence(base, file, together), 0.01 * losses.together);
  EXPECT_DOUBLE_EQ(losses.parts.weights + losses.parts.inputs + losses.parts.kv + losses.interaction(),
                   losses.together);

  ASSERT_EQ(losses.layers.size(), static_cast<size_t>(base.config.num_layers) + 2);
  for (const auto* rows : {&losses.layers, &losses.classes}) {
    const PartLosses left = interaction(losses.parts, *rows);
    double weights_sum = left.weights, inputs = left.inputs, kv = left.kv;
    for (const NamedLosses& own : *rows) {
      weights_sum += own.losses.weights;
      inputs += own.losses.inputs;
      kv += own.losses.kv;
      EXPECT_EQ(own.has_weights, own.losses.weights > 0) << own.name;
      EXPECT_EQ(own.has_inputs, own.losses.inputs > 0) << own.name;
      EXPECT_EQ(own.has_kv, own.losses.kv > 0) << own.name;
    }
    EXPECT_NEAR(weights_sum, losses.parts.weights, 1e-12);
    EXPECT_NEAR(inputs, losses.parts.inputs, 1e-12);
    EXPECT_NEAR(kv, losses.parts.kv, 1e-12);
  }
  EXPECT_EQ(row(losses.classes, "keys and values").losses.kv, losses.parts.kv);
  EXPECT_EQ(row(losses.classes, "lm_head").losses.inputs, row(losses.layers, "lm_head").losses.inputs);
  EXPECT_GT(runs, 12);
}

/// Of windows that overlap only what is scored counts: the last predictions of a sample are those that its
/// beginning lacks.
TEST(FileLosses, CountWhatIsScored) {
  const model::Model base = golden("gguf-iq4-nl"), file = golden("gguf-mxfp4");
  const std::vector<std::vector<int32_t>> whole{kSamples[0]},
      begin{{kSamples[0].begin(), kSamples[0].end() - 3}};
  const std::vector<int64_t> scored{3};
  const auto losses = [&](const std::vector<std::vector<int32_t>>& samples, std::span<const int64_t> last) {
    return file_losses({.base = base, .file = file, .samples = samples, .scored = last, .details = false});
  };
  const FileLosses all = losses(whole, {}), first = losses(begin, {}), last = losses(whole, scored);
  EXPECT_EQ(last.tokens, 3);
  EXPECT_NEAR(last.parts.weights * 3, all.parts.weights * 8 - first.parts.weights * 5, 1e-9);
  EXPECT_NEAR(last.together * 3, all.together * 8 - first.together * 5, 1e-9);
}

TEST(FileLosses, OfAModelFromItselfAreItsActivationsOnly) {
  const model::Model file = golden("gguf-iq4-nl");
  const FileLosses losses =
      file_losses({.base = file, .file = file, .kv_type = quant::GgmlRow::f32, .samples = kSamples});
  EXPECT_EQ(losses.parts.weights, 0);
  EXPECT_EQ(losses.parts.kv, 0);
  EXPECT_GT(losses.parts.inputs, 0);
  EXPECT_EQ(losses.together, losses.parts.inputs);
}

TEST(FileLosses, AreOfOneModelInTwoTypes) {
  const model::Model base = golden("gguf-iq2-xs"), file = golden("gguf-iq4-nl");
  try {
    file_losses({.base = base, .file = file, .samples = kSamples});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("losses are of one model in two types"));
    EXPECT_THAT(error.what(), HasSubstr("gguf-iq4-nl"));
  }
}

}  // namespace
}  // namespace qeval::eval
