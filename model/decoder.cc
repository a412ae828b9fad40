#include "model/decoder.h"

#include <algorithm>
#include <cassert>
#include <cmath>

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

struct AttentionTask {
  const Segment* segment;
  int64_t first_query, query_count, kv_head;
};

std::vector<AttentionTask> attention_tasks(const Batch& batch, const ModelConfig& config) {
  const int64_t group = config.num_heads / config.num_kv_heads;
  const int64_t queries = std::max<int64_t>(1, kTileRows / group);
  std::vector<AttentionTask> tasks;
  for (const Segment& segment : batch.segments) {
    for (int64_t first = 0; first < segment.length; first += queries) {
      for (int64_t head = 0; head < config.num_kv_heads; ++head) {
        tasks.push_back({&segment, first, std::min(queries, segment.length - first), head});
      }
    }
  }
  return tasks;
}

}  // namespace

KvSpan::KvSpan(const Arithmetic& arithmetic, int64_t capacity, int64_t layers)
    : capacity_(capacity), blocks_(static_cast<size_t>(layers)) {
  for (AlignedBuffer& block : blocks_) block.resize(static_cast<size_t>(arithmetic.kv_bytes(capacity)));
}

Decoder::Decoder(const Model& model, const Arithmetic& arithmetic) : model_(model), arithmetic_(arithmetic) {}

void Decoder::forward(const Batch& batch) {
  const Arithmetic& a = arithmetic_;
  a.embed(batch.tokens, residual_);
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
    a.norm(layer, NormPoint::input, residual_, normed_);
    const Arithmetic::Target qkv[] = {{Projection::q, &q_}, {Projection::k, &k_}, {Projection::v, &v_}};
    a.linear(layer, normed_, qkv);
    a.rotate(layer, Projection::q, batch.positions, q_);
    a.rotate(layer, Projection::k, batch.positions, k_);
    attend(layer, batch);
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

void Decoder::attend(int64_t layer, const Batch& batch) {
  parallel_tasks(static_cast<int64_t>(batch.segments.size()), [&](int64_t i) {
    const Segment& s = batch.segments[static_cast<size_t>(i)];
    arithmetic_.store_kv(layer, k_, v_, s.first_row, s.length, s.kv->block(layer), s.kv_at);
  });
  arithmetic_.shape_mixed(q_.rows, mixed_);
  const std::vector<AttentionTask> tasks = attention_tasks(batch, model_.config);
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
  std::vector<TokenAnswer> answers(queries.size());
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

  Tensor scored;
  arithmetic_.gather(residual_, rows, scored);
  arithmetic_.norm(0, NormPoint::final, scored, normed_);
  const int64_t vocabulary = model_.config.vocab_size;
  const int64_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  std::vector<LogitTile> partial(static_cast<size_t>(tiles) * rows.size());
  std::vector<float> target_logits(queries.size());
  for (size_t block = 0; block < rows.size(); block += kHeadRows) {
    const size_t count = std::min<size_t>(kHeadRows, rows.size() - block);
    Tensor block_rows;
    std::vector<int64_t> indices(count);
    for (size_t i = 0; i < count; ++i) indices[i] = static_cast<int64_t>(block + i);
    arithmetic_.gather(normed_, indices, block_rows);
    parallel_tasks(tiles, [&](int64_t t) {
      thread_local AlignedBuffer buffer;
      const int64_t first = t * kVocabularyTile;
      const int64_t width = std::min(kVocabularyTile, vocabulary - first);
      buffer.resize(static_cast<size_t>(width) * count * sizeof(float));
      arithmetic_.logits(block_rows, first, width, buffer.as<float>());
      for (size_t i = 0; i < count; ++i) {
        const float* logits = buffer.as<float>() + static_cast<int64_t>(i) * width;
        const size_t row = block + i;
        LogitTile& tile = partial[row * static_cast<size_t>(tiles) + static_cast<size_t>(t)];
        tile = kernels().logit_tile(logits, width);
        tile.arg_max += static_cast<int32_t>(first);
        for (size_t query = first_query[row]; query < first_query[row + 1]; ++query) {
          const int64_t column = queries[query].token - first;
          if (column >= 0 && column < width) target_logits[query] = logits[column];
        }
      }
    });
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::span<const LogitTile> row_tiles(partial.data() + row * static_cast<size_t>(tiles),
                                               static_cast<size_t>(tiles));
    LogitTile best = row_tiles[0];
    for (const LogitTile& tile : row_tiles) {
      if (tile.max > best.max) best = tile;
    }
    double sum = 0;
    for (const LogitTile& tile : row_tiles) {
      sum += static_cast<double>(tile.sum) *
             std::exp(static_cast<double>(tile.max) - static_cast<double>(best.max));
    }
    for (size_t query = first_query[row]; query < first_query[row + 1]; ++query) {
      const double shifted = static_cast<double>(target_logits[query]) - static_cast<double>(best.max);
      answers[query] = {shifted - std::log(sum), best.arg_max};
    }
  }
  return answers;
}

std::vector<float> Decoder::logits(std::span<const int64_t> rows) {
  const int64_t vocabulary = model_.config.vocab_size;
  std::vector<float> out(rows.size() * static_cast<size_t>(vocabulary));
  Tensor scored;
  arithmetic_.gather(residual_, rows, scored);
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
