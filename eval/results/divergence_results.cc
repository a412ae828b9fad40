#include "eval/results/divergence_results.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/model_details.h"
#include "eval/results/table.h"

namespace qeval::eval {
namespace {

constexpr size_t kLabelWidth = 72;  // of tables

using nlohmann::ordered_json;

constexpr int divergence_results_version = 1;

ordered_json run_json(const DivergenceRun& run) {
  return {{"label", run.label},
          {"path", run.path},
          {"model",
           {{"name", run.model.name},
            {"arithmetic", run.model.arithmetic},
            {"format", run.model.format},
            {"weight_hash", run.model.weight_hash},
            {"quantization_hash", run.model.quantization_hash},
            {"details", run.model.details}}}};
}

DivergenceRun run_from_json(const ordered_json& json, const std::string& where) {
  const OrderedJsonObject fields(json, where);
  const OrderedJsonObject model = fields.object("model");
  DivergenceRun run{fields.string("label"), fields.string("path"), {}, {}};
  run.model = {
      model.string("name"),        model.string("arithmetic"),        model.string("format"),
      model.string("weight_hash"), model.string("quantization_hash"), model.object("details").value()};
  return run;
}

ordered_json losses_json(const SplitLoss& losses) {
  return {{"weights", losses.weights},   {"activations", losses.activations}, {"keys_and_values", losses.kv},
          {"together", losses.together}, {"kv_type", losses.kv_type},         {"tokens", losses.tokens}};
}

SplitLoss losses_from_json(const OrderedJsonObject& fields) {
  return {.weights = fields.number("weights"),
          .activations = fields.number("activations"),
          .kv = fields.number("keys_and_values"),
          .together = fields.number("together"),
          .kv_type = fields.string("kv_type"),
          .tokens = fields.count("tokens")};
}

std::vector<TextDivergence> divergences(const DivergenceResults& results) {
  std::vector<TextDivergence> out;
  for (const DivergenceRun& run : results.runs) out.push_back(run.divergence);
  return out;
}

std::string share_name(double share) {
  if (share == 0) return "min";
  if (share == 1) return "max";
  return share == 0.5 ? "median" : fmt::format("{:g} %", 100 * share);
}

std::string percent(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f} %", 100 * value, digits) : format_score(value);
}

std::vector<std::string> divergence_row(const DivergenceRun& run, bool tied) {
  const ModelDetails details = model_details(run.model, run.label);
  const TextDivergence& measured = run.divergence;
  const Estimate kl = measured.kl(), ratio = measured.perplexity_ratio(), top = measured.top1_agreement();
  return {printable(run.label, kLabelWidth) + (tied ? " =" : ""),
          fmt::format("{:.1f}", static_cast<double>(details.size_bytes) / 1e6),
          details.weight_bits > 0 ? fmt::format("{:.2f}", details.weight_bits) : "–",
          estimate_text(kl, 5),
          interval_text(kl, 5),
          fmt::format("{:.5f}", measured.reverse_kl().value),
          percent(measured.acceptance().value, 2),
          percent(top.value, 2),
          percent(measured.rms_p_difference().value, 2),
          fmt::format("{:.4f}", ratio.value),
          interval_text(ratio, 4)};
}

}  // namespace

std::string estimate_text(const Estimate& estimate, int digits) {
  return fmt::format("{:.{}f}", estimate.value, digits);
}

std::string interval_text(const Estimate& estimate, int digits) {
  if (!estimate.interval) return "–";
  return fmt::format("{:.{}f} … {:.{}f}", estimate.interval->low, digits, estimate.interval->high, digits);
}

std::string render_divergence(const DivergenceResults& results) {
  if (results.runs.empty()) return {};
  const std::vector<TextDivergence> measured = divergences(results);
  const std::vector<bool> tied = tied_for_best(measured);
  std::vector<size_t> order(measured.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return measured[i].kl().value; });
  const bool marks = std::ranges::count(tied, true) > 1;
  std::vector<std::vector<std::string>> rows{{"run", "MB", "bits", "KL", "95 % interval", "reverse KL",
                                              "acceptance", "top-1", "RMS Δp", "PPL ratio", "95 % interval"}};
  std::vector<std::vector<std::string>> quantiles{{"KL at quantile"}};
  for (const double share : kDivergenceShares) quantiles.front().push_back(share_name(share));
  for (const size_t i : order) {
    rows.push_back(divergence_row(results.runs[i], marks && tied[i]));
    quantiles.push_back({printable(results.runs[i].label, kLabelWidth)});
    for (const double value : measured[i].kl_quantiles)
      quantiles.back().push_back(fmt::format("{:.4f}", value));
  }
  std::vector<bool> right(rows.front().size(), true), right_quantiles(quantiles.front().size(), true);
  right[0] = right_quantiles[0] = false;
  std::string out = render_rows(rows, right);
  if (marks) out += "= tied for the least divergence: the interval of the paired difference holds 0\n";
  return out + "\n" + render_rows(quantiles, right_quantiles);
}

ordered_json to_json(const TextSettings& text) {
  return {{"file", text.file},         {"sha256", text.sha256},   {"bytes", text.bytes},
          {"protocol", text.protocol}, {"context", text.context}, {"windows", text.windows}};
}

TextSettings text_settings_from_json(const ordered_json& json, const std::string& where) {
  const OrderedJsonObject fields(json, where);
  return {fields.string("file"),     fields.string("sha256"), fields.count("bytes"),
          fields.string("protocol"), fields.count("context"), fields.count("windows")};
}

void write_divergence_results(const std::filesystem::path& folder, const DivergenceResults& results) {
  ordered_json json = {{"divergence", divergence_results_version},
                       {"text", to_json(results.text)},
                       {"base", run_json(results.base)},
                       {"runs", ordered_json::array()}};
  const std::vector<TextDivergence> measured = divergences(results);
  const std::vector<bool> tied = tied_for_best(measured);
  for (size_t i = 0; i < results.runs.size(); ++i) {
    ordered_json run = run_json(results.runs[i]);
    run["tied_for_best"] = static_cast<bool>(tied[i]);
    run["divergence"] = to_json(results.runs[i].divergence);
    if (results.runs[i].losses) run["losses"] = losses_json(*results.runs[i].losses);
    json["runs"].push_back(std::move(run));
  }
  qeval::create_directories(folder);
  const std::filesystem::path path = folder / divergence_results_file;
  write_file_atomically(path, dump_json(json, path.string(), 1) + "\n");
}

DivergenceResults read_divergence_results(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / divergence_results_file;
  const ordered_json json = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject fields(json, path.string());
  if (fields.count("divergence") != divergence_results_version)
    fields.refuse("divergence", fmt::format("{}, the version that is known", divergence_results_version));
  DivergenceResults out{text_settings_from_json(fields.at("text"), path.string() + ", text"),
                        run_from_json(fields.at("base"), path.string() + ", base"),
                        {}};
  const ordered_json& runs = fields.array("runs");
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string where = fmt::format("{}, run {}", path.string(), i);
    out.runs.push_back(run_from_json(runs[i], where));
    const OrderedJsonObject run(runs[i], where);
    out.runs.back().divergence = text_divergence_from_json(run.at("divergence"), where);
    if (run.has("losses")) out.runs.back().losses = losses_from_json(run.object("losses"));
  }
  return out;
}

}  // namespace qeval::eval
