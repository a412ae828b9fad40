// The inner loops of the backward pass, written once over a vector type and compiled once per CPU path, and
// once more for double with rounding left out. Included by the train_kernels_*.cc files only; see
// train_kernels.h for the contracts and kernels_impl.h for why no inline function of the library is called.
#pragma once

#include "model/kernels/simd.h"
#include "quant/methods/learn/train_kernels.h"

namespace qeval::quant {
namespace {

using model::broadcast;
using model::horizontal_max;
using model::horizontal_sum;
using model::load;
using model::load_partial;
using model::store;
using model::store_partial;
using model::Vec;

/// The vector type of a number type.
template <typename Real>
using VecOf = decltype(load(static_cast<const Real*>(nullptr)));

template <typename V>
inline V clamp(V x, V lo, V hi) {
  return min(hi, max(lo, x));  // the value second: NaN passes through
}

template <typename Real>
struct GridVec {
  using V = VecOf<Real>;
  V scale, offset, q_min, q_max;
  explicit GridVec(const LeafGrid<Real>& g)
      : scale(broadcast(g.scale)),
        offset(broadcast(g.offset)),
        q_min(broadcast(g.q_min)),
        q_max(broadcast(g.q_max)) {}
};

/// Calls body(i, count) for whole vectors, and once for what is left.
template <typename Real, typename Body>
inline void for_vectors(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + VecOf<Real>::width <= n; i += VecOf<Real>::width) body(i, VecOf<Real>::width);
  if (i < n) body(i, n - i);
}

template <typename Real>
inline VecOf<Real> read(const Real* x, int64_t count, Real fill = 0) {
  return count == VecOf<Real>::width ? load(x) : load_partial(x, count, fill);
}

template <typename Real>
inline void write(Real* y, int64_t count, VecOf<Real> v) {
  if (count == VecOf<Real>::width) {
    store(y, v);
  } else {
    store_partial(y, count, v);
  }
}

template <typename Real>
void leaf_fake_quantize(const Real* x, int64_t n, const LeafGrid<Real>& grid, Real* y) {
  const GridVec<Real> g(grid);
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    const auto code = clamp(round_even(read(x + i, count) / g.scale) + g.offset, g.q_min, g.q_max);
    write(y + i, count, (code - g.offset) * g.scale);
  });
}

template <typename Real>
GridGradient<Real> leaf_fake_quantize_backward(const Real* x, int64_t n, const LeafGrid<Real>& grid,
                                               Real* gradient) {
  using V = VecOf<Real>;
  const GridVec<Real> g(grid);
  V scale_sum = broadcast(Real{0});
  V clipped_sum = broadcast(Real{0});
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    const V d = read(gradient + i, count);
    const V ratio = read(x + i, count) / g.scale;
    const V code = round_even(ratio) + g.offset;
    const V clamped = clamp(code, g.q_min, g.q_max);
    const V outside = where_equal(clamped, g.q_min, d) + where_equal(clamped, g.q_max, d);
    const V inside = d - outside;
    // Inside, code − offset would lose the low bits of the ratio: the difference of the rounding is taken.
    scale_sum = scale_sum + inside * (round_even(ratio) - ratio) + outside * (clamped - g.offset);
    clipped_sum = clipped_sum + outside;
    write(gradient + i, count, inside);
  });
  return {horizontal_sum(scale_sum), -horizontal_sum(clipped_sum) * grid.scale};
}

template <typename Real>
void transform_row(const Real* w, int64_t n, const RowTransform<Real>& t, Real* out) {
  const auto divisor = broadcast(t.row_divisor);
  const auto multiplier = broadcast(t.row_multiplier);
  const bool changes_rows = t.row_divisor != 1 || t.row_multiplier != 1;  // divisions are most of the time
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    auto v = read(w + i, count);
    if (t.multiplier != nullptr) v = v * read(t.multiplier + i, count);
    if (t.divisor != nullptr) v = v / read(t.divisor + i, count, Real{1});
    if (changes_rows) v = v / divisor * multiplier;
    write(out + i, count, v);
  });
}

template <typename Real>
MinMax<Real> row_min_max(const Real* x, int64_t n) {
  auto lo = broadcast(x[0]);
  auto hi = lo;
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    const auto v = read(x + i, count, x[0]);
    lo = min(v, lo);
    hi = max(v, hi);
  });
  return {-horizontal_max(broadcast(Real{0}) - lo), horizontal_max(hi)};
}

template <typename Real>
Real row_product_sums(const Real* d, const Real* w, int64_t n, Real* column_sums) {
  auto sum = broadcast(Real{0});
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    const auto product = read(d + i, count) * read(w + i, count);
    sum = sum + product;
    write(column_sums + i, count, read(column_sums + i, count) + product);
  });
  return horizontal_sum(sum);
}

template <typename Real>
void row_softmax(Real* x, int64_t n, Real scale) {
  using V = VecOf<Real>;
  const Real largest = row_min_max(x, n).hi * scale;
  const V s = broadcast(scale);
  const V shift = broadcast(largest);
  V sum = broadcast(Real{0});
  Real tail = 0;
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    const V e = exp(read(x + i, count) * s - shift);
    write(x + i, count, e);
    if (count == V::width) {
      sum = sum + e;
    } else {
      for (int64_t j = 0; j < count; ++j) tail += x[i + j];
    }
  });
  const V inverse = broadcast(Real{1} / (horizontal_sum(sum) + tail));
  for_vectors<Real>(n, [&](int64_t i, int64_t count) { write(x + i, count, read(x + i, count) * inverse); });
}

template <typename Real>
void row_softmax_backward(const Real* p, int64_t n, Real scale, Real* gradient) {
  auto sum = broadcast(Real{0});
  for_vectors<Real>(
      n, [&](int64_t i, int64_t count) { sum = sum + read(p + i, count) * read(gradient + i, count); });
  const auto mean = broadcast(horizontal_sum(sum));
  const auto s = broadcast(scale);
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    write(gradient + i, count, s * read(p + i, count) * (read(gradient + i, count) - mean));
  });
}

template <typename Real>
void row_sigmoid(const Real* x, int64_t n, Real* y) {
  const auto one = broadcast(Real{1});
  const auto zero = broadcast(Real{0});
  for_vectors<Real>(n, [&](int64_t i, int64_t count) {
    write(y + i, count, one / (one + exp(zero - read(x + i, count))));
  });
}

template <typename Real>
constexpr TrainKernels<Real> make_train_kernels() {
  return {leaf_fake_quantize<Real>,   leaf_fake_quantize_backward<Real>,
          transform_row<Real>,        row_min_max<Real>,
          row_product_sums<Real>,     row_softmax<Real>,
          row_softmax_backward<Real>, row_sigmoid<Real>};
}

}  // namespace
}  // namespace qeval::quant
