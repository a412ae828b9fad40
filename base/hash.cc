#include "base/hash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include <openssl/evp.h>

#include "base/error.h"

namespace qeval {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1) {
    fail("SHA-256 is not available from the OpenSSL library");
  }
}

Sha256::~Sha256() = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
  return *this;
}

Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text)));
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  EVP_DigestFinal_ex(state_->context, digest.data(), &length);
  std::string out;
  for (unsigned i = 0; i < length; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

std::string sha256_hex(std::string_view text) {
  return Sha256().update(text).hex();
}

uint64_t fingerprint(std::span<const float> values) {
  constexpr size_t kLanes = 16;
  constexpr uint32_t kPrime = 16777619;
  std::array<uint32_t, kLanes> lanes;
  lanes.fill(2166136261);
  const auto mix = [&](size_t lane, float value) {
    lanes[lane] = (lanes[lane] ^ std::bit_cast<uint32_t>(value)) * kPrime;
  };
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) mix(lane, values[i + lane]);
  }
  for (size_t i = whole; i < values.size(); ++i) mix(i - whole, values[i]);
  std::array<uint64_t, kLanes> wide;
  std::ranges::copy(lanes, wide.begin());
  return combine(wide);
}

uint64_t combine(std::span<const uint64_t> hashes) {
  uint64_t hash = 14695981039346656037U;
  for (const uint64_t h : hashes) {
    hash = (hash ^ h) * 1099511628211U;
    hash ^= hash >> 32;  // a product carries changes upwards only
  }
  return hash;
}

}  // namespace qeval
