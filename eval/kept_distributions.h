#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "eval/results/companion_file.h"
#include "model/distribution.h"

namespace qeval::eval {

/// Tokens kept per scored position: the likeliest, and the mass of all others.
inline constexpr int64_t kKeptTokens = 256;

/// A document's next-token distributions as a base run keeps them for others to be compared with.
struct KeptDocument {
  int64_t doc_id = 0;
  std::string token_hash;  ///< that of its sample
  /// Per position (scored_positions.h): the likeliest tokens in descending order, and the rest;
  /// rest_minimum is not kept.
  std::vector<model::Distribution> positions;
};

/// logprobs_TASK.bin: a header line of JSON with the task, the size of the vocabulary, the most tokens kept
/// and a checksum; then a record per document, little-endian: "QKD1", u32 positions, i64 doc_id, u64 length
/// of what follows the record's first 56 bytes, 16 bytes token_hash, 16 bytes checksum (hexadecimal digits of
/// the SHA-256 of what follows); and per position u32 tokens n, u32 zero, f64 rest, i32 token [n], f32
/// log-probability [n]. A position takes 16 + 8 n bytes: about 2 KiB.
std::string kept_file(std::string_view task);
/// Bytes that a position takes in the file.
int64_t kept_bytes_per_position(int64_t vocab_size);

/// How a run writes the file, document by document (run_directory.h).
CompanionFormat kept_format(int64_t vocab_size);
std::string kept_record(const KeptDocument& document);

/// The file of a finished run, mapped.
class KeptDistributions {
 public:
  /// Throws Error naming the file where it is missing, of another task or vocabulary, or where a record is
  /// incomplete.
  KeptDistributions(const std::filesystem::path& path, std::string_view task, int64_t vocab_size);

  /// The hash of the token ids that a document was scored from; nothing where the file lacks the document.
  std::optional<std::string> token_hash(int64_t doc_id) const;
  /// The document, which must be there. Throws Error naming it for a wrong checksum, and for tokens,
  /// probabilities or counts that cannot be.
  KeptDocument read(int64_t doc_id) const;

 private:
  MappedFile file_;
  int64_t vocab_size_;
  std::unordered_map<int64_t, std::string_view> records_;
};

/// What one position adds to a document's divergence (results/divergence.h, which has the formulas).
struct PositionDivergence {
  float kl = 0, slack = 0;
};
/// `other` has the tokens of `base` in their order. Equal distributions give exactly 0.
PositionDivergence position_divergence(const model::Distribution& base, const model::Distribution& other);

}  // namespace qeval::eval
