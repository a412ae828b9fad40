#include "quant/calibrate/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <set>

#include "base/error.h"
#include "quant/calibrate/observer.h"
#include "quant/grid/range_search.h"

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, 3> kEstimators{"minmax", "percentile", "mse"};

/// Grids finer than this lose nothing to min and max.
constexpr int kNarrowedBits = 10;

/// Where position 0 is apart, a residual stream's range reaches at most so much further than this share of
/// the tokens: behind the first there are massive activations too, of one token in a few thousand, and a
/// range that includes them leaves the others a tenth of its steps.
constexpr float kReach = 4;
constexpr double kReachedBy = 0.99;

/// How far rows reach: their largest magnitudes, counted by eighths of an octave.
class Reaches {
 public:
  void add(float magnitude) { ++counts_[bin(magnitude)]; }
  void add(std::span<const float> counts) {
    for (size_t i = 0; i < kBins; ++i) counts_[i] += static_cast<int64_t>(counts[i]);
  }
  /// What this share of the rows stays below.
  float quantile(double share) const {
    const auto total = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
    int64_t below = 0;
    size_t i = 0;
    for (; i + 1 < kBins; ++i) {
      below += counts_[i];
      if (static_cast<double>(below) >= share * static_cast<double>(total)) break;
    }
    return std::exp2(static_cast<float>(static_cast<int>(i) + 1 - kZero) / kPerOctave);
  }
  std::vector<float> counts() const { return {counts_.begin(), counts_.end()}; }
  static constexpr size_t kBins = 512;

 private:
  static constexpr int kPerOctave = 8, kZero = 256;  // from 2^-32 to 2^32
  static size_t bin(float magnitude) {
    if (!(magnitude > 0)) return 0;
    const float place = std::floor(std::log2(magnitude) * kPerOctave) + kZero;
    return static_cast<size_t>(std::clamp(place, 0.0F, static_cast<float>(kBins - 1)));
  }

  std::array<int64_t, kBins> counts_{};
};

/// First pass: smallest and largest value per point, largest magnitude per channel; of the points in
/// `reaching` also how far their rows reach.
class ExtremesObserver : public PointObserver {
 public:
  explicit ExtremesObserver(const model::ModelConfig& config, std::span<const Point> reaching = {})
      : ranges_(config.num_layers),
        maxima_(config.num_layers),
        reaches_(config.num_layers),
        feeds_a_linear_(config.num_layers, 0) {
    for (const Point& point : reaching) reaches_[point].emplace();
    for (const Point& point : all_points(config)) {
      const bool of_block = is_linear(point.module) && !is_after_blocks(point.module);
      if (of_block && point.slot == Slot::input) feeds_a_linear_[made_at(config, point)] = 1;
    }
  }

  void observe(const Point& point, const float* x, int64_t rows, int64_t cols, int64_t stride) override {
    const QuantKernels& kernel = quant_kernels();
    std::optional<Range> range;
    std::vector<float> reaches;
    for (int64_t r = 0; r < rows; ++r) {
      const Range row = kernel.range(x + r * stride, cols);
      if (std::isnan(row.lo)) fail("{}: calibration met a value that is not finite", point_name(point));
      widen(range, row);
      if (reaches_[point]) reaches.push_back(std::max(-row.lo, row.hi));
    }
    const std::lock_guard lock(locks_[point]);
    if (range) widen(ranges_[point], *range);
    for (const float reach : reaches) reaches_[point]->add(reach);
    if (feeds_a_linear_[point] == 0) return;
    std::vector<float>& maxima = maxima_[point];
    if (maxima.empty()) maxima.resize(static_cast<size_t>(cols), 0.0F);
    for (int64_t r = 0; r < rows; ++r) kernel.abs_max(x + r * stride, cols, maxima.data());
  }

  const PointMap<std::optional<Range>>& ranges() const { return ranges_; }
  const PointMap<std::vector<float>>& maxima() const { return maxima_; }
  const std::optional<Reaches>& reaches(const Point& point) const { return reaches_[point]; }

