#include "model/decoder.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/setting.h"

namespace qeval::model {
namespace {

// Query rows (queries × heads of a group) of an attention tile: with 2048 keys the scores fill half of a
// typical second-level cache.
constexpr int64_t kAttentionTileRows = 24;
struct AttentionTask {
  const Segment* segment;
  int64_t first_query, query_count, kv_head;
};

/// Tiles of all rows, or those that hold one of `rows`.
std::vector<AttentionTask> attention_tasks(const Batch& batch, const AttentionOp& op,
                                           const std::vector<int64_t>* rows) {
  const int64_t queries = std::max<int64_t>(1, kAttentionTileRows / op.group());
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
    : capacity_(capacity), lasting_(layers > 1), slots_(static_cast<size_t>(arithmetic.layers()), 0) {
  size_t slots = 1;
  for (int64_t layer = 0; layer < arithmetic.layers(); ++layer) {
    if (lasting_) {
      slots_[static_cast<size_t>(layer)] = static_cast<size_t>(layer);
    } else if (arithmetic.lends_kv(layer)) {
      slots_[static_cast<size_t>(layer)] = slots++;
    }
  }
  blocks_.resize(lasting_ ? static_cast<size_t>(layers) : slots);
  // The system would promise it, and end the process once it is used.
  constexpr int64_t kWorthALook = int64_t{64} << 20;
  int64_t bytes = 0;
  std::vector<int64_t> sizes(blocks_.size());
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
  if (model_.config.layer_inputs) {
    arithmetic_.embed_layers(batch.tokens, at(Value::residual), at(Value::layer_inputs));
  }
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

namespace {

/// Whether rows of other tokens take part in an operation.
bool mixes_tokens(const Operation& operation) {
  return std::holds_alternative<AttentionOp>(operation) || std::holds_alternative<ConvolveOp>(operation) ||
         std::holds_alternative<DeltaRuleOp>(operation) || std::holds_alternative<StateSpaceOp>(operation);
}

}  // namespace

size_t Decoder::run_linears(int64_t layer, const std::vector<Operation>& operations, size_t i) {
  const auto& linear = std::get<LinearOp>(operations[i]);
  std::vector<Arithmetic::Target> targets;
  for (; i < operations.size(); ++i) {
    const auto* next = std::get_if<LinearOp>(&operations[i]);
    if (next == nullptr || next->in != linear.in || next->experts != linear.experts) break;
    targets.push_back({next, &at(next->out)});
  }
  if (linear.experts != 0) {
    arithmetic_.expert_linear(layer, at(linear.in), routing_, targets);
  } else {
    arithmetic_.linear(layer, at(linear.in), targets);
  }
  return i;
}

void Decoder::run_block(int64_t layer, const Batch& batch) {
  const Arithmetic& a = arithmetic_;
  const BlockGraph& block = model_.config.graph.block(layer);
  const bool trimmed = layer == model_.config.num_layers - 1 && read_;
  const RowPositions rows{batch.positions, batch.lengths};
  const std::vector<Operation>& operations = block.operations;
  // Behind the last operation between tokens, rows that nobody reads are dropped.
  const auto last =
      operations.rend() - std::find_if(operations.rbegin(), operations.rend(), mixes_tokens) - 1;
  for (size_t i = 0; i < operations.size();) {
    if (std::holds_alternative<LinearOp>(operations[i])) {
      i = run_linears(layer, operations, i);
      continue;
    }
    const bool drops = trimmed && std::cmp_equal(i, last);
    const Operation& operation = operations[i++];
    std::visit(
        Overloaded{
            [](const LinearOp&) {},
            [&](const NormOp& op) { a.norm(layer, op, at(op.in), at(op.out)); },
            [&](const RotateOp& op) { a.rotate(layer, op, rows, at(op.value)); },
            [&](const SplitLatentOp& op) {
              a.split_latent(layer, op, at(Value::kv_latent), at(Value::kv), at(Value::k), at(Value::v));
            },
            [&](const AttentionOp& op) { attend(layer, op, batch, drops ? &*read_ : nullptr); },
            [&](const ActivateOp& op) { a.activate(layer, op, at(Value::gate)); },
            [&](const MultiplyOp& op) { a.multiply(layer, op, at(op.by), at(op.value)); },
            [&](const HadamardOp& op) { a.hadamard(layer, op, at(op.value)); },
            [&](const AddOp& op) { a.add(layer, op, at(op.in), at(op.to)); },
            [&](const RouteOp& op) { a.route(layer, op, at(Value::router), routing_); },
            [&](const DispatchOp& op) { a.dispatch(layer, op, at(op.in), routing_, at(Value::dispatched)); },
            [&](const MixExpertsOp& op) {
              a.mix_experts(layer, op, {at(Value::expert_out), at(Value::shared), at(Value::shared_gate)},
                            routing_, at(op.out));
            },
            [&](const GateOp& op) { a.gate(layer, op, at(op.gate), at(op.value)); },
            [&](const ScaleOp& op) { a.scale(layer, op, at(op.in), at(op.out)); },
            [&](const ClampOp& op) { a.clamp(layer, op, at(op.value)); },
            [&](const ConvolveOp&) { recur(layer, operation, batch); },
            [&](const DeltaRuleOp&) { recur(layer, operation, batch); },
            [&](const StateSpaceOp&) { recur(layer, operation, batch); },
            [&](const AltupOp& op) {
              a.altup(layer, op, at(Value::predicted), at(Value::update), at(Value::residual),
                      at(Value::streams));
            },
        },
        operation);
    if (!drops) continue;
    keep_read_rows(block, i);
    if (read_->empty()) return;
  }
}

std::vector<StateSegment> Decoder::state_segments(int64_t layer, const Batch& batch) const {
  std::vector<StateSegment> segments;
  for (const Segment& s : batch.segments) {
    StateSegment& own = segments.emplace_back(
        StateSegment{.first_row = s.first_row,
                     .count = s.length,
                     .after = s.kv->block(layer).data + arithmetic_.state_offset(layer, s.kv->capacity())});
    if (s.kv_at > 0) {
      own.before = own.after;
    } else if (!s.ancestors.empty()) {
      const KvSpan& from = *s.ancestors.back().kv;
      own.before = from.piece(layer, 0).data + arithmetic_.state_offset(layer, from.capacity());
    }
  }
  return segments;
}

void Decoder::recur(int64_t layer, const Operation& operation, const Batch& batch) {
  const std::vector<StateSegment> segments = state_segments(layer, batch);
  const Arithmetic::MixerInputs in{at(Value::mixer_q), at(Value::mixer_k), at(Value::mixer_v),
                                   at(Value::mixer_a), at(Value::mixer_b)};
  if (const auto* convolve = std::get_if<ConvolveOp>(&operation)) {
    arithmetic_.convolve(layer, *convolve, segments, at(convolve->value));
  } else if (const auto* delta = std::get_if<DeltaRuleOp>(&operation)) {
    arithmetic_.delta_rule(layer, *delta, in, segments, at(Value::mixer_out));
  } else {
    arithmetic_.state_space(layer, std::get<StateSpaceOp>(operation), in, segments, at(Value::mixer_out));
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
  const int64_t source = layer - op.kv_from;
  if (op.kv_from == 0) {
    parallel_tasks(static_cast<int64_t>(batch.segments.size()), [&](int64_t i) {
      const Segment& s = batch.segments[static_cast<size_t>(i)];
      arithmetic_.store_kv(layer, k, v, s.first_row, s.length, s.kv->block(layer), s.kv_at);
    });
  }
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
        path.add(ancestor.kv->piece(source, ancestor.length), first_seen);
      path.add(s.kv->piece(source, s.kv_at + s.length), first_seen);
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
