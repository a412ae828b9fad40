#include "model/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "base/unicode.h"

namespace qeval::model {
namespace {

constexpr int32_t kNoMerge = std::numeric_limits<int32_t>::max();
constexpr uint64_t kEmptySlot = std::numeric_limits<uint64_t>::max();

constexpr uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

/// Fibonacci hashing; the fold lets the left id reach the high bits that the shift keeps.
constexpr size_t slot_of(uint64_t pair, int shift) {
  return static_cast<size_t>(((pair ^ pair >> 29) * 0x9E3779B97F4A7C15U) >> shift);
}

/// Order of a heap whose top is the lowest rank, leftmost first.
struct After {
  bool operator()(const BpeModel::Scratch::Candidate& a, const BpeModel::Scratch::Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

}  // namespace

BpeModel::BpeModel(std::vector<BpeToken> tokens, const std::vector<BpeMerge>& merges, BpeOptions options)
    : tokens_(std::move(tokens)), options_(options) {
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * merges.size(), 2));
  merge_shift_ = 64 - std::countr_zero(slots);
  merges_.assign(slots, {kEmptySlot, 0, 0});
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = pair_key(merges[rank].left, merges[rank].right);
    size_t slot = slot_of(pair, merge_shift_);
    while (merges_[slot].pair != kEmptySlot && merges_[slot].pair != pair) slot = (slot + 1) & (slots - 1);
    merges_[slot] = {pair, static_cast<int32_t>(rank), merges[rank].result};
  }

  byte_ids_.fill(-1);
  words_.reserve(tokens_.size());
  for (const BpeToken& token : tokens_) {
    const bool newlines = token.bytes.find_first_not_of('\n') == std::string::npos;
    words_.emplace(token.bytes,
                   WordEntry{token.id, options_.ignore_merges || (options_.whole_newlines && newlines)});
    if (token.bytes.size() == 1) byte_ids_[static_cast<unsigned char>(token.bytes[0])] = token.id;
  }
  if (options_.ignore_merges) return;
  Scratch scratch;
  std::vector<int32_t> ids;
  for (auto& [word, entry] : words_) {
    if (entry.whole) continue;
    ids.clear();
    merge_word(word, scratch, ids);
    entry.whole = ids.size() == 1 && ids[0] == entry.id;
  }
}

const BpeModel::MergeSlot* BpeModel::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = pair_key(left, right);
  for (size_t slot = slot_of(pair, merge_shift_);; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == kEmptySlot) return nullptr;
  }
}

void BpeModel::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  const auto entry = words_.find(word);
  if (entry != words_.end() && entry->second.whole) {
    ids.push_back(entry->second.id);
  } else {
    merge_word(word, scratch, ids);
  }
}

void BpeModel::set_merge_with_next(Scratch& scratch, int32_t position) const {
  Scratch::Symbol& symbol = scratch.symbols[static_cast<size_t>(position)];
  const MergeSlot* merge =
      symbol.next < 0 ? nullptr : find_merge(symbol.id, scratch.symbols[static_cast<size_t>(symbol.next)].id);
  symbol.rank = merge == nullptr ? kNoMerge : merge->rank;
  if (merge == nullptr) return;
  symbol.result = merge->result;
  scratch.heap.push_back({symbol.rank, position});
}

/// What a word is before anything merges.
void BpeModel::add_symbols(std::string_view word, Scratch& scratch) const {
  const auto add = [&](int32_t id) {
    const auto position = static_cast<int32_t>(scratch.symbols.size());
    scratch.symbols.push_back({id, position - 1, position + 1, kNoMerge, 0});
  };
  bool unknown_waits = false;  // an unknown token is added when something known follows, as in `tokenizers`
  const auto add_known = [&](int32_t id) {
    if (std::exchange(unknown_waits, false)) add(*options_.unknown_id);
    add(id);
  };
  const auto add_unknown = [&] {
    if (!options_.unknown_id) return;
    if (unknown_waits && !options_.fuse_unknown) add(*options_.unknown_id);
    unknown_waits = true;
  };
  if (!options_.characters) {
    for (const char byte : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id >= 0) {
        add_known(id);
      } else {
        add_unknown();
      }
    }
  } else {
    for (size_t at = 0, length = 0; at < word.size(); at += length) {
      length = code_point_length(word.substr(at));
      const std::string_view character = word.substr(at, length);
      const auto entry = words_.find(character);
      const auto byte_token = [&](char byte) {
        return (*options_.byte_tokens)[static_cast<unsigned char>(byte)];
      };
      if (entry != words_.end()) {
        add_known(entry->second.id);
      } else if (options_.byte_tokens && std::all_of(character.begin(), character.end(),
                                                     [&](char byte) { return byte_token(byte) >= 0; })) {
        for (const char byte : character) add(byte_token(byte));
      } else {
        add_unknown();
      }
    }
  }
  if (unknown_waits) add(*options_.unknown_id);
}

void BpeModel::merge_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  add_symbols(word, scratch);
  if (symbols.empty()) return;
  symbols.back().next = -1;
  for (int32_t position = 0; position + 1 < static_cast<int32_t>(symbols.size()); ++position) {
    set_merge_with_next(scratch, position);
  }
  std::make_heap(heap.begin(), heap.end(), After());

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), After());
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(best.position)];
    // A neighbour has merged meanwhile, and this pair is no more.
    if (left.rank != best.rank) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = left.result;
    left.next = right.next;
    right.rank = kNoMerge;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.position;
    for (const int32_t position : {best.position, left.previous}) {
      if (position < 0) continue;
      const size_t before = heap.size();
      set_merge_with_next(scratch, position);
      if (heap.size() != before) std::push_heap(heap.begin(), heap.end(), After());
    }
  }
  for (int32_t position = 0; position >= 0; position = symbols[static_cast<size_t>(position)].next) {
    ids.push_back(symbols[static_cast<size_t>(position)].id);
  }
}

}  // namespace qeval::model
