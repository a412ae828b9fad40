#include "quant/methods/mixed_precision.h"

#include <charconv>

#include "base/error.h"
#include "base/glob.h"
#include "base/setting.h"
#include "quant/arithmetic/analysis.h"

namespace qeval::quant {
namespace {

constexpr std::string_view kAutomatic = "auto:";
constexpr int kBits = 16;

bool can_be_raised(const QuantSpec& spec) {
  return spec.bits < kBits;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  if (glob_matches(pattern, name)) return true;
  for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    if (glob_matches(pattern, name.substr(dot + 1))) return true;
  }
  return false;
}

std::optional<int64_t> automatic_count(std::string_view wish) {
  if (!wish.starts_with(kAutomatic)) return std::nullopt;
  const std::string_view digits = wish.substr(kAutomatic.size());
  int64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (error != std::errc() || end != digits.data() + digits.size() || count < 1) {
    fail("{} {}: accepted: auto:N with N points, 1 or more", setting("keep-16bit"), printable(wish));
  }
  return count;
}

int64_t raise_named(std::string_view pattern, const model::ModelConfig& config, QuantConfig& qcfg) {
  int64_t changed = 0;
  for (const Point& point : all_points(config)) {
    if (!can_be_raised(qcfg[point]) || !matches(pattern, point_name(point))) continue;
    qcfg[point].bits = kBits;
    ++changed;
  }
  if (changed == 0) {
    fail("{} {}: no point of fewer bits; accepted: names such as mlp.w2.input, * for any text, auto:N",
         setting("keep-16bit"), printable(pattern));
  }
  return changed;
}

std::vector<Point> raise_most_sensitive(int64_t count, const model::Model& model, const Samples& samples,
                                        const ActRanges& ranges, QuantConfig& qcfg,
                                        const std::function<void(int64_t, int64_t)>& progress,
                                        const std::optional<FirstToken>& first) {
  std::vector<Point> points;
  for (const Point& point : all_points(model.config)) {
    if (point.slot != Slot::weight && can_be_raised(qcfg[point])) points.push_back(point);
  }
  if (points.empty())
    fail("{} {}{}: no activation point of fewer bits", setting("keep-16bit"), kAutomatic, count);
  std::vector<Point> raised;
  for (const PointSensitivity& found : sensitivity(model, samples, qcfg, ranges, points, progress, first)) {
    if (std::ssize(raised) == count) break;
    qcfg[found.point].bits = kBits;
    raised.push_back(found.point);
  }
  return raised;
}

}  // namespace qeval::quant
