#include "eval/tasks/python_random.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

namespace qeval::eval {

void PythonRandom::seed_by(uint32_t value) {
  state_[0] = value;
  for (uint32_t i = 1; i < kWords; ++i)
    state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30U)) + i;
}

PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key{static_cast<uint32_t>(seed)};
  if (seed >> 32U != 0) key.push_back(static_cast<uint32_t>(seed >> 32U));
  seed_by(19650218U);
  size_t i = 1, j = 0;
  const auto advance = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t k = std::max(kWords, key.size()); k > 0; --k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30U)) * 1664525U)) + key[j] +
                static_cast<uint32_t>(j);
    advance();
    if (++j == key.size()) j = 0;
  }
  for (size_t k = kWords - 1; k > 0; --k) {
    state_[i] =
        (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30U)) * 1566083941U)) - static_cast<uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000U;
}

uint32_t PythonRandom::next() {
  constexpr size_t kShift = 397;
  if (at_ == kWords) {
    for (size_t k = 0; k < kWords; ++k) {
      const uint32_t y = (state_[k] & 0x80000000U) | (state_[(k + 1) % kWords] & 0x7fffffffU);
      state_[k] = state_[(k + kShift) % kWords] ^ (y >> 1U) ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0U);
    }
    at_ = 0;
  }
  uint32_t y = state_[at_++];
  y ^= y >> 11U;
  y ^= (y << 7U) & 0x9d2c5680U;
  y ^= (y << 15U) & 0xefc60000U;
  return y ^ (y >> 18U);
}

size_t PythonRandom::below(size_t bound) {
  assert(bound > 0 && bound <= UINT32_MAX);
  const auto unused = 32U - static_cast<unsigned>(std::bit_width(bound));
  uint32_t value = next() >> unused;
  while (value >= bound) value = next() >> unused;
  return value;
}

double PythonRandom::uniform() {
  const uint32_t high = next() >> 5U, low = next() >> 6U;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

double PythonRandom::gauss() {
  if (next_gauss_) return *std::exchange(next_gauss_, std::nullopt);
  const double angle = uniform() * 2.0 * std::numbers::pi;
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  next_gauss_ = std::sin(angle) * radius;
  return std::cos(angle) * radius;
}

std::vector<size_t> PythonRandom::sample(size_t count, size_t wanted) {
  assert(wanted <= count);
  std::vector<size_t> out;
  // Up to a size, that of a set of `wanted`, Python takes from a list; beyond, it draws until one is new.
  size_t set_size = 21;
  if (wanted > 5) {
    size_t power = 1;
    while (power < wanted * 3) power *= 4;
    set_size += power;
  }
  if (count <= set_size) {
    std::vector<size_t> pool(count);
    std::iota(pool.begin(), pool.end(), size_t{0});
    for (size_t i = 0; i < wanted; ++i) {
      const size_t j = below(count - i);
      out.push_back(pool[j]);
      pool[j] = pool[count - i - 1];
    }
    return out;
  }
  std::unordered_set<size_t> seen;
  while (out.size() < wanted) {
    const size_t j = below(count);
    if (seen.insert(j).second) out.push_back(j);
  }
  return out;
}

}  // namespace qeval::eval
