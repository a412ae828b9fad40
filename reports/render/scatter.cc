#include "reports/render/scatter.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include <fmt/format.h>

#include "reports/format.h"
#include "reports/render/plot_frame.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

struct Point {
  double x = 0, y = 0;
  double low = 0, high = 0;  ///< the interval of y
  size_t row = 0;
};

/// The points that no other one beats, in ascending order of x. Less is better in y, and in x unless
/// `more_is_better`.
std::vector<Point> front(std::span<const Point> points, bool more_is_better) {
  std::vector<Point> out;
  const auto beats = [&](const Point& a, const Point& b) {
    const bool x = more_is_better ? a.x >= b.x : a.x <= b.x;
    return x && a.y <= b.y && (a.x != b.x || a.y != b.y);
  };
  for (const Point& point : points) {
    if (std::ranges::none_of(points, [&](const Point& other) { return beats(other, point); }))
      out.push_back(point);
  }
  std::ranges::stable_sort(out, {}, &Point::x);
  return out;
}

struct Labels {
  std::string id, title, x, y;
};

/// Points with their intervals and names; labels stand beside the frame, at the height of their points as far
/// as there is room. A dashed line at the baseline's x, where it has one but no y.
std::optional<Plot> scatter(const Report& report, const Labels& labels, const std::vector<Point>& points,
                            std::optional<double> baseline_x, const std::vector<Point>& front_points) {
  if (points.size() < 2) return {};
  const std::vector<Style> styles = row_styles(report);
  Range xs, ys;
  for (const Point& point : points) {
    xs.add(point.x);
    ys.add(point.y);
  }
  if (baseline_x) xs.add(*baseline_x);
  const bool logarithmic = ys.wide(4);
  for (const Point& point : points) {
    if (!logarithmic || point.low > 0) ys.add(point.low);
    ys.add(point.high);
  }
  Plot plot{.id = labels.id, .title = labels.title};
  constexpr double label_height = 15;
  Frame frame;
  frame.right = 170;
  plot.height = std::max(260.0, frame.top + frame.bottom + label_height * static_cast<double>(points.size()));
  const double bottom = plot.height - frame.bottom, edge = plot.width - frame.right;
  const Scale x = make_scale(0, xs.high * 1.02, frame.left, edge, false);
  const Scale y = make_scale(ys.low, ys.high, bottom, frame.top, logarithmic);
  plot.body = plot_title(clean(plot.title, 60)) +
              y_axis(plot, frame, y, labels.y + (logarithmic ? " (log)" : "")) +
              x_axis(plot, frame, x, labels.x, 4);
  if (baseline_x) {
    plot.body += svg_line(x(*baseline_x), frame.top, x(*baseline_x), bottom, "axis d1");
    plot.body += svg_text(x(*baseline_x) - 4, bottom - 5, "baseline", "small faint", Anchor::end);
  }
  std::string path;
  for (const Point& point : front_points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(point.x), y(point.y));
  if (front_points.size() > 1) plot.body += svg_path(path, "curve axis d1");
  std::vector<double> label_y;
  label_y.reserve(points.size());
  std::vector<size_t> order(points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](size_t i) { return y(points[i].y); });
  for (const size_t i : order) label_y.push_back(y(points[i].y));
  label_y = spread(std::move(label_y), label_height, frame.top + 6, bottom);
  std::string marks;
  for (size_t k = 0; k < order.size(); ++k) {
    const Point& point = points[order[k]];
    const Row& row = report.rows[point.row];
    const double px = x(point.x), py = y(point.y);
    plot.body += svg_line(px, py, edge + 8, label_y[k], "grid");
    if (point.high > point.low) {
      const double foot = logarithmic && point.low <= 0 ? bottom : std::min(y(point.low), bottom);
      marks += svg_line(
          px, foot, px, std::max(y(point.high), frame.top),
          fmt::format("whisker {}", row.is_baseline ? "axis" : fmt::format("s{}", styles[point.row].colour)));
    }
    const std::string colour = fmt::format("dot s{0} f{0}", styles[point.row].colour);
    marks += svg_circle(px, py, 4, row.is_baseline ? "dot hollow axis" : colour);
    marks += svg_text(edge + 11, label_y[k] + 4, clean(row.label, 24), "small");
  }
  plot.body += marks;
  return plot;
}

std::optional<Plot> perplexity_against_size(const Report& report) {
  const auto column = std::ranges::find(report.columns, Unit::perplexity, &Column::unit);
  if (column == report.columns.end()) return {};
  const auto c = static_cast<size_t>(column - report.columns.begin());
  std::vector<Point> points;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const Row& row = report.rows[i];
    if (!row.cells[c] || !row.costs.size_bytes || !std::isfinite(row.cells[c]->value) ||
        row.cells[c]->value <= 0)
      continue;
    const double value = row.cells[c]->value, given = row.cells[c]->standard_error.value_or(0);
    const double error = std::isfinite(given) ? given : 0;
    points.push_back(
        {static_cast<double>(*row.costs.size_bytes) / 1e6, value, value - error, value + error, i});
  }
  const std::string metric =
      column->metric == "word_perplexity" ? "word perplexity" : clean(column->metric, 40);
  return scatter(report,
                 {"perplexity", "Perplexity against size: " + column->title, "size of the weights, MB",
                  metric + ", ± standard error"},
                 points, {}, {});
}

