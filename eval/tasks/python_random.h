#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qeval::eval {

/// The draws of Python's random.Random(seed): the Mersenne Twister of Matsumoto and Nishimura (1998), begun
/// from an array of the seed's words.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  /// random.sample(range(count), wanted), of CPython 3.11 and later: `wanted` ≤ `count` positions, each once.
  std::vector<size_t> sample(size_t count, size_t wanted);

 private:
  static constexpr size_t kWords = 624;

  void seed_by(uint32_t value);
  uint32_t next();
  /// random._randbelow: uniform in [0, bound), of the generator's upper bits.
  size_t below(size_t bound);

  std::array<uint32_t, kWords> state_{};
  size_t at_ = kWords;
};

}  // namespace qeval::eval
