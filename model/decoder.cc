#include "model/decoder.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

// Query rows (queries × heads of a group) of an attention tile: with 2048 keys the scores fill half of a
// typical second-level cache.
constexpr int64_t kTileRows = 24;
// Vocabulary entries per tile of the head, and rows per task. The tile is fixed: it decides the order in
// which the log-sum-exp adds up, hence the bits.
constexpr int64_t kVocabularyTile = 256;
constexpr int64_t kHeadRows = 1024;
// Logits held at once where whole distributions are asked for: 64 MiB.
constexpr int64_t kHeldLogits = int64_t{1} << 24;

struct AttentionTask {
  const Segment* segment;
  int64_t first_query, query_count, kv_head;
};

/// Tiles of all rows, or those that hold one of `rows`.
std::vector<AttentionTask> attention_tasks(const Batch& batch, const ModelConfig& config,
                                           const std::vector<int64_t>* rows) {
  const int64_t group = config.num_heads / config.num_kv_heads;
  const int64_t queries = std::max<int64_t>(1, kTileRows / group);
  std::vector<AttentionTask> tasks;
  for (const Segment& segment : batch.segments) {
    for (int64_t first = 0; first < segment.length; first += queries) {
      const int64_t count = std::min(queries, segment.length - first);
      if (rows != nullptr) {
        const auto next = std::ranges::lower_bound(*rows, segment.first_row + first);
        if (next == rows->end() || *next >= segment.first_row + first + count) continue;
      }
      for (int64_t head = 0; head < config.num_kv_heads; ++head) {
        tasks.push_back({&segment, first, count, head});
      }
    }
  }
  return tasks;
}

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

}  // namespace

KvSpan::KvSpan(const Arithmetic& arithmetic, int64_t capacity, int64_t layers)
    : capacity_(capacity), blocks_(static_cast<size_t>(layers)) {
  // The system would promise it, and end the process once it is used.
  constexpr int64_t kWorthALook = int64_t{64} << 20;
  const int64_t bytes = layers * arithmetic.kv_bytes(capacity);
  if (bytes >= kWorthALook) {
    require_memory(bytes, fmt::format("keys and values of {} tokens", capacity),
                   "fewer tokens (--max-length)");
  }
  for (AlignedBuffer& block : blocks_) block.resize(static_cast<size_t>(arithmetic.kv_bytes(capacity)));
}

Decoder::Decoder(const Model& model, const Arithmetic& arithmetic) : model_(model), arithmetic_(arithmetic) {}

void Decoder::forward(const Batch& batch) {
  const Arithmetic& a = arithmetic_;
  a.embed(batch.tokens, residual_);
  read_ = batch.read && batch.read->size() < batch.tokens.size() ? batch.read : std::nullopt;
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
    a.norm(layer, NormPoint::input, residual_, normed_);
    const Arithmetic::Target qkv[] = {{Projection::q, &q_}, {Projection::k, &k_}, {Projection::v, &v_}};
    a.linear(layer, normed_, qkv);
    a.rotate(layer, Projection::q, batch.positions, q_);
    a.rotate(layer, Projection::k, batch.positions, k_);
    const bool last = layer == model_.config.num_layers - 1;
    attend(layer, batch, last && read_ ? &*read_ : nullptr);
    if (last && read_) {
      keep_rows(*read_, mixed_);
      keep_rows(*read_, residual_);
      if (read_->empty()) return;
    }
    const Arithmetic::Target o[] = {{Projection::o, &update_}};
    a.linear(layer, mixed_, o);
    a.add(layer, Projection::o, update_, residual_);

    a.norm(layer, NormPoint::post_attention, residual_, normed_);
    const Arithmetic::Target gate_up[] = {{Projection::gate, &gate_}, {Projection::up, &up_}};
    a.linear(layer, normed_, gate_up);
    a.activate(layer, gate_);
    a.multiply(layer, up_, gate_);
    const Arithmetic::Target down[] = {{Projection::down, &update_}};
    a.linear(layer, gate_, down);
    a.add(layer, Projection::down, update_, residual_);
  }
}

