#include "quant/methods/smoothquant.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "model/checkpoint/checkpoint.h"
#include "quant/calibrate/calibration.h"
#include "quant/calibrate/observer.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::TinyModel;

std::vector<double> sample_log_probabilities(const model::Model& model) {
  const auto arithmetic = model::make_float_arithmetic(model, 64);
  std::vector<double> all;
  for (const auto& answer : run_sample(model, *arithmetic, test::two_samples()[0]))
    all.push_back(answer.log_probability);
  return all;
}

class SmoothQuantTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      tiny_.config.norm = model::NormKind::layer;
      tiny_.config.num_kv_heads = tiny_.config.num_heads;
      tiny_.config.qkv_bias = tiny_.config.mlp_bias = true;
    }
    base_ = tiny_.build();
    maxima_ = calibrate(base_, test::two_samples(), make_qcfg(base_.config, {}), {}).channel_maxima;
  }
  TinyModel tiny_;
  model::Model base_;
  PointMap<std::vector<float>> maxima_;
};

TEST_P(SmoothQuantTest, KeepsTheFunction) {
  const std::vector<double> before = sample_log_probabilities(base_);
  for (const Variant variant : {Variant::original, Variant::modified}) {
    EditableModel edited(base_);
    smooth(edited, maxima_, variant, 0.5);
    const std::vector<double> after = sample_log_probabilities(edited.model());
    for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], 1e-4) << name(variant);
  }
  // And never touches the source.
  EXPECT_EQ(sample_log_probabilities(base_), before);
}

/// At alpha 1 a channel's scale is the largest input, whatever the weights.
TEST_P(SmoothQuantTest, AlphaIsTheInputsShare) {
  EditableModel before(base_), edited(base_);
  smooth(edited, maxima_, Variant::original, 1.0);
  const EditableModel::Linear w = before.linear(0, Module::q), scaled = edited.linear(0, Module::q);
  const std::vector<float>& largest = maxima_[{0, Module::q, Slot::input}];
  for (int64_t j = 0; j < w.cols; ++j)
    EXPECT_NEAR(scaled.row(0)[j], w.row(0)[j] * largest[static_cast<size_t>(j)], 1e-5) << j;
}

/// A norm's scales go into the router, the shared expert and all others; every token keeps its experts.
TEST(SmoothQuantExperts, KeepTheFunction) {
  TinyModel tiny;
  tiny.config.experts.emplace();
  tiny.config.experts->route = {.experts = 5, .used = 2, .normalize = true};
  tiny.config.experts->inner = 20;
  tiny.config.experts->shared_inner = 12;
  tiny.config.experts->shared_gate = true;
  tiny.config.layers.assign(2, {.sparse = true});
  const model::Model base = tiny.build();
  const auto maxima = calibrate(base, test::two_samples(), make_qcfg(base.config, {}), {}).channel_maxima;
  const std::vector<double> before = sample_log_probabilities(base);
  EditableModel edited(base);
  smooth(edited, maxima, Variant::modified, 0.5);
  const std::vector<double> after = sample_log_probabilities(edited.model());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], 1e-4);
  const auto first = [](const model::Model& model, Module module) {
    std::vector<float> row(24);
    model.layers[1].all(module).back()->weight.decode_rows(0, 1, row.data());
    return row;
  };
  for (const Module module : {Module::router, Module::shared_up, Module::expert_gate, Module::expert_up})
    EXPECT_NE(first(edited.model(), module), first(base, module)) << model::module_name(module);
}

TEST_P(SmoothQuantTest, BalancesActivationsAndWeights) {
  // With α = 0.5 a channel's largest input and largest weight become equal; the original variant's pairs read
  // norms, which the model computes as before but for the division.
  EditableModel edited(base_);
  smooth(edited, maxima_, Variant::original, 0.5);
  const auto after =
      calibrate(edited.model(), test::two_samples(), make_qcfg(base_.config, {}), {}).channel_maxima;
  const auto gate = edited.linear(1, Module::gate), up = edited.linear(1, Module::up);
  const std::vector<float>& inputs = after[{1, Module::gate, Slot::input}];
  for (int64_t j = 0; j < gate.cols; ++j) {
    float weight = 0;
    for (int64_t r = 0; r < gate.rows; ++r) {
      weight = std::max({weight, std::abs(gate.row(r)[j]), std::abs(up.row(r)[j])});
    }
    EXPECT_NEAR(inputs[static_cast<size_t>(j)] / weight, 1.0F, 1e-3F);
  }
}

