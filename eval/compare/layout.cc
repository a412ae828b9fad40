#include "eval/compare/layout.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "eval/results/folder_use.h"
#include "eval/results/results.h"
#include "quant/checkpoint/checkpoint.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCheckpoints = "checkpoints";

/// A label as the name of a folder.
std::string folder_name(std::string_view label) {
  std::string out;
  for (const char c : label) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       (c == '.' && !out.empty()) || c == '_';
    if (plain || (!out.empty() && out.back() != '-')) out += plain ? c : '-';
  }
  return out.empty() ? "model" : out;
}

}  // namespace

std::string MadeModel::name() const {
  return fmt::format("{} {}", quant::name(method), scheme);
}
std::string MadeModel::folder() const {
  return fmt::format("{}-{}", quant::name(method), scheme);
}

CompareLayout::CompareLayout(const CompareOptions& options, const model::ModelConfig& base,
                             std::string base_label)
    : options_(options), base_label_(std::move(base_label)) {
  for (const std::string& scheme : options_.schemes) {
    const quant::Scheme parsed = quant::parse_scheme(scheme);
    quant::make_qcfg(base, parsed);
    if (options_.integer != IntegerRuns::none && parsed.activation_bits > 16) {
      throw UsageError(fmt::format(
          "scheme {}: leaves activations in float, which integer-only arithmetic cannot run: compare it "
          "without {} and {} integer",
          scheme, setting("integer"), setting("arithmetic")));
    }
    for (const quant::Method method : options_.methods) made_.push_back({method, scheme});
  }
  for (const GivenModel& model : options_.given) add_given(model);
}

void CompareLayout::add_given(const GivenModel& model) {
  std::vector<ComparisonEntry> others{base()};
  others.insert(others.end(), given_.begin(), given_.end());
  for (const MadeModel& made : made_) {
    for (const char* arithmetic : {"fake", "integer"}) others.push_back(entry(made, arithmetic));
  }
  if (std::ranges::find(others, model.label, &ComparisonEntry::name) != others.end())
    throw UsageError(
        fmt::format("label {}: is that of another run of the comparison", printable(model.label)));
  const std::string stem = "results/" + folder_name(model.label);
  std::string folder = stem;
  for (int i = 2; std::ranges::find(others, folder, &ComparisonEntry::results) != others.end(); ++i)
    folder = fmt::format("{}-{}", stem, i);
  ComparisonEntry entry{model.label, "fp", "", "",          model.arithmetic,
                        folder,      "",   {}, model.label, model.path.string()};
  entry.commands = {
      options_.spelling.evaluate(model.path, model.arithmetic, results(base()), results(entry))};
  given_.push_back(std::move(entry));
}

ComparisonEntry CompareLayout::base() const {
  ComparisonEntry entry{"fp", "fp", "", "", "float", "results/fp", "", {}, base_label_};
  entry.commands = {options_.spelling.evaluate(options_.session.model, "float", {}, results(entry))};
  return entry;
}

ComparisonEntry CompareLayout::entry(const MadeModel& made, const std::string& arithmetic) const {
  const bool smooths = quant::has_variant(made.method);
  ComparisonEntry entry{arithmetic == "fake" ? made.name() : made.name() + " " + arithmetic,
                        std::string(quant::name(made.method)),
                        smooths ? std::string(quant::name(options_.quantize.options.variant)) : "",
                        made.scheme,
                        arithmetic,
                        fmt::format("results/{}-{}", made.folder(), arithmetic),
                        fmt::format("{}/{}", kCheckpoints, made.folder()),
                        {}};
  entry.commands = {quantize_run(made).command,
                    options_.spelling.evaluate(model(entry), arithmetic, results(base()), results(entry))};
  return entry;
}

std::vector<ComparisonEntry> CompareLayout::entries(const MadeModel& made) const {
  std::vector<ComparisonEntry> out;
  if (options_.fake) out.push_back(entry(made, "fake"));
  if (options_.integer == IntegerRuns::all) out.push_back(entry(made, "integer"));
  return out;
}

fs::path CompareLayout::results(const ComparisonEntry& entry) const {
  return options_.output / entry.results;
}

fs::path CompareLayout::checkpoint(const MadeModel& made) const {
  return options_.output / kCheckpoints / made.folder();
}

fs::path CompareLayout::model(const ComparisonEntry& entry) const {
  if (!entry.model.empty()) return entry.model;
  return entry.checkpoint.empty() ? options_.session.model : options_.output / entry.checkpoint;
}

quant::QuantizeRun CompareLayout::quantize_run(const MadeModel& made) const {
  quant::QuantizeRun run = options_.quantize;
  run.options.method = made.method;
  run.options.scheme = quant::parse_scheme(made.scheme);
  if (options_.learns_from_codes(made.method)) {
    run.options.smooth = false;
    run.options.rounding = quant::Rounding::gptq;
  }
  if (options_.is_rotated(made.method)) {
    run.options.rotation = options_.rotated.rotation;
    run.options.calibration = options_.rotated.calibration;
    // Weights alone have no ranges.
    if (run.options.scheme.activation_bits > 16) {
      run.options.calibration.first_token_apart = false;
      run.options.calibration.prefix_token.reset();
    }
    run.options.scheme.weight.per_channel = options_.rotated.scheme.weight.per_channel;
  }
  if (options_.learns_from_codes(made.method) && run.options.rotation.kind == quant::RotationKind::online)
    run.options.rotation.keys = true;
  run.scheme = made.scheme;
  run.resume = quant::QuantizeRun::Resume::if_interrupted;
  run.peers = options_.evaluation.peers;
  if (const auto found = options_.learning.find({made.method, made.scheme}); found != options_.learning.end())
    run.learning = found->second;
  run.command = options_.spelling.quantize(options_.session.model, run, checkpoint(made));
  return run;
}

