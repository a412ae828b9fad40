#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/block_statistics.h"

namespace qeval::eval {

/// How two models' predictions of one token of a text differ, over their whole distributions p (base) and q.
struct TokenDivergence {
  double base_nll = 0, nll = 0;  ///< −ln of the probability of the token that comes, nats
  double kl = 0;                 ///< KL(p ‖ q), nats
  double reverse_kl = 0;         ///< KL(q ‖ p), nats
  double acceptance = 0;         ///< Σ min(p, q): how often the base would keep a token that q drafts
  double p_difference = 0;       ///< q − p, of the token that comes
  bool same_top = false;         ///< both find the same token likeliest
};

/// The sums over the tokens of a block: a window of the text, or 512 tokens of a longer one.
struct DivergenceBlock {
  int64_t tokens = 0;
  double base_nll = 0, nll = 0, kl = 0, reverse_kl = 0, acceptance = 0;
  double p_difference = 0, squared_p_difference = 0;
  int64_t same_top = 0;
  bool operator==(const DivergenceBlock&) const = default;
};

/// Shares of the tokens at whose quantiles divergences and Δp are given: those of llama.cpp.
inline constexpr std::array kDivergenceShares{0.0,  0.001, 0.01, 0.05, 0.1,   0.25, 0.5,
                                              0.75, 0.9,   0.95, 0.99, 0.999, 1.0};

/// A model against the base on one text.
struct TextDivergence {
  std::vector<DivergenceBlock> blocks;            ///< in the order of the text
  std::vector<double> kl_quantiles, p_quantiles;  ///< at kDivergenceShares; linear interpolation

  int64_t tokens() const;
  Estimate base_perplexity() const;
  Estimate perplexity() const;
  Estimate perplexity_ratio() const;  ///< exp(mean of nll − base_nll): paired, token by token
  Estimate kl() const;
  Estimate reverse_kl() const;
  Estimate acceptance() const;
  Estimate top1_agreement() const;
  Estimate rms_p_difference() const;
};

/// Collects tokens, window by window.
class DivergenceTally {
 public:
  void add(const TokenDivergence& token);
  /// What follows belongs to another window.
  void end_window() { open_ = false; }
  TextDivergence finish() &&;

 private:
  TextDivergence out_;
  std::vector<float> kl_, p_;
  bool open_ = false;
};

/// Mean KL of `b` less that of `a`, token by token on the same text (Error where the blocks differ), with the
/// interval of the paired difference at `level`.
Estimate kl_difference(const TextDivergence& a, const TextDivergence& b, double level = 0.95);

/// For every run whether it is tied with the one of least mean KL: whether the interval of their paired
/// difference holds 0. All intervals hold together with 95 % (Bonferroni). Where there are no intervals, for
/// want of blocks, runs are tied that cannot be told apart by rank alone: all.
std::vector<bool> tied_for_best(std::span<const TextDivergence> runs);
/// Index of the least mean KL; the first of equals.
size_t best_of(std::span<const TextDivergence> runs);

/// {"tokens", "perplexity": {"value", "standard_error", "interval_95"}, … , "kl_quantiles": {"0.5": …},
/// "blocks": {"tokens": […], "kl": […], …}}, and back. The reader throws Error naming field and `where`.
nlohmann::ordered_json to_json(const TextDivergence& divergence);
TextDivergence text_divergence_from_json(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace qeval::eval
