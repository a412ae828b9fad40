#include "quant/methods/learn/weight_quantizer.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace qeval::quant {
namespace {

// Rows per partial sum of the backward pass: fixed, so that sums never depend on the threads.
constexpr int64_t kRowsPerPart = 32;

/// Gradient checks differentiate through everything but the offset: their offsets are not rounded.
template <typename Real>
Real round_offset(Real x) {
  return std::is_same_v<Real, float> ? std::nearbyint(x) : x;
}

template <typename Real>
LeafGrid<Real> weight_grid(const QuantSpec& spec, const MinMax<Real>& range) {
  const CodeLimits limits = code_limits(spec.bits, spec.symmetric);
  LeafGrid<Real> grid;
  grid.enabled = true;
  grid.q_min = static_cast<Real>(limits.q_min);
  grid.q_max = static_cast<Real>(limits.q_max);
  const Real width = spec.symmetric ? std::max(std::abs(range.lo), std::abs(range.hi)) : range.hi - range.lo;
  grid.scale = std::clamp(width / grid.q_max, Real{kMinScale}, Real{kMaxScale});
  if (!spec.symmetric) grid.offset = -round_offset(range.lo / grid.scale);
  return grid;
}

template <typename Real>
bool is_clamped(const QuantSpec& spec, const MinMax<Real>& range, const LeafGrid<Real>& grid) {
  const Real width = spec.symmetric ? std::max(std::abs(range.lo), std::abs(range.hi)) : range.hi - range.lo;
  const Real scale = width / grid.q_max;
  return scale < Real{kMinScale} || scale > Real{kMaxScale};
}

/// dL/d(clipped range) of a scale's gradient.
template <typename Real>
MinMax<Real> range_gradient(const QuantSpec& spec, const MinMax<Real>& clipped, const LeafGrid<Real>& grid,
                            Real scale_gradient) {
  if (is_clamped(spec, clipped, grid)) return {};
  const Real d = scale_gradient / grid.q_max;
  if (!spec.symmetric) return {-d, d};
  const auto sign = [](Real x) { return x < 0 ? Real{-1} : x > 0 ? Real{1} : Real{0}; };
  const Real lo = std::abs(clipped.lo);
  const Real hi = std::abs(clipped.hi);
  const Real lo_share = lo > hi ? Real{1} : lo == hi ? Real{0.5} : Real{0};
  return {d * lo_share * sign(clipped.lo), d * (1 - lo_share) * sign(clipped.hi)};
}

/// What a stretch of rows adds to the gradients of the columns and of the (per-tensor) grid.
template <typename Real>
struct Part {
  std::vector<Real> columns;  ///< Σᵢ dᵢⱼ · w'ᵢⱼ
  double scale = 0;           ///< dL/dscale, or Σ dᵢⱼ · w'ᵢⱼ where the grid's codes stay
};

template <typename Real>
class WeightBackward {
 public:
  WeightBackward(const TransformedWeight<Real>& weight, const QuantSpec& spec, const Clipping<Real>& clipping,
                 const WeightGrids<Real>& grids, const Real* transformed, Real* gradient,
                 const WeightGradients<Real>& out)
      : weight_(weight),
        spec_(spec),
        clipping_(clipping),
        grids_(grids),
        transformed_(transformed),
        gradient_(gradient),
        out_(out),
        row_sums_(static_cast<size_t>(weight.rows)),
        columns_(static_cast<size_t>(weight.cols)) {}

  void run() {
    const int64_t parts = (weight_.rows + kRowsPerPart - 1) / kRowsPerPart;
    std::vector<Part<Real>> sums(static_cast<size_t>(parts));
    parallel_tasks(parts, [&](int64_t p) {
      Part<Real>& part = sums[static_cast<size_t>(p)];
      part.columns.assign(static_cast<size_t>(weight_.cols), 0);
      thread_local Scratch<Real> scratch;
      Real* room = scratch.get(weight_.cols);
      for (int64_t r = p * kRowsPerPart; r < std::min(weight_.rows, (p + 1) * kRowsPerPart); ++r) {
        add_row(r, row(r, room), part);
      }
    });
    double scale = 0;
    for (const Part<Real>& part : sums) {
      scale += part.scale;
      for (size_t j = 0; j < columns_.size(); ++j) columns_[j] += part.columns[j];
    }
    if (spec_.enabled() && !spec_.per_channel) add_tensor_extremes(static_cast<Real>(scale));
    if (weight_.grid_factor != nullptr && weight_.per_tensor && out_.grid_factor != nullptr)
      out_.grid_factor[0] += static_cast<Real>(scale) / weight_.grid_factor[0];
    finish();
  }

 private:
  /// Row r of w'.
  const Real* row(int64_t r, Real* room) const {
    return transformed_ != nullptr ? transformed_ + r * weight_.cols : weight_.row(r, room);
  }

