#include "reports/render/plot_frame.h"

#include <algorithm>

#include <fmt/format.h>

namespace qeval::reports {

std::string Style::line() const {
  return fmt::format("s{} d{}", colour, dash);
}

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

std::string plot_title(const std::string& title) {
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

}  // namespace qeval::reports
