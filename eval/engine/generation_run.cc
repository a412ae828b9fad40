#include "eval/engine/generation_run.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

constexpr int64_t kPageTokens = 64;  // of keys and values; no number depends on it
constexpr size_t kRowsAtOnce = 64;   // of logits that are drawn from

/// Ill-formed bytes as U+FFFD, one for each longest stretch that could have begun a character, as Rust's
/// from_utf8_lossy has it.
std::string well_formed(std::string_view text) {
  std::string out;
  for (size_t bad = find_invalid_utf8(text); bad != std::string_view::npos; bad = find_invalid_utf8(text)) {
    out += text.substr(0, bad);
    out += "\uFFFD";
    text.remove_prefix(bad);
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    const auto between = [&](size_t i, unsigned low, unsigned high) {
      return byte(i) >= low && byte(i) <= high;
    };
    const unsigned first = byte(0);
    size_t length = 1;
    if (first >= 0xE0 && first <= 0xEF) {
      if (between(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF)) length = 2;
    } else if (first >= 0xF0 && first <= 0xF4) {
      if (between(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF)) {
        length = between(2, 0x80, 0xBF) ? 3 : 2;
      }
    }
    text.remove_prefix(std::min(length, text.size()));
  }
  return out += text;
}

/// The text of ids; one that only pads the model's vocabulary has none.
std::string decode(const model::Tokenizer& tokenizer, std::span<const int32_t> tokens, bool with_special) {
  std::vector<int32_t> kept;
  std::ranges::copy_if(tokens, std::back_inserter(kept), [&](int32_t token) {
    return token < tokenizer.vocab_size() && (with_special || !tokenizer.is_special(token));
  });
  return tokenizer.decode(kept);
}

}  // namespace

std::string answer_text(const model::Tokenizer& tokenizer, std::span<const int32_t> tokens,
                        std::span<const std::string> stops) {
  std::string text = well_formed(decode(tokenizer, tokens, false));
  for (const std::string& stop : stops) text.resize(std::min(text.size(), text.find(stop)));
  return text;
}

struct GenerationRun::Sequence {
  int64_t request = 0;
  int64_t piece = 0;  ///< the prompt's last
  std::vector<model::Segment::Ancestor> prompt;
  std::vector<std::unique_ptr<model::KvSpan>> pages;
  int64_t prompt_tokens = 0;
  int64_t cached = 0;  ///< tokens of the text whose keys and values are in the pages
  int64_t promised = 0;
  std::optional<Sampler> sampler;  ///< where tokens are drawn
  GeneratedText text;
};

struct GenerationRun::Asked {
  std::vector<int64_t> rows;  ///< ascending
  std::vector<Sequence*> sequences;
};

GenerationRun::GenerationRun(model::Decoder& decoder, const model::Tokenizer& tokenizer, const Plan& prompts,
                             TextLimits limits, int64_t batch_tokens, int64_t kv_bytes)
    : decoder_(decoder),
      tokenizer_(tokenizer),
      prompts_(prompts),
      limits_(std::move(limits)),
      batch_tokens_(batch_tokens),
      kv_bytes_(kv_bytes),
      spans_(prompts.pieces().size()),
      users_(prompts.pieces().size()),
      finished_(prompts.requests().size()),
      open_(std::ssize(prompts.requests())) {
  if (limits_.max_tokens < 1) fail("{} tokens to generate; at least 1", limits_.max_tokens);
  const int64_t context = decoder.model().config.context();
  for (const TokenRequest& request : prompts.requests()) {
    if (std::ssize(request.input()) + limits_.max_tokens > context) {
      fail("{} tokens of prompt and {} of answer; accepted: {} in all, the model's context",
           request.input().size(), limits_.max_tokens, context);
    }
  }
  for (const std::string& stop : limits_.stops) longest_stop_ = std::max(longest_stop_, stop.size());
  for (const Plan::Piece& piece : prompts.pieces()) {
    if (piece.parent >= 0) ++users_[static_cast<size_t>(piece.parent)];
  }
  for (size_t i = 0; i < users_.size(); ++i) users_[i] += prompts.pieces()[i].query_count;
}

GenerationRun::~GenerationRun() = default;

int64_t GenerationRun::tokens_to_do() const {
  return prompts_.tokens_computed() + std::ssize(prompts_.requests()) * limits_.max_tokens;
}

int64_t GenerationRun::span_bytes(int64_t tokens) const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < decoder_.arithmetic().layers(); ++layer)
    bytes += decoder_.arithmetic().kv_bytes(layer, tokens);
  return bytes;
}

