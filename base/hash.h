#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qeval {

/// SHA-256 of everything given to update(), in order.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  /// 64 lower-case hexadecimal digits; the object must not be used afterwards.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view text);

/// A quick fingerprint of the bits of numbers, in order: for telling whether two runs computed the same, not
/// against an adversary. 16 interleaved FNV-1a hashes (of 32-bit words), which compilers make vector code of.
uint64_t fingerprint(std::span<const float> values);
/// The fingerprint of a sequence of fingerprints.
uint64_t combine(std::span<const uint64_t> hashes);

}  // namespace qeval
