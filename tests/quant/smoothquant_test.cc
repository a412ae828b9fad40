#include "quant/smoothquant.h"

#include <cmath>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "model/checkpoint/checkpoint.h"
#include "quant/calibration.h"
#include "quant/observer.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::TinyModel;

Samples samples() {
  Samples all(2);
  for (int64_t i = 0; i < 40; ++i) all[0].push_back(static_cast<int32_t>((i * 17 + 3) % 61));
  for (int64_t i = 0; i < 30; ++i) all[1].push_back(static_cast<int32_t>((i * i + 5) % 61));
  return all;
}

std::vector<double> log_probabilities(const model::Model& model) {
  const auto arithmetic = model::make_float_arithmetic(model, 64);
  std::vector<double> all;
  for (const auto& answer : run_sample(model, *arithmetic, samples()[0]))
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
    maxima_ = calibrate(base_, samples(), make_qcfg(base_.config, {}), {}).channel_maxima;
  }
  TinyModel tiny_;
  model::Model base_;
  PointMap<std::vector<float>> maxima_;
};

TEST_P(SmoothQuantTest, KeepsTheFunction) {
  const std::vector<double> before = log_probabilities(base_);
  for (const Variant variant : {Variant::original, Variant::modified}) {
    EditableModel edited(base_);
    smooth(edited, maxima_, variant, 0.5);
    const std::vector<double> after = log_probabilities(edited.model());
    for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], 1e-4) << name(variant);
  }
  // And never touches the source.
  EXPECT_EQ(log_probabilities(base_), before);
}

TEST_P(SmoothQuantTest, BalancesActivationsAndWeights) {
  // With α = 0.5 a channel's largest input and largest weight become equal; the original variant's pairs read
  // norms, which the model computes as before but for the division.
  EditableModel edited(base_);
  smooth(edited, maxima_, Variant::original, 0.5);
  const auto after = calibrate(edited.model(), samples(), make_qcfg(base_.config, {}), {}).channel_maxima;
  const auto gate = edited.linear(1, model::Projection::gate), up = edited.linear(1, model::Projection::up);
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
  const auto same = [&](EditableModel& a, model::Projection p) {
    std::vector<float> stored(
        static_cast<size_t>(base_.layers[0].o.weight.rows *
                            std::max(base_.layers[0].o.weight.cols, base_.layers[0].down.weight.cols)));
    linear_of(base_.layers[0], p)
        .weight.decode_rows(0, linear_of(base_.layers[0], p).weight.rows, stored.data());
    const auto linear = a.linear(0, p);
    return std::equal(linear.weight, linear.weight + linear.rows * linear.cols, stored.begin());
  };
  EXPECT_TRUE(same(original, model::Projection::down));
  EXPECT_FALSE(same(modified, model::Projection::down));
  EXPECT_TRUE(same(original, model::Projection::o));
  // v → o only where v has as many outputs as o has inputs.
  EXPECT_EQ(same(modified, model::Projection::o), !GetParam());
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
        EXPECT_TRUE(close(edited.linear(point.layer, projection(point.module)).weight, values(*weight)))
            << module;
        ++compared;
      }
    }
    EXPECT_EQ(compared, base.config.num_layers * 14);
  }
}

}  // namespace
}  // namespace qeval::quant