TEST_P(SmoothQuantTest, TheOriginalVariantLeavesValuesAndProductAlone) {
  EditableModel original(base_), modified(base_);
  smooth(original, maxima_, Variant::original, 0.5);
  smooth(modified, maxima_, Variant::modified, 0.5);
  const auto same = [&](EditableModel& a, Module p) {
    std::vector<float> stored(
        static_cast<size_t>(base_.layers[0].linear(Module::o).weight.rows *
                            std::max(base_.layers[0].linear(Module::o).weight.cols,
                                     base_.layers[0].linear(Module::down).weight.cols)));
    base_.layers[0].linear(p).weight.decode_rows(0, base_.layers[0].linear(p).weight.rows, stored.data());
    const auto linear = a.linear(0, p);
    return std::equal(linear.weight, linear.weight + linear.rows * linear.cols, stored.begin());
  };
  EXPECT_TRUE(same(original, Module::down));
  EXPECT_FALSE(same(modified, Module::down));
  EXPECT_TRUE(same(original, Module::o));
  // v → o only where v has as many outputs as o has inputs.
  EXPECT_EQ(same(modified, Module::o), !GetParam());
}

/// A dead channel once had the scale 1e-5: its producer's row, divided by it, took the whole grid of its
/// tensor and left all other rows none (intel/neural-compressor#1427).
TEST_P(SmoothQuantTest, ChannelsWithoutASignalOrWeightsKeepTheirScale) {
  EditableModel model(base_);
  const auto gate = model.linear(1, Module::gate), up = model.linear(1, Module::up),
             down = model.linear(1, Module::down);
  const auto fill_row = [](const EditableModel::Linear& linear, int64_t r, float value) {
    std::fill_n(linear.row(r), linear.cols, value);
    if (!linear.bias.empty()) linear.bias[static_cast<size_t>(r)] = 0;
  };
  const auto fill_column = [](const EditableModel::Linear& linear, int64_t c, float value) {
    for (int64_t r = 0; r < linear.rows; ++r) linear.row(r)[c] = value;
  };
  fill_row(gate, 6, 0.0F);     // an inner channel that is always 0
  fill_row(gate, 7, 1e-30F);   // as good as always 0
  fill_column(down, 9, 0.0F);  // an inner channel that nothing reads
  fill_column(gate, 3, 0.0F);  // a normed channel that nothing reads
  fill_column(up, 3, 0.0F);
  const auto o = model.linear(1, Module::o);
  const auto v = model.linear(1, Module::v);
  fill_row(v, 2, 0.0F);  // an attention channel that is always 0
  model::NormWeights& norm = model.norm(1, Module::input_norm);
  norm.weight[5] = 0;  // a normed channel that is always 0
  if (!norm.bias.empty()) norm.bias[5] = 0;
  const auto maxima =
      calibrate(model.model(), test::two_samples(), make_qcfg(base_.config, {}), {}).channel_maxima;
  const auto row = [](const EditableModel::Linear& linear, int64_t r) {
    return std::vector<float>(linear.row(r), linear.row(r) + linear.cols);
  };
  const auto column = [](const EditableModel::Linear& linear, int64_t c) {
    std::vector<float> all;
    for (int64_t r = 0; r < linear.rows; ++r) all.push_back(linear.row(r)[c]);
    return all;
  };
  const auto q = model.linear(1, Module::q);
  const auto read = column(q, 5), mixed = column(o, 2);
  const auto used = column(down, 6), little = column(down, 7), ordinary = column(down, 8);
  const float normed = model.norm(1, Module::post_attention_norm).weight[3];

  EXPECT_EQ(smooth(model, maxima, Variant::modified, 0.5), std::vector<Warning>{});
  EXPECT_EQ(column(q, 5), read);
  if (GetParam()) {
    EXPECT_EQ(column(o, 2), mixed);
  }  // v to o is smoothed in multi-head attention
  EXPECT_EQ(column(down, 6), used);
  EXPECT_EQ(column(down, 7), little);
  EXPECT_NE(column(down, 8), ordinary);
  EXPECT_EQ(model.norm(1, Module::post_attention_norm).weight[3], normed);
  // Nor is anything in the producers far from what their neighbours have.
  for (int64_t r = 0; r < up.rows; ++r) {
    for (const float w : row(up, r)) EXPECT_LT(std::abs(w), 10.0F) << "row " << r;
  }
}

