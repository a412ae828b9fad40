#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/weights.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// What makes a quantized model worse than its bits, and where: an entry of quantize.json's "warnings".
struct Warning {
  std::string what;
  std::vector<std::string> places;  ///< "layer 3 up to down (2 channels)", "model.layers.0.mlp.w2.weight"
  bool operator==(const Warning&) const = default;
};

/// One line: what, and the first few places.
std::string one_line(const Warning& warning);
/// [{"what": …, "places": […]}], of all places.
nlohmann::ordered_json warnings_json(const std::vector<Warning>& warnings);

/// Between these a scale between channels is taken as it is; outside, a channel next to ordinary ones decides
/// their grid, or loses its own.
inline constexpr float kSmallestUsualScale = 1e-3F;
inline constexpr float kLargestUsualScale = 1e3F;

/// The scales between channels that leave the usual: `what` they are, one place for each pair of a layer.
class ScaleCheck {
 public:
  explicit ScaleCheck(std::string_view what) : what_(what) {}
  /// The scales of one pair ("up to down"), signs aside.
  void add(int64_t layer, std::string_view pair, const std::vector<float>& scales);
  /// Nothing to say: empty.
  std::vector<Warning> warnings() const;

 private:
  std::string_view what_;
  std::vector<std::string> places_;
  float smallest_ = kLargestUsualScale, largest_ = kSmallestUsualScale;
};

/// Tensors that their grids hold badly, because a scale lies between 1e-5 and 1e6 (make_grid): weights and
/// static activation ranges with fewer steps than 8 bits (or their own, if fewer) have, since the smallest
/// scale is too coarse; and those that reach beyond their codes. A tensor of zeros is held exactly.
/// `ranges` as complete_ranges has them. Reads every quantized weight once.
std::vector<Warning> grid_warnings(const model::Model& model, const QuantConfig& qcfg,
                                   const ActRanges& ranges);

}  // namespace qeval::quant
