#include "cli/learn.h"

#include <algorithm>
#include <array>
#include <iostream>

#include "cli/calibration_options.h"
#include "cli/method_options.h"
#include "cli/option_values.h"
#include "cli/ranks.h"
#include "model/checkpoint/safetensors_writer.h"

namespace qeval::cli {
namespace {

constexpr std::array<const char*, quant::kParameterGroups> kGroups{"let", "lwc", "lrl", "code"};

int64_t count(const std::optional<int64_t>& value, const char* option, int64_t otherwise, int64_t least,
              int64_t most) {
  return in_range(option, value.value_or(otherwise), least, most);
}

/// A group's rate and what it falls to, which is at most the rate.
void read_schedule(const po::variables_map& arguments, const std::string& group, quant::Method method,
                   quant::RateSchedule& schedule) {
  const std::string rate = group + "-lr", minimum = group + "-min-lr";
  const auto read = [&](const std::string& option, double otherwise) {
    const auto value = applied<double>(arguments, option.c_str(), method);
    return in_range(option.c_str(), value.value_or(otherwise), 0.0, 1.0);
  };
  schedule.rate = read(rate, schedule.rate);
  schedule.minimum = read(minimum, std::min(schedule.minimum, schedule.rate));
  if (schedule.minimum > schedule.rate) {
    refuse(minimum.c_str(), fmt::format("{} is above --{}, the rate that it ends; accepted for {}: 0 to {}",
                                        schedule.minimum, rate, quant::name(method), schedule.rate));
  }
}

}  // namespace

void add_learn_options(po::options_description& options) {
  auto add = options.add_options();
  const auto number = [] { return po::value<int64_t>()->value_name("N"); };
  const auto rate = [] { return po::value<double>()->value_name("R"); };
  add("preset", one_of("NAME", "laptop, paper, distill, near-lossless"),
      "settings of learned methods to start from, and how many samples of --calibration: laptop (default: "
      "minutes), paper (its rates, epochs and samples), distill (mobilequant: half an hour for a small "
      "model, "
      "on next-token distributions), near-lossless (selects mobilequant: rotations as in "
      "rotate, "
      "GPTQ rounding, then learning of ranges, scales and, below 8 bits, codes: half an hour on two cores)");
  add("loss", one_of("NAME", "output, logits"),
      "what mobilequant minimises: output (squared error of the last block's output, the paper's), logits "
      "(divergence of the next-token distributions)");
  add("epochs", number(), "passes over the calibration samples");
  add("batch-size", number(), "samples per step, whose gradients are averaged (default: the preset's)");
  add("warmup-epochs", number(), "passes during which the rates rise from 0 (default: 0)");
  add("let-lr", rate(), "learning rate of the transformations' scales");
  add("let-min-lr", rate(),
      "final value of --let-lr, reached by cosine decay (default: the preset's, at most --let-lr)");
  add("lwc-lr", rate(), "learning rate of the weights' clipping bounds");
  add("lwc-min-lr", rate(), "final value of --lwc-lr");
  add("lrl-lr", rate(), "learning rate of the activations' scales and offsets (lrl, mobilequant)");
  add("lrl-min-lr", rate(), "final value of --lrl-lr");
  add("lrl-relative", "--lrl-lr is relative to each range instead of an absolute step (lrl, mobilequant)");
  add("code-lr", rate(),
      "learning rate of the codes of weights of fewer than 8 bits, in steps of their grids (mobilequant "
      "with --round-first; 0: the codes do not change)");
  add("code-min-lr", rate(), "final value of --code-lr");
  add("no-smooth", "learn from the model as it is, without SmoothQuant first");
  add("round-first",
      "round weights (--rounding gptq) before learning, which then learns the scales of their grids in place "
      "of "
      "transformations and clipping (mobilequant)");
  add("save-minutes", number(),
      "minutes between saves of the state that a continued run starts from (default: 5)");
  add("activation-memory", number(),
      "MiB for activations that mobilequant keeps for the backward pass; if more, they are computed twice "
      "(default: 1024)");
}

quant::SampleSize default_samples(const po::variables_map& arguments,
                                  std::span<const quant::Method> methods) {
  const auto preset = optional<std::string>(arguments, "preset");
  if (!preset) return {};
  std::optional<quant::SampleSize> most;
  for (const quant::Method method : methods) {
    if (!applies(arguments, "preset", method)) continue;
    const quant::SampleSize size = quant::preset_samples(*preset, quant::learn_method(method).value());
    if (!most || size.count > most->count) most = size;
  }
  return most.value_or(quant::SampleSize{});
}

std::chrono::minutes save_interval(const po::variables_map& arguments) {
  return std::chrono::minutes(
      count(optional<int64_t>(arguments, "save-minutes"), "save-minutes", 5, 1, 1 << 20));
}

void warn_of_idle_ranks(int64_t batch_size) {
  if (batch_size >= peers().size) return;
  std::cerr << fmt::format(
      "qeval: warning: a learning step has {} of {} ranks at work, those that get a sample: --batch-size {} "
      "gives "
      "one to each (and learns otherwise)\n",
      batch_size, peers().size, peers().size);
}

quant::LearnSettings learn_settings(const po::variables_map& arguments, quant::Method method,
                                    quant::Variant variant, const model::ModelConfig& config,
                                    int weight_bits) {
  const auto number = [&](const char* option) { return applied<int64_t>(arguments, option, method); };
  const auto preset = applied<std::string>(arguments, "preset", method);
  quant::LearnSettings settings = quant::preset_settings(
      preset.value_or("laptop"), quant::learn_method(method).value(), config, weight_bits);
  settings.modified = variant == quant::Variant::modified;
  if (const auto loss = applied<std::string>(arguments, "loss", method))
    settings.loss = quant::parse_loss(*loss);
  settings.epochs = count(number("epochs"), "epochs", settings.epochs, 1, 1 << 20);
  settings.batch_size = count(number("batch-size"), "batch-size", settings.batch_size, 1, 1 << 20);
  settings.warmup_epochs = count(number("warmup-epochs"), "warmup-epochs", 0, 0, settings.epochs - 1);
  settings.activation_bytes =
      count(number("activation-memory"), "activation-memory", 1024, 0, int64_t{1} << 30) << 20;
  settings.relative_ranges = settings.relative_ranges || applies(arguments, "lrl-relative", method);
  settings.round_first = settings.round_first || applies(arguments, "round-first", method);
  for (size_t g = 0; g < kGroups.size(); ++g) read_schedule(arguments, kGroups[g], method, settings.rates[g]);
  if (settings.rates[static_cast<size_t>(quant::ParameterGroup::code)].rate > 0 && !settings.round_first)
    refuse("code-lr", "not used without --round-first, which makes codes before learning");
  return settings;
}

void write_gradients(const std::filesystem::path& file, const quant::Samples& samples,
                     const quant::LearnSettings& settings, quant::QuantizedModel& model) {
  quant::Gradients gradients = quant::end_to_end_gradients(quant::learn_problem(samples, model), settings);
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
