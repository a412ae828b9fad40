#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

namespace qeval::model {

/// A Hadamard matrix [order, order]: entries ±1, H·Hᵀ = order · I. H = S ⊗ B: S Sylvester's of a power of
/// two, B one of Paley's (12, 20, 24, 28, 36, 44 …) where the order asks for it, else 1. Channel i of a row
/// is (i / base_order, i % base_order).
struct HadamardMatrix {
  int64_t order = 1;
  int64_t base_order = 1;
  std::vector<int8_t> base{1};  ///< B [base_order, base_order]
  /// For vectors of 32 bits, where base_order > 1; rows are padded by 0 to `padded_order`, a multiple
  /// of kColumns: −1 where B is negative [base_order, padded_order], and how many of a column are.
  static constexpr int64_t kColumns = 16;
  int64_t padded_order() const { return (base_order + kColumns - 1) / kColumns * kColumns; }
  std::vector<int32_t> masks{}, negatives{};
};

/// Whether there is one of this order, by Sylvester and Paley with primes (orders of B up to 1024).
bool has_hadamard(int64_t order);
/// Precondition: has_hadamard(order).
HadamardMatrix make_hadamard(int64_t order);
/// Hᵀ, which times H is order · I: of H, the base is the only part that is not symmetric.
HadamardMatrix transposed(const HadamardMatrix& h);
/// The largest order of blocks that a row of `width` channels has: `width` itself, else the largest power of
/// two that divides it.
int64_t hadamard_order(int64_t width);

/// x [order] ← x · H, sums with ± and nothing else, in a fixed order. `scratch`: [base_order]. Integers as
/// well as floats: a sum is at most order times the largest |x|.
template <typename T>
void multiply_hadamard(const HadamardMatrix& h, T* x, T* scratch) {
  const int64_t base = h.base_order;
  for (int64_t half = base; half < h.order; half *= 2) {
    for (int64_t first = 0; first < h.order; first += 2 * half) {
      T* a = x + first;
      T* b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const T sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
  if (base == 1) return;
  for (T* group = x; group < x + h.order; group += base) {
    for (int64_t j = 0; j < base; ++j) scratch[j] = T{0};
    for (int64_t i = 0; i < base; ++i) {
      const T value = group[i];
      const int8_t* signs = h.base.data() + i * base;
      if constexpr (std::is_integral_v<T>) {  // −x is ~x + 1: no multiplication
        for (int64_t j = 0; j < base; ++j) {
          const auto mask = static_cast<T>(signs[j] >> 7);
          scratch[j] += (value ^ mask) - mask;
        }
      } else {
        for (int64_t j = 0; j < base; ++j) scratch[j] += static_cast<T>(signs[j]) * value;
      }
    }
    for (int64_t j = 0; j < base; ++j) group[j] = scratch[j];
  }
}

/// The same by the CPU's kernels: the same bits, but for a NaN's sign. `scratch`: [order], unused where
/// base_order is 1.
void multiply_hadamard(const HadamardMatrix& h, float* x, float* scratch);

}  // namespace qeval::model
