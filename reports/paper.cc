// The tables of the MobileQuant paper (reports/paper_tables.json, which the build puts into the program)
// beside a report's rows.

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "base/unicode.h"
#include "reports/format.h"
#include "reports/paper_tables.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

constexpr double beyond = 1000;  // printed as ">1e3"
constexpr size_t figures = 4;    // WikiText word perplexity, ARC-C, HellaSwag, MMLU in percent

struct Published {
  std::string method;   ///< empty: FP16
  std::string variant;  ///< empty where the paper does not distinguish
  std::string scheme;
  std::array<double, figures> values;  ///< NaN: not given
};

struct PublishedModel {
  std::string name;
  std::string family;  ///< part of the name of any model of the family, in lower case
  std::vector<Published> rows;
};

std::vector<PublishedModel> read_tables() {
  std::vector<PublishedModel> out;
  const nlohmann::json json = parse_strict_json(paper_tables_json(), "the paper's tables");
  for (const nlohmann::json& model : json.at("models")) {
    PublishedModel published{model.at("name"), model.at("family"), {}};
    for (const nlohmann::json& row : model.at("rows")) {
      Published one{row.at(0), row.at(1), row.at(2), {}};
      for (size_t i = 0; i < figures; ++i) {
        const nlohmann::json& value = row.at(3 + i);
        one.values[i] = value.is_null()     ? std::numeric_limits<double>::quiet_NaN()
                        : value.is_string() ? beyond
                                            : value.get<double>();
      }
      published.rows.push_back(std::move(one));
    }
    out.push_back(std::move(published));
  }
  return out;
}

constexpr std::array<const char*, figures> task_names{"wikitext", "arc_challenge", "hellaswag", "mmlu"};
/// MMLU there is the plain mean of the subjects.
constexpr std::array<const char*, figures> metric_names{"word_perplexity", "acc_norm", "acc_norm",
                                                        "acc_unweighted"};

/// Our cell for a figure of the paper, nullptr where it was not measured.
const Cell* find_cell(const Report& report, const Row& row, size_t figure) {
  for (size_t c = 0; c < report.details.size(); ++c) {
    const bool same =
        report.details[c].task == task_names[figure] && report.details[c].metric == metric_names[figure];
    if (same && row.details[c]) return &*row.details[c];
  }
  return nullptr;
}

bool matches(const Published& published, const Row& row) {
  if (published.method.empty()) return row.method.empty();
  const bool same_variant =
      published.variant.empty()
          ? row.variant != "original"
          : row.variant == published.variant || (row.variant.empty() && published.variant == "modified");
  return row.method == published.method && row.scheme == published.scheme && same_variant;
}

/// The run to set beside a published one; the simulation first, which is what the paper evaluates.
const Row* find_row(const Report& report, const Published& published) {
  const Row* found = nullptr;
  for (const Row& row : report.rows) {
    if (matches(published, row) &&
        (found == nullptr || (found->arithmetic == "integer" && row.arithmetic != "integer")))
      found = &row;
  }
  return found;
}

/// Perplexities: relative increase in percent; else points.
double paper_delta(double value, double base, Unit unit) {
  return unit == Unit::perplexity ? value / base - 1 : (value - base) / 100;
}

PaperTable make_table(const Report& report, const PublishedModel& model, bool same_family) {
  PaperTable table{.model = model.name, .same_family = same_family, .columns = {}, .units = {}, .rows = {}};
  for (size_t i = 0; i < figures; ++i) {
    table.columns.push_back(task_title(task_names[i]));
    table.units.push_back(i == 0 ? Unit::perplexity : Unit::fraction);
  }
  for (const Published& published : model.rows) {
    PaperRow row;
    const bool base = published.method.empty();
    row.label = base ? "FP16" : method_title(published.method);
    if (published.variant == "original") row.label += " (original)";
    if (!base) row.label += " " + published.scheme;
    row.beyond = published.values[0] == beyond;
    const Row* ours = find_row(report, published);
    for (size_t i = 0; i < figures; ++i) {
      const Unit unit = table.units[i];
      const double value = published.values[i];
      const bool known = !std::isnan(value);
      const double scale = unit == Unit::fraction ? 100 : 1;
      row.paper.push_back(known ? std::optional(value / scale) : std::nullopt);
      row.paper_delta.push_back(known && !base && !(i == 0 && row.beyond)
                                    ? std::optional(paper_delta(value, model.rows[0].values[i], unit))
                                    : std::nullopt);
      const Cell* cell = ours == nullptr ? nullptr : find_cell(report, *ours, i);
      row.ours.push_back(cell == nullptr ? std::nullopt : std::optional(cell->value));
      row.ours_delta.push_back(cell == nullptr || !cell->difference ? std::nullopt
                                                                    : std::optional(cell->difference->delta));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

std::vector<PaperTable> paper_tables(const Report& report) {
  std::string name;
  for (const char c : report.title) name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const std::vector<PublishedModel> models = read_tables();
  for (const PublishedModel& model : models) {
    if (name.find(model.family) != std::string::npos) return {make_table(report, model, true)};
  }
  std::vector<PaperTable> out;
  for (const PublishedModel& model : models) out.push_back(make_table(report, model, false));
  return out;
}

}  // namespace qeval::reports
