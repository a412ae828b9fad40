#include "quant/methods/warnings.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {
namespace {

/// With this many steps a tensor is held as well as 8 bits hold it, however many bits it has.
constexpr int32_t kEnoughSteps = 255;

/// Whether the smallest scale leaves fewer steps than the range was to have.
bool is_coarse(const QuantSpec& spec, Range range) {
  const float magnitude = std::max(std::abs(range.lo), std::abs(range.hi));
  // A constant has no width, and is lost where it is less than a step.
  const float extent = spec.symmetric || range.hi == range.lo ? magnitude : range.hi - range.lo;
  const int32_t steps = std::min(code_limits(spec.bits, spec.symmetric).q_max, kEnoughSteps);
  return extent > 0 && extent < static_cast<float>(steps) * kMinScale;
}

/// Whether the range reaches beyond the codes by more than a step.
bool is_cut(const QuantSpec& spec, Range range) {
  const Grid grid = make_grid(spec, range);
  const Range held = representable(grid);
  // Far from 0, float32 itself is coarser than a step.
  const float magnitude = std::max(std::abs(range.lo), std::abs(range.hi));
  const float tolerance = grid.scale + magnitude * 1e-6F;
  // The symmetric codes have one more below 0 than above.
  return range.lo < held.lo - tolerance || range.hi > held.hi + tolerance;
}

class GridCheck {
 public:
  void add(const Point& point, const QuantSpec& spec, const std::vector<Range>& ranges) {
    int64_t coarse = 0;
    int64_t cut = 0;
    for (const Range& range : ranges) {
      if (is_coarse(spec, range)) {
        ++coarse;
      } else if (is_cut(spec, range)) {
        ++cut;
      }
    }
    add(coarse, point, ranges.size(), coarse_);
    add(cut, point, ranges.size(), cut_);
  }

  std::vector<Warning> warnings() const {
    std::vector<Warning> all;
    if (!coarse_.empty()) {
      all.push_back({fmt::format("values too small for the smallest scale, {:g}: their grids have few steps "
                                 "or none",
                                 kMinScale),
                     coarse_});
    }
    if (!cut_.empty()) {
      all.push_back({fmt::format("values beyond what the largest scale, {:g}, or the farthest zero point "
                                 "holds: they are cut off",
                                 kMaxScale),
                     cut_});
    }
    return all;
  }

 private:
  static void add(int64_t count, const Point& point, size_t grids, std::vector<std::string>& places) {
    if (count == 0) return;
    std::string place = point_name(point);
    if (grids > 1) place += fmt::format(" ({} of {} grids)", count, grids);
    places.push_back(std::move(place));
  }

  std::vector<std::string> coarse_, cut_;
};

/// The tensor behind a weight's point.
std::vector<Range> ranges_of_weight(const model::Model& model, const Point& point, const QuantSpec& spec) {
  if (is_norm(point.module)) {
    const std::vector<float>& weight = model.norm(point.layer, point.module).weight;
    return {quant_kernels().range(weight.data(), static_cast<int64_t>(weight.size()))};
  }
  if (point.module == Module::head) return weight_ranges(model.head.weight, spec);
  std::vector<Range> ranges;
  for (const auto* linear : model.layers[static_cast<size_t>(point.layer)].all(point.module)) {
    const std::vector<Range> own = weight_ranges(linear->weight, spec);
    ranges.insert(ranges.end(), own.begin(), own.end());
  }
  return ranges;
}

}  // namespace

std::string one_line(const Warning& warning) {
  constexpr size_t kShown = 6;
  std::string line = warning.what;
  for (size_t i = 0; i < std::min(kShown, warning.places.size()); ++i)
    line += (i == 0 ? ": " : ", ") + warning.places[i];
  if (warning.places.size() > kShown) line += fmt::format(" and {} more", warning.places.size() - kShown);
  return line;
}

nlohmann::ordered_json warnings_json(const std::vector<Warning>& warnings) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Warning& warning : warnings)
    json.push_back({{"what", warning.what}, {"places", warning.places}});
  return json;
}

void ScaleCheck::add(int64_t layer, std::string_view pair, const std::vector<float>& scales) {
  int64_t channels = 0;
  for (const float signed_scale : scales) {
    const float scale = std::abs(signed_scale);
    if (scale >= kSmallestUsualScale && scale <= kLargestUsualScale) continue;
    ++channels;
    smallest_ = std::min(smallest_, scale);
    largest_ = std::max(largest_, scale);
  }
  if (channels == 0) return;
  places_.push_back(
      fmt::format("layer {} {} ({} {})", layer, pair, channels, channels == 1 ? "channel" : "channels"));
}

std::vector<Warning> ScaleCheck::warnings() const {
  if (places_.empty()) return {};
  std::string found;
  if (smallest_ < kSmallestUsualScale) found = fmt::format("down to {:.2g}", smallest_);
  if (largest_ > kLargestUsualScale)
    found += fmt::format("{}up to {:.2g}", found.empty() ? "" : ", ", largest_);
  return {
      {fmt::format("{} outside {:g} ... {:g} ({})", what_, kSmallestUsualScale, kLargestUsualScale, found),
       places_}};
}

std::vector<Warning> grid_warnings(const model::Model& model, const QuantConfig& qcfg,
                                   const ActRanges& ranges) {
  GridCheck check;
  const std::vector<Point> points = all_points(model.config);
  // Weights first: small ones are why the activations behind them are.
  for (const Point& point : points) {
    const QuantSpec& spec = qcfg[point];
    if (point.slot != Slot::weight || !spec.enabled()) continue;
    check.add(point, spec, ranges_of_weight(model, point, spec));
    // Each block's pages once: a checkpoint may be larger than memory.
    if (point.module == Module::down && model.checkpoint) model.checkpoint->release_pages();
  }
  for (const Point& point : points) {
    if (needs_range(qcfg, point)) check.add(point, qcfg[point], {ranges[point].value()});
  }
  return check.warnings();
}

}  // namespace qeval::quant
