#pragma once

#include <cstdint>
#include <vector>

#include "quant/grid/quantizer.h"

namespace qeval::quant {

/// Counts of values over [lo, hi] in equal bins: what range estimators other than min-max look at.
class Histogram {
 public:
  static constexpr int64_t kBins = int64_t{1} << 15;

  Histogram() = default;
  /// Precondition: lo ≤ hi, finite.
  explicit Histogram(Range range);

  /// Counts n values of the range; not thread-safe. Any order gives the same counts.
  void add(const float* x, int64_t n);
  /// Counts `n` values equal to x.
  void add(float x, int64_t n);

  Range range() const { return range_; }
  int64_t total() const;
  /// The value in the middle of a bin.
  float center(int64_t bin) const;
  int64_t count(int64_t bin) const { return counts_[static_cast<size_t>(bin)]; }

 private:
  int64_t bin(float x) const;

  Range range_;
  float bins_per_unit_ = 0;
  std::vector<int64_t> counts_;
};

/// The range that leaves out (100 − percentile) % of the values at either end, to within a bin; percentile
/// above 50, up to 100.
Range percentile_range(const Histogram& histogram, double percentile);

/// The range whose quantization by `spec` has the smallest mean squared error over the histogram: a search
/// over upper and lower bounds drawn in towards 0 in steps of 5 %, twice in turn.
Range mse_range(const Histogram& histogram, const QuantSpec& spec);

/// Σ count · (x − quantized x)² over the histogram's bins.
double squared_error(const Histogram& histogram, const Grid& grid);

}  // namespace qeval::quant
