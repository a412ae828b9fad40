// The figures of Tan et al., "MobileQuant: Mobile-friendly Quantization for On-device Language Models", arXiv
// 2408.13933v2 (4 Oct 2024): the rows with four columns are those of its Table 4, the others the WikiText
// figures of its comparisons of static with mobile-friendly methods and of its ablations. "Static" there is
// variant original here, "edge" is modified, ARL is lrl.

#include <array>
#include <cmath>
#include <limits>

#include "base/unicode.h"
#include "reports/format.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr double beyond = 1000;  // printed as ">1e3"
constexpr size_t figures = 4;    // WikiText word perplexity, ARC-C, HellaSwag, MMLU in percent

struct Published {
  const char* method;   ///< empty: FP16
  const char* variant;  ///< empty where the paper does not distinguish
  const char* scheme;
  std::array<double, figures> values;
};

struct PublishedModel {
  const char* name;
  const char* family;  ///< part of the name of any model of the family, in lower case
  std::array<Published, 12> rows;
};

constexpr PublishedModel models[] = {
    {"TinyLlama-1.1B-Chat-v1.0",
     "tinyllama",
     {{{"", "", "", {14.9, 33, 60, 25}},
       {"smoothquant", "original", "w8a8", {177, none, none, none}},
       {"smoothquant", "modified", "w8a8", {27.1, 29.6, 52.8, 24.9}},
       {"omniquant", "original", "w8a8", {51.0, none, none, none}},
       {"omniquant", "modified", "w8a8", {16.3, 31.7, 58.4, 24.9}},
       {"lrl", "", "w8a8", {15.9, none, none, none}},
       {"mobilequant", "", "w8a8", {15.5, 31.9, 59.2, 25.0}},
       {"omniquant", "original", "w4a8", {416.3, none, none, none}},
       {"omniquant", "modified", "w4a8", {18.8, 28.8, 56.4, 25.5}},
       {"lrl", "", "w4a8", {18.3, none, none, none}},
       {"mobilequant", "", "w4a8", {17.1, 32.3, 57.0, 25.5}},
       {"mobilequant", "", "w4a8-sym", {17.5, none, none, none}}}}},
    {"StableLM-2 1.6B",
     "stablelm-2",
     {{{"", "", "", {28.4, 39, 65, 32}},
       {"smoothquant", "original", "w8a8", {583, none, none, none}},
       {"smoothquant", "modified", "w8a8", {70.2, 35.9, 61.8, 26.0}},
       {"omniquant", "original", "w8a8", {298.6, none, none, none}},
       {"omniquant", "modified", "w8a8", {30.9, 36.3, 63.4, 29.3}},
       {"lrl", "", "w8a8", {30.5, none, none, none}},
       {"mobilequant", "", "w8a8", {29.7, 37.1, 63.6, 30.0}},
       {"omniquant", "original", "w4a8", {258.5, none, none, none}},
       {"omniquant", "modified", "w4a8", {36.0, 34.9, 60.2, 25.9}},
       {"lrl", "", "w4a8", {35.4, none, none, none}},
       {"mobilequant", "", "w4a8", {33.6, 35.6, 60.5, 24.1}},
       {"mobilequant", "", "w4a8-sym", {36.4, none, none, none}}}}},
    {"Gemma 2B",
     "gemma-2b",
     {{{"", "", "", {18.0, 23, 42, 28}},
       {"smoothquant", "original", "w8a8", {beyond, none, none, none}},
       {"smoothquant", "modified", "w8a8", {45.3, 23.0, 39.0, 25.8}},
       {"omniquant", "original", "w8a8", {beyond, none, none, none}},
       {"omniquant", "modified", "w8a8", {23.4, 22.4, 39.9, 26.8}},
       {"lrl", "", "w8a8", {22.8, none, none, none}},
       {"mobilequant", "", "w8a8", {20.3, 21.8, 40.9, 25.8}},
       {"omniquant", "original", "w4a8", {beyond, none, none, none}},
       {"omniquant", "modified", "w4a8", {23.9, 23.1, 38.1, 25.5}},
       {"lrl", "", "w4a8", {23.0, none, none, none}},
       {"mobilequant", "", "w4a8", {21.4, 23.0, 38.9, 25.6}},
       {"mobilequant", "", "w4a8-sym", {24.7, none, none, none}}}}},
};

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
  if (*published.method == '\0') return row.method.empty();
  const bool same_variant =
      *published.variant == '\0'
          ? row.variant != "original"
          : row.variant == published.variant ||
                (row.variant.empty() && published.variant == std::string_view("modified"));
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
    const bool base = *published.method == '\0';
    row.label = base ? "FP16" : method_title(published.method);
    if (published.variant == std::string_view("original")) row.label += " (original)";
    if (!base) row.label += std::string(" ") + published.scheme;
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
  for (const PublishedModel& model : models) {
    if (name.find(model.family) != std::string::npos) return {make_table(report, model, true)};
  }
  std::vector<PaperTable> out;
  for (const PublishedModel& model : models) out.push_back(make_table(report, model, false));
  return out;
}

}  // namespace qeval::reports