  /// Takes in what the peers have seen at these points.
  void share(const Peers& peers, const std::vector<Point>& points) {
    // Per point: how many ranges (0 or 1), the range, how many maxima, those, the counts of reaches where
    // wanted.
    std::vector<float> mine;
    for (const Point& point : points) {
      mine.push_back(ranges_[point] ? 1.0F : 0.0F);
      if (ranges_[point]) mine.insert(mine.end(), {ranges_[point]->lo, ranges_[point]->hi});
      mine.push_back(static_cast<float>(maxima_[point].size()));
      mine.insert(mine.end(), maxima_[point].begin(), maxima_[point].end());
      if (!reaches_[point]) continue;
      const std::vector<float> counts = reaches_[point]->counts();
      mine.insert(mine.end(), counts.begin(), counts.end());
      reaches_[point].emplace();  // these come back with the others
    }
    const std::span<const float> values(mine);
    for (const std::string& text :
         gather(peers, {reinterpret_cast<const char*>(values.data()), values.size_bytes()})) {
      std::vector<float> theirs(text.size() / sizeof(float));
      std::memcpy(theirs.data(), text.data(), theirs.size() * sizeof(float));
      take_in(theirs, points);
    }
  }

 private:
  void take_in(std::span<const float> theirs, const std::vector<Point>& points) {
    const auto take = [&](size_t count) {
      if (count > theirs.size()) fail("calibration: another rank has measured another model");
      const auto part = theirs.first(count);
      theirs = theirs.subspan(count);
      return part;
    };
    for (const Point& point : points) {
      if (take(1)[0] > 0) {
        const auto range = take(2);
        widen(ranges_[point], {range[0], range[1]});
      }
      const auto maxima = take(static_cast<size_t>(take(1)[0]));
      std::vector<float>& own = maxima_[point];
      own.resize(std::max(own.size(), maxima.size()), 0.0F);
      for (size_t i = 0; i < maxima.size(); ++i) own[i] = std::max(own[i], maxima[i]);
      if (reaches_[point]) reaches_[point]->add(take(Reaches::kBins));
    }
  }

  static void widen(std::optional<Range>& known, Range more) {
    known = known ? Range{std::min(known->lo, more.lo), std::max(known->hi, more.hi)} : more;
  }

  PointMap<std::optional<Range>> ranges_;
  PointMap<std::vector<float>> maxima_;
  PointMap<std::optional<Reaches>> reaches_;
  PointMap<char> feeds_a_linear_;  ///< whether channel maxima are wanted of what is made at this point
  PointLocks locks_;
};

/// Second pass: how the values are spread between the extremes, for the points that want to know.
class HistogramObserver : public PointObserver {
 public:
  explicit HistogramObserver(int64_t num_layers) : histograms_(num_layers) {}

  void want(const Point& point, Range range) { histograms_[point].emplace(range); }

  void observe(const Point& point, const float* x, int64_t rows, int64_t cols, int64_t stride) override {
    std::optional<Histogram>& histogram = histograms_[point];
    if (!histogram) return;
    const std::lock_guard lock(locks_[point]);
    for (int64_t r = 0; r < rows; ++r) histogram->add(x + r * stride, cols);
  }

  const std::optional<Histogram>& histogram(const Point& point) const { return histograms_[point]; }

 private:
  PointMap<std::optional<Histogram>> histograms_;
  PointLocks locks_;
};

/// The sigmoid has a range by nature, weights are measured when they are quantized.
bool is_measured(const Point& point) {
  return point.slot != Slot::weight && !(is_activation(point.module) && point.slot == Slot::input2);
}

bool is_narrowed(const QuantConfig& qcfg, const Point& point) {
  return is_measured(point) && needs_range(qcfg, point) && qcfg[point].bits <= kNarrowedBits;
}

/// The residual stream where a norm reads it, rounded to more bits than are narrowed by the spread of values.
std::vector<Point> wide_residuals(const QuantConfig& qcfg, const model::ModelConfig& config) {
  std::vector<Point> points;
  for (const Point& point : all_points(config)) {
    const bool residual =
        is_norm(point.module) && point.slot == Slot::input && made_at(config, point) == point;
    if (residual && needs_range(qcfg, point) && qcfg[point].bits > kNarrowedBits) points.push_back(point);
  }
  return points;
}

/// Narrows the ranges of coarse grids by how the values are spread, which `run` shows an observer.
template <typename Run>
void narrow(const model::ModelConfig& config, const QuantConfig& qcfg, const CalibrationOptions& options,
            ActRanges& ranges, const Run& run) {
  const std::vector<Point> points = all_points(config);
  HistogramObserver histograms(config.num_layers);
  for (const Point& point : points) {
    if (is_narrowed(qcfg, point)) histograms.want(made_at(config, point), ranges[point].value());
  }
  run(histograms);
  parallel_tasks(std::ssize(points), [&](int64_t i) {
    const Point& point = points[static_cast<size_t>(i)];
    if (!is_narrowed(qcfg, point)) return;
    const Histogram& histogram = histograms.histogram(made_at(config, point)).value();
    ranges[point] = options.estimator == RangeEstimator::mse
                        ? mse_range(histogram, qcfg[point])
                        : percentile_range(histogram, options.percentile);
  });
}

