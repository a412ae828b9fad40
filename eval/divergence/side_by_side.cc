#include "eval/divergence/side_by_side.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace qeval::eval {
namespace {

/// Tokens that a model computes at once, and bytes of logits that are held of each model: bounds of memory,
/// no number depends on them. The head's weights are decoded anew for each such piece.
constexpr int64_t kAtOnce = 2048, kHeldBytes = int64_t{32} << 20;

}  // namespace

struct SideBySide::Lane {
  Session* session;
  std::vector<std::unique_ptr<model::KvSpan>> kv;  ///< of windows that are computed side by side
};

/// Tokens [first, first + count) of a window's input.
struct SideBySide::Stretch {
  const TokenRequest* window;
  int64_t first, count;
  int64_t length() const { return std::ssize(window->input()); }
  /// The first of its rows whose prediction is scored.
  int64_t first_read() const { return std::clamp<int64_t>(length() - window->scored - first, 0, count); }
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
    lanes_.push_back({session, {}});
  }
}

SideBySide::~SideBySide() = default;

int64_t SideBySide::vocabulary() const {
  return lanes_.front().session->model().config.vocab_size;
}

int64_t SideBySide::run(std::span<const TokenRequest> windows, const Visit& visit) {
  std::vector<Stretch> stretches;
  int64_t tokens = 0;
  for (const TokenRequest& window : windows) {
    const int64_t length = std::ssize(window.input());
    tokens += length;
    if (!stretches.empty() && tokens > kAtOnce) break;
    stretches.push_back({&window, 0, length});
  }
  for (Lane& lane : lanes_) {
    lane.kv.clear();
    for (const Stretch& stretch : stretches) {
      lane.kv.push_back(std::make_unique<model::KvSpan>(lane.session->arithmetic(), stretch.count,
                                                        lane.session->model().config.num_layers));
    }
  }
  if (stretches.front().count <= kAtOnce) {
    compute(stretches, visit);
    return std::ssize(stretches);
  }
  for (int64_t first = 0; first < stretches.front().count; first += kAtOnce) {
    const Stretch part{&windows.front(), first, std::min(kAtOnce, stretches.front().count - first)};
    compute({&part, 1}, visit);
  }
  return 1;
}

void SideBySide::compute(std::span<const Stretch> stretches, const Visit& visit) {
  for (Lane& lane : lanes_) {
    model::Batch batch;
    std::vector<int64_t>& rows = batch.read.emplace();
    for (size_t i = 0; i < stretches.size(); ++i) {
      const Stretch& part = stretches[i];
      const int64_t first_row = std::ssize(batch.tokens);
      const auto tokens =
          part.window->input().subspan(static_cast<size_t>(part.first), static_cast<size_t>(part.count));
      batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
      for (int64_t t = 0; t < part.count; ++t)
        batch.positions.push_back(static_cast<int32_t>(part.first + t));
      if (lane.session->model().config.depends_on_length())
        batch.lengths.insert(batch.lengths.end(), tokens.size(), static_cast<int32_t>(part.length()));
      batch.segments.push_back({.first_row = first_row,
                                .length = part.count,
                                .first_position = part.first,
                                .kv = lane.kv[i].get(),
                                .kv_at = part.first});
      for (int64_t t = part.first_read(); t < part.count; ++t) rows.push_back(first_row + t);
    }
    lane.session->decoder().forward(batch);
  }
  const int64_t rows_at_once =
      std::clamp<int64_t>(kHeldBytes / (vocabulary() * int64_t{sizeof(float)}), 1, kAtOnce);
  std::vector<std::vector<float>> logits(lanes_.size());
  int64_t first_row = 0;
  for (const Stretch& part : stretches) {
    for (int64_t row = part.first_read(); row < part.count; row += rows_at_once) {
      std::vector<int64_t> rows(static_cast<size_t>(std::min(rows_at_once, part.count - row)));
      std::iota(rows.begin(), rows.end(), first_row + row);
      for (size_t i = 0; i < lanes_.size(); ++i) {
        logits[i] = {};  // never two of them
        logits[i] = lanes_[i].session->decoder().logits(rows);
      }
      visit(std::span(part.window->tokens).subspan(static_cast<size_t>(part.first + row + 1), rows.size()),
            logits);
    }
    first_row += part.count;
  }
}

}  // namespace qeval::eval
