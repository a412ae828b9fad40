#include "eval/engine/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/finite.h"

namespace qeval::eval {

double TokenScores::log_likelihood() const {
  return std::accumulate(log_probabilities.begin(), log_probabilities.end(), 0.0);
}

bool TokenScores::is_greedy(const TokenRequest& request) const {
  return std::equal(top1.begin(), top1.end(), request.tokens.end() - request.scored);
}

bool TokenScores::is_finite() const {
  return std::ranges::all_of(log_probabilities, [](double value) { return std::isfinite(value); });
}

std::string why_not_finite(const model::Decoder& decoder, const TokenRequest& request,
                           const TokenScores& scores) {
  return fmt::format("the log-likelihood is {}: the first value that is not finite is in {}",
                     model::not_finite_text(scores.log_likelihood()),
                     model::first_not_finite(decoder.model(), decoder.arithmetic(), request.input()));
}

Plan::Plan(std::span<const TokenRequest> requests, int64_t batch_tokens, const model::ModelConfig* config)
    : requests_(requests) {
  if (batch_tokens < 1) fail("a batch of {} tokens is impossible; at least 1", batch_tokens);
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto count = static_cast<int64_t>(requests[i].tokens.size());
    if (requests[i].scored < 1 || requests[i].scored >= count) {
      fail(
          "request {}: {} of {} tokens cannot be scored; at least one must be scored and the first has no "
          "context",
          i, requests[i].scored, count);
    }
    tokens_requested_ += count - 1;
  }
  if (config != nullptr && config->depends_on_length()) {
    for (const TokenRequest& request : requests) {
      length_classes_.push_back(config->length_class(std::ssize(request.input())));
    }
  }
  std::vector<int64_t> end_node(requests.size());
  const std::vector<Node> nodes = build_tree(end_node);
  pack(nodes, assign_queries(nodes, end_node), batch_tokens);
  int64_t window = 0;
  if (config != nullptr) {
    for (const model::LayerSettings& layer : config->layers) window = std::max(window, layer.window);
  }
  mark_last_use(window);
}

std::vector<Plan::Node> Plan::build_tree(std::vector<int64_t>& end_node) const {
  std::vector<int64_t> order(requests_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto input = [&](int64_t i) { return requests_[static_cast<size_t>(i)].input(); };
  const auto length_class = [&](int64_t i) {
    return length_classes_.empty() ? 0 : length_classes_[static_cast<size_t>(i)];
  };
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
    if (length_class(a) != length_class(b)) return length_class(a) < length_class(b);
    return std::ranges::lexicographical_compare(input(a), input(b));
  });

  // Depth first, on a stack of our own: a hostile file of requests that extend one another may be as deep as
  // it is long.
  struct Group {
    int64_t begin, end;  // range of `order` whose inputs agree up to `depth`
    int64_t depth, parent;
  };
  std::vector<Node> nodes;
  std::vector<Group> stack;
  for (int64_t end = std::ssize(order); end > 0;) {  // a tree for each class
    int64_t begin = end - 1;
    while (begin > 0 && length_class(order[static_cast<size_t>(begin - 1)]) ==
                            length_class(order[static_cast<size_t>(end - 1)])) {
      --begin;
    }
    stack.push_back({begin, end, 0, -1});
    end = begin;
  }
  std::vector<Group> children;
  while (!stack.empty()) {
    Group group = stack.back();
    stack.pop_back();
    // In sorted order, what the first and the last have in common, all have.
    const auto first = input(order[static_cast<size_t>(group.begin)]);
    const auto last = input(order[static_cast<size_t>(group.end - 1)]);
    const auto common = std::ranges::mismatch(first.subspan(static_cast<size_t>(group.depth)),
                                              last.subspan(static_cast<size_t>(group.depth)))
                            .in1 -
                        first.begin();
    int64_t node = group.parent;
    if (common > group.depth) {
      node = static_cast<int64_t>(nodes.size());
      nodes.push_back(
          {group.parent, order[static_cast<size_t>(group.begin)], group.depth, common - group.depth});
    }
    while (group.begin < group.end && std::ssize(input(order[static_cast<size_t>(group.begin)])) == common) {
      end_node[static_cast<size_t>(order[static_cast<size_t>(group.begin++)])] = node;
    }
    children.clear();
    for (int64_t begin = group.begin; begin < group.end;) {
      const int32_t token = input(order[static_cast<size_t>(begin)])[static_cast<size_t>(common)];
      int64_t end = begin + 1;
      while (end < group.end && input(order[static_cast<size_t>(end)])[static_cast<size_t>(common)] == token)
        ++end;
      children.push_back({begin, end, common, node});
      begin = end;
    }
    stack.insert(stack.end(), children.rbegin(), children.rend());
  }
  return nodes;
}

