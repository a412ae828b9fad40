#include "model/decoder.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "base/memory.h"

namespace qeval::model {
namespace {

// Query rows (queries × heads of a group) of an attention tile: with 2048 keys the scores fill half of a
// typical second-level cache.
constexpr int64_t kTileRows = 24;
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
  distributions.clear();
  if (queries.empty()) return {};
  const AskedRows asked(queries, wanted);
  Tensor scored;
  arithmetic_.gather(residual_, kept_rows(asked.rows()), scored);
  arithmetic_.norm(0, NormPoint::final, scored, normed_);
  return answer_rows(arithmetic_, model_.config.vocab_size, normed_, asked, distributions);
}

std::vector<float> Decoder::logits(std::span<const int64_t> rows) {
  const int64_t vocabulary = model_.config.vocab_size;
  std::vector<float> out(rows.size() * static_cast<size_t>(vocabulary));
  Tensor scored;
  arithmetic_.gather(residual_, kept_rows(rows), scored);
  arithmetic_.norm(0, NormPoint::final, scored, normed_);
  for_each_logit_tile(vocabulary, [&](int64_t first, int64_t width) {
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
