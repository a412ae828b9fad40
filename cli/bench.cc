#include <algorithm>
#include <iostream>

#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "base/error.h"
#include "base/file.h"
#include "cli/bench_table.h"
#include "cli/command.h"
#include "cli/option_values.h"
#include "eval/engine/session.h"
#include "model/kernels/cpu.h"
#include "quant/arithmetic/integer/run/cpu.h"
#include "quant/arithmetic/prefix.h"
#include "quant/calibrate/calibration.h"

namespace qeval::cli {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kOwn = "own";

po::options_description bench_options() {
  po::options_description options("Options");
  add_model_options(options);
  auto add = options.add_options();
  add("schemes", some_of("LIST", fmt::format("fp, {}, {}", kOwn, quant::kSchemeNames), scheme_groups()),
      "what to measure: fp (the model as it is, in float), w8a16, w8a8, w4a8, w4a8-sym (rounded to nearest), "
      "own (a "
      "quantized checkpoint as it stands); default: fp,w8a16,w8a8,w4a8, or fp,own of a checkpoint");
  add("arithmetic", one_of("A", "integer, fake")->default_value("integer"),
      "how the quantized ones compute: integer or fake");
  add("prompt", po::value<int64_t>()->value_name("N"),
      "tokens of the prompt (default: 256, or the model's context if shorter)");
  add("contexts", po::value<std::string>()->value_name("LIST"),
      "lengths of text at which generation is timed (default: 1024,2048, as far as the model reaches)");
  add("generate", po::value<int64_t>()->value_name("N"),
      "tokens timed at each of them (default: 16, or what the shortest leaves)");
  add("repeat", po::value<int64_t>()->value_name("N")->default_value(5), "prompts timed");
  add("warmup", po::value<int64_t>()->value_name("N")->default_value(1),
      "prompts, and tokens at each length, that are not timed");
  add("output,o", po::value<std::string>()->value_name("FILE"), "write the figures as JSON, too");
  add("powercap", po::value<std::string>()->value_name("DIR")->default_value("/sys/class/powercap"),
      "where the kernel shows energy counters");
  return options;
}

std::vector<int64_t> parse_contexts(const std::optional<std::string>& list, int64_t context) {
  std::vector<int64_t> lengths;
  if (!list) {
    for (const int64_t length : {1024, 2048}) lengths.push_back(std::min<int64_t>(length, context));
  } else {
    for (const std::string& word : split_list(*list)) {
      const bool number =
          !word.empty() && word.size() < 10 && word.find_first_not_of("0123456789") == std::string::npos;
      const int64_t length = number ? std::stoll(word) : 0;
      if (length < 2 || length > context) {
        throw UsageError(
            fmt::format("--contexts {}: accepted: 2 to {}, the model's context", printable(word), context));
      }
      lengths.push_back(length);
    }
  }
  std::ranges::sort(lengths);
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

int64_t at_least(const po::variables_map& arguments, const char* option, int64_t least,
                 int64_t otherwise = 0) {
  return in_range<int64_t>(option, optional<int64_t>(arguments, option).value_or(otherwise), least,
                           1'000'000);
}

struct Job {
  std::filesystem::path model;
  std::string scheme, arithmetic;
  LatencySettings settings;
};

/// Ranges from made-up text: they say nothing about a model's quality, and its speed does not depend on them.
quant::ActRanges some_ranges(const model::Model& model, const quant::QuantConfig& qcfg) {
  quant::Samples samples(1);
  for (int64_t i = 0; i < std::min<int64_t>(64, model.config.max_position_embeddings); ++i) {
    samples[0].push_back(static_cast<int32_t>((i * 7919 + 13) % model.config.vocab_size));
  }
  return quant::calibrate(model, samples, qcfg, {}).ranges;
}

/// Loads, prepares and measures one scheme, in a process of its own.
ordered_json measure(const Job& job) {
  const model::Model model = model::load_model(job.model);
  LatencySettings settings = job.settings;
  const int64_t positions =
      std::max(job.settings.prompt, job.settings.contexts.empty() ? 0 : job.settings.contexts.back());
  std::unique_ptr<model::Arithmetic> arithmetic;
  int64_t read_in_place = model.embedding.byte_count();
  if (job.scheme == "fp") {
    arithmetic = model::make_float_arithmetic(model, positions);
    read_in_place = model.weight_bytes();
  } else {
    quant::Quantization q;
    if (job.scheme == kOwn) {
      q = quant::load_quantization(model, std::nullopt, std::nullopt);
    } else {
      q.qcfg = quant::make_qcfg(model.config, quant::parse_scheme(job.scheme));
      q.known_ranges = some_ranges(model, q.qcfg);
      q.ranges = quant::complete_ranges(q.qcfg, q.known_ranges, model.config, "made-up text");
    }
    if (q.prefix) settings.start = q.prefix->token;
    if (job.arithmetic == "integer") {
      arithmetic = quant::make_integer_arithmetic(model, q, positions);
    } else {
      arithmetic = quant::make_fake_arithmetic(model, q, positions);
    }
  }
#if defined(__GLIBC__)
  ::malloc_trim(0);  // what preparing needed is no part of the model's memory
#endif
  model::Decoder decoder(model, *arithmetic);
  ordered_json result = to_json(measure_latency(decoder, settings, EnergyCounters(job.settings.powercap)));
  result["weights_read_in_place_bytes"] = read_in_place;
  return result;
}

/// Runs `measure` in a child, so that each scheme has its own memory. The child's failure is this one's.
ordered_json measure_apart(const Job& job) {
  int pipe[2];
  if (::pipe(pipe) != 0) fail("cannot make a pipe");
  const pid_t child = ::fork();
  if (child < 0) fail("cannot start a process");
  if (child == 0) {
    ::close(pipe[0]);
    ordered_json answer;
    try {
      answer["latency"] = measure(job);
    } catch (const std::bad_alloc&) {
      answer["error"] = "out of memory";
    } catch (const std::exception& error) {
      answer["error"] = error.what();
    }
    const std::string text = answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    for (size_t at = 0; at < text.size();) {
      const ssize_t count = ::write(pipe[1], text.data() + at, text.size() - at);
      if (count <= 0) break;
      at += static_cast<size_t>(count);
    }
    ::_exit(0);
  }
  ::close(pipe[1]);
  std::string text;
  char buffer[4096];
  ssize_t count = 0;
  while ((count = ::read(pipe[0], buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(count));
  ::close(pipe[0]);
  int state = 0;
  ::waitpid(child, &state, 0);
  const ordered_json answer = ordered_json::parse(text, nullptr, false);
  if (!answer.is_object())
    fail("{}: the measuring process ended before it was done (out of memory?)", job.scheme);
  if (answer.contains("error")) fail("{}: {}", job.scheme, answer["error"].get<std::string>());
  return answer.at("latency");
}

int run_bench(const po::variables_map& arguments) {
  const std::filesystem::path path = require(arguments, "model");
  const auto arithmetic = arguments["arithmetic"].as<std::string>();
  LatencySettings settings{.prompt = at_least(arguments, "prompt", 1, 256),
                           .contexts = {},
                           .generate = at_least(arguments, "generate", 1, 16),
                           .repeat = at_least(arguments, "repeat", 1),
                           .warmup = at_least(arguments, "warmup", 0),
                           .powercap = arguments["powercap"].as<std::string>()};
  const bool checkpoint = quant::is_quantized_checkpoint(path);
  const std::vector<std::string> schemes = split_list(
      optional<std::string>(arguments, "schemes").value_or(checkpoint ? "fp,own" : "fp,w8a16,w8a8,w4a8"));
  for (const std::string& scheme : schemes) {
    if (scheme == "fp") continue;
    if (scheme == kOwn && checkpoint) continue;
    if (scheme == kOwn)
      throw UsageError(fmt::format("--schemes own: {} is no quantized checkpoint", path.string()));
    if (arithmetic == "integer" && quant::parse_scheme(scheme).activation_bits > 16) {
      throw UsageError(fmt::format(
          "--schemes {}: leaves activations in float; accepted with --arithmetic fake", printable(scheme)));
    }
  }
  BenchReport report;
  {
    const model::Model model = model::load_model(path);
    const int64_t context = model.config.max_position_embeddings;
    settings.contexts = parse_contexts(optional<std::string>(arguments, "contexts"), context);
    if (arguments.count("prompt") == 0) settings.prompt = std::min(settings.prompt, context);
    if (settings.prompt > context) {
      throw UsageError(
          fmt::format("--prompt {}: accepted: 1 to {}, the model's context", settings.prompt, context));
    }
    if (arguments.count("generate") == 0)
      settings.generate = std::min(settings.generate, settings.contexts.front() - 1);
    if (settings.generate >= settings.contexts.front()) {
      throw UsageError(fmt::format("--generate {}: less than the shortest of --contexts, {}",
                                   settings.generate, settings.contexts.front()));
    }
    report.model = model.name;
  }
  // The children start threads of their own, to this limit, which they inherit.
  const ThreadLimit limit(arguments);
  report.machine =
      fmt::format("{}, {}, {} threads", model::cpu_name(), quant::kernels_in_force(), limit.threads());
  report.settings = settings;
  report.energy_note = EnergyCounters(settings.powercap).reason();
  for (const std::string& scheme : schemes) {
    std::cerr << fmt::format("measuring {}\n", scheme);
    const ordered_json measured = measure_apart({path, scheme, arithmetic, settings});
    report.rows.push_back({scheme, scheme == "fp" ? "float" : arithmetic, latency_from_json(measured),
                           measured.at("weights_read_in_place_bytes")});
  }
  if (const auto file = optional<std::string>(arguments, "output")) {
    write_file_atomically(*file, to_json(report).dump(2) + "\n");
  }
  std::cout << to_text(report);
  return 0;
}

}  // namespace

const Command bench_command{
    .name = "bench",
    .summary = "Latency, speed and memory of a model, float and quantized, at MobileQuant's settings",
    .usage = "-m MODEL [--schemes LIST] [options]",
    .example = "qeval bench -m model.gguf -o bench.json",
    .options = bench_options,
    .run = run_bench,
};

}  // namespace qeval::cli
