#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "reports/render/svg.h"
#include "reports/report.h"

// What the report's plots share.

namespace qeval::reports {

/// Rows of one method share a colour, whatever their scheme; methods take colours as they come.
struct Style {
  size_t colour = 0, dash = 0;
  std::string line() const;
};
std::vector<Style> row_styles(const Report& report);

struct Frame {
  double left = 58, right = 16, top = 30, bottom = 46;
};

std::string plot_title(const std::string& title);
std::string x_axis(const Plot& plot, const Frame& frame, const Scale& x, const std::string& label, int count);
std::string y_axis(const Plot& plot, const Frame& frame, const Scale& y, const std::string& label);

/// The finite values that were added.
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

}  // namespace qeval::reports