/// What a run takes, as a plot shows it; nothing where it is not known.
using Cost = std::optional<double> (*)(const Costs& costs);

std::optional<double> megabytes(const Costs& costs) {
  return costs.size_bytes ? std::optional(static_cast<double>(*costs.size_bytes) / 1e6) : std::nullopt;
}
std::optional<double> tokens_per_second(const Costs& costs) {
  return costs.tokens_per_second;
}

std::vector<Point> nearness_points(const Report& report, Cost cost) {
  std::vector<Point> points;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const Row& row = report.rows[i];
    const std::optional<double> x = cost(row.costs);
    if (!row.nearness || !x || !(row.nearness->kl.value > 0)) continue;
    const eval::Estimate& kl = row.nearness->kl;
    const eval::Interval interval = kl.interval.value_or(eval::Interval{kl.value, kl.value});
    points.push_back({*x, kl.value, interval.low, interval.high, i});
  }
  return points;
}

std::optional<Plot> nearness(const Report& report, const Labels& labels, Cost cost, bool more_is_better) {
  if (!report.has_baseline) return {};
  const std::vector<Point> points = nearness_points(report, cost);
  return scatter(report, labels, points, cost(report.rows.front().costs), front(points, more_is_better));
}

}  // namespace

std::vector<size_t> size_front(const Report& report) {
  std::vector<size_t> out;
  for (const Point& point : front(nearness_points(report, megabytes), false)) out.push_back(point.row);
  return out;
}

std::vector<Plot> scatter_plots(const Report& report) {
  std::vector<Plot> out;
  const auto add = [&](std::optional<Plot> plot) {
    if (plot) out.push_back(std::move(*plot));
  };
  add(nearness(
      report,
      {"pareto-size", "Divergence against size", "size of the weights, MB", "KL, nats, 95 % interval"},
      megabytes, false));
  add(nearness(report,
               {"pareto-speed", "Divergence against speed", "tokens per second of the evaluation",
                "KL, nats, 95 % interval"},
               tokens_per_second, true));
  add(perplexity_against_size(report));
  return out;
}

std::string terminal_plot(const Report& report) {
  if (!report.has_baseline) return {};
  std::vector<Point> points = nearness_points(report, megabytes);
  if (points.size() < 2) return {};
  constexpr size_t kWidth = 56, kHeight = 14;
  Range xs, ys;
  for (const Point& point : points) {
    xs.add(point.x);
    ys.add(point.y);
  }
  if (xs.high < 1.01 * xs.low && ys.high < 1.01 * ys.low) return {};  // one spot
  const bool logarithmic = ys.wide(4);
  // Less divergence is lower, as in the picture.
  const auto place = [](double value, Range range, bool log, size_t cells) {
    if (log) {
      value = std::log(value);
      range = {std::log(range.low), std::log(range.high)};
    }
    const double share = range.high > range.low ? (value - range.low) / (range.high - range.low) : 0.5;
    return static_cast<size_t>(std::lround(share * static_cast<double>(cells - 1)));
  };
  std::vector<std::string> cells(kHeight, std::string(kWidth, ' '));
  std::ranges::stable_sort(points, {}, &Point::y);
  std::string legend;
  const std::vector<size_t> best = size_front(report);
  for (size_t i = 0; i < points.size(); ++i) {
    const Point& point = points[i];
    const char letter = i < 26 ? static_cast<char>('a' + i) : i < 52 ? static_cast<char>('A' + i - 26) : '?';
    char& cell =
        cells[kHeight - 1 - place(point.y, ys, logarithmic, kHeight)][place(point.x, xs, false, kWidth)];
    cell = cell == ' ' ? letter : '*';
    const bool on_front = std::ranges::find(best, point.row) != best.end();
    legend += fmt::format("  {} {} {:<40} {:>9} {:>10}\n", letter, on_front ? "+" : " ",
                          clean(report.rows[point.row].label, 40), fmt::format("{:.1f} MB", point.x),
                          kl_text(point.y));
  }
  std::string out =
      fmt::format("KL in nats{} against the size of the weights\n", logarithmic ? " (log scale)" : "");
  for (size_t r = 0; r < kHeight; ++r) {
    const std::string edge = r == 0 ? kl_text(ys.high) : r == kHeight - 1 ? kl_text(ys.low) : "";
    const std::string line = cells[r].substr(0, cells[r].find_last_not_of(' ') + 1);
    out += fmt::format("{:>8} |{}\n", edge, line.empty() ? "" : " " + line);
  }
  const std::string low = fmt::format("{:.0f}", xs.low), high = fmt::format("{:.0f} MB", xs.high);
  out += fmt::format("{:>8} +{}\n{:>10}{:<{}}{}\n", "", std::string(kWidth + 1, '-'), "", low,
                     kWidth + 2 - std::min(kWidth, high.size()), high);
  return out + legend + "  + no other run is both smaller and nearer; * several runs\n";
}

}  // namespace qeval::reports
