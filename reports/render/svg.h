#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qeval::reports {

/// A drawing in user units of about a pixel.
struct Plot {
  std::string id;     ///< part of its file's name: "perplexity", "delta-2"
  std::string title;  ///< what it shows, in words; raw text
  double width = 440, height = 280;
  std::string body = {};  ///< elements, styled by the classes of plot_style()
};

/// The classes of plots in light and dark colours, as style rules. Series colours are those of Okabe and Ito,
/// which colour-blind readers can tell apart; in the dark they are lighter.
std::string plot_style();

/// How many series colours there are; further series begin again with other dashes.
inline constexpr size_t series_colours = 6;

/// The <svg> element, for an HTML page that holds plot_style().
std::string inline_svg(const Plot& plot);
/// A file of its own: with styles and a background.
std::string svg_file(const Plot& plot);

/// Elements. `style` is one or more classes; text is raw and gets escaped.
std::string svg_line(double x1, double y1, double x2, double y2, std::string_view style);
std::string svg_circle(double x, double y, double radius, std::string_view style);
std::string svg_path(std::string_view data, std::string_view style);
enum class Anchor : uint8_t { start, middle, end };
std::string svg_text(double x, double y, std::string_view text, std::string_view style,
                     Anchor anchor = Anchor::start);
/// Text turned by 90° against the clock around (x, y), centred there.
std::string svg_vertical_text(double x, double y, std::string_view text, std::string_view style);

/// An axis: a value range, linear or logarithmic, on a stretch of pixels.
struct Scale {
  double low = 0, high = 1;    ///< values, low < high; both > 0 where logarithmic
  double first = 0, last = 1;  ///< pixels of low and of high
  bool logarithmic = false;

  double operator()(double value) const;
};

/// Widens [low, high] to round numbers and lays it on the pixels. Any finite range will do, an empty one too.
Scale make_scale(double low, double high, double first, double last, bool logarithmic);
/// Round values on the axis, about `count` of them.
std::vector<double> ticks(const Scale& scale, int count);
std::string tick_text(double value);

/// Labels that would overlap, moved apart: each y grows until it is `distance` below the one before; then all
/// back into [top, bottom] as far as they fit.
std::vector<double> spread(std::vector<double> y, double distance, double top, double bottom);

}  // namespace qeval::reports
