#include "quant/calibrate/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>

#include "base/error.h"
#include "quant/calibrate/observer.h"
#include "quant/grid/range_search.h"

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, 3> kEstimators{"minmax", "percentile", "mse"};

/// Grids finer than this lose nothing to min and max.
constexpr int kNarrowedBits = 10;

/// Where position 0 is apart, ranges of few bits leave out rows that reach so many octaves further than this
/// share of the rows, and that of a residual stream ends there: behind the first there are massive
/// activations too, of one token in a few thousand, and a range that includes them leaves the others a tenth
/// of its steps, or a hundredth.
constexpr int kOctaves = 2;
constexpr double kReachedBy = 0.99;

/// Rows by how far they reach, their largest magnitude, in eighths of an octave: how many there are, and
/// their smallest and largest values.
class Reaches {
 public:
  void add(Range row) { add(bin(row), 1, row); }
  /// Those bins that have rows, each as its number, count and range.
  std::vector<float> packed() const {
    std::vector<float> values;
    for (size_t i = 0; i < bins_.size(); ++i) {
      const auto& [count, range] = bins_[i];
      if (count > 0)
        values.insert(values.end(), {static_cast<float>(i), static_cast<float>(count), range.lo, range.hi});
    }
    return values;
  }
  void add_packed(std::span<const float> values) {
    for (; values.size() >= 4; values = values.subspan(4))
      add(std::min(static_cast<size_t>(values[0]), kBins - 1), static_cast<int64_t>(values[1]),
          {values[2], values[3]});
  }

  /// The last bin of rows that are no exceptions. Rows of zeros (padding, experts without a token) say
  /// nothing about the others.
  size_t last_common() const {
    int64_t total = 0, below = 0;
    for (size_t i = 1; i < bins_.size(); ++i) total += bins_[i].count;
    if (total == 0) return kBins - 1;
    for (size_t i = 1; i < bins_.size(); ++i) {
      below += bins_[i].count;
      if (static_cast<double>(below) >= kReachedBy * static_cast<double>(total))
        return std::min(i + kOctaves * kPerOctave, kBins - 1);
    }
    return kBins - 1;
  }
  /// Of rows up to that bin; of at least one row.
  Range common_range() const {
    Range range = kNothing;
    const size_t last = last_common();
    for (size_t i = 0; i <= last && i < bins_.size(); ++i) widen(range, bins_[i].range);
    return range;
  }
  /// What those rows stay below.
  float common_reach() const {
    return std::exp2((static_cast<float>(last_common()) + 1 - kZero) / kPerOctave);
  }
  static size_t bin(Range row) {
    const float magnitude = std::max(-row.lo, row.hi);
    if (!(magnitude > 0)) return 0;
    const float place = std::floor(std::log2(magnitude) * kPerOctave) + kZero;
    return static_cast<size_t>(std::clamp(place, 0.0F, static_cast<float>(kBins - 1)));
  }

 private:
  static constexpr size_t kBins = 512;
  static constexpr int kPerOctave = 8, kZero = 256;  // from 2^-32 to 2^32
  static constexpr Range kNothing{std::numeric_limits<float>::infinity(),
                                  -std::numeric_limits<float>::infinity()};
  struct Bin {
    int64_t count = 0;
    Range range = kNothing;
  };
  static void widen(Range& range, Range more) {
    range = {std::min(range.lo, more.lo), std::max(range.hi, more.hi)};
  }
  void add(size_t bin, int64_t count, Range range) {
    if (bins_.empty()) bins_.resize(kBins);
    bins_[bin].count += count;
    widen(bins_[bin].range, range);
  }

