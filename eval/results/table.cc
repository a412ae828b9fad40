#include "eval/results/table.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

using Row = std::vector<std::string>;

void add_rows(const std::string& name, const std::string& shots, int64_t documents,
              const std::vector<MetricValue>& metrics, std::vector<Row>& rows) {
  bool first = true;
  for (const MetricValue& metric : metrics) {
    Row row(6);
    if (first) row = {printable(name, 60), shots, "", "", "", std::to_string(documents)};
    row[2] = printable(metric.name, 40) + (higher_is_better(metric.name) ? " ↑" : " ↓");
    row[3] = format_score(metric.value);
    if (metric.standard_error) row[4] = "± " + format_score(*metric.standard_error);
    rows.push_back(std::move(row));
    first = false;
  }
}

std::string padded(const std::string& text, size_t width, bool right) {
  const size_t length = count_code_points(text);
  const std::string space(width > length ? width - length : 0, ' ');
  return right ? space + text : text + space;
}

}  // namespace

std::string format_score(double value) {
  if (std::isnan(value)) return "nan";  // never "-nan"
  if (!std::isfinite(value)) return value > 0 ? "inf" : "-inf";
  return std::abs(value) < 1000 ? fmt::format("{:.4f}", value) : fmt::format("{:.4g}", value);
}

std::string render_rows(const std::vector<Row>& rows, const std::vector<bool>& right_aligned) {
  const size_t columns = right_aligned.size();
  std::vector<size_t> widths(columns);
  for (const Row& row : rows) {
    for (size_t i = 0; i < columns; ++i) widths[i] = std::max(widths[i], count_code_points(row[i]));
  }
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t i = 0; i < columns; ++i)
      line += (i > 0 ? "  " : "") + padded(rows[r][i], widths[i], right_aligned[i]);
    out += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    if (r > 0) continue;
    for (size_t i = 0; i < columns; ++i) {
      if (i > 0) out += "  ";
      for (size_t k = 0; k < widths[i]; ++k) out += "─";
    }
    out += '\n';
  }
  return out;
}

std::string render_table(const RunResults& run) {
  std::vector<Row> rows{{"task", "n-shot", "metric", "value", "stderr", "documents"}};
  for (const TaskResults& task : run.tasks) {
    add_rows(task.name, std::to_string(task.num_fewshot), task.counts.documents, task.metrics, rows);
    if (task.metrics.empty()) rows.push_back({printable(task.name, 60), "", "", "", "", "0"});
  }
  for (const GroupResults& group : run.groups) add_rows(group.name, "", group.documents, group.metrics, rows);
  return render_rows(rows, {false, true, false, true, true, true});
}

}  // namespace qeval::eval