  /// w: row r of w'.
  void add_row(int64_t r, const Real* w, Part<Real>& part) {
    const TrainKernels<Real>& kernel = train_kernels<Real>();
    Real* d = gradient_ + r * weight_.cols;
    if (spec_.enabled()) {
      const size_t g = spec_.per_channel ? static_cast<size_t>(r) : 0;
      const Real scale = kernel.fake_quantize_backward(w, weight_.cols, grids_.grid[g], d).scale;
      if (spec_.per_channel) {
        const MinMax<Real> shares = extreme_gradient(g, scale);
        add_row_extremes(w, d, grids_.range[g], shares);
      } else {
        part.scale += static_cast<double>(scale);
      }
    }
    Real& row_sum = row_sums_[static_cast<size_t>(r)];
    if (weight_.grid_factor == nullptr) {
      row_sum += kernel.product_sums(d, w, weight_.cols, part.columns.data());
      return;
    }
    if (out_.code != nullptr) {
      Real* code = out_.code + r * weight_.cols;
      for (int64_t j = 0; j < weight_.cols; ++j) code[j] += d[j];
    }
    const int64_t group = weight_.group;
    for (int64_t j = 0; j < weight_.cols; j += group) {
      const Real sum =
          kernel.product_sums(d + j, w + j, std::min(group, weight_.cols - j), part.columns.data() + j);
      row_sum += sum;
      if (weight_.per_tensor) {
        part.scale += static_cast<double>(sum);
      } else if (out_.grid_factor != nullptr) {
        const auto index = weight_.factor_index(r, j / group);
        out_.grid_factor[index] += sum / weight_.grid_factor[index];
      }
    }
  }

  /// Adds to the gradients of the bounds; returns what the smallest and the largest element of w' get.
  MinMax<Real> extreme_gradient(size_t g, Real scale) {
    const MinMax<Real> d = range_gradient(spec_, grids_.clipped[g], grids_.grid[g], scale);
    if (clipping_.upper == nullptr) return d;
    const Real upper = logistic(clipping_.upper[g]);
    const Real lower = logistic(clipping_.lower[g]);
    if (out_.upper != nullptr) out_.upper[g] += d.hi * grids_.range[g].hi * upper * (1 - upper);
    if (out_.lower != nullptr) out_.lower[g] += d.lo * grids_.range[g].lo * lower * (1 - lower);
    return {d.lo * lower, d.hi * upper};
  }

  void add_row_extremes(const Real* w, Real* d, const MinMax<Real>& range, const MinMax<Real>& total) {
    int64_t smallest = 0;
    int64_t largest = 0;
    for (int64_t j = 0; j < weight_.cols; ++j) {
      smallest += w[j] == range.lo;
      largest += w[j] == range.hi;
    }
    for (int64_t j = 0; j < weight_.cols; ++j) {
      if (w[j] == range.lo) d[j] += total.lo / static_cast<Real>(smallest);
      if (w[j] == range.hi) d[j] += total.hi / static_cast<Real>(largest);
    }
  }

  void add_tensor_extremes(Real scale) {
    struct Extreme {
      int64_t row, col;
      Real value;
    };
    std::vector<Extreme> smallest;
    std::vector<Extreme> largest;
    const MinMax<Real> range = grids_.range[0];
    std::vector<Real> room(static_cast<size_t>(weight_.cols));
    for (int64_t r = 0; r < weight_.rows; ++r) {
      const MinMax<Real>& ends = grids_.rows[static_cast<size_t>(r)];
      if (ends.lo != range.lo && ends.hi != range.hi) continue;
      const Real* w = row(r, room.data());
      for (int64_t j = 0; j < weight_.cols; ++j) {
        const Real value = w[j];
        if (value == range.lo) smallest.push_back({r, j, value});
        if (value == range.hi) largest.push_back({r, j, value});
      }
    }
    const MinMax<Real> total = extreme_gradient(0, scale);
    const auto share = [&](const std::vector<Extreme>& extremes, Real gradient) {
      for (const Extreme& e : extremes) {
        const Real product = gradient / static_cast<Real>(extremes.size()) * e.value;
        columns_[static_cast<size_t>(e.col)] += product;
        row_sums_[static_cast<size_t>(e.row)] += product;
      }
    };
    share(smallest, total.lo);
    share(largest, total.hi);
  }

  /// d/dfactor of w' is w'/factor, or −w'/factor for a divisor.
  void finish() {
    const auto add = [](const std::vector<Real>& sums, const Real* factor, Real sign, Real* out) {
      if (out == nullptr) return;
      for (size_t i = 0; i < sums.size(); ++i) out[i] += sign * sums[i] / factor[i];
    };
    add(columns_, weight_.column_multiplier, 1, out_.column_multiplier);
    add(columns_, weight_.column_divisor, -1, out_.column_divisor);
    add(row_sums_, weight_.row_multiplier, 1, out_.row_multiplier);
    add(row_sums_, weight_.row_divisor, -1, out_.row_divisor);
  }