void Decoder::keep_rows(std::span<const int64_t> rows, Tensor& tensor) const {
  Tensor kept;
  arithmetic_.gather(tensor, rows, kept);
  tensor = std::move(kept);
}

std::vector<int64_t> Decoder::kept_rows(std::span<const int64_t> rows) const {
  std::vector<int64_t> kept(rows.begin(), rows.end());
  if (!read_) return kept;
  for (int64_t& row : kept) {
    const auto found = std::ranges::lower_bound(*read_, row);
    assert(found != read_->end() && *found == row);
    row = found - read_->begin();
  }
  return kept;
}

void Decoder::attend(int64_t layer, const Batch& batch, const std::vector<int64_t>* rows) {
  parallel_tasks(static_cast<int64_t>(batch.segments.size()), [&](int64_t i) {
    const Segment& s = batch.segments[static_cast<size_t>(i)];
    arithmetic_.store_kv(layer, k_, v_, s.first_row, s.length, s.kv->block(layer), s.kv_at);
  });
  arithmetic_.shape_mixed(q_.rows, mixed_);
  const std::vector<AttentionTask> tasks = attention_tasks(batch, model_.config, rows);
  parallel_ranges(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    thread_local AlignedBuffer scores;
    thread_local AlignedBuffer scratch;
    std::vector<KvPiece> path;
    for (int64_t t = begin; t < end; ++t) {
      const AttentionTask& task = tasks[static_cast<size_t>(t)];
      const Segment& s = *task.segment;
      path.clear();
      for (const Segment::Ancestor& ancestor : s.ancestors)
        path.push_back(ancestor.kv->piece(layer, ancestor.length));
      path.push_back(s.kv->piece(layer, s.kv_at + s.length));
      const AttentionTile tile{.layer = layer,
                               .kv_head = task.kv_head,
                               .first_row = s.first_row + task.first_query,
                               .query_count = task.query_count,
                               .first_position = s.first_position + task.first_query,
                               .key_count = s.first_position + s.length,
                               .path = path,
                               .scores = scores,
                               .scratch = scratch};
      arithmetic_.scores(tile, q_);
      arithmetic_.softmax(tile);
      arithmetic_.mix(tile, mixed_);
    }
  });
}

std::vector<TokenAnswer> Decoder::answer(std::span<const TokenQuery> queries) {
  std::vector<Distribution> none;
  return answer(queries, {}, none);
}

