#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace qeval::model {
namespace {

using Kind = PreTokenizerStage::Kind;
using Behavior = PreTokenizerStage::Behavior;

std::string mark_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ') {
      out += kSpaceMark;
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStage> stages) : stages_(std::move(stages)) {
  // Where nothing follows, bytes need no spelling.
  if (!stages_.empty() && stages_.back().kind == Kind::kByteLevel) stages_.pop_back();
  for (const PreTokenizerStage& stage : stages_) {
    ends_byte_level_ |= stage.kind == Kind::kByteLevel;
    if (stage.kind == Kind::kSplit) {
      patterns_.emplace_back(SplitPattern(stage.pattern));
    } else {
      patterns_.emplace_back(std::nullopt);
    }
  }
}

/// Replaces the pieces by their cuts. Matches and what lies between them take turns; `behavior` says which of
/// them make pieces, and which neighbours share one.
void PreTokenizer::cut(size_t stage_index, Pieces& pieces) const {
  const PreTokenizerStage& stage = stages_[stage_index];
  std::swap(pieces.views, pieces.previous);
  pieces.views.clear();
  std::vector<std::pair<TextRange, bool>> ranges;  // and whether it counts as a match
  for (const std::string_view piece : pieces.previous) {
    const auto add = [&](size_t begin, size_t end) {
      if (end > begin) pieces.views.push_back(piece.substr(begin, end - begin));
    };
    ranges.clear();
    size_t done = 0;
    while (done < piece.size()) {
      const auto match = patterns_[stage_index]->find(piece, done, pieces.buffer);
      const TextRange range = match.value_or(TextRange{piece.size(), piece.size()});
      if (range.begin > done) ranges.push_back({{done, range.begin}, stage.invert});
      if (match) ranges.push_back({range, !stage.invert});
      done = range.end;
    }
    size_t begin = 0;  // of what has no piece yet
    for (size_t i = 0; i < ranges.size(); ++i) {
      const auto& [range, matches] = ranges[i];
      const bool last = i + 1 == ranges.size();
      const bool next_matches = !last && ranges[i + 1].second;
      bool joins_next = false;
      switch (stage.behavior) {
        case Behavior::kIsolated:
          break;
        case Behavior::kRemoved:
          if (matches) begin = range.end;
          break;
        case Behavior::kContiguous:
          joins_next = !last && matches == next_matches;
          break;
        case Behavior::kMergedWithPrevious:
          joins_next = !matches && next_matches;
          break;
        case Behavior::kMergedWithNext:
          joins_next = matches && !last && !next_matches;
          break;
      }
      if (joins_next) continue;
      add(begin, range.end);
      begin = range.end;
    }
  }
}

void PreTokenizer::split(std::string_view text, bool begins, Pieces& pieces) const {
  pieces.owned.clear();
  pieces.views.assign(text.empty() ? 0 : 1, text);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const auto prefix = [&](std::string_view& piece, std::string_view by) {
      if (!piece.starts_with(by)) piece = pieces.owned.emplace_back(by).append(piece);
    };
    switch (stages_[i].kind) {
      case Kind::kSplit: {
        const char* const start = pieces.views.empty() ? nullptr : pieces.views[0].data();
        cut(i, pieces);
        begins = begins && !pieces.views.empty() && pieces.views[0].data() == start;
        break;
      }
      case Kind::kPrefixSpace:
        for (std::string_view& piece : pieces.views) prefix(piece, " ");
        break;
      case Kind::kPrefixMark:
        for (std::string_view& piece : pieces.views) prefix(piece, kSpaceMark);
        break;
      case Kind::kPrefixMarkOnce:
        if (begins && !pieces.views.empty()) prefix(pieces.views[0], kSpaceMark);
        break;
      case Kind::kMarkSpaces:
        for (std::string_view& piece : pieces.views) {
          if (piece.find(' ') != std::string_view::npos)
            piece = pieces.owned.emplace_back(mark_spaces(piece));
        }
        break;
      case Kind::kByteLevel:
        for (std::string_view& piece : pieces.views)
          piece = pieces.owned.emplace_back(byte_level_of_bytes(piece));
        break;
    }
  }
  if (!ends_byte_level_) return;
  for (std::string_view& piece : pieces.views)
    piece = pieces.owned.emplace_back(bytes_of_byte_level(piece).value());
}

}  // namespace qeval::model
