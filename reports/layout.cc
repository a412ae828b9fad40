#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "base/error.h"
#include "base/loose_json.h"
#include "eval/results/comparison.h"
#include "eval/results/headline.h"
#include "eval/results/protocol_difference.h"
#include "reports/format.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

using eval::GroupResults;
using eval::MetricValue;
using eval::RunResults;
using eval::TaskResults;

Unit unit_of(std::string_view metric) {
  if (metric.ends_with("perplexity")) return Unit::perplexity;
  return metric.starts_with("bits_per_") ? Unit::bits : Unit::fraction;
}

Column make_column(const std::string& task, const std::string& metric, int64_t documents) {
  return {.task = task,
          .title = task_title(task),
          .metric = metric,
          .unit = unit_of(metric),
          .higher_is_better = eval::higher_is_better(metric),
          .documents = documents};
}

/// A task or group as a row of results sees it.
struct Entry {
  const std::vector<MetricValue>* metrics = nullptr;
  int64_t documents = 0;
};

Entry find_entry(const RunResults& run, const std::string& name) {
  if (const TaskResults* task = run.find_task(name)) return {&task->metrics, task->counts.documents};
  if (const GroupResults* group = run.find_group(name)) return {&group->metrics, group->documents};
  return {};
}

void add_column(const Column& column, std::vector<Column>& columns) {
  const bool known = std::ranges::any_of(columns, [&](const Column& other) {
    return other.task == column.task && other.metric == column.metric;
  });
  if (!known) columns.push_back(column);
}

/// Columns in the order of the run's tasks, a group at its first task.
void add_columns(const RunResults& run, Report& report) {
  const std::vector<const GroupResults*> groups = eval::outer_groups(run);
  const auto add_main = [&](const std::string& name, const std::string& metric, int64_t documents) {
    const auto shown = std::ranges::find(report.columns, name, &Column::task);
    if (shown != report.columns.end() || metric.empty()) return;  // shown by another run's metric
    report.columns.push_back(make_column(name, metric, documents));
  };
  for (const TaskResults& task : run.tasks) {
    bool in_group = false;
    for (const GroupResults* group : groups) {
      const std::vector<std::string> tasks = eval::tasks_of(run, group->name);
      if (std::ranges::find(tasks, task.name) == tasks.end()) continue;
      add_main(group->name, eval::headline_metric(*group), group->documents);
      in_group = true;
    }
    if (!in_group) add_main(task.name, eval::headline_metric(task), task.counts.documents);
  }
  for (const TaskResults& task : run.tasks) {
    for (const MetricValue& metric : task.metrics)
      add_column(make_column(task.name, metric.name, task.counts.documents), report.details);
  }
  for (const GroupResults& group : run.groups) {
    for (const MetricValue& metric : group.metrics)
      add_column(make_column(group.name, metric.name, group.documents), report.details);
  }
}

std::vector<std::optional<Cell>> cells_of(const Source& source, std::span<const Column> columns) {
  std::vector<std::optional<Cell>> cells;
  for (const Column& column : columns) {
    const Entry entry = find_entry(source.results, column.task);
    cells.emplace_back();
    if (entry.metrics == nullptr) continue;
    const auto metric = std::ranges::find(*entry.metrics, column.metric, &MetricValue::name);
    if (metric == entry.metrics->end()) continue;
    if (entry.documents != column.documents) {
      fail("{}: {} was scored on {} documents, elsewhere on {}: runs on the same documents expected",
           source.folder.string(), printable(column.task), entry.documents, column.documents);
    }
    cells.back() = Cell{.value = metric->value, .standard_error = metric->standard_error};
  }
  return cells;
}

Costs costs_of(const Source& source) {
  const RunResults& run = source.results;
  const auto& details = run.model.details;
  Costs costs;
  costs.parameters = count_at(details, "parameters");
  costs.size_bytes = count_at(details, "size_bytes");
  costs.weight_bits = number_at(details, "weight_bits");
  costs.activation_bits = number_at(details, "activation_bits");
  if (const auto* quantize = find_field(details, "quantize")) {
    costs.quantize_seconds = number_at(*quantize, "seconds");
    costs.quantize_peak_bytes = count_at(*quantize, "peak_rss_bytes");
  }
  costs.seconds = run.seconds;
  costs.peak_rss_bytes = run.peak_rss_bytes;
  if (run.seconds > 0 && run.tokens_computed() > 0)
    costs.tokens_per_second = static_cast<double>(run.tokens_computed()) / run.seconds;
  return costs;
}

std::vector<eval::LayerError> layer_errors_of(const nlohmann::ordered_json& details) {
  std::vector<eval::LayerError> out;
  const auto* list = find_field(details, "layer_errors");
  if (list == nullptr || !list->is_array()) return out;
  for (const auto& entry : *list) {
    const auto layer = count_at(entry, "layer");
    const auto error = number_at(entry, "error");
    if (layer && error) out.push_back({*layer, *error});
  }
  std::ranges::stable_sort(out, {}, &eval::LayerError::layer);
  return out;
}