bool CompareLayout::is_evaluated(const ComparisonEntry& entry) const {
  std::error_code code;
  return fs::exists(results(entry) / results_file, code);
}

bool CompareLayout::is_quantized(const MadeModel& made) const {
  const fs::path path = checkpoint(made) / quant::kRecordFile;
  std::error_code code;
  if (!fs::exists(path, code)) return false;
  const auto record = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject fields(record, path.string());
  const std::string method = fields.string("method"), scheme = fields.object("settings").string("scheme");
  if (method != quant::name(made.method) || scheme != made.scheme) {
    fail("{}: is of {} {}; expected: {}", path.string(), printable(method), printable(scheme), made.name());
  }
  return true;
}

double CompareLayout::learning_left(const MadeModel& made, const quant::LearnSettings& settings,
                                    int64_t layers) const {
  const int64_t steps = quant::learning_steps(settings, std::ssize(options_.quantize.samples), layers);
  const int64_t done = quant::interrupted_steps(checkpoint(made));
  return std::max(0.0, 1.0 - static_cast<double>(done) / static_cast<double>(std::max<int64_t>(1, steps)));
}

void CompareLayout::check_folder(const Fingerprint& settings) const {
  require_use(options_.output, FolderUse::methods);
  const fs::path path = options_.output / matrix_file;
  std::error_code code;
  if (fs::exists(path, code)) {
    const auto json = parse_ordered_json(read_file(path), path.string());
    const OrderedJsonObject fields = OrderedJsonObject(json, path.string()).object("matrix");
    Fingerprint there;
    for (const auto& [key, value] : fields.value().items()) there[key] = fields.string(key);
    const std::string changes = describe_changes(there, settings);
    if (changes.empty()) return;
    fail("{}: holds a comparison with other settings: {}: choose another directory or the same settings",
         options_.output.string(), changes);
  }
  for (const char* name : {kCheckpoints, "results"}) {
    if (fs::exists(options_.output / name, code)) {
      fail(
          "{}: holds {} but no {}, so it is not of a comparison that could be continued: choose another "
          "directory",
          options_.output.string(), name, matrix_file);
    }
  }
}

void CompareLayout::record(const Fingerprint& settings) const {
  const fs::path path = options_.output / matrix_file;
  std::error_code code;
  if (!fs::exists(path, code))
    write_file_atomically(path, dump_json({{"matrix", settings}}, path.string(), 2) + "\n");
}

Fingerprint compare_fingerprint(const CompareOptions& compare, const std::string& weights,
                                const Fingerprint& evaluation, const Fingerprint& given) {
  const quant::QuantizeOptions& options = compare.quantize.options;
  Fingerprint print{{"model", weights},
                    {"calibration", quant::samples_hash(compare.quantize.samples)},
                    {"range", std::string(quant::name(options.calibration.estimator))},
                    {"percentile", fmt::format("{}", options.calibration.percentile)},
                    {"variant", std::string(quant::name(options.variant))},
                    {"alpha", fmt::format("{}", options.alpha)},
                    {"smooth", options.smooth ? "yes" : "no"},
                    {"fake", compare.fake ? "yes" : "no"},
                    {"integer", compare.integer == IntegerRuns::none   ? "none"
                                : compare.integer == IntegerRuns::best ? "best"
                                                                       : "all"}};
  if (std::ranges::any_of(compare.methods, [&](quant::Method m) { return compare.is_rotated(m); })) {
    const quant::RotationOptions& rotation = compare.rotated.rotation;
    print["rotate"] = std::string(quant::name(rotation.kind));
    print["rotate-keys"] = rotation.keys ? "yes" : "no";
    print["rotate-block"] = fmt::format("{}", rotation.block);
    print["rotate seed"] = fmt::format("{}", rotation.seed);
    print["first-token"] = std::string(quant::name(quant::first_token_mode(compare.rotated.calibration)));
    print["rotate range"] = std::string(quant::name(compare.rotated.calibration.estimator));
  }
  for (const auto& [key, value] : evaluation) print["evaluation " + key] = value;
  for (const auto& [key, value] : given) print[key] = value;
  for (const auto& [of, settings] : compare.learning) {
    const auto json = quant::learn_json(settings);
    for (const auto& [key, value] : json.items())
      print[fmt::format("{} {} {}", quant::name(of.first), of.second, key)] = value.dump();
  }
  const auto append = [](std::string& list, std::string_view name) {
    if (!list.empty()) list += ',';
    list += name;
  };
  for (const quant::Method method : compare.methods) append(print["methods"], quant::name(method));
  for (const std::string& scheme : compare.schemes) append(print["schemes"], scheme);
  return print;
}

}  // namespace qeval::eval
