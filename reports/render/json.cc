#include "base/json_object.h"
#include "reports/render/document.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

using nlohmann::ordered_json;

template <typename T>
void put(ordered_json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

ordered_json difference_json(const Difference& difference) {
  ordered_json out = {{"delta", number_to_json(difference.delta)}};
  if (difference.interval)
    out["interval_95"] = {number_to_json(difference.interval->low),
                          number_to_json(difference.interval->high)};
  out["p"] = number_to_json(difference.p);
  out["p_holm"] = number_to_json(difference.p_holm);
  out["significance"] = difference.significance;
  if (!difference.has_flips) return out;
  out["lost"] = difference.lost;
  out["gained"] = difference.gained;
  return out;
}

ordered_json cell_json(const Column& column, const Cell& cell) {
  ordered_json out = {{"task", column.task},
                      {"metric", column.metric},
                      {"documents", column.documents},
                      {"value", number_to_json(cell.value)}};
  if (cell.standard_error) out["stderr"] = number_to_json(*cell.standard_error);
  if (cell.difference) out["difference"] = difference_json(*cell.difference);
  if (cell.divergence) {
    out["divergence"] = {{"positions", cell.divergence->positions},
                         {"mean_kl", number_to_json(cell.divergence->mean_kl)},
                         {"mean_kl_upper", number_to_json(cell.divergence->mean_kl_upper)},
                         {"kl_99", number_to_json(cell.divergence->kl_99)},
                         {"top1_agreement", number_to_json(cell.divergence->top1_agreement)}};
  }
  if (cell.texts) {
    const auto habit = [](const Texts::Habit& shown) {
      return ordered_json{{"base", shown.base}, {"value", shown.here}, {"p", number_to_json(shown.p)}};
    };
    out["texts"] = {{"documents", cell.texts->documents},   {"equal", cell.texts->equal},
                    {"agreement", cell.texts->agreement},   {"base_tokens", cell.texts->base_tokens},
                    {"tokens", cell.texts->tokens},         {"unended", habit(cell.texts->unended)},
                    {"looping", habit(cell.texts->looping)}};
  }
  return out;
}

ordered_json costs_json(const Costs& costs) {
  ordered_json out = {{"seconds", number_to_json(costs.seconds)}, {"peak_rss_bytes", costs.peak_rss_bytes}};
  put(out, "parameters", costs.parameters);
  put(out, "size_bytes", costs.size_bytes);
  put(out, "weight_bits", costs.weight_bits);
  put(out, "activation_bits", costs.activation_bits);
  put(out, "tokens_per_second", costs.tokens_per_second);
  put(out, "quantize_seconds", costs.quantize_seconds);
  put(out, "quantize_peak_bytes", costs.quantize_peak_bytes);
  return out;
}

ordered_json row_json(const Report& report, const Row& row) {
  ordered_json out = {
      {"label", row.label},          {"method", row.method},           {"variant", row.variant},
      {"scheme", row.scheme},        {"arithmetic", row.arithmetic},   {"model", row.model},
      {"baseline", row.is_baseline}, {"cells", ordered_json::array()}, {"costs", costs_json(row.costs)},
      {"commands", row.commands}};
  for (size_t c = 0; c < report.columns.size(); ++c) {
    if (row.cells[c]) out["cells"].push_back(cell_json(report.columns[c], *row.cells[c]));
  }
  return out;
}

}  // namespace

std::string to_json_text(const Report& report) {
  ordered_json out = report.comparison;
  ordered_json& own = out["report"];
  own = {{"title", report.title},
         {"verdict", report.verdict},
         {"comparisons", report.comparisons},
         {"notes", report.notes},
         {"rows", ordered_json::array()}};
  for (const Row& row : report.rows) own["rows"].push_back(row_json(report, row));
  return dump_json(out, "report", 1) + "\n";
}

}  // namespace qeval::reports
