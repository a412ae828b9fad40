#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace qeval::eval {

/// What llama.cpp's `llama-perplexity --kl-divergence` takes from one row, in its types.
struct LlamaToken {
  float nll = 0, base_nll = 0;
  double kl = 0;
  float p_difference = 0;
  bool same_top = false;
};

/// `base`: the row of a file of log-probabilities (logits_file.h). Tokens that it has below e⁻¹⁶ are left out
/// of the divergence.
LlamaToken llama_token(std::span<const float> logits, std::span<const uint16_t> base, int32_t token);

/// The log-probabilities that a row of the file stands for.
std::vector<float> stored_log_probabilities(std::span<const uint16_t> base, int64_t vocabulary);

/// The statistics that llama-perplexity prints, digit for digit: the same sums in the same precision, in the
/// order of the tokens (its own threads add in any order). Errors there take tokens as independent.
class LlamaStatistics {
 public:
  void add(const LlamaToken& token);
  /// The line of a chunk, over all tokens so far.
  std::string chunk_line(int64_t chunk) const;
  /// The head of those lines.
  static std::string chunk_head();
  /// The blocks behind them; empty with fewer than 100 tokens, as there.
  std::string report() const;

 private:
  struct Mean {
    double value = 0, error = 0;
  };
  Mean mean(double sum, double squares) const;
  double covariance() const;
  Mean log_ratio() const;
  Mean rms() const;

  size_t count_ = 0, same_top_ = 0;
  double nll_ = 0, nll2_ = 0, base_ = 0, base2_ = 0, product_ = 0, kl_ = 0, kl2_ = 0;
  double p_ = 0, p2_ = 0, p4_ = 0;
  std::vector<float> kls_, ps_;
};

}  // namespace qeval::eval
