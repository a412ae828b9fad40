#include "reports/render/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "reports/text.h"

namespace qeval::reports {
namespace {

struct Colours {
  const char *surface, *ink, *faint, *grid;
  std::array<const char*, series_colours> series;
};

constexpr Colours light{"#ffffff",
                        "#1c2024",
                        "#5b6570",
                        "#e3e7eb",
                        {"#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#4a6fe3"}};
constexpr Colours dark{"#14171a",
                       "#e6e9ec",
                       "#9aa5b1",
                       "#2b3137",
                       {"#56b4e9", "#ff9a5c", "#3fd0a4", "#e08fd0", "#f0c04a", "#a8b8ff"}};

std::string rules(const Colours& colours, std::string_view indent) {
  std::string out = fmt::format(
      "{0}.plot .surface{{fill:{1}}}.plot text{{fill:{2}}}.plot .faint{{fill:{3}}}.plot .grid{{stroke:{4}}}"
      ".plot .axis{{stroke:{3}}}.plot .hollow{{fill:{1}}}\n",
      indent, colours.surface, colours.ink, colours.faint, colours.grid);
  for (size_t i = 0; i < series_colours; ++i)
    out += fmt::format("{0}.plot .s{1}{{stroke:{2}}}.plot .f{1}{{fill:{2}}}\n", indent, i, colours.series[i]);
  return out;
}

std::string attributes(std::string_view style) {
  return style.empty() ? "" : fmt::format(" class=\"{}\"", style);
}

/// With `margin` around it.
std::string open(const Plot& plot, double margin, std::string_view more) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"{0:.0f} {0:.0f} {1:.0f} {2:.0f}\" "
      "role=\"img\"{3}>\n<title>{4}</title>\n",
      -margin, plot.width + 2 * margin, plot.height + 2 * margin, more, html_text(clean(plot.title, 200)));
}

}  // namespace

std::string plot_style() {
  return std::string(
             ".plot text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu "
             "Sans',sans-serif;stroke:none;"
             "font-variant-numeric:tabular-nums}\n"
             ".plot .small{font-size:11px}.plot .title{font-weight:600;font-size:13px}\n"
             ".plot .grid{stroke-width:1}.plot .axis{stroke-width:1}\n"
             ".plot .curve{fill:none;stroke-width:1.75;stroke-linejoin:round}.plot "
             ".whisker{stroke-width:1.75}\n"
             ".plot .dot{stroke-width:1.75}\n"
             ".plot .d1{stroke-dasharray:6 3}.plot .d2{stroke-dasharray:2 3}\n") +
         rules(light, "") + "@media (prefers-color-scheme:dark){\n" + rules(dark, " ") + "}\n" +
         "@media print{\n" + rules(light, " ") + "}\n";
}

std::string inline_svg(const Plot& plot) {
  return open(plot, 0, "") + plot.body + "</svg>\n";
}

std::string svg_file(const Plot& plot) {
  constexpr double margin = 10;
  const double width = plot.width + 2 * margin, height = plot.height + 2 * margin;
  return open(plot, margin, fmt::format(" width=\"{:.0f}\" height=\"{:.0f}\"", width, height)) + "<style>\n" +
         plot_style() + "</style>\n" +
         fmt::format(
             "<rect class=\"surface\" x=\"{0:.0f}\" y=\"{0:.0f}\" width=\"{1:.0f}\" height=\"{2:.0f}\"/>\n",
             -margin, width, height) +
         plot.body + "</svg>\n";
}

std::string svg_line(double x1, double y1, double x2, double y2, std::string_view style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"{}/>\n", x1, y1, x2, y2,
                     attributes(style));
}

std::string svg_circle(double x, double y, double radius, std::string_view style) {
  return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"{}/>\n", x, y, radius,
                     attributes(style));
}

std::string svg_path(std::string_view data, std::string_view style) {
  return fmt::format("<path d=\"{}\"{}/>\n", data, attributes(style));
}

