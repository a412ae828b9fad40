#include "model/decoder.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "base/memory.h"
#include "base/setting.h"

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
std::vector<AttentionTask> attention_tasks(const Batch& batch, const AttentionOp& op,
                                           const std::vector<int64_t>* rows) {
  const int64_t queries = std::max<int64_t>(1, kTileRows / op.group());
  std::vector<AttentionTask> tasks;
  for (const Segment& segment : batch.segments) {
    for (int64_t first = 0; first < segment.length; first += queries) {
      const int64_t count = std::min(queries, segment.length - first);
      if (rows != nullptr) {
        const auto next = std::ranges::lower_bound(*rows, segment.first_row + first);
        if (next == rows->end() || *next >= segment.first_row + first + count) continue;
      }
      for (int64_t head = 0; head < op.kv_heads; ++head) {
        tasks.push_back({&segment, first, count, head});
      }
    }
  }
  return tasks;
}

/// The keys of a path that its queries see: without the beginning that lies outside the window of the first.
class VisiblePath {
 public:
  explicit VisiblePath(std::vector<KvPiece>& pieces) : pieces_(pieces) { pieces_.clear(); }

  int64_t first_key() const { return first_key_; }  ///< its position

  void add(KvPiece piece, int64_t first_seen) {
    const int64_t end = position_ + piece.length;
    if (end > first_seen) {
      constexpr int64_t kWhole = 64;  // a multiple of every arithmetic's panels
      piece.skip = std::max<int64_t>(0, first_seen - position_) / kWhole * kWhole;
      if (pieces_.empty()) first_key_ = position_ + piece.skip;
      pieces_.push_back(piece);
    }
    position_ = end;
  }

 private:
  std::vector<KvPiece>& pieces_;
  int64_t position_ = 0, first_key_ = 0;
};

}  // namespace

KvSpan::KvSpan(const Arithmetic& arithmetic, int64_t capacity, int64_t layers)
    : capacity_(capacity), blocks_(static_cast<size_t>(layers)) {
  // The system would promise it, and end the process once it is used.
  constexpr int64_t kWorthALook = int64_t{64} << 20;
  int64_t bytes = 0;
  std::vector<int64_t> sizes(static_cast<size_t>(layers));
  for (int64_t layer = 0; layer < arithmetic.layers(); ++layer) {
    int64_t& size = sizes[index(layer)];
    size = std::max(size, arithmetic.kv_bytes(layer, capacity));
  }
  for (const int64_t size : sizes) bytes += size;
  if (bytes >= kWorthALook) {
    require_memory(bytes, fmt::format("keys and values of {} tokens", capacity),
                   fmt::format("fewer tokens ({})", setting("max-length")));
  }
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i].resize(static_cast<size_t>(sizes[i]));
}

Decoder::Decoder(const Model& model, const Arithmetic& arithmetic) : model_(model), arithmetic_(arithmetic) {}

void Decoder::forward(const Batch& batch) {
  std::vector<int64_t> firsts;
  for (size_t r = 0; r < batch.positions.size(); ++r) {
    if (batch.positions[r] == 0) firsts.push_back(static_cast<int64_t>(r));
  }
  for (Tensor& value : values_) value.first_rows = firsts;
  arithmetic_.embed(batch.tokens, {batch.positions, batch.lengths}, at(Value::residual));
  read_ = batch.read && batch.read->size() < batch.tokens.size() ? batch.read : std::nullopt;
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) run_block(layer, batch);
}

void Decoder::embed(const Batch& batch, Tensor& residual) const {
  arithmetic_.embed(batch.tokens, {batch.positions, batch.lengths}, residual);
}

void Decoder::advance(int64_t layer, const Batch& batch, Tensor& residual) {
  read_.reset();
  std::swap(at(Value::residual), residual);
  run_block(layer, batch);
  std::swap(at(Value::residual), residual);
}

void Decoder::run_block(int64_t layer, const Batch& batch) {
  const Arithmetic& a = arithmetic_;
  const BlockGraph& block = model_.config.graph.block(layer);
  const bool trimmed = layer == model_.config.num_layers - 1 && read_;
  const RowPositions rows{batch.positions, batch.lengths};
  const std::vector<Operation>& operations = block.operations;
  for (size_t i = 0; i < operations.size();) {
    const Operation& operation = operations[i++];
    if (const auto* linear = std::get_if<LinearOp>(&operation)) {
      // Linear maps of one input are computed together.
      std::vector<Arithmetic::Target> targets{{linear, &at(linear->out)}};
      for (; i < operations.size(); ++i) {
        const auto* next = std::get_if<LinearOp>(&operations[i]);
        if (next == nullptr || next->in != linear->in) break;
        targets.push_back({next, &at(next->out)});
      }
      a.linear(layer, at(linear->in), targets);
    } else if (const auto* norm = std::get_if<NormOp>(&operation)) {
      a.norm(layer, *norm, at(norm->in), at(norm->out));
    } else if (const auto* rotate = std::get_if<RotateOp>(&operation)) {
      a.rotate(layer, *rotate, rows, at(rotate->value));
    } else if (const auto* split = std::get_if<SplitLatentOp>(&operation)) {
      a.split_latent(layer, *split, at(Value::kv_latent), at(Value::kv), at(Value::k), at(Value::v));
    } else if (const auto* attention = std::get_if<AttentionOp>(&operation)) {
      attend(layer, *attention, batch, trimmed ? &*read_ : nullptr);
      if (trimmed) {
        keep_read_rows(block, i);
        if (read_->empty()) return;
      }
    } else if (const auto* activate = std::get_if<ActivateOp>(&operation)) {
      a.activate(layer, *activate, at(Value::gate));
    } else if (const auto* multiply = std::get_if<MultiplyOp>(&operation)) {
      a.multiply(layer, *multiply, at(Value::up), at(Value::gate));
    } else if (const auto* hadamard = std::get_if<HadamardOp>(&operation)) {
      a.hadamard(layer, *hadamard, at(hadamard->value));
    } else {
      const auto& add = std::get<AddOp>(operation);
      a.add(layer, add, at(add.in), at(Value::residual));
    }
  }
}

