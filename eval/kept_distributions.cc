#include "eval/kept_distributions.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "eval/results/checked_line.h"

namespace qeval::eval {
namespace {

constexpr std::string_view kMagic = "QKD1";
constexpr size_t kHash = 16;        // digits of a token hash and of a checksum
constexpr size_t kRecordHead = 56;  // magic, positions, doc_id, length, token hash, checksum
constexpr size_t kPositionHead = 16;

template <typename T>
void put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
void put_all(std::string& out, const std::vector<T>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// The value at `offset`, which the caller has checked to be inside.
template <typename T>
T get(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::string header(std::string_view task, int64_t vocab_size) {
  return checked_line({{"logprobs", 1}, {"task", task}, {"vocab_size", vocab_size}, {"kept", kKeptTokens}},
                      "header") +
         "\n";
}

/// The length of the first record of `bytes`; nothing where it is incomplete.
std::optional<uint64_t> record_length(std::string_view bytes, const std::string& where) {
  if (!std::string_view(kMagic).starts_with(bytes.substr(0, kMagic.size())))
    fail("{}: a record does not begin with {}: the file is damaged", where, kMagic);
  if (bytes.size() < kRecordHead) return std::nullopt;
  const auto length = get<uint64_t>(bytes, 16);
  if (length > bytes.size() - kRecordHead) return std::nullopt;
  return kRecordHead + length;
}

uint64_t scan(std::string_view bytes, const std::string& where,
              const std::function<void(int64_t, uint64_t)>& visit) {
  uint64_t offset = 0;
  while (offset < bytes.size()) {
    const auto length = record_length(bytes.substr(offset), where);
    if (!length) break;
    const auto doc_id = get<int64_t>(bytes, offset + 8);
    if (doc_id < 0) fail("{}: a record of document {}: the file is damaged", where, doc_id);
    visit(doc_id, *length);
    offset += *length;
  }
  return offset;
}

/// One position at `offset` of a record, which moves behind it.
model::Distribution read_position(std::string_view record, size_t& offset, int64_t vocab_size,
                                  const std::string& where) {
  if (record.size() - offset < kPositionHead) fail("{}: shorter than its positions", where);
  const auto count = get<uint32_t>(record, offset);
  model::Distribution out;
  out.rest = get<double>(record, offset + 8);
  offset += kPositionHead;
  if (count > kKeptTokens || (record.size() - offset) / 8 < count)
    fail("{}: a position of {} tokens", where, count);
  out.tokens.resize(count);
  out.log_probabilities.resize(count);
  if (count > 0) {  // an empty vector may point nowhere, which memcpy may not be given
    std::memcpy(out.tokens.data(), record.data() + offset, count * sizeof(int32_t));
    std::memcpy(out.log_probabilities.data(), record.data() + offset + count * sizeof(int32_t),
                count * sizeof(float));
  }
  offset += count * 8;
  std::vector<int32_t> sorted = out.tokens;
  std::ranges::sort(sorted);
  const bool distinct = std::ranges::adjacent_find(sorted) == sorted.end();
  if (!distinct || (count > 0 && (sorted.front() < 0 || sorted.back() >= vocab_size)))
    fail("{}: tokens that are no distinct ids below {}", where, vocab_size);
  // NaN is what a broken model gives; it stays one.
  const bool impossible =
      out.rest < 0 || out.rest > 1.001 ||
      std::ranges::any_of(out.log_probabilities, [](float value) { return value > 0.001F; });
  if (impossible) fail("{}: a probability that is none", where);
  return out;
}

}  // namespace

std::string kept_file(std::string_view task) {
  return file_of_task("logprobs", task, ".bin");
}

int64_t kept_bytes_per_position(int64_t vocab_size) {
  return static_cast<int64_t>(kPositionHead) + 8 * std::min(kKeptTokens, vocab_size);
}

CompanionFormat kept_format(int64_t vocab_size) {
  return {"logprobs", ".bin", [vocab_size](std::string_view task) { return header(task, vocab_size); }, scan};
}

std::string kept_record(const KeptDocument& document) {
  std::string payload;
  for (const model::Distribution& position : document.positions) {
    put(payload, static_cast<uint32_t>(position.tokens.size()));
    put(payload, uint32_t{0});
    put(payload, position.rest);
    put_all(payload, position.tokens);
    put_all(payload, position.log_probabilities);
  }
  std::string out(kMagic);
  put(out, static_cast<uint32_t>(document.positions.size()));
  put(out, document.doc_id);
  put(out, static_cast<uint64_t>(payload.size()));
  std::string hash = document.token_hash;
  hash.resize(kHash, ' ');
  out += hash + sha256_hex(payload).substr(0, kHash);
  return out += payload;
}

KeptDistributions::KeptDistributions(const std::filesystem::path& path, std::string_view task,
                                     int64_t vocab_size)
    : file_(path), vocab_size_(vocab_size) {
  const std::string where = path.string();
  const std::string_view text = file_.text();
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) fail("{}: no header line", where);
  const auto json = parse_checked_line(text.substr(0, end), where);
  const OrderedJsonObject fields(json, where);
  if (fields.count("logprobs") != 1) fields.refuse("logprobs", "1, the version that is known");
  if (fields.string("task") != task) fields.refuse("task", printable(task));
  if (fields.count("vocab_size") != vocab_size)
    fields.refuse("vocab_size", fmt::format("{}, that of the model at hand", vocab_size));
  if (fields.count("kept") > kKeptTokens) fields.refuse("kept", fmt::format("at most {}", kKeptTokens));
  const std::string_view records = text.substr(end + 1);
  uint64_t offset = 0;
  scan(records, where, [&](int64_t doc_id, uint64_t length) {
    if (!records_.emplace(doc_id, records.substr(offset, length)).second)
      fail("{}: document {} stands in the file twice", where, doc_id);
    offset += length;
  });
  if (offset != records.size()) fail("{}: the last record is incomplete", where);
}

std::optional<std::string> KeptDistributions::token_hash(int64_t doc_id) const {
  const auto found = records_.find(doc_id);
  if (found == records_.end()) return std::nullopt;
  return std::string(found->second.substr(24, kHash));
}

KeptDocument KeptDistributions::read(int64_t doc_id) const {
  const std::string_view record = records_.at(doc_id);
  const std::string where = fmt::format("{}, document {}", file_.path().string(), doc_id);
  const std::string_view payload = record.substr(kRecordHead);
  if (sha256_hex(payload).substr(0, kHash) != record.substr(40, kHash))
    fail("{}: the record does not match its checksum: it was damaged", where);
  KeptDocument out{doc_id, std::string(record.substr(24, kHash)), {}};
  const auto count = get<uint32_t>(record, 4);
  if (count > payload.size() / kPositionHead) fail("{}: shorter than its {} positions", where, count);
  size_t offset = 0;
  for (uint32_t i = 0; i < count; ++i)
    out.positions.push_back(read_position(payload, offset, vocab_size_, where));
  if (offset != payload.size()) fail("{}: longer than its {} positions", where, count);
  return out;
}

PositionDivergence position_divergence(const model::Distribution& base, const model::Distribution& other) {
  double kl = 0;
  for (size_t i = 0; i < base.tokens.size(); ++i) {
    const auto p = static_cast<double>(base.log_probabilities[i]);
    const auto q = static_cast<double>(other.log_probabilities[i]);
    if (p != q) kl += std::exp(p) * (p - q);
  }
  double slack = 0;
  if (base.rest > 0) {
    const double rest = std::log(base.rest / other.rest);
    kl += base.rest * rest;
    const double smallest =
        base.log_probabilities.empty() ? 0.0 : static_cast<double>(base.log_probabilities.back());
    slack = base.rest *
            (std::min(smallest, std::log(base.rest)) - static_cast<double>(other.rest_minimum) - rest);
  }
  // Both are at least 0; a rounding error below is none of the model's.
  return {static_cast<float>(kl < 0 ? 0.0 : kl), static_cast<float>(slack < 0 ? 0.0 : slack)};
}

}  // namespace qeval::eval
