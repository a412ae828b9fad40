#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace qeval::eval {

/// The draws of Python's random.Random(seed): the Mersenne Twister of Matsumoto and Nishimura (1998), begun
/// from an array of the seed's words.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  /// random.sample(range(count), wanted), of CPython 3.11 and later: `wanted` ≤ `count` positions, each once.
  std::vector<size_t> sample(size_t count, size_t wanted);
  /// random._randbelow, by which random.choice chooses: uniform in [0, bound), 0 < bound < 2^32.
  size_t below(size_t bound);
  /// random.random(): uniform in [0, 1), 53 bits.
  double uniform();
  /// random.gauss(0, 1).
  double gauss();

 private:
  static constexpr size_t kWords = 624;

  void seed_by(uint32_t value);
  uint32_t next();

  std::array<uint32_t, kWords> state_{};
  size_t at_ = kWords;
  std::optional<double> next_gauss_;
};

}  // namespace qeval::eval
