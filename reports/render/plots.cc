#include "reports/render/plots.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/unicode.h"
#include "reports/format.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

/// Rows of one method share a colour, whatever their scheme; methods take colours as they come.
struct Style {
  size_t colour = 0, dash = 0;
  std::string line() const { return fmt::format("s{} d{}", colour, dash); }
};

std::vector<Style> row_styles(const Report& report) {
  std::vector<std::string> methods, schemes;
  const auto place = [](std::vector<std::string>& list, const std::string& name) {
    const auto found = std::ranges::find(list, name);
    const auto index = static_cast<size_t>(found - list.begin());
    if (found == list.end()) list.push_back(name);
    return index;
  };
  std::vector<Style> out;
  for (const Row& row : report.rows) {
    const size_t method =
        row.is_baseline ? 0 : place(methods, row.method.empty() ? row.label : row.method + row.variant);
    const size_t scheme = row.is_baseline ? 0 : place(schemes, row.scheme + row.arithmetic);
    out.push_back({method % series_colours, (scheme + method / series_colours) % 3});
  }
  return out;
}

std::string short_label(const Row& row, size_t points) {
  return clean(row.label, points);
}

struct Frame {
  double left = 58, right = 16, top = 30, bottom = 46;
};

std::string title_of(const std::string& title) {
  return svg_text(0, 16, title, "title");
}

std::string x_axis(const Plot& plot, const Frame& frame, const Scale& x, const std::string& label,
                   int count) {
  std::string out;
  const double bottom = plot.height - frame.bottom;
  for (const double value : ticks(x, count)) {
    out += svg_line(x(value), frame.top, x(value), bottom, "grid");
    out += svg_text(x(value), bottom + 16, tick_text(value), "small faint", Anchor::middle);
  }
  return out + svg_text((x.first + x.last) / 2, plot.height - 8, label, "small faint", Anchor::middle);
}

std::string y_axis(const Plot& plot, const Frame& frame, const Scale& y, const std::string& label) {
  std::string out;
  for (const double value : ticks(y, 5)) {
    out += svg_line(frame.left, y(value), plot.width - frame.right, y(value), "grid");
    out += svg_text(frame.left - 6, y(value) + 4, tick_text(value), "small faint", Anchor::end);
  }
  return out + svg_vertical_text(12, (y.first + y.last) / 2, label, "small faint");
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
  bool wide(double ratio) const { return low > 0 && high / low > ratio; }
};

std::optional<Plot> perplexity_against_size(const Report& report, std::span<const Style> styles) {
  const auto column = std::ranges::find(report.columns, Unit::perplexity, &Column::unit);
  if (column == report.columns.end()) return {};
  const auto c = static_cast<size_t>(column - report.columns.begin());
  struct Point {
    double size, value, error;
    size_t row;
  };
  std::vector<Point> points;
  Range sizes, values;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const Row& row = report.rows[i];
    if (!row.cells[c] || !row.costs.size_bytes || !std::isfinite(row.cells[c]->value) ||
        row.cells[c]->value <= 0)
      continue;
    const double error = row.cells[c]->standard_error.value_or(0);
    points.push_back({static_cast<double>(*row.costs.size_bytes) / 1e6, row.cells[c]->value,
                      std::isfinite(error) ? error : 0, i});
    sizes.add(points.back().size);
    values.add(points.back().value);
  }
  if (points.size() < 2) return {};
  const bool logarithmic = values.wide(4);
  if (!logarithmic) {
    for (const Point& point : points) {
      values.add(point.value + point.error);
      values.add(point.value - point.error);
    }
  }
  Plot plot{.id = "perplexity", .title = "Perplexity against size: " + column->title};
  constexpr double label_height = 15;
  Frame frame;
  frame.right = 170;  // labels stand beside the frame, at the height of their points as far as there is room
  plot.height = std::max(260.0, frame.top + frame.bottom + label_height * static_cast<double>(points.size()));
  const double bottom = plot.height - frame.bottom, edge = plot.width - frame.right;
  const Scale x = make_scale(0, sizes.high * 1.02, frame.left, edge, false);
  const Scale y = make_scale(values.low, values.high, bottom, frame.top, logarithmic);
  const std::string metric = column->metric == "word_perplexity" ? "word perplexity" : column->metric;
  plot.body = title_of(clean(plot.title, 60)) +
              y_axis(plot, frame, y, clean(metric, 40) + (logarithmic ? " (log)" : " (± standard error)")) +
              x_axis(plot, frame, x, "size of the weights, MB", 4);
  std::vector<double> label_y;
  for (const Point& point : points) label_y.push_back(y(point.value));
  label_y = spread(std::move(label_y), label_height, frame.top + 6, bottom);
  std::string marks;
  for (size_t i = 0; i < points.size(); ++i) {
    const Point& point = points[i];
    const Row& row = report.rows[point.row];
    const double px = x(point.size), py = y(point.value), low = point.value - point.error;
    plot.body += svg_line(px, py, edge + 8, label_y[i], "grid");
    if (point.error > 0) {
      const double foot = logarithmic && low <= 0 ? bottom : std::min(y(low), bottom);
      marks += svg_line(
          px, foot, px, std::max(y(point.value + point.error), frame.top),
          fmt::format("whisker {}", row.is_baseline ? "axis" : fmt::format("s{}", styles[point.row].colour)));
    }
    const std::string colour = fmt::format("dot s{0} f{0}", styles[point.row].colour);
    marks += svg_circle(px, py, 4, row.is_baseline ? "dot hollow axis" : colour);
    marks += svg_text(edge + 11, label_y[i] + 4, short_label(row, 24), "small");
  }
  plot.body += marks;
  return plot;
}

/// The value as a plot shows it: percent or points, as tables do.
double shown(double value, Unit unit) {
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
    range.add(shown(difference.delta, column.unit));
    if (difference.interval) {
      range.add(shown(difference.interval->low, column.unit));
      range.add(shown(difference.interval->high, column.unit));
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
  plot.body = title_of(clean(plot.title, 55)) +
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
      plot.body +=
          svg_line(x(shown(difference.interval->low, column.unit)), y,
                   x(shown(difference.interval->high, column.unit)), y, std::string("whisker ") + colour);
    plot.body +=
        svg_circle(x(shown(difference.delta, column.unit)), y, 4, fmt::format("dot {} {}", colour, fill));
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
  plot.body = title_of(clean(plot.title, 60)) +
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
  add(perplexity_against_size(report, styles));
  for (size_t c = 0; c < report.columns.size(); ++c) add(differences(report, c));
  add(layer_plot(report, styles));
  for (size_t i = 0; i < report.rows.size(); ++i) add(training_plot(report.rows[i], i, styles[i]));
  return out;
}

}  // namespace qeval::reports
