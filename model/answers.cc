#include "model/answers.h"

#include <cassert>
#include <cmath>
#include <numeric>

#include "base/hash.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

// Rows whose logits are computed together.
constexpr int64_t kHeadRows = 1024;
// Logits held at once where whole distributions are asked for: 64 MiB.
constexpr int64_t kHeldLogits = int64_t{1} << 24;

/// A row's largest logit, its first place, and Σ exp(logit − max), from its tiles in order.
struct RowTotal {
  double max, sum;
  int32_t arg_max;
};

RowTotal add_up(std::span<const LogitTile> tiles) {
  LogitTile best = tiles[0];
  for (const LogitTile& tile : tiles) {
    if (tile.max > best.max) best = tile;
  }
  RowTotal total{static_cast<double>(best.max), 0, best.arg_max};
  for (const LogitTile& tile : tiles)
    total.sum += static_cast<double>(tile.sum) * std::exp(static_cast<double>(tile.max) - total.max);
  return total;
}

/// Answers block after block of rows: first every tile of the vocabulary for all rows of the block, then
/// every row from its tiles.
class Head {
 public:
  Head(const Arithmetic& arithmetic, int64_t vocabulary, const Tensor& normed, const AskedRows& asked,
       std::vector<Distribution>& distributions)
      : arithmetic_(arithmetic),
        vocabulary_(vocabulary),
        tiles_(static_cast<size_t>(logit_tiles(vocabulary))),
        normed_(normed),
        asked_(asked),
        distributions_(distributions),
        answers_(asked.queries().size()),
        target_logits_(asked.queries().size()) {}

  std::vector<TokenAnswer> run() {
    const int64_t most =
        holds_logits() ? std::clamp<int64_t>(kHeldLogits / vocabulary_, 1, kHeadRows) : kHeadRows;
    const size_t rows = asked_.rows().size();
    for (first_row_ = 0; first_row_ < rows; first_row_ += count_) {
      count_ = std::min(static_cast<size_t>(most), rows - first_row_);
      compute_tiles();
      parallel_tasks(static_cast<int64_t>(count_), [&](int64_t i) { answer_row(static_cast<size_t>(i)); });
    }
    return std::move(answers_);
  }

 private:
  bool holds_logits() const { return !asked_.wanted().empty(); }
  /// The block's logits in a tile, [count_, width of the tile], where logits are held.
  float* held_tile(int64_t first) { return held_.as<float>() + first * static_cast<int64_t>(count_); }

  void compute_tiles() {
    std::vector<int64_t> indices(count_);
    std::iota(indices.begin(), indices.end(), static_cast<int64_t>(first_row_));
    arithmetic_.gather(normed_, indices, block_);
    if (holds_logits()) held_.resize(count_ * static_cast<size_t>(vocabulary_) * sizeof(float));
    partial_.resize(tiles_ * count_);
    hashes_.resize(tiles_ * count_);
    for_each_logit_tile(vocabulary_, [&](int64_t first, int64_t width) {
      thread_local AlignedBuffer buffer;
      if (!holds_logits()) buffer.resize(static_cast<size_t>(width) * count_ * sizeof(float));
      float* logits = holds_logits() ? held_tile(first) : buffer.as<float>();
      arithmetic_.logits(block_, first, width, logits);
      for (size_t i = 0; i < count_; ++i)
        read_tile(i, first, width, logits + static_cast<int64_t>(i) * width);
    });
  }

  /// Of row i of the block, the logits of a tile.
  void read_tile(size_t i, int64_t first, int64_t width, const float* logits) {
    const size_t at = i * tiles_ + static_cast<size_t>(first / kVocabularyTile);
    partial_[at] = kernels().logit_tile(logits, width);
    partial_[at].arg_max += static_cast<int32_t>(first);
    hashes_[at] = fingerprint({logits, static_cast<size_t>(width)});
    const size_t row = first_row_ + i;
    for (size_t query = asked_.first_query(row); query < asked_.first_query(row + 1); ++query) {
      const int64_t column = asked_.queries()[query].token - first;
      if (column >= 0 && column < width) target_logits_[query] = logits[column];
    }
  }

  void answer_row(size_t i) {
    const size_t row = first_row_ + i;
    const RowTotal total = add_up(std::span(partial_).subspan(i * tiles_, tiles_));
    const uint64_t hash = combine(std::span(hashes_).subspan(i * tiles_, tiles_));
    for (size_t query = asked_.first_query(row); query < asked_.first_query(row + 1); ++query) {
      const double shifted = static_cast<double>(target_logits_[query]) - total.max;
      answers_[query] = {shifted - std::log(total.sum), total.arg_max, hash};
    }
    for (const size_t wanted : asked_.wanted_at(row)) {
      std::vector<float> logits = held_row(i);  // which is overwritten
      distributions_[wanted] = distribution_of(logits, total.max, total.sum, asked_.wanted()[wanted]);
    }
  }

  std::vector<float> held_row(size_t i) {
    std::vector<float> logits(static_cast<size_t>(vocabulary_));
    for (int64_t first = 0; first < vocabulary_; first += kVocabularyTile) {
      const int64_t width = std::min(kVocabularyTile, vocabulary_ - first);
      std::copy_n(held_tile(first) + static_cast<int64_t>(i) * width, width, logits.begin() + first);
    }
    return logits;
  }

  const Arithmetic& arithmetic_;
  const int64_t vocabulary_;
  const size_t tiles_;
  const Tensor& normed_;
  const AskedRows& asked_;
  std::vector<Distribution>& distributions_;
  std::vector<TokenAnswer> answers_;
  std::vector<float> target_logits_;  // of each query
  size_t first_row_ = 0, count_ = 0;  // of the block, among the asked rows
  Tensor block_;
  AlignedBuffer held_;  // the block's logits, tile by tile
  std::vector<LogitTile> partial_;
  std::vector<uint64_t> hashes_;  // both [count_, tiles_]
};

}  // namespace

AskedRows::AskedRows(std::span<const TokenQuery> queries, std::span<const DistributionQuery> wanted)
    : queries_(queries), wanted_(wanted) {
  for (size_t i = 0; i < queries.size(); ++i) {
    assert(i == 0 || queries[i].row >= queries[i - 1].row);
    if (rows_.empty() || rows_.back() != queries[i].row) {
      rows_.push_back(queries[i].row);
      first_query_.push_back(i);
    }
  }
  first_query_.push_back(queries.size());
  if (wanted.empty()) return;
  wanted_at_.resize(rows_.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto found = std::ranges::lower_bound(rows_, wanted[i].row);
    assert(found != rows_.end() && *found == wanted[i].row);
    wanted_at_[static_cast<size_t>(found - rows_.begin())].push_back(i);
  }
}

std::span<const size_t> AskedRows::wanted_at(size_t i) const {
  return wanted_at_.empty() ? std::span<const size_t>() : wanted_at_[i];
}

std::vector<TokenAnswer> answer_rows(const Arithmetic& arithmetic, int64_t vocabulary, const Tensor& normed,
                                     const AskedRows& asked, std::vector<Distribution>& distributions) {
  distributions.assign(asked.wanted().size(), {});
  return Head(arithmetic, vocabulary, normed, asked, distributions).run();
}

}  // namespace qeval::model