std::vector<TokenAnswer> Decoder::answer(std::span<const TokenQuery> queries,
                                         std::span<const DistributionQuery> wanted,
                                         std::vector<Distribution>& distributions) {
  std::vector<TokenAnswer> answers(queries.size());
  distributions.assign(wanted.size(), {});
  if (queries.empty()) return answers;
  std::vector<int64_t> rows;
  std::vector<size_t> first_query;  // of each distinct row, and one past the last
  for (size_t i = 0; i < queries.size(); ++i) {
    assert(i == 0 || queries[i].row >= queries[i - 1].row);
    if (rows.empty() || rows.back() != queries[i].row) {
      rows.push_back(queries[i].row);
      first_query.push_back(i);
    }
  }
  first_query.push_back(queries.size());
  std::vector<std::vector<size_t>> wanted_at(wanted.empty() ? 0 : rows.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto found = std::ranges::lower_bound(rows, wanted[i].row);
    assert(found != rows.end() && *found == wanted[i].row);
    wanted_at[static_cast<size_t>(found - rows.begin())].push_back(i);
  }

  Tensor scored;
  arithmetic_.gather(residual_, kept_rows(rows), scored);
  arithmetic_.norm(0, NormPoint::final, scored, normed_);
  const int64_t vocabulary = model_.config.vocab_size;
  const int64_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  const int64_t block_rows =
      wanted.empty() ? kHeadRows : std::clamp<int64_t>(kHeldLogits / vocabulary, 1, kHeadRows);
  std::vector<float> target_logits(queries.size());
  AlignedBuffer held;  // the block's logits, tile by tile, each [rows of the block, width of the tile]
  Tensor normed_rows;
  for (size_t block = 0; block < rows.size(); block += static_cast<size_t>(block_rows)) {
    const size_t count = std::min(static_cast<size_t>(block_rows), rows.size() - block);
    std::vector<int64_t> indices(count);
    for (size_t i = 0; i < count; ++i) indices[i] = static_cast<int64_t>(block + i);
    arithmetic_.gather(normed_, indices, normed_rows);
    if (!wanted.empty()) held.resize(count * static_cast<size_t>(vocabulary) * sizeof(float));
    std::vector<LogitTile> partial(static_cast<size_t>(tiles) * count);
    std::vector<uint64_t> hashes(partial.size());
    parallel_tasks(tiles, [&](int64_t t) {
      thread_local AlignedBuffer buffer;
      const int64_t first = t * kVocabularyTile;
      const int64_t width = std::min(kVocabularyTile, vocabulary - first);
      if (wanted.empty()) buffer.resize(static_cast<size_t>(width) * count * sizeof(float));
      float* tile_logits =
          wanted.empty() ? buffer.as<float>() : held.as<float>() + first * static_cast<int64_t>(count);
      arithmetic_.logits(normed_rows, first, width, tile_logits);
      for (size_t i = 0; i < count; ++i) {
        const float* logits = tile_logits + static_cast<int64_t>(i) * width;
        const size_t row = block + i;
        LogitTile& tile = partial[i * static_cast<size_t>(tiles) + static_cast<size_t>(t)];
        tile = kernels().logit_tile(logits, width);
        tile.arg_max += static_cast<int32_t>(first);
        hashes[i * static_cast<size_t>(tiles) + static_cast<size_t>(t)] =
            fingerprint({logits, static_cast<size_t>(width)});
        for (size_t query = first_query[row]; query < first_query[row + 1]; ++query) {
          const int64_t column = queries[query].token - first;
          if (column >= 0 && column < width) target_logits[query] = logits[column];
        }
      }
    });
    parallel_tasks(static_cast<int64_t>(count), [&](int64_t i) {
      const size_t row = block + static_cast<size_t>(i);
      const RowTotal total =
          add_up(std::span(partial).subspan(static_cast<size_t>(i * tiles), static_cast<size_t>(tiles)));
      const uint64_t row_hash =
          combine(std::span(hashes).subspan(static_cast<size_t>(i * tiles), static_cast<size_t>(tiles)));
      for (size_t query = first_query[row]; query < first_query[row + 1]; ++query) {
        const double shifted = static_cast<double>(target_logits[query]) - total.max;
        answers[query] = {shifted - std::log(total.sum), total.arg_max, row_hash};
      }
      if (wanted.empty() || wanted_at[row].empty()) return;
      std::vector<float> logits(static_cast<size_t>(vocabulary));
      for (const size_t query : wanted_at[row]) {
        for (int64_t first = 0; first < vocabulary; first += kVocabularyTile) {
          const int64_t width = std::min(kVocabularyTile, vocabulary - first);
          std::copy_n(held.as<float>() + first * static_cast<int64_t>(count) + i * width, width,
                      logits.begin() + first);
        }
        distributions[query] = distribution_of(logits, total.max, total.sum, wanted[query]);
      }
    });
  }
  return answers;
}

std::vector<float> Decoder::logits(std::span<const int64_t> rows) {
  const int64_t vocabulary = model_.config.vocab_size;
  std::vector<float> out(rows.size() * static_cast<size_t>(vocabulary));
  Tensor scored;
  arithmetic_.gather(residual_, kept_rows(rows), scored);
  arithmetic_.norm(0, NormPoint::final, scored, normed_);
  const int64_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  parallel_tasks(tiles, [&](int64_t t) {
    const int64_t first = t * kVocabularyTile;
    const int64_t width = std::min(kVocabularyTile, vocabulary - first);
    std::vector<float> tile(rows.size() * static_cast<size_t>(width));
    arithmetic_.logits(normed_, first, width, tile.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(tile.begin() + static_cast<int64_t>(i) * width, width,
                  out.begin() + static_cast<int64_t>(i) * vocabulary + first);
    }
  });
  return out;
}

}  // namespace qeval::model
