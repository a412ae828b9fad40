#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/comparison.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr int comparison_version = 3;  // 1 had no documents and blocks, 2 no texts

ordered_json interval_json(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return {number_to_json(interval->low), number_to_json(interval->high)};
}

ordered_json metrics_json(std::span<const MetricComparison> metrics) {
  ordered_json out = ordered_json::object();
  for (const MetricComparison& metric : metrics) {
    const PairedDifference& difference = metric.difference;
    ordered_json& json = out[metric.metric];
    json = {{"base", number_to_json(metric.base)},
            {"value", number_to_json(metric.other)},
            {"delta", number_to_json(difference.delta)},
            {"interval_95", interval_json(difference.interval)},
            {"p", number_to_json(difference.p_value)},
            {"test", difference.method == PairedMethod::proportions ? "mcnemar" : "bootstrap"}};
    if (!metric.right_or_wrong) continue;
    json["lost"] = metric.lost.size();
    json["gained"] = metric.gained.size();
    json["lost_documents"] = metric.lost;
    json["gained_documents"] = metric.gained;
  }
  return out;
}

ordered_json comparison_json(const TaskComparison& comparison) {
  return {{"documents", comparison.documents}, {"metrics", metrics_json(comparison.metrics)}};
}

ordered_json texts_json(const WrittenTexts& texts) {
  return {{"documents", texts.documents},
          {"equal", texts.equal},
          {"agreement", texts.agreement},
          {"first_difference", texts.first_difference ? ordered_json(*texts.first_difference) : nullptr},
          {"metrics", metrics_json(texts.habits)}};
}

ordered_json divergence_json(const DivergenceSummary& summary) {
  ordered_json out = {{"documents", summary.documents},
                      {"positions", summary.positions},
                      {"mean_kl", number_to_json(summary.mean_kl)},
                      {"mean_kl_upper", number_to_json(summary.mean_kl_upper)},
                      {"kl_99", number_to_json(summary.kl_99)},
                      {"max_kl", number_to_json(summary.max_kl)},
                      {"top1_agreement", summary.top1_agreement},
                      {"blocks", ordered_json::array()}};
  for (const BlockSum& block : summary.blocks)
    out["blocks"].push_back({block.tokens, number_to_json(block.sum)});
  return out;
}

/// An element of the array `key`, as number_to_json() writes it.
double number_in(const ordered_json& element, const OrderedJsonObject& fields, const char* key) {
  const ordered_json object = {{key, element}};
  return OrderedJsonObject(object, fields.where()).any_number(key);
}

std::vector<MetricComparison> compared_metrics_from_json(const OrderedJsonObject& fields, int64_t documents) {
  std::vector<MetricComparison> out;
  for (const auto& [metric, json] : fields.at("metrics").items()) {
    const OrderedJsonObject own(json, fmt::format("{}, {}", fields.where(), printable(metric)));
    MetricComparison& compared = out.emplace_back();
    compared.metric = metric;
    compared.base = own.any_number("base");
    compared.other = own.any_number("value");
    PairedDifference& difference = compared.difference;
    difference.delta = own.any_number("delta");
    difference.p_value = own.any_number("p");
    difference.documents = documents;
    if (const ordered_json& interval = own.at("interval_95"); !interval.is_null()) {
      if (!interval.is_array() || interval.size() != 2) own.refuse("interval_95", "two numbers, or null");
      difference.interval =
          Interval{number_in(interval[0], own, "interval_95"), number_in(interval[1], own, "interval_95")};
    }
    difference.method = own.string("test") == "mcnemar" ? PairedMethod::proportions : PairedMethod::bootstrap;
    if (own.find("lost") == nullptr) continue;
    compared.right_or_wrong = true;
    compared.lost = own.counts("lost_documents");
    compared.gained = own.counts("gained_documents");
  }
  return out;
}

TaskComparison comparison_from_json(const std::string& name, const OrderedJsonObject& fields) {
  const int64_t documents = fields.count("documents");
  return {name, documents, compared_metrics_from_json(fields, documents)};
}

WrittenTexts texts_from_json(const OrderedJsonObject& fields) {
  WrittenTexts out{.documents = fields.count("documents"),
                   .equal = fields.count("equal"),
                   .agreement = fields.any_number("agreement"),
                   .first_difference = {},
                   .habits = {}};
  if (!fields.at("first_difference").is_null()) out.first_difference = fields.any_number("first_difference");
  out.habits = compared_metrics_from_json(fields, out.documents);
  return out;
}

DivergenceSummary divergence_from_json(const OrderedJsonObject& fields) {
  DivergenceSummary out{.documents = fields.count("documents"),
                        .positions = fields.count("positions"),
                        .mean_kl = fields.any_number("mean_kl"),
                        .mean_kl_upper = fields.any_number("mean_kl_upper"),
                        .kl_99 = fields.any_number("kl_99"),
                        .max_kl = fields.any_number("max_kl"),
                        .top1_agreement = fields.any_number("top1_agreement")};
  for (const ordered_json& block : fields.array("blocks")) {
    if (!block.is_array() || block.size() != 2 || !block[0].is_number_integer())
      fields.refuse("blocks", "pairs of a number of tokens and a sum");
    out.blocks.push_back({.sum = number_in(block[1], fields, "blocks"), .tokens = block[0].get<int64_t>()});
  }
  return out;
}

}  // namespace