TEST_P(SmoothQuantTest, UnusualScalesAreNamed) {
  EditableModel model(base_);
  auto maxima = maxima_;
  std::vector<float>& inner = maxima[{1, Module::down, Slot::input}];
  inner[0] = inner[1] = 1e-8F;
  maxima[{0, Module::q, Slot::input}][4] = 1e8F;
  const std::vector<Warning> found = smooth(model, maxima, Variant::modified, 0.5);
  ASSERT_EQ(found.size(), 1U);
  const std::vector<std::string> places{"layer 0 norm to q, k, v (1 channel)",
                                        "layer 1 up to down (2 channels)"};
  EXPECT_EQ(found[0].places, places);
  EXPECT_TRUE(found[0].what.starts_with("smoothing scales outside 0.001 ... 1000 (down to "))
      << found[0].what;
}

INSTANTIATE_TEST_SUITE_P(Norms, SmoothQuantTest, testing::Bool());

/// The paper's code on the tiny checkpoints: channel maxima, and weights after the original variant.
TEST(SmoothQuantGoldens, MaximaAndWeightsAreThoseOfThePapersCode) {
  const std::filesystem::path goldens = test::goldens() / "mobilequant";
  for (const char* architecture : {"llama", "gemma", "stablelm"}) {
    SCOPED_TRACE(architecture);
    const model::Model base = model::load_model(goldens / (std::string(architecture) + "-base"));
    const auto expected = model::open_safetensors(goldens / (std::string(architecture) + "-w8a8") /
                                                  "expected_smoothquant.safetensors");
    const auto answers =
        model::open_safetensors(goldens / (std::string(architecture) + "-base") / "expected.safetensors");
    const model::TensorView& ids = answers->require("calibration_ids");
    Samples calibration;
    for (int64_t r = 0; r < ids.shape[0]; ++r) {
      auto& sample = calibration.emplace_back();
      for (int64_t i = 0; i < ids.shape[1]; ++i) {
        int64_t id = 0;
        std::memcpy(&id, ids.bytes.data() + (r * ids.shape[1] + i) * 8, sizeof id);
        sample.push_back(static_cast<int32_t>(id));
      }
    }
    const Calibration found = calibrate(base, calibration, make_qcfg(base.config, {}), {});
    EditableModel edited(base);
    smooth(edited, found.channel_maxima, Variant::original, 0.5);
    const auto values = [&](const model::TensorView& tensor) {
      std::vector<float> out(static_cast<size_t>(tensor.element_count()));
      model::decode(tensor.dtype, tensor.bytes.data(), tensor.element_count(), out.data());
      return out;
    };
    const auto close = [](const float* got, const std::vector<float>& want) {
      double largest = 0, difference = 0;
      for (size_t i = 0; i < want.size(); ++i) {
        largest = std::max(largest, std::abs(static_cast<double>(want[i])));
        difference =
            std::max(difference, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
      }
      return difference <= 1e-5 * largest;
    };
    int compared = 0;
    for (const Point& point : all_points(base.config)) {
      if (is_after_blocks(point.module) || !is_linear(point.module)) continue;
      const std::string module = module_name(point.layer, point.module);
      if (point.slot == Slot::input) {
        const auto* maxima = expected->find("act_scales." + module + "_input");
        ASSERT_NE(maxima, nullptr) << module;
        EXPECT_TRUE(close(found.channel_maxima[point].data(), values(*maxima))) << module;
        ++compared;
      } else if (point.slot == Slot::weight) {
        const auto* weight = expected->find("smoothed_original." + module + ".weight");
        ASSERT_NE(weight, nullptr) << module;
        EXPECT_TRUE(close(edited.linear(point.layer, point.module).weight, values(*weight))) << module;
        ++compared;
      }
    }
    EXPECT_EQ(compared, base.config.num_layers * 14);
  }
}

}  // namespace
}  // namespace qeval::quant