std::vector<std::vector<Plan::Query>> Plan::assign_queries(const std::vector<Node>& nodes,
                                                           const std::vector<int64_t>& end_node) const {
  std::vector<std::vector<Query>> queries(nodes.size());
  for (size_t r = 0; r < requests_.size(); ++r) {
    const int64_t input_length = std::ssize(requests_[r].input());
    const int64_t first_scored = input_length - requests_[r].scored;
    int64_t end = input_length;
    for (int64_t n = end_node[r]; end > first_scored; n = nodes[static_cast<size_t>(n)].parent) {
      const Node& node = nodes[static_cast<size_t>(n)];
      for (int64_t p = std::max(node.first, first_scored); p < end; ++p) {
        queries[static_cast<size_t>(n)].push_back({p, static_cast<int64_t>(r), p - first_scored});
      }
      end = node.first;
    }
  }
  for (auto& list : queries) {
    std::ranges::stable_sort(list, {}, &Query::position);
  }
  return queries;
}

void Plan::pack(const std::vector<Node>& nodes, const std::vector<std::vector<Query>>& node_queries,
                int64_t batch_tokens) {
  std::vector<int64_t> last_piece(nodes.size());  // the piece in which a node ends
  for (size_t n = 0; n < nodes.size(); ++n) {
    const Node& node = nodes[n];
    tokens_computed_ += node.length;
    int64_t parent = node.parent < 0 ? -1 : last_piece[static_cast<size_t>(node.parent)];
    auto query = node_queries[n].begin();
    for (int64_t done = 0; done < node.length;) {
      const int64_t rest = node.length - done;
      // A run that fits into a fresh batch is not cut; a longer one fills batch after batch.
      if (packs_.empty() || packs_.back().tokens + std::min(rest, batch_tokens) > batch_tokens) {
        packs_.push_back({static_cast<int64_t>(pieces_.size()), 0, 0});
      }
      Pack& pack = packs_.back();
      Piece piece{.parent = parent,
                  .request = node.request,
                  .first = node.first + done,
                  .length = std::min(rest, batch_tokens - pack.tokens),
                  .first_query = static_cast<int64_t>(queries_.size())};
      for (; query != node_queries[n].end() && query->position < piece.first + piece.length; ++query) {
        queries_.push_back(*query);
      }
      piece.query_count = static_cast<int64_t>(queries_.size()) - piece.first_query;
      parent = static_cast<int64_t>(pieces_.size());
      pieces_.push_back(piece);
      ++pack.piece_count;
      pack.tokens += piece.length;
      done += piece.length;
    }
    last_piece[n] = parent;
  }
}

void Plan::mark_last_use(int64_t window) {
  for (size_t p = 0; p < packs_.size(); ++p) {
    const auto pack = static_cast<int64_t>(p);
    for (int64_t i = packs_[p].first_piece; i < packs_[p].first_piece + packs_[p].piece_count; ++i) {
      // Packs come in order, so an ancestor already marked has marked ancestors.
      for (int64_t a = i; a >= 0 && (a == i || pieces_[static_cast<size_t>(a)].last_pack < pack);
           a = pieces_[static_cast<size_t>(a)].parent) {
        pieces_[static_cast<size_t>(a)].last_pack = pack;
      }
      const int64_t first_seen = pieces_[static_cast<size_t>(i)].first + 1 - window;
      for (int64_t a = i; a >= 0; a = pieces_[static_cast<size_t>(a)].parent) {
        Piece& piece = pieces_[static_cast<size_t>(a)];
        if (piece.first + piece.length <= first_seen) break;
        piece.last_windowed_pack = pack;
      }
    }
  }
}

ScoringRun::ScoringRun(model::Decoder& decoder, const Plan& plan, DistributionHooks hooks)
    : decoder_(decoder),
      plan_(plan),
      hooks_(std::move(hooks)),
      scores_(plan.requests().size()),
      missing_(plan.requests().size()),
      spans_(plan.pieces().size()) {
  for (size_t i = 0; i < missing_.size(); ++i) missing_[i] = plan.requests()[i].scored;
}

struct ScoringRun::Questions {
  std::vector<model::TokenQuery> asked;     ///< in ascending order of rows …
  std::vector<const Plan::Query*> queries;  ///< … and the plan's query behind each
  std::vector<model::DistributionQuery> wanted;
  std::vector<size_t> wanted_by;  ///< the query that asked
};

std::vector<int64_t> ScoringRun::step() {
  const Plan::Pack& pack = plan_.packs()[static_cast<size_t>(next_pack_)];
  model::Batch batch;
  Questions questions;
  for (int64_t i = pack.first_piece; i < pack.first_piece + pack.piece_count; ++i) {
    add_questions(plan_.pieces()[static_cast<size_t>(i)], std::ssize(batch.tokens), questions);
    add_tokens(i, batch);
  }
  batch.read.emplace();
  for (const model::TokenQuery& query : questions.asked) {
    if (batch.read->empty() || batch.read->back() != query.row) batch.read->push_back(query.row);
  }
  decoder_.forward(batch);
  std::vector<model::Distribution> distributions;
  const std::vector<model::TokenAnswer> answers =
      decoder_.answer(questions.asked, questions.wanted, distributions);
  for (size_t i = 0; i < distributions.size(); ++i) {
    const size_t by = questions.wanted_by[i];
    const Plan::Query& query = *questions.queries[by];
    hooks_.tell(query.request, query.index, questions.wanted[i], std::move(distributions[i]),
                answers[by].top1);
  }
  std::vector<int64_t> completed = record(questions, answers);
  release_spans();
  tokens_done_ += pack.tokens;
  ++next_pack_;
  return completed;
}

