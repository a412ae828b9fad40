#include "eval/divergence/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace qeval::eval {
namespace {

constexpr std::string_view kLogitsMagic = "_logits_";
constexpr float kDeepest = 16;  ///< log-probabilities that are kept apart, below the largest

/// To the nearest integer, halves to even: adding 1.5 · 2^23 leaves it in the low bits.
int32_t nearest(float value) {
  value += 12582912.0F;
  int32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x007fffff) - 0x00400000;
}

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

double quantize_row(std::span<const float> logits, int32_t token, std::span<uint16_t> out) {
  const auto [smallest, largest] = std::ranges::minmax(logits);
  const float least = std::max(smallest, largest - kDeepest);
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - largest));
  const auto log_sum = static_cast<float>(std::log(sum));
  const float head[] = {(largest - least) / 65535.0F, least - largest - log_sum};
  std::ranges::fill(out, uint16_t{0});
  std::memcpy(out.data(), head, sizeof head);
  if (head[0] != 0) {
    const float inverse = 1 / head[0];
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] > least) out[4 + i] = static_cast<uint16_t>(nearest(inverse * (logits[i] - least)));
    }
  }
  return static_cast<double>(largest + log_sum - logits[static_cast<size_t>(token)]);
}

LogitsWriter::LogitsWriter(const std::filesystem::path& path, const LogitsHeader& header) : file_(path) {
  file_.write(kLogitsMagic);
  for (const int32_t value : {header.context, header.vocabulary, header.chunks}) file_.write(bytes_of(value));
  file_.write(std::as_bytes(std::span(header.tokens)));
}

void LogitsWriter::add(std::span<const uint16_t> row) {
  file_.write(std::as_bytes(row));
}

LogitsReader::LogitsReader(const std::filesystem::path& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  const std::string where = path.string();
  if (!file_.text().starts_with(kLogitsMagic) || bytes.size() < kLogitsMagic.size() + 3 * sizeof(int32_t))
    fail("{}: no file of log-probabilities: it should begin with \"{}\"", where, kLogitsMagic);
  size_t at = kLogitsMagic.size();
  for (int32_t* value : {&header_.context, &header_.vocabulary, &header_.chunks}) {
    std::memcpy(value, bytes.data() + at, sizeof *value);
    at += sizeof *value;
  }
  constexpr int32_t kMost = 1 << 20, kMostVocabulary = 1 << 22;  // the product fits
  if (header_.context < 4 || header_.context > kMost || header_.vocabulary < 2 ||
      header_.vocabulary > kMostVocabulary || header_.chunks < 1 || header_.chunks > kMost) {
    fail("{}: {} chunks of {} tokens from a vocabulary of {}: accepted: 1 to {}, 4 to {} and 2 to {}", where,
         header_.chunks, header_.context, header_.vocabulary, kMost, kMost, kMostVocabulary);
  }
  const auto tokens = static_cast<uint64_t>(header_.context) * static_cast<uint64_t>(header_.chunks);
  const auto row = static_cast<uint64_t>(header_.row_values()) * sizeof(uint16_t);
  const uint64_t rows =
      static_cast<uint64_t>(header_.rows_per_chunk()) * static_cast<uint64_t>(header_.chunks);
  const uint64_t expected = at + tokens * sizeof(int32_t) + rows * row;
  if (bytes.size() != expected)
    fail("{}: {} bytes; {} chunks of {} tokens take {}", where, bytes.size(), header_.chunks, header_.context,
         expected);
  header_.tokens.resize(tokens);
  std::memcpy(header_.tokens.data(), bytes.data() + at, tokens * sizeof(int32_t));
  for (const int32_t token : header_.tokens) {
    if (token < 0 || token >= header_.vocabulary)
      fail("{}: token {}; accepted: 0 to {}", where, token, header_.vocabulary - 1);
  }
  first_row_ = at + tokens * sizeof(int32_t);
}

std::vector<uint16_t> LogitsReader::row(int64_t chunk, int64_t row) const {
  std::vector<uint16_t> out(static_cast<size_t>(header_.row_values()));
  const size_t bytes = out.size() * sizeof(uint16_t);
  const auto index = static_cast<size_t>(chunk * header_.rows_per_chunk() + row);
  std::memcpy(out.data(), file_.bytes().data() + first_row_ + index * bytes, bytes);
  return out;
}

}  // namespace qeval::eval