int64_t GenerationRun::promised_bytes(const Plan::Piece& piece) const {
  const int64_t pages = (limits_.max_tokens + kPageTokens - 1) / kPageTokens;
  return span_bytes(piece.length) + piece.query_count * pages * span_bytes(kPageTokens);
}

bool GenerationRun::has_room(const Plan::Piece& piece) const {
  // Without a text under way, only this prompt can free what is held.
  return active_.empty() || held_bytes_ + promised_bytes(piece) <= kv_bytes_;
}

std::vector<model::Segment::Ancestor> GenerationRun::ancestors_of(int64_t piece) const {
  std::vector<model::Segment::Ancestor> out;
  for (int64_t i = piece; i >= 0; i = prompts_.pieces()[static_cast<size_t>(i)].parent)
    out.push_back({spans_[static_cast<size_t>(i)].get(), prompts_.pieces()[static_cast<size_t>(i)].length});
  std::ranges::reverse(out);
  return out;
}

void GenerationRun::add_next_tokens(model::Batch& batch, Asked& asked) {
  for (const auto& sequence : active_) {
    const int64_t position = sequence->prompt_tokens + sequence->cached;
    const int64_t in_page = sequence->cached % kPageTokens;
    if (in_page == 0) {
      sequence->pages.push_back(std::make_unique<model::KvSpan>(decoder_.arithmetic(), kPageTokens,
                                                                decoder_.model().config.num_layers));
    }
    model::Segment segment{.first_row = std::ssize(batch.tokens),
                           .length = 1,
                           .first_position = position,
                           .kv = sequence->pages.back().get(),
                           .kv_at = in_page,
                           .ancestors = sequence->prompt};
    for (size_t page = 0; page + 1 < sequence->pages.size(); ++page)
      segment.ancestors.push_back({sequence->pages[page].get(), kPageTokens});
    asked.rows.push_back(segment.first_row);
    asked.sequences.push_back(sequence.get());
    batch.tokens.push_back(sequence->text.tokens.back());
    batch.positions.push_back(static_cast<int32_t>(position));
    if (decoder_.model().config.depends_on_length())
      batch.lengths.push_back(static_cast<int32_t>(position + 1));
    batch.segments.push_back(std::move(segment));
    ++sequence->cached;
  }
}

void GenerationRun::add_prompts(model::Batch& batch, Asked& asked) {
  const auto pieces = prompts_.pieces();
  while (next_piece_ < std::ssize(pieces)) {
    const Plan::Piece& piece = pieces[static_cast<size_t>(next_piece_)];
    const bool fits = batch.tokens.empty() || std::ssize(batch.tokens) + piece.length <= batch_tokens_;
    if (!fits || !has_room(piece)) return;
    add_piece(next_piece_++, batch, asked);
  }
}

void GenerationRun::add_piece(int64_t index, model::Batch& batch, Asked& asked) {
  const Plan::Piece& piece = prompts_.pieces()[static_cast<size_t>(index)];
  held_bytes_ += promised_bytes(piece);
  auto& span = spans_[static_cast<size_t>(index)];
  span = std::make_unique<model::KvSpan>(decoder_.arithmetic(), piece.length,
                                         decoder_.model().config.num_layers);
  model::Segment segment{
      .first_row = std::ssize(batch.tokens),
      .length = piece.length,
      .first_position = piece.first,
      .kv = span.get(),
      .ancestors = piece.parent < 0 ? std::vector<model::Segment::Ancestor>() : ancestors_of(piece.parent)};
  const std::span<const int32_t> input = prompts_.requests()[static_cast<size_t>(piece.request)].input();
  const auto tokens = input.subspan(static_cast<size_t>(piece.first), static_cast<size_t>(piece.length));
  batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
  for (int64_t t = 0; t < piece.length; ++t) batch.positions.push_back(static_cast<int32_t>(piece.first + t));
  if (decoder_.model().config.depends_on_length())
    batch.lengths.insert(batch.lengths.end(), tokens.size(), static_cast<int32_t>(input.size()));
  batch.segments.push_back(std::move(segment));
  for (const Plan::Query& query : prompts_.queries().subspan(static_cast<size_t>(piece.first_query),
                                                             static_cast<size_t>(piece.query_count))) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request = query.request;
    sequence->piece = index;
    sequence->prompt = ancestors_of(index);
    sequence->prompt_tokens = query.position + 1;
    sequence->promised = (promised_bytes(piece) - span_bytes(piece.length)) / piece.query_count;
    if (limits_.sampling.temperature > 0) {
      SamplingOptions sampling = limits_.sampling;
      sampling.seed = limits_.seeds.at(static_cast<size_t>(query.request));
      sequence->sampler.emplace(sampling);
    }
    asked.rows.push_back(std::ssize(batch.tokens) - 1);
    asked.sequences.push_back(sequence.get());
    active_.push_back(std::move(sequence));
  }
  tokens_done_ += piece.length;
}