/// What position 0 computes with.
FirstToken first_token(const model::Model& model, const Samples& samples, const QuantConfig& qcfg,
                       const CalibrationOptions& options) {
  std::set<int32_t> distinct;
  for (const auto& sample : samples) distinct.insert(sample.begin(), sample.end());
  const std::vector<int32_t> tokens(distinct.begin(), distinct.end());
  const auto run = [&](PointObserver& observer) {
    run_first_tokens(model, ObservedArithmetic(model, 1, observer), tokens);
  };
  FirstToken first{make_first_qcfg(qcfg, model.config), ActRanges(model.config.num_layers)};
  ExtremesObserver extremes(model.config);
  run(extremes);
  for (const Point& point : all_points(model.config)) {
    if (is_measured(point)) first.ranges[point] = extremes.ranges()[made_at(model.config, point)];
    // The one probability is 1, and that of what is hidden 0.
    if (point.module == Module::pv_product && point.slot == Slot::input) first.ranges[point] = Range{0, 1};
    if (point.module == Module::activation && point.slot == Slot::input2) first.ranges[point] = kSigmoidRange;
  }
  if (options.estimator != RangeEstimator::minmax)
    narrow(model.config, first.qcfg, options, first.ranges, run);
  return first;
}

}  // namespace

RangeEstimator parse_range_estimator(std::string_view name) {
  for (size_t i = 0; i < kEstimators.size(); ++i) {
    if (kEstimators[i] == name) return static_cast<RangeEstimator>(i);
  }
  fail("{}: unknown range estimator; accepted: minmax, percentile, mse", printable(name));
}

std::string_view name(RangeEstimator estimator) {
  return kEstimators[static_cast<size_t>(estimator)];
}

bool is_any_narrowed(const QuantConfig& qcfg, const model::ModelConfig& config) {
  return std::ranges::any_of(all_points(config),
                             [&](const Point& point) { return is_narrowed(qcfg, point); });
}

Calibration calibrate(const model::Model& model, const Samples& samples, const QuantConfig& qcfg,
                      const CalibrationOptions& options,
                      const std::function<void(int64_t, int64_t)>& progress, const Peers& peers) {
  const int64_t num_layers = model.config.num_layers;
  const auto count = std::ssize(samples);
  if (count == 0) fail("calibration: no samples");
  const int64_t passes = options.estimator == RangeEstimator::minmax ? 1 : 2;
  int64_t done = 0;
  const auto run = [&](PointObserver& observer, int64_t first, int64_t stride) {
    size_t longest = 0;
    for (const auto& sample : samples) longest = std::max(longest, sample.size());
    const ObservedArithmetic arithmetic(model, static_cast<int64_t>(longest), observer,
                                        options.first_token_apart);
    for (int64_t i = first; i < count; i += stride) {
      run_sample(model, arithmetic, samples[static_cast<size_t>(i)]);
      done = std::min(done + stride, passes * count);
      if (progress) progress(done, passes * count);
    }
  };

  const std::vector<Point> residuals =
      options.first_token_apart ? wide_residuals(qcfg, model.config) : std::vector<Point>{};
  ExtremesObserver extremes(model.config, residuals);
  run(extremes, peers.rank, peers.size);
  Calibration result{ActRanges(num_layers), PointMap<std::vector<float>>(num_layers)};
  const std::vector<Point> points = all_points(model.config);
  if (!peers.alone()) extremes.share(peers, points);
  for (const Point& point : points) {
    if (!is_measured(point)) continue;
    result.ranges[point] = extremes.ranges()[made_at(model.config, point)];
    if (point.slot == Slot::input && is_linear(point.module)) {
      result.channel_maxima[point] = extremes.maxima()[made_at(model.config, point)];
    }
  }
  for (const Point& point : residuals) {
    Range& range = result.ranges[point].value();
    const float reach = kReach * extremes.reaches(point)->quantile(kReachedBy);
    range = {std::max(range.lo, -reach), std::min(range.hi, reach)};
  }
  if (options.first_token_apart && !options.prefix_token)
    result.first = first_token(model, samples, qcfg, options);
  if (options.estimator == RangeEstimator::minmax) return result;
  narrow(model.config, qcfg, options, result.ranges, [&](PointObserver& observer) { run(observer, 0, 1); });
  return result;
}

}  // namespace qeval::quant
