#include "quant/grid/range_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace qeval::quant {

Histogram::Histogram(Range range) : range_(range), counts_(static_cast<size_t>(kBins), 0) {
  // Divided first: the width of a very wide range would overflow.
  const float bin_width = range.hi / kBins - range.lo / kBins;
  bins_per_unit_ = bin_width > 0 ? 1.0F / bin_width : 0.0F;
  if (!std::isfinite(bins_per_unit_)) bins_per_unit_ = 0.0F;
}

int64_t Histogram::bin(float x) const {
  const auto index = static_cast<int64_t>((x - range_.lo) * bins_per_unit_);
  return std::clamp<int64_t>(index, 0, kBins - 1);
}

void Histogram::add(const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) ++counts_[static_cast<size_t>(bin(x[i]))];
}

void Histogram::add(float x, int64_t n) {
  counts_[static_cast<size_t>(bin(x))] += n;
}

int64_t Histogram::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
}

float Histogram::center(int64_t bin) const {
  const double width = (static_cast<double>(range_.hi) - static_cast<double>(range_.lo)) / kBins;
  return static_cast<float>(static_cast<double>(range_.lo) + (static_cast<double>(bin) + 0.5) * width);
}

Range percentile_range(const Histogram& histogram, double percentile) {
  const int64_t total = histogram.total();
  // Fewer than half at either end, so that the bounds do not cross.
  const auto left_out =
      std::min(static_cast<int64_t>(std::floor(static_cast<double>(total) * (100.0 - percentile) / 100.0)),
               std::max<int64_t>(total - 1, 0) / 2);
  const double width =
      (static_cast<double>(histogram.range().hi) - static_cast<double>(histogram.range().lo)) /
      Histogram::kBins;
  const auto edge = [&](int64_t bin) {
    return static_cast<float>(static_cast<double>(histogram.range().lo) + static_cast<double>(bin) * width);
  };
  Range range = histogram.range();
  int64_t seen = 0;
  for (int64_t b = 0; b < Histogram::kBins; ++b) {
    seen += histogram.count(b);
    if (seen > left_out) {
      if (b > 0) range.lo = edge(b);
      break;
    }
  }
  seen = 0;
  for (int64_t b = Histogram::kBins - 1; b >= 0; --b) {
    seen += histogram.count(b);
    if (seen > left_out) {
      if (b + 1 < Histogram::kBins) range.hi = edge(b + 1);
      break;
    }
  }
  return range;
}

double squared_error(const Histogram& histogram, const Grid& grid) {
  constexpr int64_t kStretch = 1024;
  std::array<float, kStretch> x{};
  std::array<float, kStretch> rounded{};
  double sum = 0;
  for (int64_t first = 0; first < Histogram::kBins; first += kStretch) {
    for (int64_t i = 0; i < kStretch; ++i) x[static_cast<size_t>(i)] = histogram.center(first + i);
    quant_kernels().fake_quantize(x.data(), kStretch, grid, rounded.data());
    for (int64_t i = 0; i < kStretch; ++i) {
      const auto at = static_cast<size_t>(i);
      const double difference = static_cast<double>(x[at]) - static_cast<double>(rounded[at]);
      sum += static_cast<double>(histogram.count(first + i)) * difference * difference;
    }
  }
  return sum;
}

Range mse_range(const Histogram& histogram, const QuantSpec& spec) {
  constexpr int kSteps = 90;  // 0.95^90 ≈ 1 %
  constexpr float kStep = 0.95F;
  const Range whole = histogram.range();
  // What the bounds are drawn towards: 0, or the nearest value to it.
  const float anchor = std::clamp(0.0F, whole.lo, whole.hi);
  Range best = whole;
  double least = squared_error(histogram, make_grid(spec, best));
  const auto draw_in = [&](float Range::*bound) {
    Range candidate = best;
    float share = 1.0F;
    for (int i = 0; i < kSteps; ++i) {
      share *= kStep;
      candidate.*bound = anchor + (whole.*bound - anchor) * share;
      const double error = squared_error(histogram, make_grid(spec, candidate));
      if (error < least) {
        least = error;
        best = candidate;
      }
    }
  };
  for (int round = 0; round < 2; ++round) {
    draw_in(&Range::hi);
    draw_in(&Range::lo);
  }
  return best;
}

}  // namespace qeval::quant
