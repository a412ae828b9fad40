#include "reports/render/plots.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/unicode.h"
#include "reports/format.h"
#include "reports/render/plot_frame.h"
#include "reports/render/scatter.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string short_label(const Row& row, size_t points) {
  return clean(row.label, points);
}

/// The value as a plot shows it: percent or points, as tables do.
double plotted_value(double value, Unit unit) {
  return unit == Unit::bits ? value : 100 * value;
}

std::string difference_axis(const Column& column) {
  switch (column.unit) {
    case Unit::fraction:
      return "difference, percentage points";
    case Unit::perplexity:
      return "relative difference, %";
    case Unit::bits:
      return "difference, bits";
  }
  return {};
}

std::optional<Plot> differences(const Report& report, size_t c) {
  const Column& column = report.columns[c];
  std::vector<size_t> rows;
  Range range;
  range.add(0);
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (!report.rows[i].cells[c] || !report.rows[i].cells[c]->difference) continue;
    const Difference& difference = *report.rows[i].cells[c]->difference;
    rows.push_back(i);
    range.add(plotted_value(difference.delta, column.unit));
    if (difference.interval) {
      range.add(plotted_value(difference.interval->low, column.unit));
      range.add(plotted_value(difference.interval->high, column.unit));
    }
  }
  if (rows.empty()) return {};
  constexpr double row_height = 22, character = 6.9;
  constexpr size_t label_points = 28;
  Plot plot{.id = fmt::format("delta-{}", c + 1), .title = column.title + " against the baseline"};
  Frame frame;
  size_t longest = 8;
  for (const size_t row : rows)
    longest = std::max(longest, count_code_points(short_label(report.rows[row], label_points)));
  frame.left = 12 + character * static_cast<double>(longest);
  plot.height = frame.top + frame.bottom + row_height * static_cast<double>(rows.size());
  const Scale x = make_scale(range.low, range.high, frame.left, plot.width - frame.right, false);
  const double bottom = plot.height - frame.bottom;
  plot.body = plot_title(clean(plot.title, 55)) +
              x_axis(plot, frame, x,
                     difference_axis(column) +
                         (column.higher_is_better ? "  (right is better)" : "  (left is better)"),
                     5);
  plot.body += svg_line(x(0), frame.top, x(0), bottom, "axis");
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = report.rows[rows[i]];
    const Difference& difference = *row.cells[c]->difference;
    const double y = frame.top + row_height * (static_cast<double>(i) + 0.5);
    plot.body += svg_text(frame.left - 8, y + 4, short_label(row, label_points), "small", Anchor::end);
    if (!std::isfinite(difference.delta)) {
      plot.body += svg_text(x(0) + 6, y + 4, delta_text(difference.delta, column.unit), "small faint");
      continue;
    }
    // Significantly worse, significantly better, or neither: filled against hollow, so that it is not the
    // colour alone that says it.
    const char* colour = difference.significance == 0 ? "axis" : difference.worse ? "s1" : "s0";
    const char* fill = difference.significance == 0 ? "hollow" : difference.worse ? "f1" : "f0";
    if (difference.interval && std::isfinite(difference.interval->low) &&
        std::isfinite(difference.interval->high))
      plot.body += svg_line(x(plotted_value(difference.interval->low, column.unit)), y,
                            x(plotted_value(difference.interval->high, column.unit)), y,
                            std::string("whisker ") + colour);
    plot.body += svg_circle(x(plotted_value(difference.delta, column.unit)), y, 4,
                            fmt::format("dot {} {}", colour, fill));
  }
  return plot;
}

struct Series {
  std::string label;
  Style style;
  std::vector<std::pair<double, double>> points;
};

std::optional<Plot> line_plot(Plot plot, const std::vector<Series>& series, const std::string& x_label,
                              const std::string& y_label) {
  Range xs, ys;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) {
      xs.add(x);
      ys.add(y);
    }
  }
  if (xs.empty() || ys.empty()) return {};
  Frame frame;
  const bool labelled = series.size() > 1;
  if (labelled) frame.right = 140;
  const double bottom = plot.height - frame.bottom;
  const Scale x = make_scale(xs.low, xs.high, frame.left, plot.width - frame.right, false);
  const Scale y = make_scale(ys.low, ys.high, bottom, frame.top, ys.wide(8));
  plot.body = plot_title(clean(plot.title, 60)) +
              y_axis(plot, frame, y, y_label + (y.logarithmic ? " (log)" : "")) +
              x_axis(plot, frame, x, x_label, 5);
  std::vector<double> ends;
  for (const Series& one : series) {
    std::string path;
    double end = bottom;
    for (const auto& [px, py] : one.points) {
      if (!std::isfinite(px) || !std::isfinite(py) || (y.logarithmic && py <= 0)) continue;
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(px), y(py));
      end = y(py);
    }
    if (!path.empty()) plot.body += svg_path(path, "curve " + one.style.line());
    if (one.points.size() == 1 && !path.empty())
      plot.body += svg_circle(x(one.points[0].first), end, 3, fmt::format("f{}", one.style.colour));
    ends.push_back(end);
  }
  if (!labelled) return plot;
  const std::vector<double> labels = spread(ends, 14, frame.top + 4, bottom);
  for (size_t i = 0; i < series.size(); ++i) {
    const double edge = plot.width - frame.right;
    plot.body +=
        svg_line(edge + 2, ends[i], edge + 12, labels[i], fmt::format("s{}", series[i].style.colour));
    plot.body += svg_text(edge + 15, labels[i] + 4, clean(series[i].label, 20),
                          fmt::format("small f{}", series[i].style.colour));
  }
  return plot;
}

std::optional<Plot> layer_plot(const Report& report, std::span<const Style> styles) {
  std::string unit;
  std::vector<Series> series;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (report.rows[i].layer_errors.empty()) continue;
    unit = report.rows[i].layer_error_unit;
    Series one{report.rows[i].label, styles[i], {}};
    for (const eval::LayerError& error : report.rows[i].layer_errors)
      one.points.emplace_back(static_cast<double>(error.layer), error.error);
    series.push_back(std::move(one));
  }
  if (series.empty()) return {};
  Plot plot{.id = "layers",
            .title = series.size() == 1 ? "Error per layer: " + series[0].label : "Error per layer",
            .height = 300};
  return line_plot(std::move(plot), series, "layer",
                   unit.empty() ? "error of the block's output" : clean(unit, 44));
}

std::optional<Plot> training_plot(const Row& row, size_t index, const Style& style) {
  if (row.training_loss.empty()) return {};
  Series one{row.label, style, {}};
  for (const LossPoint& point : row.training_loss) one.points.emplace_back(point.step, point.loss);
  Plot plot{.id = fmt::format("training-{}", index), .title = "Training loss: " + row.label, .height = 240};
  return line_plot(std::move(plot), {one}, "step", "loss");
}

}  // namespace

std::vector<Plot> make_plots(const Report& report) {
  std::vector<Plot> out;
  const auto add = [&](std::optional<Plot> plot) {
    if (plot) out.push_back(std::move(*plot));
  };
  const std::vector<Style> styles = row_styles(report);
  for (Plot& plot : scatter_plots(report)) out.push_back(std::move(plot));
  for (size_t c = 0; c < report.columns.size(); ++c) add(differences(report, c));
  add(layer_plot(report, styles));
  for (size_t i = 0; i < report.rows.size(); ++i) add(training_plot(report.rows[i], i, styles[i]));
  return out;
}

}  // namespace qeval::reports
