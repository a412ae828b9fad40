#include "cli/learn.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/progress.h"
#include "model/checkpoint/safetensors_writer.h"
#include "quant/checkpoint.h"
#include "quant/train/learn_state.h"
#include "quant/train/preset.h"

namespace qeval::cli {
namespace {

constexpr std::array<const char*, 3> kGroups{"let", "lwc", "lrl"};
constexpr std::array kLearnOptions{"preset",       "epochs",         "batch-size",       "warmup-epochs",
                                   "let-lr",       "let-min-lr",     "lwc-lr",           "lwc-min-lr",
                                   "lrl-lr",       "lrl-min-lr",     "no-smooth",        "resume",
                                   "save-minutes", "gradients-only", "activation-memory"};

int64_t count(const po::variables_map& arguments, const char* option, int64_t otherwise, int64_t least,
              int64_t most) {
  const int64_t value = optional<int64_t>(arguments, option).value_or(otherwise);
  if (value < least || value > most)
    throw UsageError(fmt::format("--{} {}: {} to {}", option, value, least, most));
  return value;
}

/// Lines of training.jsonl: of a resumed run those of the steps done stay.
class TrainingLog {
 public:
  TrainingLog(std::filesystem::path file, int64_t steps_done) : path_(std::move(file)) {
    std::string kept;
    if (steps_done > 0) {
      std::ifstream before(path_);
      std::string line;
      for (int64_t i = 0; i < steps_done && std::getline(before, line); ++i) kept += line + "\n";
    }
    write_file_atomically(path_, kept);
    out_.open(path_, std::ios::app);
  }
  void add(const quant::StepRecord& record) {
    out_ << quant::step_json(record) << "\n" << std::flush;
    if (!out_) fail("{}: cannot write", path_.string());
  }

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

quant::BlockWeights<float> view_block(quant::EditableModel& model, int64_t layer) {
  quant::BlockWeights<float> block;
  model::NormWeights& input = model.norm(layer, model::NormPoint::input);
  model::NormWeights& middle = model.norm(layer, model::NormPoint::post_attention);
  block.input_norm = {&input.weight, &input.bias};
  block.post_attention_norm = {&middle.weight, &middle.bias};
  for (size_t p = 0; p < quant::kProjections; ++p) {
    const auto linear = model.linear(layer, static_cast<model::Projection>(p));
    block.linear[p] = {linear.weight, linear.rows, linear.cols, &linear.bias};
  }
  return block;
}

quant::LearnProblem learn_problem(const quant::Samples& samples, quant::QuantizedModel& model) {
  if (!model.edited) model.edited.emplace(model.base);
  const model::Model& edited = model.edited->model();
  quant::LearnProblem problem{
      &edited,
      {},
      model.qcfg,
      quant::complete_ranges(model.qcfg, model.ranges, edited.config, "the measured ranges"),
      samples};
  for (int64_t layer = 0; layer < edited.config.num_layers; ++layer)
    problem.blocks.push_back(view_block(*model.edited, layer));
  return problem;
}

}  // namespace

void add_learn_options(po::options_description& options) {
  auto add = options.add_options();
  const auto number = [] { return po::value<int64_t>()->value_name("N"); };
  const auto rate = [] { return po::value<double>()->value_name("R"); };
  add("preset", po::value<std::string>()->value_name("NAME"),
      "settings of learned methods to start from: laptop (default: minutes), paper (its rates and epochs)");
  add("epochs", number(), "passes over the calibration samples");
  add("batch-size", number(), "samples per step, whose gradients are averaged (default: 1)");
  add("warmup-epochs", number(), "passes during which the rates rise from 0 (default: 0)");
  add("let-lr", rate(), "learning rate of the transformations' scales");
  add("let-min-lr", rate(), "what it falls to, along half a cosine");
  add("lwc-lr", rate(), "learning rate of the weights' clipping bounds");
  add("lwc-min-lr", rate(), "what it falls to");
  add("lrl-lr", rate(), "learning rate of the activations' scales and offsets (lrl, mobilequant)");
  add("lrl-min-lr", rate(), "what it falls to");
  add("no-smooth", "learn from the model as it is, without SmoothQuant first");
  add("resume", "continue a run that was interrupted in the output folder");
  add("save-minutes", number(), "how often the state that --resume reads is saved (default: 5)");
  add("activation-memory", number(),
      "MiB for activations kept for the backward pass; beyond, they are computed twice (default: 1024)");
  add("gradients-only", po::value<std::string>()->value_name("FILE"),
      "write the gradients of the first sample at the start, as safetensors, and stop");
}

std::span<const char* const> learn_option_names() {
  return kLearnOptions;
}

std::optional<quant::LearnMethod> learn_method(quant::Method method) {
  switch (method) {
    case quant::Method::omniquant:
      return quant::LearnMethod::omniquant;
    case quant::Method::lrl:
      return quant::LearnMethod::lrl;
    case quant::Method::mobilequant:
      return quant::LearnMethod::mobilequant;
    case quant::Method::rtn:
    case quant::Method::smoothquant:
      break;
  }
  return std::nullopt;
}

quant::LearnSettings learn_settings(const po::variables_map& arguments, quant::LearnMethod method,
                                    quant::Variant variant, const model::ModelConfig& config) {
  const std::string preset = optional<std::string>(arguments, "preset").value_or("laptop");
  quant::LearnSettings settings = quant::preset_settings(preset, method, config);
  settings.modified = variant == quant::Variant::modified;
  settings.epochs = count(arguments, "epochs", settings.epochs, 1, 1 << 20);
  settings.batch_size = count(arguments, "batch-size", 1, 1, 1 << 20);
  settings.warmup_epochs = count(arguments, "warmup-epochs", 0, 0, settings.epochs - 1);
  settings.activation_bytes = count(arguments, "activation-memory", 1024, 0, int64_t{1} << 30) << 20;
  for (size_t g = 0; g < kGroups.size(); ++g) {
    quant::RateSchedule& schedule = settings.rates[g];
    const auto read = [&](const std::string& option, double& value) {
      value = optional<double>(arguments, option.c_str()).value_or(value);
      if (!(value >= 0 && value <= 1)) throw UsageError(fmt::format("--{} {}: 0 to 1", option, value));
    };
    read(fmt::format("{}-lr", kGroups[g]), schedule.rate);
    read(fmt::format("{}-min-lr", kGroups[g]), schedule.minimum);
    if (schedule.minimum > schedule.rate) schedule.minimum = schedule.rate;
  }
  return settings;
}

nlohmann::ordered_json learn_json(const quant::LearnSettings& settings) {
  nlohmann::ordered_json json{{"epochs", settings.epochs},
                              {"batch_size", settings.batch_size},
                              {"warmup_epochs", settings.warmup_epochs}};
  for (size_t g = 0; g < kGroups.size(); ++g) {
    json[fmt::format("{}_lr", kGroups[g])] = settings.rates[g].rate;
    json[fmt::format("{}_min_lr", kGroups[g])] = settings.rates[g].minimum;
  }
  return json;
}

void run_learning(const po::variables_map& arguments, const quant::LearnSettings& settings,
                  const quant::Samples& samples, const std::string& fingerprint,
                  const std::filesystem::path& output, quant::QuantizedModel& model) {
  using Clock = std::chrono::steady_clock;
  const std::filesystem::path state_file = output / "training_state.bin";
  const std::chrono::minutes interval(count(arguments, "save-minutes", 5, 1, 1 << 20));
  quant::LearnProblem problem = learn_problem(samples, model);
  quant::LearnState start = quant::initial_state(problem, settings);
  const bool resume = arguments.count("resume") != 0;
  if (resume) quant::load_state(state_file, fingerprint, start);

  TrainingLog log(output / quant::kTrainingFile, start.step);
  Progress progress;
  Clock::time_point saved = Clock::now();
  const quant::LearnObserver observer{
      [&](const quant::StepRecord& record) {
        log.add(record);
        const std::string where = record.layer >= 0 ? fmt::format("layer {}, ", record.layer) : "";
        const int64_t tokens = std::ssize(samples.front()) * settings.batch_size;
        progress.update(fmt::format("learning: {}loss {:.4g}", where, record.loss),
                        (record.step + 1) * tokens, record.steps * tokens);
      },
      [&](const quant::LearnState& state, bool failing) {
        if (!failing && Clock::now() - saved < interval) return;
        quant::save_state(state_file, state, fingerprint);
        saved = Clock::now();
      }};
  quant::learn(problem, settings, observer, resume ? &start : nullptr);
  progress.clear();
  // What learning does not touch (the final norm, the head) keeps its measured ranges.
  for (const quant::Point& point : quant::all_points(problem.model->config)) {
    if (problem.ranges[point]) model.ranges[point] = problem.ranges[point];
  }
  std::filesystem::remove(state_file);
}

void write_gradients(const std::filesystem::path& file, const quant::Samples& samples, quant::Variant variant,
                     quant::QuantizedModel& model) {
  quant::Gradients gradients =
      quant::end_to_end_gradients(learn_problem(samples, model), variant == quant::Variant::modified);
  std::vector<model::TensorSource> tensors;
  const auto add = [&](const std::string& name, const std::vector<float>& values) {
    tensors.push_back({name, {std::ssize(values)}, [&values](int64_t, int64_t, float* out) {
                         std::ranges::copy(values, out);
                       }});
  };
  const std::vector<float> loss{static_cast<float>(gradients.loss)};
  add("loss", loss);
  for (quant::BlockParameters<float>& block : gradients.parameters) {
    block.ranges_learned = true;
    for (const quant::Parameter<float>* p : block.learned()) add(p->name, p->gradient);
  }
  model::write_safetensors(file, tensors, model::DType::f32);
}

}  // namespace qeval::cli
