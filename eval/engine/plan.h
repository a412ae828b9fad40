#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace qeval::eval {

/// Tokens to score: the last `scored` of `tokens` are each predicted from all that stand before them. The
/// last token is never an input.
struct TokenRequest {
  std::vector<int32_t> tokens;  ///< at least scored + 1
  int64_t scored = 0;           ///< at least 1
  std::span<const int32_t> input() const { return {tokens.data(), tokens.size() - 1}; }
};

/// The answer to a TokenRequest, per scored token.
struct TokenScores {
  std::vector<double> log_probabilities;
  std::vector<int32_t> top1;
  std::vector<uint64_t> logits_hashes;  ///< model::TokenAnswer

  double log_likelihood() const;
  /// Every scored token (the end of request.tokens) was the arg-max.
  bool is_greedy(const TokenRequest& request) const;
  /// No log-probability is NaN or infinite.
  bool is_finite() const;
};

/// Why the scores of `request` are not finite, for a message. Computes it once more, alone.
std::string why_not_finite(const model::Decoder& decoder, const TokenRequest& request,
                           const TokenScores& scores);

/// Decides what is computed, in which batch, so that no token is computed twice (docs/architecture.md): the
/// inputs of all requests are merged into a prefix tree, whose runs of tokens are packed into batches of at
/// most `batch_tokens`. A run that later batches hang under keeps its keys and values until the last of them
/// is done.
class Plan {
 public:
  /// A run of tokens computed at once: tokens [first, first + length) of a request's input, which all
  /// requests below it in the tree share.
  struct Piece {
    int64_t parent = -1;  ///< piece that comes before, or −1
    int64_t request = 0;  ///< one of the requests that hold these tokens
    int64_t first = 0;    ///< position of the first token
    int64_t length = 0;
    int64_t last_pack = 0;           ///< last batch in which something attends to this piece …
    int64_t last_windowed_pack = 0;  ///< … and in which it does so in a layer with a window
    int64_t first_query = 0, query_count = 0;
  };
  /// One scored token: what `request.tokens[position + 1]` gets at `position`.
  struct Query {
    int64_t position = 0, request = 0;
    int64_t index = 0;  ///< among the request's scored tokens
  };
  struct Pack {
    int64_t first_piece = 0, piece_count = 0, tokens = 0;
  };

  /// The requests must outlive the plan. Malformed ones (see TokenRequest) are Errors. `config`, of the model
  /// that is to compute them, is needed where its rotary embedding depends on the length of a sequence:
  /// requests of different length classes share nothing. Its windows say how long keys and values are of use.
  Plan(std::span<const TokenRequest> requests, int64_t batch_tokens,
       const model::ModelConfig* config = nullptr);

  std::span<const TokenRequest> requests() const { return requests_; }
  std::span<const Piece> pieces() const { return pieces_; }
  std::span<const Query> queries() const { return queries_; }
  std::span<const Pack> packs() const { return packs_; }
  /// Input tokens of all requests, as if each were computed alone.
  int64_t tokens_requested() const { return tokens_requested_; }
  /// Input tokens that are computed.
  int64_t tokens_computed() const { return tokens_computed_; }

 private:
  struct Node {
    int64_t parent, request, first, length;
  };
  /// A forest where there is more than one class.
  std::vector<Node> build_tree(std::vector<int64_t>& end_node) const;
  std::vector<std::vector<Query>> assign_queries(const std::vector<Node>& nodes,
                                                 const std::vector<int64_t>& end_node) const;
  void pack(const std::vector<Node>& nodes, const std::vector<std::vector<Query>>& node_queries,
            int64_t batch_tokens);
  /// `window`: the largest of the layers that have one, or 0.
  void mark_last_use(int64_t window);

  std::span<const TokenRequest> requests_;
  std::vector<int64_t> length_classes_;  ///< per request; empty: all of one class
  std::vector<Piece> pieces_;
  std::vector<Query> queries_;
  std::vector<Pack> packs_;
  int64_t tokens_requested_ = 0, tokens_computed_ = 0;
};

/// How a scoring run looks at whole distributions, besides the scores; empty functions: not at all.
struct DistributionHooks {
  /// Appends what is wanted at a scored token of a request; `row` is filled in by the run.
  std::function<void(int64_t request, int64_t index, std::vector<model::DistributionQuery>& wanted)> ask;
  /// Called with each answer, in the order asked, `top1` being the arg-max at that place.
  std::function<void(int64_t request, int64_t index, const model::DistributionQuery& asked,
                     model::Distribution&& found, int32_t top1)>
      tell;
};

/// Carries a plan out, batch by batch.
class ScoringRun {
 public:
  ScoringRun(model::Decoder& decoder, const Plan& plan, DistributionHooks hooks = {});

  bool done() const { return next_pack_ == static_cast<int64_t>(plan_.packs().size()); }
  /// Computes the next batch; returns the requests that it completed, in ascending order.
  std::vector<int64_t> step();
  /// The scores of a completed request; releases them.
  TokenScores take(int64_t request);
  int64_t tokens_done() const { return tokens_done_; }
  /// Bytes of keys and values that are kept for later batches.
  int64_t kept_bytes() const;

 private:
  struct Questions;  ///< what is asked of a batch

  /// The piece's tokens behind those of the batch, attending to the pieces above it.
  void add_tokens(int64_t index, model::Batch& batch);
  /// What is asked at the piece's rows, which begin at `first_row`.
  void add_questions(const Plan::Piece& piece, int64_t first_row, Questions& questions) const;
  /// Keeps the answers; returns the requests that they complete, in ascending order.
  std::vector<int64_t> record(const Questions& questions, std::span<const model::TokenAnswer> answers);
  /// Gives back the keys and values that no later pack needs, or none of a layer with a window.
  void release_spans();

  model::Decoder& decoder_;
  const Plan& plan_;
  DistributionHooks hooks_;
  std::vector<TokenScores> scores_;
  std::vector<int64_t> missing_;                       ///< per request, tokens not scored yet
  std::vector<std::unique_ptr<model::KvSpan>> spans_;  ///< per piece, while something needs it
  std::vector<int64_t> kept_;                          ///< pieces of earlier packs whose spans are alive
  int64_t next_pack_ = 0, tokens_done_ = 0;
};

}  // namespace qeval::eval
