#include "quant/grid/stored_points.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/setting.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

using model::ActivationRounding;
using model::LinearWeights;

struct StaticGrid {
  QuantSpec spec;
  Range range;
  bool operator==(const StaticGrid& other) const {
    return spec == other.spec && range.lo == other.range.lo && range.hi == other.range.hi;
  }
};

/// A range whose symmetric grid has this scale.
Range symmetric_range(const QuantSpec& spec, float scale) {
  const auto steps = static_cast<float>(code_limits(spec.bits, true).q_max);
  float most = steps * scale;
  const auto scale_of = [&](float x) { return make_grid(spec, {-x, x}).scale; };
  if (scale_of(most) < scale) most = std::nextafter(most, std::numeric_limits<float>::infinity());
  if (scale_of(most) > scale) most = std::nextafter(most, 0.0F);
  return {-most, most};
}

StaticGrid static_grid(const ActivationRounding& rounding, const Point& point) {
  const bool integers = rounding.type == ActivationRounding::Type::integer && rounding.bits <= 8 &&
                        rounding.source == ActivationRounding::Scale::fixed;
  if (!integers || rounding.scale < kMinScale || rounding.scale > kMaxScale) {
    fail(
        "{} {}: {} is rounded {}; accepted: static ranges of integers of at most 8 bits, with scales from {} "
        "to {}",
        setting("scheme"), kStoredScheme, point_name(point),
        integers ? fmt::format("in steps of {}", rounding.scale) : "by other rules", kMinScale, kMaxScale);
  }
  StaticGrid grid{.spec = {.bits = rounding.bits, .symmetric = rounding.zero_point == 0}, .range = {}};
  if (grid.spec.symmetric) {
    grid.range = symmetric_range(grid.spec, rounding.scale);
  } else {
    const int32_t half = 1 << (rounding.bits - 1);
    grid.range = {static_cast<float>(-half - rounding.zero_point) * rounding.scale,
                  static_cast<float>(half - 1 - rounding.zero_point) * rounding.scale};
  }
  return grid;
}

/// What the maps of a module, one or the experts', ask for alike.
std::optional<ActivationRounding> common(const std::vector<const LinearWeights*>& maps,
                                         std::optional<ActivationRounding> LinearWeights::*what) {
  const std::optional<ActivationRounding>& first = maps.front()->*what;
  return std::ranges::all_of(maps, [&](const LinearWeights* map) { return map->*what == first; })
             ? first
             : std::nullopt;
}

/// How all of these weights are stored, where a spec says it.
std::optional<QuantSpec> stored_spec(const std::vector<const LinearWeights*>& maps) {
  const model::CodedWeight* coded = maps.front()->weight.stored.coded();
  if (coded == nullptr) return std::nullopt;
  QuantSpec spec{.bits = coded->codes.bits,
                 .symmetric = coded->zeros.layout == model::StoredZeros::Layout::none,
                 .per_channel = coded->scales.type != model::StoredScales::Type::one};
  if (coded->group < coded->cols) spec.group_size = coded->group;
  const bool all =
      std::ranges::all_of(maps, [&](const LinearWeights* map) { return is_stored_as(map->weight, spec); });
  return all ? std::optional(spec) : std::nullopt;
}

class Collector {
 public:
  Collector(const model::Model& model, const Scheme& scheme)
      : model_(model), known_(model.config.num_layers) {
    result_.qcfg = make_qcfg(model.config, scheme);
    result_.ranges = ActRanges(model.config.num_layers);
  }

  StoredPoints collect() {
    for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
      for (const model::Operation& operation : model_.config.graph.block(layer).operations) {
        if (const auto* op = std::get_if<model::LinearOp>(&operation))
          read(layer, op->module, model_.layers[static_cast<size_t>(layer)].all(op->module));
      }
    }
    read(0, Module::head, {&model_.head});
    if (!any_) {
      fail(
          "{} {}: {} stores neither codes nor ranges of activations that integers compute with; accepted: "
          "another scheme",
          setting("scheme"), kStoredScheme, model_.path.string());
    }
    const std::vector<Point> points = all_points(model_.config);
    round_makers(points);
    for (const Point& point : points) {
      const Point maker = made_at(model_.config, point);
      const std::optional<StaticGrid>& grid = known_[point] ? known_[point] : known_[maker];
      if (!grid || point.slot == Slot::weight) continue;
      // What the default leaves to its maker stays there.
      if (!known_[point] && !result_.qcfg[point].enabled()) continue;
      result_.qcfg[point] = grid->spec;
      result_.ranges[point] = grid->range;
    }
    return std::move(result_);
  }

 private:
  void read(int64_t layer, Module module, const std::vector<const LinearWeights*>& maps) {
    const Point weight{layer, module, Slot::weight};
    if (const auto spec = stored_spec(maps)) {
      result_.qcfg[weight] = *spec;
      any_ = true;
    } else if (!is_router(module) && module != Module::head) {
      result_.qcfg[weight] = {.bits = 8, .symmetric = true, .per_channel = true};
      result_.rounded.push_back(point_name(weight));
    }
    for (const auto& [slot, what] :
         {std::pair{Slot::input, &LinearWeights::input}, {Slot::output, &LinearWeights::output}}) {
      const Point point{layer, module, slot};
      if (const auto rounding = common(maps, what)) {
        known_[point] = static_grid(*rounding, point);
        any_ = true;
      }
    }
  }

  /// Grids of tensors that linear maps read on grids of their own.
  void round_makers(const std::vector<Point>& points) {
    constexpr int kBits = 16;
    PointMap<std::optional<StaticGrid>> shared(model_.config.num_layers);
    PointMap<char> differ(model_.config.num_layers, 0);
    for (const Point& point : points) {
      const Point maker = made_at(model_.config, point);
      if (maker == point || point.slot != Slot::input || !is_linear(point.module) || known_[maker]) continue;
      if (!shared[maker]) shared[maker] = known_[point];
      if (!known_[point] || !(*known_[point] == *shared[maker])) differ[maker] = 1;
    }
    for (const Point& maker : points) {
      if (!shared[maker]) continue;
      if (differ[maker] != 0) {
        result_.qcfg[maker].bits = kBits;
      } else {
        known_[maker] = shared[maker];
      }
    }
  }

  const model::Model& model_;
  PointMap<std::optional<StaticGrid>> known_;
  StoredPoints result_;
  bool any_ = false;
};

}  // namespace

StoredPoints stored_points(const model::Model& model, const Scheme& scheme) {
  return Collector(model, scheme).collect();
}

}  // namespace qeval::quant
