#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/calibration_options.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/learn.h"
#include "cli/method_options.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "quant/methods/mixed_precision.h"
#include "quant/quantize_run.h"

namespace qeval::cli {
namespace {

po::options_description quantize_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_weight_options(options);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  const auto count = [](const char* name) { return po::value<int64_t>()->value_name(name); };
  add("output,o", text("DIR"), "folder for the quantized checkpoint, which `qeval eval` reads");
  add("method", one_of("METHOD", quant::kMethodNames)->default_value("rtn"),
      "rtn (round to nearest), gptq (rtn with --rounding gptq), awq (scale channels and clip weights so that "
      "outputs change least), smoothquant (move outliers from activations to weights), and "
      "learned ones: omniquant, lrl (block by block), mobilequant (end to end); rotate (rotations, ranges of "
      "its own for the first token, ranges of least squared error; GPTQ below 8 bits)");
  add("scheme", one_of("SCHEME", quant::kSchemeNames, scheme_groups())->default_value("w8a8"),
      "bits of weights and activations: w8a8, w4a8, w4a8-sym, w8a16; of weights alone: w4a16, w4a16-sym, "
      "w3a16, "
      "w3a16-sym, w8a16-sym; with groups of N inputs that share a grid: w4a8-g64; stored: codes and ranges "
      "as the "
      "checkpoint has them, the rest as in w8a8");
  add("rounding", one_of("ROUNDING", quant::kRoundingNames),
      "of weights of 8 bits or fewer: nearest, gptq (so that the linear maps' outputs on calibration text "
      "change least); default: gptq of method gptq, and of rotate below 8 bits, else nearest");
  add("weight-range", one_of("RANGE", quant::kWeightRangeNames),
      "what such weights' grids span: minmax, mse (least squared error), output (least error of the map's "
      "output on calibration text); default: minmax, with gptq and --range mse: mse, with awq: output");
  add("format", one_of("FORMAT", quant::kCheckpointFormatNames)->default_value("packed"),
      "how weights of 8 bits or fewer are stored: packed (as codes, in the layout of compressed-tensors), "
      "mobilequant (as floats that round to them, in the layout of MobileQuant's code)");
  add("weight-bits", po::value<int>()->value_name("N"), "2 to 16, instead of the scheme's");
  add("weight-per-channel", "a grid per output channel of the weights");
  add("weight-symmetric", "weights with zero point 0");
  add("weight-group-size", count("N"), "a grid per N inputs of each output channel");
  add("act-bits", po::value<int>()->value_name("N"),
      "2 to 16 for the points that w8a8 has at 8 (its 16-bit ones stay), 32 to leave activations alone");
  add("act-dynamic", "activations take their range at run time, token by token");
  add_calibration_options(options, true);
  add("range", one_of("ESTIMATOR", "minmax, percentile, mse"),
      "static activation ranges of 10 bits or fewer: minmax (default, the paper's), percentile, mse");
  add("percentile", po::value<double>()->value_name("P"),
      "percent of the values below the upper bound and above the lower one, more than 50 (default: 99.99)");
  add("act-ranges", text("FILE"), "an act_dict.json to use instead of measuring ranges");
  add("keep-16bit", po::value<std::vector<std::string>>()->value_name("POINTS")->composing(),
      "points to give 16 bits: a name such as mlp.w2.input, * for any text, or auto:N for the N most "
      "sensitive; may be repeated");
  add("variant", one_of("NAME", "modified, original"),
      "pairs that smoothing treats: modified (default, the paper's: v to o and up to down as well), "
      "original");
  add("alpha", po::value<double>()->value_name("A"),
      "how much of the outliers moves into the weights, 0 to 1 (default: 0.5)");
  add_rotation_options(options);
  add_learn_options(options);
  add("resume", "continue a learning run that was interrupted in the output folder");
  add("gradients-only", text("FILE"),
      "write the gradients of mobilequant's loss on the first sample at the start, as safetensors, and stop; "
      "needs no -o");
  return options;
}

void check_combinations(const po::variables_map& arguments, quant::Method method) {
  check_method_options(arguments, {&method, 1});
  if (method == quant::Method::gptq && optional<std::string>(arguments, "rounding") == "nearest")
    refuse("rounding", "nearest: not with --method gptq, which is rtn with --rounding gptq");
  if (given(arguments, "range") && given(arguments, "act-ranges")) {
    refuse("range", "not used with --act-ranges, which holds the ranges");
  }
  if (given(arguments, "percentile") && optional<std::string>(arguments, "range") != "percentile") {
    refuse("percentile", "not used without --range percentile");
  }
  if (given(arguments, "resume") && given(arguments, "gradients-only")) {
    refuse("resume", "not used with --gradients-only, which learns nothing");
  }
  const bool no_calibration = !given(arguments, "calibration") && !given(arguments, "calibration-ids");
  for (const char* option : {"range", "percentile"}) {
    if (no_calibration && given(arguments, option)) {
      refuse(option, "not used without --calibration or --calibration-ids");
    }
  }
}

quant::Scheme scheme(const po::variables_map& arguments) {
  quant::Scheme scheme = quant::parse_scheme(arguments["scheme"].as<std::string>());
  for (const char* option : {"weight-bits", "act-bits", "weight-group-size", "weight-per-channel",
                             "weight-symmetric", "act-dynamic", "keep-16bit"}) {
    if (scheme.stored && given(arguments, option))
      refuse(option,
             fmt::format("not used with --scheme {}, which is as the checkpoint says", quant::kStoredScheme));
  }
  if (const auto bits = optional<int>(arguments, "weight-bits")) {
    scheme.weight.bits = in_range("weight-bits", *bits, 2, 16);
  }
  if (const auto bits = optional<int>(arguments, "act-bits")) {
    scheme.activation_bits = *bits == 32 ? 32 : in_range("act-bits", *bits, 2, 16);
  }
  if (const auto size = optional<int64_t>(arguments, "weight-group-size")) {
    scheme.weight.group_size = in_range<int64_t>("weight-group-size", *size, 1, int64_t{1} << 20);
  }
  scheme.weight.per_channel = scheme.weight.per_channel || given(arguments, "weight-per-channel");
  scheme.weight.symmetric = scheme.weight.symmetric || given(arguments, "weight-symmetric");
  scheme.dynamic_activations = given(arguments, "act-dynamic");
  return scheme;
}

/// Options about activations, where the scheme leaves nothing for them to do.
void check_activations(const po::variables_map& arguments, const quant::QuantizeOptions& options,
                       const model::ModelConfig& config) {
  if (options.scheme.dynamic_activations && options.scheme.activation_bits > 16) {
    refuse(
        "act-dynamic",
        "not used where activations stay in float (--scheme w4a16, w4a16-sym or w8a16-sym, --act-bits 32)");
  }
  const bool of_weights =
      quant::weight_rounding(options).range == quant::WeightRange::mse && !given(arguments, "weight-range");
  const bool asked_for = given(arguments, "range");  // or else what the method has of itself
  if (asked_for && options.calibration.estimator != quant::RangeEstimator::minmax && !of_weights &&
      !quant::is_any_narrowed(quant::make_qcfg(config, options.scheme), config)) {
    refuse("range",
           fmt::format("{}: narrows static activation ranges of 10 bits or fewer, of which there are "
                       "none here; accepted: minmax",
                       arguments["range"].as<std::string>()));
  }
}

quant::QuantizeOptions quantize_options(const po::variables_map& arguments,
                                        const model::ModelConfig& config) {
  quant::QuantizeOptions options;
  options.method = quant::parse_method(arguments["method"].as<std::string>());
  if (arguments["method"].defaulted() && is_near_lossless(arguments, quant::Method::mobilequant))
    options.method = quant::Method::mobilequant;
  check_combinations(arguments, options.method);
  options.scheme = scheme(arguments);
  options.variant = quant::parse_variant(optional<std::string>(arguments, "variant").value_or("modified"));
  options.smooth = !given(arguments, "no-smooth");
  options.alpha = in_range("alpha", optional<double>(arguments, "alpha").value_or(0.5), 0.0, 1.0);
  options.calibration.estimator =
      quant::parse_range_estimator(optional<std::string>(arguments, "range").value_or("minmax"));
  options.calibration.percentile = optional<double>(arguments, "percentile").value_or(99.99);
  if (!(options.calibration.percentile > 50 && options.calibration.percentile <= 100)) {
    throw UsageError(fmt::format("--percentile {}: accepted: 50 to 100, without 50 itself",
                                 options.calibration.percentile));
  }
  read_rotation_options(arguments, options);
  if (options.method == quant::Method::rotate && given(arguments, "act-ranges"))
    refuse("act-ranges", "not used by method rotate, which measures ranges of what it rotates");
  if (const auto rounding = optional<std::string>(arguments, "rounding"))
    options.rounding = quant::parse_rounding(*rounding);
  if (const auto range = optional<std::string>(arguments, "weight-range"))
    options.weight_range = quant::parse_weight_range(*range);
  check_activations(arguments, options, config);
  if (const auto file = optional<std::string>(arguments, "act-ranges")) {
    options.act_ranges = quant::read_act_ranges(*file, config);
  }
  if (const auto wishes = optional<std::vector<std::string>>(arguments, "keep-16bit")) {
    options.keep_16bit = *wishes;
  }
  return options;
}

/// --code-lr where no code would move.
void check_code_rate(const po::variables_map& arguments, const quant::LearnSettings& settings,
                     const quant::Scheme& scheme) {
  if (!given(arguments, "code-lr") || scheme.weight.bits < quant::kFewestBitsThatStay) return;
  if (settings.rates[static_cast<size_t>(quant::ParameterGroup::code)].rate == 0) return;
  refuse("code-lr", fmt::format("codes of {} bits stay; accepted: 0, or weights of fewer than {} bits",
                                scheme.weight.bits, quant::kFewestBitsThatStay));
}

/// Calibration text is missing and would be used.
void require_samples(const quant::Samples& samples, const quant::QuantizeOptions& options,
                     const model::ModelConfig& config) {
  if (!samples.empty()) return;
  const auto need = [&](std::string_view what) {
    throw UsageError(fmt::format("--calibration or --calibration-ids is required: {}", what));
  };
  if (options.calibration.first_token_apart)
    need("position 0 is told apart from the others, which are measured");
  if (options.method == quant::Method::smoothquant) need("smoothquant measures channel maxima");
  if (options.method == quant::Method::awq) need("awq measures activations");
  if (quant::is_learned(options.method)) need("learned methods learn on it");
  const quant::WeightRounding rounding = quant::weight_rounding(options);
  if (rounding.needs_samples()) {
    need(rounding.rounding == quant::Rounding::gptq
             ? "GPTQ rounds weights by the inputs that they meet"
             : "--weight-range output weighs errors by the inputs that weights meet");
  }
  for (const std::string& wish : options.keep_16bit) {
    if (quant::automatic_count(wish)) need("--keep-16bit auto measures sensitivities");
  }
  if (options.act_ranges) return;
  const quant::QuantConfig qcfg = quant::make_qcfg(config, options.scheme);
  for (const quant::Point& point : quant::all_points(config)) {
    if (quant::needs_range(qcfg, point)) need("static activation ranges are measured (or give --act-ranges)");
  }
}

int run_quantize(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const auto gradients = optional<std::string>(arguments, "gradients-only");
  const std::filesystem::path output = gradients ? "" : require(arguments, "output");
  model::Model model;
  quant::QuantizeRun run;
  together(peers(), [&] {
    model = load_model(arguments);
    run.options = quantize_options(arguments, model.config);
    if (!run.options.scheme.stored) warn_of_own_rounding(model);
    run.options.calibration.prefix_token = prefix_token_of(arguments, model);
    run.scheme = arguments["scheme"].as<std::string>();
    run.format = quant::parse_checkpoint_format(arguments["format"].as<std::string>());
    run.act_ranges_file = optional<std::string>(arguments, "act-ranges").value_or("");
    run.samples =
        read_samples(arguments, model, default_samples(arguments, {&run.options.method, 1}), &run.warnings);
    require_samples(run.samples, run.options, model.config);
    run.calibration = calibration_json(arguments, run.samples);
    if (quant::is_learned(run.options.method)) {
      run.learning = learn_settings(arguments, run.options.method, run.options.variant, model.config,
                                    run.options.scheme.weight.bits);
      check_code_rate(arguments, *run.learning, run.options.scheme);
      run.save_interval = save_interval(arguments);
      warn_of_idle_ranks(run.learning->batch_size);
    }
  });
  run.peers = peers();
  if (given(arguments, "resume")) run.resume = quant::QuantizeRun::Resume::required;
  run.command = command_line();
  run.version = QEVAL_VERSION;
  run.threads = limit.threads();

  Progress progress;
  const auto show = [&](const std::string& step, int64_t done, int64_t total) {
    if (interrupted()) {
      progress.clear();
      const bool resumable =
          step.starts_with(quant::kLearningStep) || (!gradients && quant::interrupted_steps(output) > 0);
      fail("interrupted{}", resumable ? "; the same command with --resume continues the learning" : "");
    }
    progress.update(step, done, total);
  };
  catch_interrupts();
  if (gradients) {
    if (!peers().alone()) refuse("gradients-only", "of the first sample, which one process computes");
    quant::QuantizedModel start = quant::quantize(model, run.samples, run.options, show);
    write_gradients(*gradients, run.samples, *run.learning, start);
    return 0;
  }
  const std::vector<quant::Warning> warnings = quant::quantize_to_folder(model, run, output, show);
  progress.clear();
  for (const quant::Warning& warning : warnings)
    std::cerr << "qeval: warning: " << quant::one_line(warning) << '\n';
  std::cout << fmt::format("Quantized with {} to {}; evaluate it with: qeval eval -m {} -t TASKS\n",
                           quant::name(run.options.method), output.string(), output.string());
  return 0;
}

}  // namespace

const Command quantize_command{
    .name = "quantize",
    .summary = "Quantize a model: measure ranges, transform weights, write a checkpoint",
    .usage = "-m MODEL --method METHOD --scheme SCHEME --calibration FILE -o DIR [options]",
    .example =
        "qeval quantize -m model.gguf --method smoothquant --scheme w8a8 --calibration text.txt -o "
        "smoothed",
    .options = quantize_options,
    .run = run_quantize,
    .shared = true,
};

}  // namespace qeval::cli
