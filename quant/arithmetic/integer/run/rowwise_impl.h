#pragma once

// Operations on one row of codes. Compiled once per CPU path; no floating point.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/lanes.h"

namespace qeval::quant {
namespace {

void read_stream(const StreamFormat& format, int64_t n, const int32_t* stream, int32_t* d) {
  const int32_t shift = format.guard_bits;
  const int32_t half = shift == 0 ? 0 : 1 << (shift - 1);
  const int32_t lo = format.codes.lo - format.codes.zero_point;
  const int32_t hi = format.codes.hi - format.codes.zero_point;
  for (int64_t i = 0; i < n; ++i) d[i] = std::clamp((stream[i] + half) >> shift, lo, hi);
}

/// x · H as model::multiply_hadamard() has it, of which a compiler makes one function for all paths.
void hadamard(const model::HadamardMatrix& matrix, int32_t* x, int32_t* scratch) {
  const int64_t base = matrix.base_order, padded = matrix.padded_order();
  for (int64_t half = base; half < matrix.order; half *= 2) {
    for (int64_t first = 0; first < matrix.order; first += 2 * half) {
      int32_t* __restrict a = x + first;
      int32_t* __restrict b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const int32_t sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
  if (base == 1) return;
  // −x is ~x + 1: the ones of a column are added up beforehand.
  using Columns = int32_t __attribute__((vector_size(model::HadamardMatrix::kColumns * sizeof(int32_t))));
  for (int32_t* group = x; group < x + matrix.order; group += base) {
    for (int64_t j = 0; j < padded; j += model::HadamardMatrix::kColumns) {
      Columns sums, mask;
      std::memcpy(&sums, matrix.negatives.data() + j, sizeof sums);
      for (int64_t i = 0; i < base; ++i) {
        std::memcpy(&mask, matrix.masks.data() + i * padded + j, sizeof mask);
        sums += mask ^ group[i];
      }
      std::memcpy(scratch + j, &sums, sizeof sums);
    }
    // Paley's orders are multiples of four; a call for so few would cost as much as the sums.
    for (int64_t j = 0; j < base; j += 4) std::memcpy(group + j, scratch + j, 4 * sizeof(int32_t));
  }
}

int64_t sum_of_squares(const int32_t* e, int64_t n) {
  int64_t sum = 0;
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  Eight sums = Bits256::all32(0);
  for (; i + 8 <= n; i += 8) {
    const Eight x = load(e + i);
    const Eight odd = odd_lanes(x);
    sums = add64(sums, add64(even_products(x, x), even_products(odd, odd)));
  }
  sum = sum64(sums);
#endif
  for (; i < n; ++i) sum += static_cast<int64_t>(e[i]) * e[i];
  return sum;
}

void scale_norm(const IntegerNorm& norm, int64_t first, const int32_t* e, int64_t n, int32_t reciprocal,
                int32_t shift, int16_t* out) {
  int64_t i = 0;
  const bool has_bias = !norm.bias.empty();
  const int32_t* weights = norm.weight.data() + first;
  const int64_t* biases = has_bias ? norm.bias.data() + first : nullptr;
#ifdef QEVAL_VECTORS
  if (norm.factor.shift >= 32) {
    const Eight factor = Bits256::all64(reciprocal);
    const RoundingShift<Bits256> to_unit(shift);
    const LaneRescale<Bits256> to_output(norm.factor);
    const LaneCodes to_codes(norm.output);
    const auto scaled = [&](Eight x, Eight weight, Eight bias) {
      const Eight unit = to_unit(even_products(x, factor));
      return to_output(add64(even_products(unit, weight), bias));
    };
    for (; i + 8 <= n; i += 8) {
      const Eight x = load(e + i);
      const Eight weight = load(weights + i);
      Eight even_bias = Bits256::all32(0);
      Eight odd_bias = even_bias;
      if (has_bias) load_apart(biases + i, even_bias, odd_bias);
      const Eight even = scaled(x, weight, even_bias);
      const Eight odd = scaled(odd_lanes(x), odd_lanes(weight), odd_bias);
      store_codes(out + i, to_codes(interleave(even, odd)));
    }
  }
#endif
  for (; i < n; ++i) {
    const int64_t unit = shift_rounded(static_cast<int64_t>(e[i]) * reciprocal, shift);
    const int64_t scaled = unit * weights[i] + (has_bias ? biases[i] : 0);
    out[i] = requantize(scaled, norm.factor, norm.output);
  }
}

#ifdef QEVAL_VECTORS
/// add_row() for what fills vectors, from element i on. Returns the first that is left.
template <typename Of>
int64_t add_lanes(const IntegerAdd& add, const int16_t* update, int64_t i, int64_t n, int32_t* stream) {
  using Vector = typename Of::Vector;
  constexpr int64_t kLanes = sizeof(Vector) / sizeof(int32_t);
  const LaneRescale<Of> keep(add.keep);
  const LaneRescale<Of> join(add.join);
  const RoundingShift<Of> last(add.bits - add.output.guard_bits);
  const Vector zero_point = Of::all32(add.update_zero_point);
  const Vector lo = Of::all64(add.output.lo);
  const Vector hi = Of::all64(add.output.hi);
  const auto joined = [&](Vector x, Vector u) {
    return clamp64(last(add64(keep.narrow(x), join.narrow(u))), lo, hi);
  };
  for (; i + kLanes <= n; i += kLanes) {
    const Vector x = Of::load(stream + i);
    const Vector u = sub32(Of::widen(update + i), zero_point);
    store(stream + i, interleave(joined(x, u), joined(odd_lanes(x), odd_lanes(u))));
  }
  return i;
}
#endif

void add_row(const IntegerAdd& add, const int16_t* update, int64_t n, int32_t* stream) {
  const int32_t shift = add.bits - add.output.guard_bits;
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  if (add.keep.pre_shift == 0 && add.join.pre_shift == 0)
    i = add_lanes<Bits256>(add, update, add_lanes<Widest>(add, update, 0, n, stream), n, stream);
#endif
  for (; i < n; ++i) {
    const int64_t sum = rescale(stream[i], add.keep) + rescale(update[i] - add.update_zero_point, add.join);
    stream[i] =
        static_cast<int32_t>(std::clamp<int64_t>(shift_rounded(sum, shift), add.output.lo, add.output.hi));
  }
}

void exact_products(const IntegerProduct& product, const int16_t* up, int64_t n, const int16_t* gate,
                    int32_t* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = (gate[i] - product.gate_zero_point) * (up[i] - product.up_zero_point);
}

void replace_value(int32_t p, const Rescale& factor, const int32_t* own, const int32_t* taken, int64_t n,
                   int32_t* sums) {
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  constexpr int64_t kLanes = sizeof(WideVector) / sizeof(int32_t);
  const LaneScale<Widest> scale(factor);
  const WideVector probability = Widest::all32(p);
  for (; factor.fast() && i + kLanes <= n; i += kLanes) {
    const WideVector right = scale(product32(Widest::load(own + i), probability));
    const WideVector wrong = product32(Widest::load(taken + i), probability);
    store(sums + i, add32(Widest::load(sums + i), sub32(right, wrong)));
  }
#endif
  for (; i < n; ++i) {
    const int64_t change =
        rescale(static_cast<int64_t>(p) * own[i], factor) - static_cast<int64_t>(p) * taken[i];
    sums[i] = modulo32(sums[i] + change);
  }
}

void multiply_row(const IntegerProduct& product, const int16_t* up, int64_t n, int16_t* gate) {
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  if (product.factor.fast()) {
    const LaneRequantize to_codes(product.factor, product.output);
    i = to_codes(n, gate, [&]<typename Of>(int64_t at) {
      return product32(sub32(Of::widen(gate + at), Of::all32(product.gate_zero_point)),
                       sub32(Of::widen(up + at), Of::all32(product.up_zero_point)));
    });
  }
#endif
  for (; i < n; ++i) {
    const int64_t exact =
        static_cast<int64_t>(gate[i] - product.gate_zero_point) * (up[i] - product.up_zero_point);
    gate[i] = requantize(exact, product.factor, product.output);
  }
}

void rotate_head(const IntegerRotary& rotary, const int32_t* cosines, const int32_t* sines, int64_t half,
                 int64_t head_dim, int16_t* head) {
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  if (rotary.rotated.shift >= 32) {
    const LaneRescale<Bits256> to_output(rotary.rotated);
    const Eight zero_point = Bits256::all32(rotary.zero_point);
    const LaneCodes to_codes(rotary.output);
    const auto put = [&](int16_t* to, Eight even, Eight odd) {
      store_codes(to, to_codes(interleave(to_output(even), to_output(odd))));
    };
    for (; i + 8 <= half; i += 8) {
      const Eight x = sub32(Bits256::widen(head + i), zero_point);
      const Eight y = sub32(Bits256::widen(head + i + half), zero_point);
      const Eight c = load(cosines + i);
      const Eight s = load(sines + i);
      const Eight x1 = odd_lanes(x), y1 = odd_lanes(y), c1 = odd_lanes(c), s1 = odd_lanes(s);
      put(head + i, sub64(even_products(x, c), even_products(y, s)),
          sub64(even_products(x1, c1), even_products(y1, s1)));
      put(head + i + half, add64(even_products(y, c), even_products(x, s)),
          add64(even_products(y1, c1), even_products(x1, s1)));
    }
  }
#endif
  for (; i < half; ++i) {
    const int64_t first = head[i] - rotary.zero_point;
    const int64_t second = head[i + half] - rotary.zero_point;
    head[i] = requantize(first * cosines[i] - second * sines[i], rotary.rotated, rotary.output);
    head[i + half] = requantize(second * cosines[i] + first * sines[i], rotary.rotated, rotary.output);
  }
  for (i = 2 * half; i < head_dim; ++i) {
    head[i] = requantize(head[i] - rotary.zero_point, rotary.passed, rotary.output);
  }
}

int64_t row_sum(const int16_t* codes, int64_t n) {
  int64_t sum = 0;
  int64_t i = 0;
#ifdef QEVAL_VECTORS
  const Eight ones = Bits256::all16(1);
  // Pairs add up to 2^16 in magnitude: 32 bits hold 2^15 of them in a lane.
  while (i + 16 <= n) {
    const int64_t end = std::min(n, i + 16 * 16384);
    Eight sums = Bits256::all32(0);
    for (; i + 16 <= end; i += 16) sums = add32(sums, pair_products(load(codes + i), ones));
    sum += sum32(sums);
  }
#endif
  for (; i < n; ++i) sum += codes[i];
  return sum;
}

}  // namespace
}  // namespace qeval::quant
