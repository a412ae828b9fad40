// The learned methods against runs of the paper's own code (goldens/mobilequant).
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "model/checkpoint/checkpoint.h"
#include "quant/methods/learn/learn.h"
#include "tests/reference_data.h"

namespace qeval::quant {
namespace {

const std::filesystem::path kGoldens = test::goldens() / "mobilequant";

template <typename T>
std::vector<T> typed_values(const model::TensorView& tensor) {
  std::vector<T> out(tensor.bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor.bytes.data(), out.size() * sizeof(T));
  return out;
}

std::vector<std::vector<int32_t>> golden_samples(const std::filesystem::path& directory) {
  const auto file = model::open_safetensors(directory / "expected.safetensors");
  const model::TensorView& ids = file->require("calibration_ids");
  const auto flat = typed_values<int64_t>(ids);
  const auto length = static_cast<size_t>(ids.shape[1]);
  std::vector<std::vector<int32_t>> rows;
  for (size_t i = 0; i < flat.size(); i += length) {
    rows.emplace_back();
    for (size_t j = 0; j < length; ++j) rows.back().push_back(static_cast<int32_t>(flat[i + j]));
  }
  return rows;
}

struct GoldenCase {
  std::vector<std::unique_ptr<std::vector<float>>> weights;
  std::unique_ptr<model::Model> model;
  LearnProblem problem;
};

GoldenCase load_golden(const std::string& name, const std::string& scheme) {
  GoldenCase c;
  c.model = std::make_unique<model::Model>(model::load_model(kGoldens / name));
  const model::ModelConfig& config = c.model->config;
  c.problem.model = c.model.get();
  const auto linear = [&](model::LinearWeights& from) -> BlockWeights<float>::Linear {
    const model::Matrix& w = from.weight;
    c.weights.push_back(std::make_unique<std::vector<float>>(static_cast<size_t>(w.rows * w.cols)));
    w.decode_rows(0, w.rows, c.weights.back()->data());
    return {c.weights.back()->data(), w.rows, w.cols, &from.bias};
  };
  for (model::LayerWeights& layer : c.model->layers) {
    BlockWeights<float>& block = c.problem.blocks.emplace_back();
    for (auto& [module, norm] : layer.norms) block.norm(module) = {&norm.weight, &norm.bias};
    for (auto& [module, weights] : layer.linears) block.linear(module) = linear(weights);
  }
  c.problem.qcfg = make_qcfg(config, parse_scheme(scheme));
  c.problem.ranges = complete_ranges(
      c.problem.qcfg, read_act_ranges(kGoldens / name / "act_dict.json", config), config, "act_dict.json");
  c.problem.samples = golden_samples(kGoldens / name);
  return c;
}

class TrainGolden : public testing::TestWithParam<std::string> {};

template <typename T>
double norm(const std::vector<T>& v) {
  double sum = 0;
  for (const T x : v) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

template <typename T, typename U>
double distance(const std::vector<T>& a, const std::vector<U>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return std::sqrt(sum);
}

/// Values of a parameter file, in double whatever the stored type.
std::vector<double> as_doubles(const model::TensorView& tensor) {
  std::vector<double> out;
  if (tensor.dtype == model::DType::f32) {
    for (const float v : typed_values<float>(tensor)) out.push_back(static_cast<double>(v));
  } else {
    out = typed_values<double>(tensor);
  }
  return out;
}

TEST_P(TrainGolden, GradientsOfEveryParameter) {
  const std::string name = GetParam();
  GoldenCase c = load_golden(name, name.substr(name.find('-') + 1));
  Gradients gradients = end_to_end_gradients(c.problem, {});
  const auto expected = model::open_safetensors(kGoldens / name / "expected_gradients.safetensors");
  EXPECT_NEAR(gradients.loss, as_doubles(expected->require("loss"))[0], 1e-3 * gradients.loss);
  std::map<std::string, const Parameter<float>*> ours;
  for (BlockParameters<float>& block : gradients.parameters) {
    block.ranges_learned = true;
    for (const Parameter<float>* p : block.learned()) ours[p->name] = p;
  }
  int good = 0;
  int bad = 0;
  for (const model::TensorView& tensor : expected->tensors()) {
    if (tensor.name == "loss" || tensor.name.starts_with("f64.")) continue;
    const auto want = as_doubles(tensor);
    const auto exact = as_doubles(expected->require("f64." + std::string(tensor.name)));
    const double size = norm(want);
    if (size < 1e-8 || distance(want, exact) > 0.02 * size) continue;  // unstable in the reference itself
    ASSERT_TRUE(ours.contains(std::string(tensor.name))) << tensor.name;
    const std::vector<float>& got = ours[std::string(tensor.name)]->gradient;
    ASSERT_EQ(got.size(), want.size()) << tensor.name;
    const double off = distance(want, got);
    const bool close = off <= 0.05 * size || off <= 1e-5;
    if (!close) std::printf("%s: off by %g of %g\n", std::string(tensor.name).c_str(), off, size);
    (close ? good : bad) += 1;
  }
  EXPECT_GE(good, 19 * bad);
  EXPECT_GT(good, 5);
}

INSTANTIATE_TEST_SUITE_P(All, TrainGolden,
                         testing::Values("llama-w8a8", "llama-w4a8", "llama-w4a8-sym", "gemma-w8a8",
                                         "gemma-w4a8", "gemma-w4a8-sym", "stablelm-w8a8", "stablelm-w4a8",
                                         "stablelm-w4a8-sym"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(TrainGoldenRuns, Losses) {
  for (const auto& directory : std::filesystem::directory_iterator(kGoldens)) {
    for (const auto& run : std::filesystem::directory_iterator(directory)) {
      if (!run.path().filename().string().starts_with("train-")) continue;
      std::ifstream file(run.path() / "settings.json");
      const auto s = nlohmann::json::parse(file);
      const std::string name = directory.path().filename();
      GoldenCase c = load_golden(name, name.substr(name.find('-') + 1));
      LearnSettings settings;
      settings.method = s["mode"] == "e2e" ? LearnMethod::mobilequant
                        : s["lrl"]         ? LearnMethod::lrl
                                           : LearnMethod::omniquant;
      settings.modified = !s["original_omniquant"];
      settings.epochs = s["epochs"];
      settings.rates = {
          {{s["let_lr"], s["let_min_lr"]}, {s["lwc_lr"], s["lwc_min_lr"]}, {s["lrl_lr"], s["lrl_min_lr"]}}};
      std::vector<double> losses;
      const LearnObserver observer{[&](const StepRecord& record) { losses.push_back(record.loss); }, {}};
      learn(c.problem, settings, observer);
      const auto expected = model::open_safetensors(run.path() / "expected_training.safetensors");
      const auto want = as_doubles(expected->require("loss"));
      ASSERT_EQ(losses.size(), want.size());
      double mean = 0;
      for (size_t i = 0; i < want.size(); ++i) mean += std::abs(losses[i] - want[i]) / want[i];
      mean /= static_cast<double>(want.size());
      const double first = std::abs(losses[0] - want[0]) / want[0];
      const double first_limit = std::max(1e-3, 3 * s["noise"]["loss_first"].get<double>());
      const double mean_limit = std::max(0.02, 3 * s["noise"]["loss_mean"].get<double>());
      EXPECT_LE(first, first_limit) << run.path();
      EXPECT_LE(mean, mean_limit) << run.path();
    }
  }
}

}  // namespace
}  // namespace qeval::quant
