// The kernels in double with rounding replaced by identity: the function whose derivatives the backward pass
// computes is then differentiable nearly everywhere, and can be checked against finite differences.
#include <cmath>
#include <cstdint>

namespace qeval::model {
namespace {

struct Smooth {
  static constexpr int64_t width = 1;
  double v;
};
inline Smooth load(const double* p) {
  return {*p};
}
inline void store(double* p, Smooth x) {
  *p = x.v;
}
inline Smooth load_partial(const double* p, int64_t, double) {
  return {*p};
}
inline void store_partial(double* p, int64_t, Smooth x) {
  *p = x.v;
}
inline Smooth broadcast(double x) {
  return {x};
}
inline Smooth operator+(Smooth a, Smooth b) {
  return {a.v + b.v};
}
inline Smooth operator-(Smooth a, Smooth b) {
  return {a.v - b.v};
}
inline Smooth operator*(Smooth a, Smooth b) {
  return {a.v * b.v};
}
inline Smooth operator/(Smooth a, Smooth b) {
  return {a.v / b.v};
}
inline Smooth max(Smooth a, Smooth b) {
  return {a.v > b.v ? a.v : b.v};
}
inline Smooth min(Smooth a, Smooth b) {
  return {a.v < b.v ? a.v : b.v};
}
inline Smooth round_even(Smooth a) {
  return a;
}
inline Smooth where_equal(Smooth a, Smooth b, Smooth x) {
  return {a.v == b.v ? x.v : 0.0};
}
inline Smooth exp(Smooth a) {
  return {std::exp(a.v)};
}
inline double horizontal_sum(Smooth a) {
  return a.v;
}
inline double horizontal_max(Smooth a) {
  return a.v;
}

}  // namespace
}  // namespace qeval::model

#include "quant/methods/learn/train_kernels_impl.h"

namespace qeval::quant {

const TrainKernels<double>& train_kernels_smooth() {
  static constexpr TrainKernels<double> table = make_train_kernels<double>();
  return table;
}

}  // namespace qeval::quant