std::string svg_text(double x, double y, std::string_view text, std::string_view style, Anchor anchor) {
  constexpr std::array<const char*, 3> anchors{"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}{}>{}</text>\n", x, y, attributes(style),
                     anchors[static_cast<size_t>(anchor)], html_text(clean(text)));
}

std::string svg_vertical_text(double x, double y, std::string_view text, std::string_view style) {
  return fmt::format(
      "<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\"{}>{}</text>\n", x, y,
      attributes(style), html_text(clean(text)));
}

double Scale::operator()(double value) const {
  const double share = logarithmic ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low))
                                   : (value - low) / (high - low);
  return first + std::clamp(share, -0.5, 1.5) * (last - first);
}

namespace {

/// The step of 1, 2 or 5 times a power of ten that divides the range into about `count` parts.
double round_step(double range, int count) {
  const double raw = range / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw * 0.999) return factor * power;
  }
  return 10 * power;
}

}  // namespace

Scale make_scale(double low, double high, double first, double last, bool logarithmic) {
  constexpr double far = 1e100, near = 1e-100;  // beyond them the arithmetic of axes overflows
  low = std::clamp(low, -far, far);
  high = std::clamp(high, -far, far);
  if (logarithmic && low > 0) {
    low = std::max(low, near);
    high = std::max(high, near);
    if (high < low * 1.5) {
      low /= 1.3;
      high *= 1.3;
    }
    const double margin = std::pow(high / low, 0.05);
    return {low / margin, high * margin, first, last, true};
  }
  if (!(high - low > std::max(near, 1e-9 * std::max(std::abs(low), std::abs(high))))) {
    const double half = std::abs(low) < near ? 1 : std::abs(low) * 0.1;
    low -= half;
    high += half;
  }
  const double step = round_step(high - low, 5);
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, first, last, false};
}

std::vector<double> ticks(const Scale& scale, int count) {
  std::vector<double> out;
  if (!scale.logarithmic) {
    const double step = round_step(scale.high - scale.low, count);
    const double begin = std::ceil(scale.low / step - 1e-9);
    for (int i = 0; i <= 2 * count + 2; ++i) {
      const double value = (begin + i) * step;
      if (value > scale.high + 1e-9 * step) break;
      out.push_back(std::abs(value) < 1e-9 * step ? 0 : value);
    }
    return out;
  }
  const double decades = std::log10(scale.high / scale.low);
  if (decades < 0.7) {  // too short for round powers: equal steps instead
    Scale linear = scale;
    linear.logarithmic = false;
    return ticks(linear, count);
  }
  const int stride = std::max(1, static_cast<int>(std::ceil(decades / count)));
  const std::vector<double> factors = decades < 2.5 ? std::vector<double>{1, 2, 5} : std::vector<double>{1};
  for (int power = static_cast<int>(std::floor(std::log10(scale.low))); power <= std::log10(scale.high);
       power += stride) {
    for (const double factor : factors) {
      const double value = factor * std::pow(10.0, power);
      if (value >= scale.low * 0.999 && value <= scale.high * 1.001) out.push_back(value);
    }
  }
  return out;
}

std::string tick_text(double value) {
  const double size = std::abs(value);
  std::string text =
      size != 0 && (size >= 1e5 || size < 1e-3) ? fmt::format("{:.3g}", size) : fmt::format("{:.4g}", size);
  return value < 0 ? "−" + text : text;
}

std::vector<double> spread(std::vector<double> y, double distance, double top, double bottom) {
  std::vector<size_t> order(y.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, {}, [&](size_t i) { return y[i]; });
  double least = top;
  for (const size_t i : order) {
    y[i] = std::max(y[i], least);
    least = y[i] + distance;
  }
  double most = bottom;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    y[*i] = std::min(y[*i], most);
    most = y[*i] - distance;
  }
  return y;
}

}  // namespace qeval::reports