void Decoder::keep_read_rows(const BlockGraph& block, size_t next) {
  for (size_t v = 0; v < kValues; ++v) {
    const auto value = static_cast<Value>(v);
    if (is_read_later(block, next, value)) at(value) = gathered(*read_, at(value));
  }
  for (Tensor& value : values_) value.first_rows = at(Value::residual).first_rows;
}

Tensor Decoder::gathered(std::span<const int64_t> rows, const Tensor& tensor) const {
  Tensor kept;
  arithmetic_.gather(tensor, rows, kept);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (tensor.is_first(rows[i])) kept.first_rows.push_back(static_cast<int64_t>(i));
  }
  return kept;
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

void Decoder::attend(int64_t layer, const AttentionOp& op, const Batch& batch,
                     const std::vector<int64_t>* rows) {
  const Tensor &q = at(Value::q), &k = at(Value::k), &v = at(Value::v);
  Tensor& mixed = at(Value::mixed);
  parallel_tasks(static_cast<int64_t>(batch.segments.size()), [&](int64_t i) {
    const Segment& s = batch.segments[static_cast<size_t>(i)];
    arithmetic_.store_kv(layer, k, v, s.first_row, s.length, s.kv->block(layer), s.kv_at);
  });
  arithmetic_.shape_mixed(op, q.rows, mixed);
  const std::vector<AttentionTask> tasks = attention_tasks(batch, op, rows);
  const bool windowed = op.window > 0 && !arithmetic_.wants_all_keys();
  parallel_ranges(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    thread_local AlignedBuffer scores;
    thread_local AlignedBuffer scratch;
    std::vector<KvPiece> pieces;
    for (int64_t t = begin; t < end; ++t) {
      const AttentionTask& task = tasks[static_cast<size_t>(t)];
      const Segment& s = *task.segment;
      const int64_t first_position = s.first_position + task.first_query;
      const int64_t first_seen = windowed ? std::max<int64_t>(0, first_position + 1 - op.window) : 0;
      VisiblePath path(pieces);
      for (const Segment::Ancestor& ancestor : s.ancestors)
        path.add(ancestor.kv->piece(layer, ancestor.length), first_seen);
      path.add(s.kv->piece(layer, s.kv_at + s.length), first_seen);
      const AttentionTile tile{.layer = layer,
                               .op = &op,
                               .kv_head = task.kv_head,
                               .first_row = s.first_row + task.first_query,
                               .query_count = task.query_count,
                               .first_position = first_position,
                               .first_key = path.first_key(),
                               .key_count = s.first_position + s.length - path.first_key(),
                               .path = pieces,
                               .scores = scores,
                               .scratch = scratch};
      arithmetic_.scores(tile, q);
      arithmetic_.softmax(tile);
      arithmetic_.mix(tile, mixed);
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
  finish(asked.rows());
  return answer_rows(arithmetic_, model_.config.vocab_size, at(Value::normed), asked, distributions);
}

const Tensor& Decoder::finish(std::span<const int64_t> rows) {
  const Tensor scored = gathered(kept_rows(rows), at(Value::residual));
  Tensor& normed = at(Value::normed);
  normed.first_rows = scored.first_rows;
  arithmetic_.finish(scored, normed);
  return normed;
}

std::vector<float> Decoder::logits(std::span<const int64_t> rows) {
  const int64_t vocabulary = model_.config.vocab_size;
  std::vector<float> out(rows.size() * static_cast<size_t>(vocabulary));
  const Tensor& normed = finish(rows);
  for_each_logit_tile(vocabulary, [&](int64_t first, int64_t width) {
    std::vector<float> tile(rows.size() * static_cast<size_t>(width));
    arithmetic_.logits(normed, first, width, tile.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(tile.begin() + static_cast<int64_t>(i) * width, width,
                  out.begin() + static_cast<int64_t>(i) * vocabulary + first);
    }
  });
  return out;
}

}  // namespace qeval::model
