#include <algorithm>
#include <array>
#include <iostream>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/shell.h"
#include "cli/calibration_options.h"
#include "cli/command.h"
#include "cli/compared_models.h"
#include "cli/evaluate.h"
#include "cli/evaluation_options.h"
#include "cli/interrupt.h"
#include "cli/learn.h"
#include "cli/method_options.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "eval/compare/compare_work.h"
#include "eval/results/comparison_table.h"
#include "quant/arithmetic/prefix.h"
#include "reports/build.h"
#include "reports/render/scatter.h"
#include "reports/render/write.h"

namespace qeval::cli {
namespace {

/// Options that belong to the commands reproducing an entry, besides their values: what was given is
/// repeated.
constexpr std::array kEvaluationOptions{"tasks",
                                        "data",
                                        "num-fewshot",
                                        "split",
                                        "limit",
                                        "max-length",
                                        "protocol",
                                        "prefix-token",
                                        "add-bos-token",
                                        "gen-kwargs",
                                        "confirm-run-unsafe-code",
                                        "apply-chat-template",
                                        "system-instruction",
                                        "fewshot-as-multiturn",
                                        "chat-template-args"};
constexpr std::array kRotationOptions{"rotate", "rotate-keys", "rotate-block", "first-token"};
constexpr std::array kQuantizeOptions{"calibration", "calibration-ids", "samples", "sequence-length", "seed"};

po::options_description compare_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_with_option(options);
  add_task_options(options);
  auto add = options.add_options();
  const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
  add("output,o", text("DIR"),
      "folder for checkpoints, results and reports; the same command continues there");
  add("methods", some_of("LIST", quant::kMethodNames)->default_value("rtn,smoothquant,mobilequant,rotate"),
      "methods to compare: rtn, gptq, awq, smoothquant, omniquant, lrl, mobilequant, rotate (with --with: "
      "none "
      "unless named)");
  add("schemes", some_of("LIST", quant::kSchemeNames, scheme_groups())->default_value("w8a8,w4a8"),
      "schemes: w8a8, w4a8, w4a8-sym, w8a16, w4a16, w4a16-sym, w3a16, w3a16-sym, w8a16-sym; with groups of N "
      "inputs: w4a8-g64");
  add("arithmetic", some_of("LIST", "fake, integer")->default_value("fake"),
      "how the quantized models compute: fake, integer, or both");
  add("integer", one_of("WHICH", "best, all"),
      "best: besides fake, run the quantized model that loses least in integers; all: every one (as "
      "--arithmetic fake,integer)");
  add("text", text("FILE"),
      "a text, not that of the calibration, on which every run's predictions are compared with the base's");
  add("losses",
      "with --text: what the weights of GGUF files, their activations as llama.cpp rounds them, and keys and "
      "values cost, each alone; five more runs over the text per file");
  add("context", po::value<int64_t>()->value_name("N")->default_value(512), "tokens per window of --text");
  add("plan",
      "check everything, the output folder included, print what would be done and how long it would "
      "take, and stop");
  add("ranks", po::value<int64_t>()->value_name("N"),
      "with --plan: how long it would take N ranks (mpirun) on machines like this one");
  add_encoding_options(options);
  add_calibration_options(options, true);
  add("variant", one_of("NAME", "modified, original"),
      "pairs that smoothing treats: modified (default, the paper's: v to o and up to down as well), "
      "original");
  add("alpha", po::value<double>()->value_name("A"),
      "how much of the outliers moves into the weights, 0 to 1 (default: 0.5)");
  add_rotation_options(options);
  add_learn_options(options);
  return options;
}

std::vector<quant::Method> methods(const po::variables_map& arguments) {
  std::vector<quant::Method> out;
  if (given(arguments, "with") && arguments["methods"].defaulted()) return out;
  for (const std::string& name : split_list(arguments["methods"].as<std::string>()))
    out.push_back(quant::parse_method(name));
  return out;
}

void read_arithmetics(const po::variables_map& arguments, eval::CompareOptions& options) {
  options.fake = false;
  for (const std::string& name : split_list(arguments["arithmetic"].as<std::string>())) {
    if (name == "fake") {
      options.fake = true;
    } else {
      options.integer = eval::IntegerRuns::all;
    }
  }
  const auto which = optional<std::string>(arguments, "integer");
  if (!which) return;
  if (options.integer == eval::IntegerRuns::all) refuse("integer", "not used with --arithmetic integer");
  options.integer = *which == "best" ? eval::IntegerRuns::best : eval::IntegerRuns::all;
}

eval::CompareOptions compare_options(const po::variables_map& arguments, const ThreadLimit& limit) {
  eval::CompareOptions options;
  options.methods = methods(arguments);
  check_method_options(arguments, options.methods);
  if (std::ranges::none_of(options.methods, [&](quant::Method method) {
        return method == quant::Method::rotate || is_near_lossless(arguments, method);
      })) {
    for (const char* option : kRotationOptions) {
      if (given(arguments, option))
        refuse(option, "used by method rotate and by mobilequant with --preset near-lossless alone here");
    }
  }
  options.schemes = split_list(arguments["schemes"].as<std::string>());
  read_arithmetics(arguments, options);
  options.session.model = require(arguments, "model");
  options.session.max_length = optional<int64_t>(arguments, "max-length");
  options.output = require(arguments, "output");
  options.evaluation = task_options(arguments, limit);

  for (const ComparedModel& model : compared_models(arguments))
    options.given.push_back({model.path, model.arithmetic, model.label});
  if (const auto text = optional<std::string>(arguments, "text")) {
    options.text = {*text, in_range<int64_t>("context", arguments["context"].as<int64_t>(), 1, 1 << 24),
                    given(arguments, "losses")};
    const bool has_file = std::ranges::any_of(
        options.given, [](const auto& model) { return !std::filesystem::is_directory(model.path); });
    if (options.text->losses && !has_file) refuse("losses", "none of the --with models is a GGUF file");
  } else if (given(arguments, "losses")) {
    refuse("losses", "not used without --text");
  } else if (!arguments["context"].defaulted()) {
    refuse("context", "not used without --text");
  }
  if (options.methods.empty()) {
    for (const char* option : {"schemes", "arithmetic", "integer", "calibration", "calibration-ids",
                               "samples", "sequence-length", "seed", "variant", "alpha", "no-smooth"}) {
      if (arguments.count(option) != 0 && !arguments[option].defaulted())
        refuse(option, "not used without --methods");
    }
  } else if (!given(arguments, "calibration") && !given(arguments, "calibration-ids")) {
    throw UsageError(
        "--calibration or --calibration-ids is required: text like the model's use, that is not evaluated "
        "on");
  }
  quant::QuantizeRun& quantize = options.quantize;
  quantize.options.variant =
      quant::parse_variant(optional<std::string>(arguments, "variant").value_or("modified"));
  quantize.options.alpha = in_range("alpha", optional<double>(arguments, "alpha").value_or(0.5), 0.0, 1.0);
  quantize.options.smooth = !given(arguments, "no-smooth");
  options.rotated.method = quant::Method::rotate;
  read_rotation_options(arguments, options.rotated);
  for (const std::string& scheme : options.schemes) {
    if (quant::parse_scheme(scheme).activation_bits > 16 && options.rotated.calibration.first_token_apart &&
        given(arguments, "first-token")) {
      refuse("first-token", fmt::format("{}: not with scheme {}, whose activations have no ranges",
                                        arguments["first-token"].as<std::string>(), scheme));
    }
  }
  quantize.save_interval = save_interval(arguments);
  quantize.version = QEVAL_VERSION;
  quantize.threads = limit.threads();
  return options;
}

/// The commands that reproduce one entry alone.
eval::CommandSpelling spelling(const po::variables_map& arguments, const eval::CompareOptions& options) {
  std::string quantize = repeated(arguments, kQuantizeOptions);
  // The preset of one method decides for all, whose commands must say so.
  if (given(arguments, "preset") && given(arguments, "calibration")) {
    const quant::Samples& samples = options.quantize.samples;
    if (!given(arguments, "samples")) quantize += fmt::format(" --samples {}", samples.size());
    if (!given(arguments, "sequence-length"))
      quantize += fmt::format(" --sequence-length {}", samples.front().size());
  }
  std::map<quant::Method, std::string> learn;
  for (const quant::Method method : options.methods)
    if (quant::is_learned(method))
      learn[method] = repeated(arguments, applied_learn_options(arguments, method));
  const std::string rotation = repeated(arguments, kRotationOptions);
  const bool near_lossless = is_near_lossless(arguments, quant::Method::mobilequant);
  const auto is_rotated = [near_lossless](quant::Method method) {
    return method == quant::Method::rotate || (near_lossless && method == quant::Method::mobilequant);
  };
  const auto with_space = [](const std::string& text) { return text.empty() ? "" : " " + text; };
  std::string evaluated = repeated(arguments, kEvaluationOptions);
  if (options.evaluation.add_bos && !given(arguments, "add-bos-token"))
    evaluated += " --add-bos-token always";
  return {[evaluation = evaluated](const auto& model, const auto& arithmetic, const auto& base,
                                   const auto& output) {
            return eval_command_text(model, evaluation, arithmetic, base, output);
          },
          [=](const auto& model, const quant::QuantizeRun& run, const auto& output) {
            const quant::Method method = run.options.method;
            std::string text =
                fmt::format("qeval quantize -m {} --method {} --scheme {}{}", shell_quoted(model.string()),
                            quant::name(method), run.scheme, with_space(quantize));
            if (is_rotated(method)) text += with_space(rotation);
            if (quant::has_variant(method) && !is_rotated(method))
              text += fmt::format(" --variant {}", quant::name(run.options.variant));
            if (quant::smooths(run.options)) text += fmt::format(" --alpha {}", run.options.alpha);
            if (const auto found = learn.find(method); found != learn.end())
              text += with_space(found->second);
            return text + " -o " + shell_quoted(output.string());
          }};
}

/// Of the methods and schemes that nobody named, those that lack an operation of the model are left out, and
/// a warning says so; others are refused before any work is done.
void fit_to_model(const po::variables_map& arguments, const model::ModelConfig& config,
                  eval::CompareOptions& options) {
  const auto obstacle = [&](quant::Method method, const std::string& scheme) -> std::string {
    try {
      quant::require_method(config, method, quant::parse_scheme(scheme));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto refuse_named = [&](const char* option, const std::string& reason) {
    if (!arguments[option].defaulted()) throw Error(reason);
  };
  if (options.methods.empty()) return;
  std::string warnings;  // printed once nothing is refused
  for (const std::string& scheme : options.schemes) {
    const std::string reason = obstacle(quant::Method::rtn, scheme);
    if (reason.empty()) continue;
    refuse_named("schemes", reason);
    options.schemes = {"w8a16-sym", "w4a16-sym"};
    warnings += fmt::format("qeval: warning: schemes of weights alone (w8a16-sym, w4a16-sym): {}\n", reason);
    break;
  }
  std::erase_if(options.methods, [&](quant::Method method) {
    const std::string reason = obstacle(method, options.schemes.front());
    if (reason.empty()) return false;
    refuse_named("methods", reason);
    warnings += fmt::format("qeval: warning: method {} left out: {}\n", quant::name(method), reason);
    return true;
  });
  std::cerr << warnings;
}

/// What depends on the model: calibration samples and the settings of learned methods.
void read_model_options(const po::variables_map& arguments, eval::CompareOptions& options) {
  const model::Model model = model::load_model(options.session.model);
  fit_to_model(arguments, model.config, options);
  const bool keeps = std::ranges::find(options.schemes, quant::kStoredScheme) != options.schemes.end();
  warn_of_own_rounding(model, keeps ? fmt::format(", but under the scheme {}", quant::kStoredScheme) : "");
  if (options.text && arguments["context"].defaulted())
    options.text->context = std::min(options.text->context, model.config.context());
  options.rotated.calibration.prefix_token = prefix_token_of(arguments, model);
  if (options.rotated.calibration.prefix_token) {
    // The base and the other methods are scored on the same sequences.
    if (options.evaluation.add_bos.value_or(eval::AddBos::always) != eval::AddBos::always)
      refuse("add-bos-token", "not what --first-token prefix needs; accepted with it: always");
    options.evaluation.add_bos = eval::AddBos::always;
  }
  for (const eval::GivenModel& other : options.given) {
    if (!std::filesystem::exists(other.path / quant::kPrefixFile)) continue;
    if (options.evaluation.add_bos.value_or(eval::AddBos::always) != eval::AddBos::always)
      refuse("add-bos-token",
             fmt::format("not what {} needs, which was quantized with a prefix; accepted with it: always",
                         printable(other.path.string())));
    options.evaluation.add_bos = eval::AddBos::always;
  }
  options.quantize.samples =
      read_samples(arguments, model, default_samples(arguments, options.methods), &options.quantize.warnings);
  options.quantize.calibration = calibration_json(arguments, options.quantize.samples);
  for (const quant::Method method : options.methods) {
    if (!quant::is_learned(method)) continue;
    for (const std::string& scheme : options.schemes) {
      options.learning[{method, scheme}] =
          learn_settings(arguments, method, options.quantize.options.variant, model.config,
                         quant::parse_scheme(scheme).weight.bits);
    }
  }
  options.spelling = spelling(arguments, options);
}

void print_plan(eval::CompareWork& work, int64_t ranks) {
  const std::vector<eval::CompareStep> steps = work.plan(ranks);
  const std::string about = ranks == 1 ? "about" : fmt::format("{} ranks", ranks);
  std::cout << fmt::format("{:<44} {:>12} {:>10}\n", "step", "tokens", about);
  double left = 0;
  for (const eval::CompareStep& step : steps) {
    std::cout << fmt::format("{:<44} {:>12} {:>10}\n", step.name, step.tokens,
                             step.finished ? "done" : format_duration(step.left));
    left += step.left;
  }
  std::cout << fmt::format("{:<44} {:>12} {:>10}\n\nThe folder will take about {:.1f} GB.\n", "left to do",
                           "", format_duration(left), static_cast<double>(work.disk_bytes()) / 1e9)
            << std::flush;
}

/// A line of progress for the work under way, and a line for each step that is finished.
eval::CompareObserver observer(std::optional<Progress>& progress) {
  return {[&progress](const std::string& what, int64_t done, int64_t total) {
            if (interrupted()) {
              progress.reset();
              fail("interrupted; the same command continues");
            }
            if (!progress || done == 0) progress.emplace();
            progress->update(what, done, total);
          },
          [&progress](const std::string& step, double seconds) {
            progress.reset();
            std::cout << fmt::format("{:<44} {:>10}\n", step, format_duration(seconds)) << std::flush;
          },
          [&progress](const std::string& warning) {
            progress.reset();
            std::cerr << "qeval: warning: " << warning << std::endl;
          }};
}

/// report.md with its plots and report.html beside the results, and the verdict.
void write_reports(const std::filesystem::path& output, const eval::Comparison& comparison) {
  const reports::Outputs outputs{.markdown = output / "report.md", .html = output / "report.html"};
  const std::array folders{output};
  reports::BuildOptions options;
  options.comparison = &comparison;
  const reports::Report report = reports::build_report(reports::read_sources(folders), options);
  reports::write_report(report, outputs);
  for (const std::string& sentence : report.verdict) std::cout << sentence << '\n';
  if (const std::string plot = reports::terminal_plot(report); !plot.empty())
    std::cout << '\n' << plot << '\n';
  std::cout << fmt::format("Report:  {}, {}\n", outputs.markdown->string(), outputs.html->string());
}

int run_compare(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  eval::CompareOptions options = compare_options(arguments, limit);
  options.evaluation.peers = peers();
  const std::filesystem::path output = options.output;
  const bool plan_only = arguments.count("plan") != 0;
  const auto ranks =
      in_range<int64_t>("ranks", optional<int64_t>(arguments, "ranks").value_or(1), 1, 100'000);
  if (ranks > 1 && !plan_only)
    throw UsageError("--ranks: only with --plan; mpirun starts the ranks of a run");
  std::optional<eval::CompareWork> prepared;
  together(peers(), [&] {
    read_model_options(arguments, options);
    prepared.emplace(std::move(options));
  });
  eval::CompareWork& work = *prepared;
  if (plan_only) {
    on_first(peers(), [&] { work.check_folder(); });
  } else {
    work.open_folder();
  }
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (const auto& [of, settings] : work.options().learning) fewest = std::min(fewest, settings.batch_size);
  warn_of_idle_ranks(fewest);
  on_first(peers(), [&] { print_plan(work, ranks); });
  if (plan_only) return 0;
  std::cout << '\n';
  catch_interrupts();
  std::optional<Progress> progress;
  const eval::Comparison comparison = work.run(observer(progress));
  if (!peers().is_first()) return 0;
  std::cout << fmt::format("\nAgainst {} in float:\n\n", printable(comparison.base.results.model.name))
            << eval::render_comparison(comparison);
  if (const eval::DivergenceResults* text = work.text()) {
    std::cout << fmt::format("\nPredictions of {} ({} windows of up to {} tokens):\n\n",
                             printable(text->text.file), text->text.windows, text->text.context)
              << eval::render_divergence(*text);
  }
  std::cout << fmt::format("\nResults: {}\n", (output / eval::results_file).string());
  write_reports(output, comparison);
  return 0;
}

}  // namespace

const Command compare_command{
    .name = "compare",
    .summary = "Score a model, quantized versions of it and what methods make of it; report what each costs",
    .usage =
        "-m MODEL -t TASKS [--with PATH[@A][=LABEL]]... [--methods LIST --calibration FILE] -o OUT [options]",
    .example =
        "qeval compare -m model.gguf -t sample --calibration text.txt --methods rtn,smoothquant -o compared",
    .options = compare_options,
    .run = run_compare,
    .shared = true,
};

}  // namespace qeval::cli