  const TransformedWeight<Real>& weight_;
  const QuantSpec& spec_;
  const Clipping<Real>& clipping_;
  const WeightGrids<Real>& grids_;
  const Real* transformed_;  ///< w', where it lies in memory
  Real* gradient_;
  const WeightGradients<Real>& out_;
  std::vector<Real> row_sums_, columns_;
};

}  // namespace

template <typename Real>
Real logistic(Real x) {
  return 1 / (1 + std::exp(-x));
}

template <typename Real>
const Real* TransformedWeight<Real>::row(int64_t r, Real* room) const {
  const Real* w = data + r * cols;
  if (column_multiplier != nullptr || column_divisor != nullptr || row_divisor != nullptr ||
      row_multiplier != nullptr) {
    train_kernels<Real>().transform(
        w, cols,
        {column_multiplier, column_divisor, row_divisor != nullptr ? row_divisor[r] : 1,
         row_multiplier != nullptr ? row_multiplier[r] : 1},
        room);
    w = room;
  }
  if (grid_factor == nullptr) return w;
  for (int64_t first = 0; first < cols; first += group) {
    const Real factor = grid_factor[factor_index(r, first / group)];
    for (int64_t j = first; j < std::min(cols, first + group); ++j) room[j] = w[j] * factor;
  }
  return room;
}

template <typename Real>
WeightGrids<Real> weight_grids(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                               const Clipping<Real>& clipping, Real* transformed) {
  assert(spec.group_size < 0 && (transformed == nullptr || !weight.plain()));
  WeightGrids<Real> grids;
  if (!spec.enabled()) return grids;
  grids.rows.resize(static_cast<size_t>(weight.rows));
  parallel_ranges(weight.rows, kRowsPerPart, [&](int64_t first, int64_t last) {
    thread_local Scratch<Real> scratch;
    for (int64_t r = first; r < last; ++r) {
      Real* room = transformed != nullptr ? transformed + r * weight.cols : scratch.get(weight.cols);
      const Real* w = weight.row(r, room);
      grids.rows[static_cast<size_t>(r)] = train_kernels<Real>().min_max(w, weight.cols);
    }
  });
  if (spec.per_channel) {
    grids.range = std::move(grids.rows);
    grids.rows.clear();
  } else {
    MinMax<Real> all = grids.rows[0];
    for (const MinMax<Real>& row : grids.rows) all = {std::min(all.lo, row.lo), std::max(all.hi, row.hi)};
    grids.range.assign(1, all);
  }
  for (size_t g = 0; g < grids.range.size(); ++g) {
    MinMax<Real> clipped = grids.range[g];
    if (clipping.upper != nullptr) {
      clipped.hi *= logistic(clipping.upper[g]);
      clipped.lo *= logistic(clipping.lower[g]);
    }
    grids.clipped.push_back(clipped);
    grids.grid.push_back(weight_grid(spec, clipped));
  }
  return grids;
}

template <typename Real>
void quantize_weight(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                     const WeightGrids<Real>& grids, Real* out, Real* transformed) {
  assert(transformed == nullptr || !weight.plain());
  parallel_ranges(weight.rows, kRowsPerPart, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      Real* row = out + r * weight.cols;
      Real* room = transformed != nullptr ? transformed + r * weight.cols : row;
      const Real* w = weight.row(r, room);
      if (spec.enabled()) {
        const size_t g = spec.per_channel ? static_cast<size_t>(r) : 0;
        train_kernels<Real>().fake_quantize(w, weight.cols, grids.grid[g], row);
      } else if (w != row) {
        std::memcpy(row, w, static_cast<size_t>(weight.cols) * sizeof(Real));
      }
    }
  });
}

template <typename Real>
void quantize_weight_backward(const TransformedWeight<Real>& weight, const QuantSpec& spec,
                              const Clipping<Real>& clipping, const WeightGrids<Real>& grids,
                              const Real* transformed, Real* gradient, const WeightGradients<Real>& out) {
  WeightBackward<Real>(weight, spec, clipping, grids, transformed, gradient, out).run();
}

// NOLINTBEGIN(bugprone-macro-parentheses): a type takes none
#define QEVAL_INSTANTIATE(Real)                                                                             \
  template struct TransformedWeight<Real>;                                                                  \
  template Real logistic(Real);                                                                             \
  template WeightGrids<Real> weight_grids(const TransformedWeight<Real>&, const QuantSpec&,                 \
                                          const Clipping<Real>&, Real*);                                    \
  template void quantize_weight(const TransformedWeight<Real>&, const QuantSpec&, const WeightGrids<Real>&, \
                                Real*, Real*);                                                              \
  template void quantize_weight_backward(const TransformedWeight<Real>&, const QuantSpec&,                  \
                                         const Clipping<Real>&, const WeightGrids<Real>&, const Real*,      \
                                         Real*, const WeightGradients<Real>&);
// NOLINTEND(bugprone-macro-parentheses)
QEVAL_INSTANTIATE(float)
QEVAL_INSTANTIATE(double)
#undef QEVAL_INSTANTIATE

}  // namespace qeval::quant
