#include "quant/quantize_run.h"

#include <algorithm>
#include <array>
#include <exception>
#include <fstream>

#include "base/directory_lock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/setting.h"
#include "model/export.h"
#include "quant/arithmetic/prefix.h"
#include "quant/checkpoint/checkpoint.h"
#include "quant/grid/stored_codes.h"
#include "quant/methods/gptq.h"
#include "quant/methods/layer_errors.h"
#include "quant/methods/learn/fold.h"
#include "quant/methods/learn/learn_state.h"

namespace qeval::quant {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

ordered_json settings_json(const QuantizeRun& run) {
  const QuantizeOptions& options = run.options;
  const QuantSpec& weight = options.scheme.weight;
  ordered_json json{{"scheme", run.scheme}};
  if (!options.scheme.stored) {  // else the checkpoint's own
    json.update({{"weight_bits", weight.bits},
                 {"weight_symmetric", weight.symmetric},
                 {"weight_per_channel", weight.per_channel},
                 {"weight_group_size", weight.group_size},
                 {"act_bits", options.scheme.activation_bits},
                 {"act_dynamic", options.scheme.dynamic_activations}});
  }
  if (options.act_ranges) {
    json["act_ranges"] = printable(run.act_ranges_file, 4096);
  } else {
    json["range"] = name(options.calibration.estimator);
    if (options.calibration.estimator == RangeEstimator::percentile)
      json["percentile"] = options.calibration.percentile;
  }
  const WeightRounding rounding = weight_rounding(options);
  if (rounding.makes_codes()) {
    json["rounding"] = name(rounding.rounding);
    json["weight_range"] = name(rounding.range);
    if (rounding.rounding == Rounding::gptq) {
      json["gptq"] = {{"damping", kGptqDamping},
                      {"order", "falling diagonal"},
                      {"groups", "static"},
                      {"inputs", "of the float model"}};
    }
  }
  if (has_variant(options.method)) {
    if (is_learned(options.method)) json["smooth"] = options.smooth;
    json["variant"] = name(options.variant);
    json["alpha"] = options.alpha;
  }
  if (options.rotation.any()) {
    json["rotate"] = name(options.rotation.kind);
    json["rotate_keys"] = options.rotation.keys;
    json["rotate_block"] = options.rotation.block;
    json["rotate_seed"] = options.rotation.seed;
  }
  if (options.calibration.first_token_apart)
    json["first_token"] = name(first_token_mode(options.calibration));
  if (!options.keep_16bit.empty()) json["keep_16bit"] = options.keep_16bit;
  return json;
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
  void add(const StepRecord& record) {
    out_ << step_json(record) << "\n" << std::flush;
    if (!out_) fail("{}: cannot write", path_.string());
  }

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

/// A block's weights as learning takes them. Those that are codes are decoded into a buffer each, behind
/// `values`.
BlockWeights<float> view_block(EditableModel& model, int64_t layer, std::vector<AlignedBuffer>& values) {
  BlockWeights<float> block;
  const model::LayerWeights& stored = model.model().layers[static_cast<size_t>(layer)];
  for (const auto& [module, weights] : stored.norms) {
    model::NormWeights& norm = model.norm(layer, module);
    block.norm(module) = {&norm.weight, &norm.bias};
  }
  for (const auto& [module, weights] : stored.linears) {
    const model::Matrix& matrix = weights.weight;
    if (matrix.stored.coded() == nullptr) {
      const auto linear = model.linear(layer, module);
      block.linear(module) = {linear.weight, linear.rows, linear.cols, &linear.bias};
      continue;
    }
    AlignedBuffer& buffer = values.emplace_back();
    buffer.resize(static_cast<size_t>(matrix.rows * matrix.cols) * sizeof(float));
    matrix.decode_rows(0, matrix.rows, buffer.as<float>());
    block.linear(module) = {buffer.as<float>(), matrix.rows, matrix.cols, &model.bias(layer, module)};
  }
  return block;
}

std::vector<Warning> learned_scale_warnings(const std::vector<BlockParameters<float>>& learned) {
  ScaleCheck check("learned scales");
  for (size_t layer = 0; layer < learned.size(); ++layer) {
    for (const LetScale<float>& let : learned[layer].let) {
      if (let.edge.consumers.empty()) continue;  // of a norm alone
      check.add(static_cast<int64_t>(layer), edge_name(let.edge), let.value);
    }
  }
  return check.warnings();
}

/// Gives the weights the codes that were learned, and their grids the scales.
void take_codes(const std::vector<BlockParameters<float>>& learned, EditableModel& model) {
  for (size_t layer = 0; layer < learned.size(); ++layer) {
    for (size_t m = 0; m < learned[layer].factor.size(); ++m) {
      const Parameter<float>& factor = learned[layer].factor[m];
      if (factor.value.empty()) continue;
      const auto module = static_cast<Module>(m);
      const auto l = static_cast<int64_t>(layer);
      QuantizedMatrix codes = quantized_weight(model.weight(l, module), learned[layer].codes[m]);
      take_learned(learned[layer].code[m], factor, codes);
      model.set_codes(l, module, codes);
    }
  }
}

/// Those of the run, without a rate for codes where these stay.
LearnSettings applied_settings(const QuantizeRun& run) {
  LearnSettings settings = *run.learning;
  if (run.options.scheme.weight.bits >= kFewestBitsThatStay)
    settings.rates[static_cast<size_t>(ParameterGroup::code)] = {};
  return settings;
}

/// Learns, from the beginning or from the state in the folder.
void learn_in_folder(const QuantizeRun& run, const std::string& fingerprint,
                     const std::filesystem::path& folder, bool resume, const TokenProgress& progress,
                     const ProgressFunction& report, QuantizedModel& model) {
  const LearnSettings settings = applied_settings(run);
  const std::filesystem::path state_file = folder / kStateFile;
  std::vector<AlignedBuffer> values;
  LearnProblem problem = settings.round_first ? coded_learn_problem(run.samples, model, run.options, settings,
                                                                    values, report, run.peers)
                                              : learn_problem(run.samples, model);
  LearnState start;
  std::optional<TrainingLog> log;
  together(run.peers, [&] {
    if (resume) {
      start = initial_state(problem, settings);
      load_state(state_file, fingerprint, start);
    }
    if (run.peers.is_first()) log.emplace(folder / kTrainingFile, start.step);
  });
  Clock::time_point saved = Clock::now();
  std::exception_ptr interruption;  // waits until the step that it came at is saved
  const LearnObserver observer{
      [&](const StepRecord& record) {
        if (log) log->add(record);
        if (!progress) return;
        const std::string where = record.layer >= 0 ? fmt::format("layer {}, ", record.layer) : "";
        const int64_t tokens = std::ssize(run.samples.front()) * settings.batch_size;
        try {
          progress(fmt::format("{}: {}loss {:.4g}", kLearningStep, where, record.loss),
                   (record.step + 1) * tokens, record.steps * tokens);
        } catch (...) {
          interruption = std::current_exception();
        }
      },
      [&](const LearnState& state, bool failing) {
        const bool now = failing || interruption != nullptr || Clock::now() - saved >= run.save_interval;
        if (now && run.peers.is_first()) {
          save_state(state_file, state, fingerprint);
          saved = Clock::now();
        }
        if (interruption) std::rethrow_exception(interruption);
      }};
  const std::vector<BlockParameters<float>> learned =
      learn(problem, settings, observer, resume ? &start : nullptr, run.peers);
  if (problem.codes) take_codes(learned, *model.edited);
  for (Warning& warning : learned_scale_warnings(learned)) model.warnings.push_back(std::move(warning));
  // What learning does not touch (the final norm, the head) keeps its measured ranges.
  for (const Point& point : all_points(problem.model->config)) {
    if (problem.ranges[point]) model.ranges[point] = problem.ranges[point];
  }
}

/// Whether the run goes on with a state that an interrupted one left; an Error where it should and cannot.
bool continues(const QuantizeRun& run, const std::filesystem::path& folder) {
  if (!run.learning || run.resume == QuantizeRun::Resume::no) return false;
  std::error_code code;
  const bool interrupted = std::filesystem::exists(folder / kStateFile, code);
  if (!interrupted && run.resume == QuantizeRun::Resume::required) {
    fail(
        "{}: has no {}: no learning run was interrupted here, or before its first step; accepted: the same "
        "command without {}, which begins one",
        folder.string(), kStateFile, setting("resume"));
  }
  return interrupted;
}

Samples first_samples(const Samples& samples) {
  constexpr std::ptrdiff_t kSamples = 2;
  return {samples.begin(), samples.begin() + std::min(std::ssize(samples), kSamples)};
}

/// Where in the model the quantized one leaves the float one, on the first few samples.
void add_layer_errors(const QuantizedModel& model, const Samples& samples, ordered_json& record) {
  const Samples few = first_samples(samples);
  const std::vector<double> errors = layer_errors(model, few);
  record["layer_errors_unit"] = "relative squared error of the block's output";
  for (size_t layer = 0; layer < errors.size(); ++layer)
    record["layer_errors"].push_back({{"layer", layer}, {"error", errors[layer]}});
}

}  // namespace

ordered_json learn_json(const LearnSettings& settings) {
  constexpr std::array<const char*, kParameterGroups> kGroups{"let", "lwc", "lrl", "code"};
  ordered_json json{{"loss", loss_name(settings.loss)},
                    {"epochs", settings.epochs},
                    {"batch_size", settings.batch_size},
                    {"warmup_epochs", settings.warmup_epochs}};
  for (size_t g = 0; g < kGroups.size(); ++g) {
    if (g == static_cast<size_t>(ParameterGroup::code) && settings.rates[g].rate == 0) continue;
    json[fmt::format("{}_lr", kGroups[g])] = settings.rates[g].rate;
    json[fmt::format("{}_min_lr", kGroups[g])] = settings.rates[g].minimum;
  }
  if (settings.relative_ranges) json["lrl_relative"] = true;
  if (settings.round_first) json["round_first"] = true;
  return json;
}

std::optional<LearnMethod> learn_method(Method method) {
  switch (method) {
    case Method::omniquant:
      return LearnMethod::omniquant;
    case Method::lrl:
      return LearnMethod::lrl;
    case Method::mobilequant:
      return LearnMethod::mobilequant;
    case Method::rtn:
    case Method::gptq:
    case Method::awq:
    case Method::smoothquant:
    case Method::rotate:
      break;
  }
  return std::nullopt;
}

int64_t interrupted_steps(const std::filesystem::path& folder) {
  std::error_code code;
  return std::filesystem::exists(folder / kStateFile, code) ? saved_steps(folder / kStateFile) : 0;
}

int64_t layer_error_tokens(const Samples& samples) {
  int64_t tokens = 0;
  for (const auto& sample : first_samples(samples)) tokens += std::ssize(sample);
  return tokens;
}

namespace {

void view_blocks(QuantizedModel& model, std::vector<AlignedBuffer>& values, LearnProblem& problem) {
  problem.blocks.clear();
  for (int64_t layer = 0; layer < problem.model->config.num_layers; ++layer)
    problem.blocks.push_back(view_block(*model.edited, layer, values));
}

}  // namespace

LearnProblem learn_problem(const Samples& samples, QuantizedModel& model) {
  if (!model.edited) model.edited.emplace(model.base);
  const model::Model& edited = model.edited->model();
  LearnProblem problem{
      &edited,    {},
      model.qcfg, complete_ranges(model.qcfg, model.ranges, edited.config, "the measured ranges"),
      samples,    completed_first(model)};
  std::vector<AlignedBuffer> none;
  view_blocks(model, none, problem);
  return problem;
}

LearnProblem coded_learn_problem(const Samples& samples, QuantizedModel& model,
                                 const QuantizeOptions& options, const LearnSettings& settings,
                                 std::vector<AlignedBuffer>& values, const ProgressFunction& progress,
                                 const Peers& peers) {
  if (!weight_rounding(options).makes_codes()) {
    fail(
        "{}: rounding {} within minmax makes no codes before learning; accepted: with {} gptq, or {} mse or "
        "output",
        setting("round-first"), name(Rounding::nearest), setting("rounding"), setting("weight-range"));
  }
  LearnProblem problem = learn_problem(samples, model);
  const QuantConfig qcfg = problem.qcfg;
  for (const Point& point : all_points(problem.model->config)) {
    if (point.slot == Slot::weight) problem.qcfg[point] = QuantSpec{};  // groups have no bounds to learn
  }
  problem.targets = float_targets(problem, settings, peers);
  problem.qcfg = qcfg;
  round_weights(model, samples, options, progress);
  values.clear();
  view_blocks(model, values, problem);
  problem.codes = problem.qcfg;
  for (const Point& point : all_points(problem.model->config)) {
    const bool weight =
        point.slot == Slot::weight && is_linear(point.module) && !is_after_blocks(point.module);
    const bool coded = weight && model.edited->weight(point.layer, point.module).stored.coded() != nullptr;
    (coded ? problem.qcfg : *problem.codes)[point] = QuantSpec{};
  }
  return problem;
}

std::vector<Warning> quantize_to_folder(const model::Model& model, const QuantizeRun& run,
                                        const std::filesystem::path& folder, const TokenProgress& progress,
                                        Observations* observations) {
  const Clock::time_point start = Clock::now();
  std::optional<DirectoryLock> lock;
  bool resume = false;
  on_first(run.peers, [&] {
    resume = continues(run, folder);
    // Before anything is written:
    model::read_tokenizer_files(model);
    require_apart(run.options, make_qcfg(model.config, run.options.scheme), model.config, run.samples);
    qeval::create_directories(folder);
    lock.emplace(folder);
    prepare_checkpoint_folder(folder, model, resume);
  });
  resume = decided_by_first(run.peers, resume);
  const ProgressFunction report = [&](const std::string& step, int64_t done, int64_t total) {
    const int64_t tokens = run.samples.empty() ? 1 : std::ssize(run.samples.front());  // per unit of work
    if (progress) progress(step, done * tokens, total * tokens);
  };
  QuantizedModel quantized = quantize(model, run.samples, run.options, report, observations, run.peers);
  ordered_json settings = settings_json(run);
  const auto hash = [&] {
    const model::ModelConfig& config = quantized.model().config;
    return quantized.prefix ? quantization_hash(quantized.qcfg, quantized.ranges, config, *quantized.prefix)
                            : quantization_hash(quantized.qcfg, quantized.ranges, config, quantized.first);
  };
  if (run.learning) {
    settings.update(learn_json(applied_settings(run)));
    const std::string identity = fmt::format("{} {} {} {} {}", name(run.options.method), settings.dump(),
                                             model.weight_hash(), samples_hash(run.samples), hash());
    learn_in_folder(run, sha256_hex(identity), folder, resume, progress, report, quantized);
    if (!run.learning->round_first) round_weights(quantized, run.samples, run.options, report);
    // Position 0 was computed in float with the weights that learned, and so are its constants.
    if (quantized.prefix)
      take_prefix(make_prefix(quantized.model(), quantized.qcfg, quantized.prefix->token), quantized);
  }
  ordered_json record{
      {"method", name(run.options.method)},
      {"settings", settings},
      {"format", name(run.format)},
      {"model", {{"path", printable(model.path.string(), 4096)}, {"weight_hash", model.weight_hash()}}},
      {"calibration", run.calibration},
      {"quantization_hash", hash()},
      {"version", run.version},
      {"command", run.command},
      {"threads", run.threads}};
  on_first(run.peers, [&] {
    if (!run.samples.empty()) add_layer_errors(quantized, run.samples, record);
    const ActRanges used =
        complete_ranges(quantized.qcfg, quantized.ranges, quantized.model().config, "the measured ranges");
    for (Warning& warning : grid_warnings(quantized.model(), quantized.qcfg, used))
      quantized.warnings.push_back(std::move(warning));
    std::vector<Warning> warnings = run.warnings;
    warnings.insert(warnings.end(), quantized.warnings.begin(), quantized.warnings.end());
    record["warnings"] = warnings_json(warnings);
    record["seconds"] = std::chrono::duration<double>(Clock::now() - start).count();
    record["peak_rss_bytes"] = peak_memory();
    write_checkpoint(folder, quantized, run.samples, record, run.format);
    std::error_code code;
    std::filesystem::remove(folder / kStateFile, code);  // only now: killed before, learning would start anew
  });
  return quantized.warnings;
}

}  // namespace qeval::quant