std::vector<int64_t> GenerationRun::step() {
  model::Batch batch;
  Asked asked;
  add_next_tokens(batch, asked);
  add_prompts(batch, asked);
  batch.read = asked.rows;
  batch.read->erase(std::unique(batch.read->begin(), batch.read->end()), batch.read->end());
  decoder_.forward(batch);
  std::vector<model::TokenQuery> queries;
  for (const int64_t row : asked.rows) queries.push_back({row, 0});
  const std::vector<model::TokenAnswer> answers = decoder_.answer(queries);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!std::isfinite(answers[i].log_probability)) refuse_not_finite(*asked.sequences[i]);
  }
  std::vector<int64_t> finished;
  std::vector<float> logits;
  const auto vocabulary = static_cast<size_t>(decoder_.model().config.vocab_size);
  for (size_t i = 0; i < answers.size(); ++i) {
    Sequence& sequence = *asked.sequences[i];
    int32_t token = answers[i].top1;
    if (sequence.sampler) {
      if (i % kRowsAtOnce == 0) {
        const std::span<const int64_t> rows(asked.rows);
        logits = decoder_.logits(rows.subspan(i, std::min(kRowsAtOnce, rows.size() - i)));
      }
      token = sequence.sampler->draw(std::span(logits).subspan(i % kRowsAtOnce * vocabulary, vocabulary));
    }
    if (append(sequence, token, answers[i].logits_hash)) finished.push_back(sequence.request);
  }
  std::erase_if(active_, [&](const std::unique_ptr<Sequence>& sequence) {
    if (std::ranges::find(finished, sequence->request) == finished.end()) return false;
    tokens_done_ += limits_.max_tokens - std::ssize(sequence->text.tokens);
    held_bytes_ -= sequence->promised;
    release(sequence->piece);
    finished_[static_cast<size_t>(sequence->request)] = std::move(sequence->text);
    --open_;
    return true;
  });
  std::ranges::sort(finished);
  return finished;
}

void GenerationRun::release(int64_t piece) {
  while (piece >= 0 && --users_[static_cast<size_t>(piece)] == 0) {
    spans_[static_cast<size_t>(piece)].reset();
    held_bytes_ -= span_bytes(prompts_.pieces()[static_cast<size_t>(piece)].length);
    piece = prompts_.pieces()[static_cast<size_t>(piece)].parent;
  }
}

bool GenerationRun::append(Sequence& sequence, int32_t token, uint64_t logits_hash) {
  GeneratedText& text = sequence.text;
  text.tokens.push_back(token);
  text.logits_hashes.push_back(logits_hash);
  ++tokens_done_;
  if (std::ranges::find(limits_.end_ids, token) != limits_.end_ids.end()) {
    text.end = GeneratedText::End::eos;
    return true;
  }
  if (ends_in_stop(sequence)) {
    text.end = GeneratedText::End::stop;
    return true;
  }
  return std::ssize(text.tokens) == limits_.max_tokens;
}

bool GenerationRun::ends_in_stop(const Sequence& sequence) const {
  // A stop string may lie across any number of tokens, each of which has a byte at least; a little more, lest
  // it begins within the first of them.
  const std::span<const int32_t> tokens = sequence.text.tokens;
  const std::string last = decode(tokenizer_, tokens.last(std::min(tokens.size(), longest_stop_ + 8)), true);
  return std::ranges::any_of(limits_.stops,
                             [&](const std::string& stop) { return last.find(stop) != std::string::npos; });
}

void GenerationRun::refuse_not_finite(const Sequence& sequence) const {
  const auto input = prompts_.requests()[static_cast<size_t>(sequence.request)].input();
  std::vector<int32_t> tokens(input.begin(), input.end());
  tokens.insert(tokens.end(), sequence.text.tokens.begin(), sequence.text.tokens.end());
  throw TextNotFinite(
      fmt::format("token {} of the text: a logit is not finite: the first value that is not finite is in {}",
                  sequence.text.tokens.size() + 1,
                  model::first_not_finite(decoder_.model(), decoder_.arithmetic(), tokens)),
      sequence.request);
}

GeneratedText GenerationRun::take(int64_t request) {
  return std::move(finished_[static_cast<size_t>(request)]);
}

}  // namespace qeval::eval