/// Steps in order; more than a plot can show are averaged over equal stretches.
std::vector<LossPoint> training_loss_of(const nlohmann::ordered_json& details) {
  std::vector<LossPoint> all;
  const auto* list = find_field(details, "training_loss");
  if (list == nullptr || !list->is_array()) return all;
  for (const auto& entry : *list) {
    if (!entry.is_array() || entry.size() != 2) continue;
    const auto step = number(entry[0]), loss = number(entry[1]);
    if (step && loss) all.push_back({*step, *loss});
  }
  constexpr size_t most = 400;
  const size_t stretch = (all.size() + most - 1) / most;
  if (stretch <= 1) return all;
  std::vector<LossPoint> out;
  for (size_t first = 0; first < all.size(); first += stretch) {
    const size_t end = std::min(all.size(), first + stretch);
    LossPoint mean;
    for (size_t i = first; i < end; ++i) {
      mean.step += all[i].step / static_cast<double>(end - first);
      mean.loss += all[i].loss / static_cast<double>(end - first);
    }
    out.push_back(mean);
  }
  return out;
}

std::string default_label(const Source& source) {
  const RunResults& run = source.results;
  const bool quantized = !source.method.empty();
  const std::string format = text_or_empty(run.model.details, "format");
  if (!quantized && !format.empty())
    return run.model.arithmetic == "float" ? format : format + ", " + run.model.arithmetic;
  std::string label = quantized ? method_title(source.method) : run.model.name;
  if (source.variant == "original") label += " (original)";
  if (!source.scheme.empty()) label += " " + source.scheme;
  if (run.model.arithmetic != "fake" || !quantized) label += ", " + run.model.arithmetic;
  return label;
}

void make_labels_differ(std::span<const Source> sources, std::vector<Row>& rows) {
  std::set<std::string> repeated, seen;
  for (const Row& row : rows) {
    if (!seen.insert(row.label).second) repeated.insert(row.label);
  }
  seen.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::string& label = rows[i].label;
    if (repeated.contains(label)) label += " (" + sources[i].folder.filename().string() + ")";
    const std::string stem = label;
    for (int number = 2; !seen.insert(label).second; ++number) label = fmt::format("{} #{}", stem, number);
  }
}

Row make_row(const Source& source, const Report& report) {
  const RunResults& run = source.results;
  Row row;
  row.label = source.label.empty() ? default_label(source) : source.label;
  row.method = source.method;
  row.variant = source.variant;
  row.scheme = source.scheme;
  row.arithmetic = run.model.arithmetic;
  row.format = text_or_empty(run.model.details, "format");
  row.model = run.model.name;
  row.folder = source.folder.string();
  row.cells = cells_of(source, report.columns);
  row.details = cells_of(source, report.details);
  row.costs = costs_of(source);
  row.layer_errors = layer_errors_of(run.model.details);
  if (const auto* quantize = find_field(run.model.details, "quantize"))
    row.layer_error_unit = text_or_empty(*quantize, "layer_errors_unit");
  row.worst_layers = row.layer_errors;
  std::ranges::stable_sort(row.worst_layers, std::ranges::greater(), &eval::LayerError::error);
  if (row.worst_layers.size() > 3) row.worst_layers.resize(3);
  row.training_loss = training_loss_of(run.model.details);
  row.weight_hash = run.model.weight_hash;
  row.quantization_hash = run.model.quantization_hash;
  row.commands = source.commands;
  row.cpu = run.environment.cpu;
  row.cpu_path = run.environment.cpu_path;
  row.version = run.environment.version;
  row.commit = run.environment.commit;
  row.date = run.date;
  row.threads = run.environment.threads;
  return row;
}

void require_one_protocol(std::span<const Source> sources) {
  for (size_t i = 1; i < sources.size(); ++i) {
    for (const Source& other : sources.first(i)) {
      const auto difference = eval::protocol_difference(other.results, sources[i].results);
      if (!difference) continue;
      fail("{} and {} cannot stand in one report: {} {} and {}", other.folder.string(),
           sources[i].folder.string(), printable(difference->what), printable(difference->first),
           printable(difference->second));
    }
  }
}

Conventions make_protocol(std::span<const Source> sources) {
  require_one_protocol(sources);
  const RunResults& first = sources[0].results;
  Conventions out;
  out.name = first.protocol;
  out.prefix_policy = first.prefix_policy;
  out.add_bos_token = first.add_bos_token;
  out.tokenizer_hash = first.tokenizer_hash;
  out.limit = first.limit;
  out.max_length = first.max_length;
  out.fewshot_seed = first.seed;
  out.bootstrap = first.bootstrap;
  out.comparison_resamples = std::max(first.bootstrap.resamples, eval::least_comparison_resamples);
  for (const Source& source : sources) {
    const RunResults& run = source.results;
    for (const TaskResults& task : run.tasks) {
      const auto known = std::ranges::find(out.tasks, task.name, &TaskProtocol::task);
      if (known != out.tasks.end()) continue;
      std::vector<int64_t> ids = task.first_request_ids;
      constexpr size_t shown = 8;
      if (ids.size() > shown) ids.resize(shown);
      out.tasks.push_back({task.name, task.version, task.split, task.num_fewshot, task.counts.documents,
                           task.original_documents, task.data_hash, task.prompt_hash, std::move(ids)});
    }
  }
  return out;
}

}  // namespace

void lay_out(std::span<const Source> sources, Report& report) {
  report.title = sources[0].results.model.name;
  report.version = sources[0].results.environment.version;
  report.commit = sources[0].results.environment.commit;
  report.protocol = make_protocol(sources);
  for (const Source& source : sources) add_columns(source.results, report);
  for (const Source& source : sources) report.rows.push_back(make_row(source, report));
  make_labels_differ(sources, report.rows);
}

}  // namespace qeval::reports
