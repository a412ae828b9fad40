#include "model/hadamard.h"

#include <cassert>
#include <cstddef>

#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

constexpr int64_t kMostBase = 1024;

bool is_power_of_two(int64_t n) {
  return n > 0 && (n & (n - 1)) == 0;
}

bool is_prime(int64_t n) {
  if (n < 2) return false;
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

/// Paley's first construction: order q + 1, q a prime of 3 modulo 4. His second: 2 (q + 1), q of 1 modulo 4.
bool is_first_paley(int64_t order) {
  return order % 4 == 0 && is_prime(order - 1);
}
bool is_second_paley(int64_t order) {
  return order % 4 == 0 && (order / 2 - 1) % 4 == 1 && is_prime(order / 2 - 1);
}

/// The order of B: the smallest that leaves a power of two; 0 where there is none.
int64_t base_order(int64_t order) {
  if (order < 1) return 0;
  if (is_power_of_two(order)) return 1;
  int64_t base = order;
  while (base % 2 == 0) base /= 2;
  base *= 4;
  for (; base <= order && base <= kMostBase; base *= 2) {
    if (is_first_paley(base) || is_second_paley(base)) return base;
  }
  return 0;
}

/// Whether a is a square modulo q: 1 or −1; 0 of 0.
std::vector<int8_t> quadratic_characters(int64_t q) {
  std::vector<int8_t> characters(static_cast<size_t>(q), -1);
  characters[0] = 0;
  for (int64_t a = 1; a < q; ++a) characters[static_cast<size_t>(a * a % q)] = 1;
  return characters;
}

/// Jacobsthal's matrix with a border of ones [q + 1, q + 1]: 0 on the diagonal; the first column −1 where
/// that makes it skew (q of 3 modulo 4), else 1.
std::vector<int8_t> bordered_jacobsthal(int64_t q) {
  const std::vector<int8_t> character = quadratic_characters(q);
  const int64_t n = q + 1;
  std::vector<int8_t> c(static_cast<size_t>(n * n), 0);
  for (int64_t j = 1; j < n; ++j) c[static_cast<size_t>(j)] = 1;
  for (int64_t i = 1; i < n; ++i) {
    c[static_cast<size_t>(i * n)] = q % 4 == 3 ? -1 : 1;
    for (int64_t j = 1; j < n; ++j)
      c[static_cast<size_t>(i * n + j)] = character[static_cast<size_t>((j - i + q) % q)];
  }
  return c;
}

std::vector<int8_t> paley(int64_t order) {
  if (is_first_paley(order)) {
    std::vector<int8_t> h = bordered_jacobsthal(order - 1);
    for (int64_t i = 0; i < order; ++i) h[static_cast<size_t>(i * order + i)] = 1;
    return h;
  }
  // Each 0 of the symmetric C becomes [[1, −1], [−1, −1]], each ±1 that times [[1, 1], [1, −1]].
  const int64_t n = order / 2;
  const std::vector<int8_t> c = bordered_jacobsthal(n - 1);
  std::vector<int8_t> h(static_cast<size_t>(order * order));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const int8_t sign = c[static_cast<size_t>(i * n + j)];
      const int8_t block[2][2] = {
          {static_cast<int8_t>(sign == 0 ? 1 : sign), static_cast<int8_t>(sign == 0 ? -1 : sign)},
          {static_cast<int8_t>(sign == 0 ? -1 : sign), static_cast<int8_t>(sign == 0 ? -1 : -sign)}};
      for (int64_t a = 0; a < 2; ++a) {
        for (int64_t b = 0; b < 2; ++b) h[static_cast<size_t>((2 * i + a) * order + 2 * j + b)] = block[a][b];
      }
    }
  }
  return h;
}

void add_masks(HadamardMatrix& h) {
  const int64_t n = h.base_order;
  h.masks.resize(static_cast<size_t>(n * h.padded_order()));
  h.negatives.resize(static_cast<size_t>(h.padded_order()));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      if (h.base[static_cast<size_t>(i * n + j)] > 0) continue;
      h.masks[static_cast<size_t>(i * h.padded_order() + j)] = -1;
      ++h.negatives[static_cast<size_t>(j)];
    }
  }
}

}  // namespace

bool has_hadamard(int64_t order) {
  return base_order(order) != 0;
}

HadamardMatrix make_hadamard(int64_t order) {
  const int64_t base = base_order(order);
  assert(base != 0);
  HadamardMatrix h{.order = order, .base_order = base};
  if (base == 1) return h;
  h.base = paley(base);
  add_masks(h);
  return h;
}

HadamardMatrix transposed(const HadamardMatrix& h) {
  HadamardMatrix turned{.order = h.order, .base_order = h.base_order, .base = h.base};
  const int64_t n = h.base_order;
  if (n == 1) return turned;
  for (int64_t i = 0; i < n * n; ++i)
    turned.base[static_cast<size_t>(i)] = h.base[static_cast<size_t>(i % n * n + i / n)];
  add_masks(turned);
  return turned;
}

void multiply_hadamard(const HadamardMatrix& h, float* x, float* scratch) {
  kernels().hadamard(h.order, h.base_order, h.masks.data(), x, scratch);
}

int64_t hadamard_order(int64_t width) {
  return has_hadamard(width) ? width : width & -width;
}

}  // namespace qeval::model
