#include "eval/divergence/side_by_side.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace qeval::eval {
namespace {

/// Tokens that a model computes at once, and bytes of logits that are held of each model: bounds of memory,
/// no number depends on them. The head's weights are decoded anew for each such piece.
constexpr int64_t kStretch = 512, kHeldBytes = int64_t{32} << 20;

}  // namespace

struct SideBySide::Lane {
  Session* session;
  std::unique_ptr<model::KvSpan> kv;
};

SideBySide::SideBySide(std::vector<Session*> models, int64_t longest) {
  for (Session* session : models) {
    const model::ModelConfig& config = session->model().config;
    if (config.vocab_size != models.front()->model().config.vocab_size) {
      fail("{}: has a vocabulary of {} tokens, {} one of {}: distributions over them cannot be compared",
           session->model().path.string(), config.vocab_size, models.front()->model().path.string(),
           models.front()->model().config.vocab_size);
    }
    if (longest > session->max_length()) {
      fail("{}: windows of {} tokens; accepted: up to {}, the longest input it is prepared for",
           session->model().path.string(), longest, session->max_length());
    }
    lanes_.push_back(
        {session, std::make_unique<model::KvSpan>(session->arithmetic(), longest, config.num_layers)});
  }
}

SideBySide::~SideBySide() = default;

int64_t SideBySide::vocabulary() const {
  return lanes_.front().session->model().config.vocab_size;
}

void SideBySide::run(const TokenRequest& window, const Visit& visit) {
  const std::span<const int32_t> input = window.input();
  const int64_t length = std::ssize(input), first_scored = length - window.scored;
  const int64_t rows_at_once =
      std::clamp<int64_t>(kHeldBytes / (vocabulary() * int64_t{sizeof(float)}), 1, kStretch);
  std::vector<std::vector<float>> logits(lanes_.size());
  for (int64_t first = 0; first < length; first += kStretch) {
    const int64_t count = std::min(kStretch, length - first);
    const int64_t read = std::clamp<int64_t>(first_scored - first, 0, count);  // the first row that is read
    for (Lane& lane : lanes_) {
      model::Batch batch;
      const auto part = input.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
      batch.tokens.assign(part.begin(), part.end());
      batch.positions.resize(part.size());
      std::iota(batch.positions.begin(), batch.positions.end(), static_cast<int32_t>(first));
      if (lane.session->model().config.depends_on_length())
        batch.lengths.assign(part.size(), static_cast<int32_t>(length));
      batch.segments.push_back(
          {.length = count, .first_position = first, .kv = lane.kv.get(), .kv_at = first});
      std::vector<int64_t>& rows = batch.read.emplace(static_cast<size_t>(count - read));
      std::iota(rows.begin(), rows.end(), read);
      lane.session->decoder().forward(batch);
    }
    for (int64_t row = read; row < count; row += rows_at_once) {
      std::vector<int64_t> rows(static_cast<size_t>(std::min(rows_at_once, count - row)));
      std::iota(rows.begin(), rows.end(), row);
      for (size_t i = 0; i < lanes_.size(); ++i) {
        logits[i] = {};  // never two of them
        logits[i] = lanes_[i].session->decoder().logits(rows);
      }
      visit(std::span(window.tokens).subspan(static_cast<size_t>(first + row + 1), rows.size()), logits);
    }
  }
}

}  // namespace qeval::eval
