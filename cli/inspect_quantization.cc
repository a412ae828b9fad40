#include "cli/inspect_quantization.h"

#include <filesystem>
#include <iostream>
#include <map>

#include "base/error.h"
#include "cli/calibration_options.h"
#include "cli/inspect_compare.h"
#include "cli/inspect_losses.h"
#include "cli/progress.h"
#include "quant/arithmetic/analysis.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/grid/stored_codes.h"
#include "quant/methods/mixed_precision.h"

namespace qeval::cli {
namespace {

/// The quantized points, in the model's order, that the pattern of --points (all without one) names.
std::vector<quant::Point> chosen_points(const po::variables_map& arguments, const model::Model& model,
                                        const quant::QuantConfig& qcfg) {
  const std::string pattern = optional<std::string>(arguments, "points").value_or("*");
  std::vector<quant::Point> points;
  for (const quant::Point& point : quant::quantized_points(qcfg, model.config)) {
    if (quant::matches(pattern, quant::point_name(point))) points.push_back(point);
  }
  if (points.empty()) {
    fail("{}: no quantized point is called \"{}\"; `qeval inspect --points` lists them", model.path.string(),
         printable(pattern));
  }
  return points;
}

void print_summary(const model::Model& model, const quant::Quantization& quantization) {
  std::map<std::string, std::pair<int64_t, int64_t>> counts;  // weights and activations per spec
  for (const quant::Point& point : quant::quantized_points(quantization.qcfg, model.config)) {
    auto& [weights, activations] = counts[quant::describe(quantization.qcfg[point])];
    ++(point.slot == quant::Slot::weight ? weights : activations);
  }
  std::cout << fmt::format("{:<22} {}\n", "quantization hash", quantization.hash);
  if (quantization.first) {
    const std::string what =
        quantization.prefix
            ? fmt::format("a prefix: the key and value of token {} at position 0", quantization.prefix->token)
            : "ranges of its own at position 0 (--points lists them)";
    std::cout << fmt::format("{:<22} {}\n", "first token", what);
  }
  for (const auto& [spec, count] : counts) {
    std::cout << fmt::format("{:<22} {}: {} weights, {} activations\n", "quantized", spec, count.first,
                             count.second);
  }
}

void print_point(const std::string& name, const quant::QuantSpec& spec,
                 const std::optional<quant::Range>& known) {
  std::string range = fmt::format("{:>12} {:>12} {:>10}", "-", "-", "-");
  if (known) {
    range = fmt::format("{:>12.5g} {:>12.5g} {:>10.3g}", known->lo, known->hi,
                        quant::make_grid(spec, *known).scale);
  }
  std::cout << fmt::format("{:<52} {}  {}\n", name, range, quant::describe(spec));
}

void print_points(std::span<const quant::Point> points, const quant::Quantization& quantization) {
  std::cout << fmt::format("{:<52} {:>12} {:>12} {:>10}  {}\n", "point", "min", "max", "step", "quantized");
  for (const quant::Point& point : points) {
    const quant::QuantSpec& spec = quantization.qcfg[point];
    print_point(quant::point_name(point), spec,
                quant::needs_range(quantization.qcfg, point) ? quantization.ranges[point] : std::nullopt);
    if (quantization.first && quant::needs_range(quantization.first->qcfg, point))
      print_point("  at position 0", quantization.first->qcfg[point], quantization.first->ranges[point]);
  }
}

void print_errors(const model::Model& model, const quant::Samples& samples,
                  std::span<const quant::Point> points, const quant::Quantization& quantization) {
  Progress progress;
  const auto errors = quant::quantization_errors(
      model, samples, quantization.qcfg, quantization.ranges,
      [&](int64_t done, int64_t total) { progress.update("rounding errors", done, total); },
      quantization.first.has_value());
  progress.clear();
  std::cout << fmt::format("{:<52} {:>12} {:>10}  {}\n", "point, largest error first", "SNR (dB)", "clipped",
                           "quantized");
  for (const quant::PointError& error : errors) {
    if (std::find(points.begin(), points.end(), error.point) == points.end()) continue;
    std::cout << fmt::format("{:<52} {:>12.2f} {:>9.4f}%  {}\n", quant::point_name(error.point),
                             error.signal_to_noise, 100.0 * error.clipped, quant::describe(error.spec));
  }
}

void print_sensitivity(const model::Model& model, const quant::Samples& samples,
                       std::span<const quant::Point> points, const quant::Quantization& quantization) {
  Progress progress;
  const auto losses = quant::sensitivity(
      model, samples, quantization.qcfg, quantization.ranges, points,
      [&](int64_t done, int64_t total) { progress.update("sensitivity", done, total); }, quantization.first);
  progress.clear();
  std::cout << fmt::format("{:<52} {:>14}  {}\n", "point, most sensitive first", "nats per token",
                           "quantized alone");
  for (const quant::PointSensitivity& loss : losses) {
    std::cout << fmt::format("{:<52} {:>+14.6f}  {}\n", quant::point_name(loss.point), loss.loss,
                             quant::describe(loss.spec));
  }
}

}  // namespace

void add_inspect_quantization_options(po::options_description& options) {
  auto add = options.add_options();
  add("points", po::value<std::string>()->value_name("PATTERN")->implicit_value("*"),
      "list the quantization points with ranges and steps, all or those of a name such as mlp.w2.input (* "
      "for any text); with --errors, --sensitivity or --compare: only these");
  add("errors", "signal-to-noise ratio and clipping at each point on the calibration text, worst first");
  add("sensitivity",
      "loss of log-likelihood per token on the calibration text when a point alone is quantized, worst "
      "first; "
      "a run over the text per point");
  add_inspect_compare_options(options);
  add_inspect_losses_options(options);
  add("qcfg", po::value<std::string>()->value_name("FILE"), "instead of the model's default_qcfg.json");
  add("act-ranges", po::value<std::string>()->value_name("FILE"), "instead of the model's act_dict.json");
  add_calibration_options(options, false);
}

void inspect_quantization(const po::variables_map& arguments, const model::Model& model) {
  const bool errors = given(arguments, "errors"), sensitivity = given(arguments, "sensitivity"),
             compare = given(arguments, "compare"), losses = given(arguments, "losses");
  if (compare && split_list(arguments["compare"].as<std::string>()).size() != 2)
    throw UsageError("--compare " + arguments["compare"].as<std::string>() + ": accepted: fake,integer");
  const bool measure = errors || sensitivity || compare;
  if (losses && measure) refuse("losses", "goes with none of --errors, --sensitivity and --compare");
  for (const char* option : {"base", "kv-type"}) {
    if (!losses && given(arguments, option)) refuse(option, "not used without --losses");
  }
  for (const char* option : {"points", "qcfg", "act-ranges"}) {
    if (losses && given(arguments, option)) refuse(option, "not used with --losses");
  }
  if (losses && std::filesystem::is_directory(model.path))
    refuse("losses", fmt::format("{} is a folder; a GGUF file is expected", model.path.string()));
  if (losses && !given(arguments, "base")) refuse("losses", "needs --base, the original to measure from");
  const bool list = given(arguments, "points") && !measure;
  const quant::Samples samples =
      read_samples(arguments, model, losses ? quant::SampleSize{.count = 4} : quant::SampleSize{});
  if (measure || losses) {
    if (samples.empty()) {
      refuse(errors        ? "errors"
             : sensitivity ? "sensitivity"
             : compare     ? "compare"
                           : "losses",
             "needs --calibration or --calibration-ids to measure on");
    }
  } else if (!samples.empty()) {
    refuse(given(arguments, "calibration") ? "calibration" : "calibration-ids",
           "not used without --errors, --sensitivity, --compare or --losses");
  }
  if (losses) {
    std::cout << '\n';
    inspect_losses(arguments, model, samples);
    return;
  }
  const bool files = given(arguments, "qcfg") || given(arguments, "act-ranges");
  const bool wanted = list || measure || files;
  if (!wanted && !quant::is_quantized_checkpoint(model.path)) return;
  const auto path = [&](const char* option) -> std::optional<std::filesystem::path> {
    return optional<std::string>(arguments, option);
  };
  const quant::Quantization quantization = quant::load_quantization(model, path("qcfg"), path("act-ranges"));
  print_summary(model, quantization);
  if (!list && !measure) return;
  std::cout << '\n';
  if (compare) inspect_compare(arguments, model, samples, quantization);
  if (!list && !errors && !sensitivity) return;
  if (compare) std::cout << '\n';
  const std::vector<quant::Point> points = chosen_points(arguments, model, quantization.qcfg);
  if (list) print_points(points, quantization);
  if (errors) print_errors(model, samples, points, quantization);
  if (errors && sensitivity) std::cout << '\n';
  if (sensitivity) print_sensitivity(model, samples, points, quantization);
}

}  // namespace qeval::cli