void ScoringRun::add_tokens(int64_t index, model::Batch& batch) {
  const auto pieces = plan_.pieces();
  const Plan::Piece& piece = pieces[static_cast<size_t>(index)];
  auto& span = spans_[static_cast<size_t>(index)];
  const int64_t layers = piece.last_pack > next_pack_ ? decoder_.model().config.num_layers : 1;
  span = std::make_unique<model::KvSpan>(decoder_.arithmetic(), piece.length, layers);
  kept_.push_back(index);
  model::Segment segment{.first_row = std::ssize(batch.tokens),
                         .length = piece.length,
                         .first_position = piece.first,
                         .kv = span.get()};
  for (int64_t a = piece.parent; a >= 0; a = pieces[static_cast<size_t>(a)].parent) {
    segment.ancestors.push_back(
        {spans_[static_cast<size_t>(a)].get(), pieces[static_cast<size_t>(a)].length});
  }
  std::ranges::reverse(segment.ancestors);
  const auto tokens = plan_.requests()[static_cast<size_t>(piece.request)].input().subspan(
      static_cast<size_t>(piece.first), static_cast<size_t>(piece.length));
  batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
  for (int64_t t = 0; t < piece.length; ++t) batch.positions.push_back(static_cast<int32_t>(piece.first + t));
  if (decoder_.model().config.depends_on_length()) {
    const auto length = std::ssize(plan_.requests()[static_cast<size_t>(piece.request)].input());
    batch.lengths.insert(batch.lengths.end(), tokens.size(), static_cast<int32_t>(length));
  }
  batch.segments.push_back(std::move(segment));
}

void ScoringRun::add_questions(const Plan::Piece& piece, int64_t first_row, Questions& questions) const {
  for (const auto& query : plan_.queries().subspan(static_cast<size_t>(piece.first_query),
                                                   static_cast<size_t>(piece.query_count))) {
    const TokenRequest& request = plan_.requests()[static_cast<size_t>(query.request)];
    const int64_t row = first_row + query.position - piece.first;
    questions.asked.push_back({row, request.tokens[static_cast<size_t>(query.position) + 1]});
    questions.queries.push_back(&query);
    if (!hooks_.ask) continue;
    hooks_.ask(query.request, query.index, questions.wanted);
    while (questions.wanted_by.size() < questions.wanted.size()) {
      questions.wanted[questions.wanted_by.size()].row = row;
      questions.wanted_by.push_back(questions.queries.size() - 1);
    }
  }
}

std::vector<int64_t> ScoringRun::record(const Questions& questions,
                                        std::span<const model::TokenAnswer> answers) {
  std::vector<int64_t> completed;
  for (size_t i = 0; i < answers.size(); ++i) {
    const Plan::Query& query = *questions.queries[i];
    const auto request = static_cast<size_t>(query.request);
    const auto index = static_cast<size_t>(query.index);
    const auto scored = static_cast<size_t>(plan_.requests()[request].scored);
    TokenScores& scores = scores_[request];
    scores.log_probabilities.resize(scored);
    scores.top1.resize(scored);
    scores.logits_hashes.resize(scored);
    scores.log_probabilities[index] = answers[i].log_probability;
    scores.top1[index] = answers[i].top1;
    scores.logits_hashes[index] = answers[i].logits_hash;
    if (--missing_[request] == 0) completed.push_back(query.request);
  }
  std::ranges::sort(completed);
  return completed;
}

void ScoringRun::release_spans() {
  std::erase_if(kept_, [&](int64_t piece) {
    const bool over = plan_.pieces()[static_cast<size_t>(piece)].last_pack <= next_pack_;
    if (over) spans_[static_cast<size_t>(piece)].reset();
    return over;
  });
  const auto& layers = decoder_.model().config.layers;
  if (decoder_.arithmetic().wants_all_keys()) return;
  for (const int64_t piece : kept_) {
    if (plan_.pieces()[static_cast<size_t>(piece)].last_windowed_pack > next_pack_) continue;
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      if (layers[layer].window > 0) spans_[static_cast<size_t>(piece)]->release(static_cast<int64_t>(layer));
    }
  }
}

int64_t ScoringRun::kept_bytes() const {
  int64_t bytes = 0;
  for (const int64_t piece : kept_) bytes += spans_[static_cast<size_t>(piece)]->bytes();
  return bytes;
}

TokenScores ScoringRun::take(int64_t request) {
  return std::move(scores_[static_cast<size_t>(request)]);
}

}  // namespace qeval::eval
