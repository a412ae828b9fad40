#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "model/arithmetic.h"
#include "model/distribution.h"

namespace qeval::model {

/// What is asked of the logits of one row of a batch, and the answer.
struct TokenQuery {
  int64_t row = 0;
  int32_t token = 0;
};
struct TokenAnswer {
  double log_probability = 0;  ///< natural logarithm of softmax(logits)[token]
  int32_t top1 = 0;            ///< first arg-max of the row
  uint64_t logits_hash = 0;    ///< fingerprint of all logits of the row: equal where they are, bit for bit
};

/// Vocabulary entries per tile of the head. The tile is fixed: it decides the order in which the log-sum-exp
/// adds up, hence the bits.
inline constexpr int64_t kVocabularyTile = 256;

inline int64_t logit_tiles(int64_t vocabulary) {
  return (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
}

/// Calls body(first entry, width) for every tile of the vocabulary, in parallel.
template <typename Body>
void for_each_logit_tile(int64_t vocabulary, const Body& body) {
  parallel_tasks(logit_tiles(vocabulary), [&](int64_t tile) {
    const int64_t first = tile * kVocabularyTile;
    body(first, std::min(kVocabularyTile, vocabulary - first));
  });
}

/// Queries by the rows that they ask about. `queries` must be in ascending order of rows, and every row of
/// `wanted` one of theirs; both must outlive the object.
class AskedRows {
 public:
  AskedRows(std::span<const TokenQuery> queries, std::span<const DistributionQuery> wanted);

  std::span<const TokenQuery> queries() const { return queries_; }
  std::span<const DistributionQuery> wanted() const { return wanted_; }
  /// The rows, each once, ascending.
  const std::vector<int64_t>& rows() const { return rows_; }
  /// Of rows()[i]: its queries are those from first_query(i) to before first_query(i + 1).
  size_t first_query(size_t i) const { return first_query_[i]; }
  /// Of rows()[i]: indices of `wanted`.
  std::span<const size_t> wanted_at(size_t i) const;

 private:
  std::span<const TokenQuery> queries_;
  std::span<const DistributionQuery> wanted_;
  std::vector<int64_t> rows_;
  std::vector<size_t> first_query_;             // and one past the last
  std::vector<std::vector<size_t>> wanted_at_;  // empty where nothing is wanted
};

/// Answers, in the order of the queries, from `normed`: the final norm's output for asked.rows(), in their
/// order. `distributions[i]` ← what wanted()[i] asks. A vocabulary tile at a time: no rows × vocabulary
/// matrix is held, but where distributions are wanted the logits of a few hundred rows (64 MiB).
std::vector<TokenAnswer> answer_rows(const Arithmetic& arithmetic, int64_t vocabulary, const Tensor& normed,
                                     const AskedRows& asked, std::vector<Distribution>& distributions);

}  // namespace qeval::model