ordered_json to_json(const Comparison& comparison) {
  ordered_json out = {
      {"comparison", comparison_version},
      {"base", {{"name", comparison.base.name}, {"results", to_json(comparison.base.results)}}},
      {"runs", ordered_json::array()},
      {"tests", ordered_json::array()}};
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    ordered_json run = {{"name", comparison.runs[i].name},
                        {"results", to_json(comparison.runs[i].results)},
                        {"tasks", ordered_json::object()},
                        {"groups", ordered_json::object()}};
    for (const TaskDifference& task : comparison.differences[i].tasks) {
      ordered_json& json = run["tasks"][task.comparison.task];
      json = comparison_json(task.comparison);
      if (task.divergence) json["divergence"] = divergence_json(*task.divergence);
      if (task.texts) json["texts"] = texts_json(*task.texts);
    }
    for (const TaskComparison& group : comparison.differences[i].groups)
      run["groups"][group.task] = comparison_json(group);
    out["runs"].push_back(std::move(run));
  }
  for (const HeadlineTest& test : comparison.tests) {
    out["tests"].push_back({{"run", comparison.runs[test.run].name},
                            {"name", test.name},
                            {"metric", test.metric},
                            {"p", number_to_json(test.p_value)},
                            {"p_holm", number_to_json(test.adjusted_p)}});
  }
  return out;
}

void write_comparison(const std::filesystem::path& directory, const ComparisonFile& file,
                      const Comparison& comparison) {
  write_comparison_file(directory, file);
  const std::filesystem::path path = directory / results_file;
  write_file_atomically(path, dump_json(to_json(comparison), path.string(), 2) + "\n");
}

std::optional<Comparison> read_comparison(const std::filesystem::path& directory,
                                          const ComparisonFile& file) {
  const std::filesystem::path path = directory / results_file;
  if (std::error_code code; !std::filesystem::exists(path, code)) return {};
  const ordered_json json = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject fields(json, path.string());
  if (fields.find("comparison") == nullptr || fields.integer("comparison") != comparison_version) return {};
  // A run, if its results are still those that were compared.
  const auto unchanged = [&](const OrderedJsonObject& stored) -> std::optional<ComparedRun> {
    const std::string name = stored.string("name");
    const auto entry = std::ranges::find(file.entries, name, &ComparisonEntry::name);
    if (entry == file.entries.end()) return {};
    const std::filesystem::path folder = directory / entry->results;
    if (std::error_code code; !std::filesystem::exists(folder / results_file, code)) return {};
    ComparedRun run{name, folder, read_results(folder)};
    if (to_json(run.results) != stored.at("results")) return {};
    return run;
  };
  std::optional<ComparedRun> base = unchanged(fields.object("base"));
  if (!base || base->name != file.base || fields.array("runs").size() + 1 != file.entries.size()) return {};
  Comparison out{std::move(*base), {}, {}, {}};
  for (const ordered_json& stored : fields.array("runs")) {
    const OrderedJsonObject run_fields(stored, path.string());
    std::optional<ComparedRun> run = unchanged(run_fields);
    if (!run) return {};
    RunDifference& difference = out.differences.emplace_back();
    for (const auto& [name, task] : run_fields.at("tasks").items()) {
      const OrderedJsonObject own(task, fmt::format("{}: {}, {}", path.string(), run->name, printable(name)));
      difference.tasks.push_back({comparison_from_json(name, own), {}});
      if (own.find("divergence") != nullptr) {
        difference.tasks.back().divergence = divergence_from_json(own.object("divergence"));
      }
      if (own.find("texts") != nullptr) difference.tasks.back().texts = texts_from_json(own.object("texts"));
    }
    for (const auto& [name, group] : run_fields.at("groups").items()) {
      const OrderedJsonObject own(group,
                                  fmt::format("{}: {}, {}", path.string(), run->name, printable(name)));
      difference.groups.push_back(comparison_from_json(name, own));
    }
    out.runs.push_back(std::move(*run));
  }
  for (const ordered_json& stored : fields.array("tests")) {
    const OrderedJsonObject test(stored, path.string());
    const std::string name = test.string("run");
    const auto run = std::ranges::find(out.runs, name, &ComparedRun::name);
    if (run == out.runs.end()) test.refuse("run", "the name of a run");
    out.tests.push_back({static_cast<size_t>(run - out.runs.begin()), test.string("name"),
                         test.string("metric"), test.any_number("p"), test.any_number("p_holm")});
  }
  return out;
}

}  // namespace qeval::eval