  std::vector<Bin> bins_;  ///< kBins, or none yet
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
    std::vector<Range> ranges;
    for (int64_t r = 0; r < rows; ++r) {
      const Range row = kernel.range(x + r * stride, cols);
      if (std::isnan(row.lo)) fail("{}: calibration met a value that is not finite", point_name(point));
      widen(range, row);
      if (reaches_[point]) ranges.push_back(row);
    }
    const std::lock_guard lock(locks_[point]);
    if (range) widen(ranges_[point], *range);
    for (const Range& row : ranges) reaches_[point]->add(row);
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
    // Per point: how many ranges (0 or 1), the range, how many maxima, those; where wanted, how many numbers
    // of reaches, those.
    std::vector<float> mine;
    for (const Point& point : points) {
      mine.push_back(ranges_[point] ? 1.0F : 0.0F);
      if (ranges_[point]) mine.insert(mine.end(), {ranges_[point]->lo, ranges_[point]->hi});
      mine.push_back(static_cast<float>(maxima_[point].size()));
      mine.insert(mine.end(), maxima_[point].begin(), maxima_[point].end());
      if (!reaches_[point]) continue;
      const std::vector<float> reaches = reaches_[point]->packed();
      mine.push_back(static_cast<float>(reaches.size()));
      mine.insert(mine.end(), reaches.begin(), reaches.end());
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
      if (reaches_[point]) reaches_[point]->add_packed(take(static_cast<size_t>(take(1)[0])));
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
  explicit HistogramObserver(int64_t num_layers) : histograms_(num_layers), last_(num_layers) {}

  /// `last`: rows beyond this bin of reaches are left out.
  void want(const Point& point, Range range, std::optional<size_t> last) {
    histograms_[point].emplace(range);
    last_[point] = last;
  }

  void observe(const Point& point, const float* x, int64_t rows, int64_t cols, int64_t stride) override {
    std::optional<Histogram>& histogram = histograms_[point];
    if (!histogram) return;
    const std::lock_guard lock(locks_[point]);
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x + r * stride;
      if (last_[point] && Reaches::bin(quant_kernels().range(row, cols)) > *last_[point]) continue;
      histogram->add(row, cols);
    }
  }

  bool wants(const Point& point) const override { return histograms_[point].has_value(); }

  const std::optional<Histogram>& histogram(const Point& point) const { return histograms_[point]; }

 private:
  PointMap<std::optional<Histogram>> histograms_;
  PointMap<std::optional<size_t>> last_;
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
bool is_wide_residual(const QuantConfig& qcfg, const model::ModelConfig& config, const Point& point) {
  return is_norm(point.module) && point.slot == Slot::input && made_at(config, point) == point &&
         needs_range(qcfg, point) && qcfg[point].bits > kNarrowedBits;
}

/// Where the points are made whose ranges leave out rows that are exceptions.
std::vector<Point> reaching_points(const QuantConfig& qcfg, const model::ModelConfig& config) {
  std::vector<Point> points;
  for (const Point& point : all_points(config)) {
    if (is_narrowed(qcfg, point) || is_wide_residual(qcfg, config, point))
      points.push_back(made_at(config, point));
  }
  return points;
}

/// Narrows the ranges of coarse grids by how the values are spread, which `run` shows an observer. `seen`,
/// where given, knows which rows are left out.
template <typename Run>
void narrow(const model::ModelConfig& config, const QuantConfig& qcfg, const CalibrationOptions& options,
            const ExtremesObserver* seen, ActRanges& ranges, const Run& run) {
  const std::vector<Point> points = all_points(config);
  HistogramObserver histograms(config.num_layers);
  for (const Point& point : points) {
    if (!is_narrowed(qcfg, point)) continue;
    const Point made = made_at(config, point);
    const std::optional<Reaches>* reaches = seen == nullptr ? nullptr : &seen->reaches(made);
    histograms.want(made, ranges[point].value(),
                    reaches != nullptr && *reaches ? std::optional((*reaches)->last_common()) : std::nullopt);
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
    narrow(model.config, first.qcfg, options, nullptr, first.ranges, run);
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

  ExtremesObserver extremes(
      model.config, options.first_token_apart ? reaching_points(qcfg, model.config) : std::vector<Point>{});
  run(extremes, peers.rank, peers.size);
  Calibration result{ActRanges(num_layers), PointMap<std::vector<float>>(num_layers)};
  const std::vector<Point> points = all_points(model.config);
  if (!peers.alone()) extremes.share(peers, points);
  for (const Point& point : points) {
    if (!is_measured(point)) continue;
    const Point made = made_at(model.config, point);
    result.ranges[point] = extremes.ranges()[made];
    if (options.first_token_apart && is_narrowed(qcfg, point)) {
      result.ranges[point] = extremes.reaches(made)->common_range();
    } else if (options.first_token_apart && is_wide_residual(qcfg, model.config, point)) {
      // Room for what exceptions are cut to: as far as rows that are none may reach.
      Range& range = result.ranges[point].value();
      const float reach = extremes.reaches(made)->common_reach();
      range = {std::max(range.lo, -reach), std::min(range.hi, reach)};
    }
    if (point.slot == Slot::input && is_linear(point.module)) {
      result.channel_maxima[point] = extremes.maxima()[made];
    }
  }
  if (options.first_token_apart && !options.prefix_token)
    result.first = first_token(model, samples, qcfg, options);
  if (options.estimator == RangeEstimator::minmax) return result;
  narrow(model.config, qcfg, options, options.first_token_apart ? &extremes : nullptr, result.ranges,
         [&](PointObserver& observer) { run(observer, 0, 1); });
  return result;
}

}  // namespace qeval::quant
