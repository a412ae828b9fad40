#include "eval/divergence/llama_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/printf.h>

namespace qeval::eval {
namespace {

/// Scale and least log-probability of a row of the file, and its codes.
struct StoredRow {
  float scale = 0, least = 0;
  std::span<const uint16_t> codes;

  explicit StoredRow(std::span<const uint16_t> row) : codes(row.subspan(4)) {
    std::memcpy(&scale, row.data(), sizeof scale);
    std::memcpy(&least, row.data() + 2, sizeof least);
  }
  float operator[](size_t token) const { return scale * static_cast<float>(codes[token]) + least; }
};

float percentile(const std::vector<float>& sorted, float fraction) {
  float at = fraction * static_cast<float>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  at -= static_cast<float>(below);
  return (1 - at) * sorted[below] + at * sorted[std::min(below + 1, sorted.size() - 1)];
}

float median(const std::vector<float>& sorted) {
  const size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 0 ? 0.5F * (sorted[half] + sorted[half - 1]) : sorted[half];
}

}  // namespace

LlamaToken llama_token(std::span<const float> logits, std::span<const uint16_t> base, int32_t token) {
  const auto top = std::ranges::max_element(logits);
  float largest = *top;
  double exponentials = 0;
  for (const float logit : logits) exponentials += static_cast<double>(std::exp(logit - largest));
  const auto log_sum = static_cast<float>(std::log(exponentials));
  const StoredRow stored(base);
  LlamaToken out;
  out.nll = largest + log_sum - logits[static_cast<size_t>(token)];
  out.base_nll = -stored[static_cast<size_t>(token)];
  largest += log_sum;
  size_t base_top = 0;
  float base_largest = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float log_p = stored[i];
    if (i == 0 || log_p > base_largest) {
      base_largest = log_p;
      base_top = i;
    }
    if (log_p > -16.0F) out.kl += static_cast<double>(std::exp(log_p) * (log_p - logits[i] + largest));
  }
  out.same_top = static_cast<size_t>(top - logits.begin()) == base_top;
  out.p_difference = std::exp(-out.nll) - std::exp(-out.base_nll);
  return out;
}

std::vector<float> stored_log_probabilities(std::span<const uint16_t> base, int64_t vocabulary) {
  const StoredRow stored(base);
  std::vector<float> out(static_cast<size_t>(vocabulary));
  for (size_t i = 0; i < out.size(); ++i) out[i] = stored[i];
  return out;
}

void LlamaStatistics::add(const LlamaToken& token) {
  const auto wide = [](float value) { return static_cast<double>(value); };
  ++count_;
  nll_ += wide(token.nll);
  nll2_ += wide(token.nll * token.nll);
  base_ += wide(token.base_nll);
  base2_ += wide(token.base_nll * token.base_nll);
  product_ += wide(token.nll * token.base_nll);
  kl_ += token.kl;
  kl2_ += token.kl * token.kl;
  same_top_ += token.same_top ? 1 : 0;
  p_ += wide(token.p_difference);
  const double squared = wide(token.p_difference * token.p_difference);
  p2_ += squared;
  p4_ += squared * squared;
  kls_.push_back(static_cast<float>(token.kl));
  ps_.push_back(token.p_difference);
}

LlamaStatistics::Mean LlamaStatistics::mean(double sum, double squares) const {
  if (count_ < 1) return {};
  const auto n = static_cast<double>(count_);
  const double value = sum / n, variance = squares / n - value * value;
  return {value, variance > 0 && count_ > 10 ? std::sqrt(variance / (n - 1)) : 0};
}

double LlamaStatistics::covariance() const {
  if (count_ < 10) return 0;
  const auto n = static_cast<double>(count_);
  return (product_ / n - (nll_ / n) * (base_ / n)) / (n - 1);
}

LlamaStatistics::Mean LlamaStatistics::log_ratio() const {
  const Mean log_ppl = mean(nll_, nll2_), log_base = mean(base_, base2_);
  return {log_ppl.value - log_base.value,
          std::sqrt(log_ppl.error * log_ppl.error + log_base.error * log_base.error - 2.0 * covariance())};
}

LlamaStatistics::Mean LlamaStatistics::rms() const {
  const Mean squared = mean(p2_, p4_);
  const double value = std::sqrt(squared.value);
  return {value, 0.5 / value * squared.error};
}

std::string LlamaStatistics::chunk_head() {
  return "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS"
         "            Same top p\n";
}

std::string LlamaStatistics::chunk_line(int64_t chunk) const {
  const Mean log_ppl = mean(nll_, nll2_), ratio = log_ratio(), kl = mean(kl_, kl2_), change = rms();
  const double ppl = std::exp(log_ppl.value), n = static_cast<double>(count_);
  const double top = static_cast<double>(same_top_) / n;
  std::string out = fmt::sprintf("%4d", chunk);
  out += fmt::sprintf("    %9.4f ± %9.4f", ppl, ppl * log_ppl.error);
  out += fmt::sprintf("    %10.5f ± %10.5f", ratio.value, ratio.error);
  out += fmt::sprintf("    %10.5f ± %10.5f", kl.value, kl.error);
  out += fmt::sprintf("    %6.3f ± %6.3f %%", 100.0 * change.value, 100.0 * change.error);
  out += fmt::sprintf("    %6.3f ± %6.3f %%", 100.0 * top, 100.0 * std::sqrt(top * (1 - top) / (n - 1)));
  return out + "\n";
}

std::string LlamaStatistics::report() const {
  if (count_ < 100) return {};
  std::string out = "====== Perplexity statistics ======\n";
  const auto line = [&out](const char* name, double value, double error) {
    out += fmt::sprintf("%-30s: %10.6f ± %10.6f\n", name, value, error);
  };
  const Mean log_ppl = mean(nll_, nll2_), log_base = mean(base_, base2_), ratio = log_ratio();
  const double ppl = std::exp(log_ppl.value), base = std::exp(log_base.value);
  const double ppl_error = ppl * log_ppl.error, base_error = base * log_base.error;
  line("Mean PPL(Q)", ppl, ppl_error);
  line("Mean PPL(base)", base, base_error);
  out += fmt::sprintf("Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n",
                      100.0 * (covariance() / (log_ppl.error * log_base.error)));
  line("Mean ln(PPL(Q)/PPL(base))", ratio.value, ratio.error);
  line("Mean PPL(Q)/PPL(base)", std::exp(ratio.value), std::exp(ratio.value) * ratio.error);
  const double between = ppl * base * covariance();
  line("Mean PPL(Q)-PPL(base)", ppl - base,
       std::sqrt(ppl_error * ppl_error + base_error * base_error - 2.0 * between));

  out += "\n====== KL divergence statistics ======\n";
  const Mean kl = mean(kl_, kl2_);
  out += fmt::sprintf("Mean    KLD: %10.6f ± %10.6f\n", kl.value, kl.error);
  std::vector<float> sorted = kls_;
  std::ranges::sort(sorted);
  const auto kl_line = [&out](const char* name, float value) {
    out += fmt::sprintf("%-7s KLD: %10.6f\n", name, value);
  };
  kl_line("Maximum", sorted.back());
  for (const auto& [name, share] :
       {std::pair{"99.9%", 0.999F}, {"99.0%", 0.99F}, {"95.0%", 0.95F}, {"90.0%", 0.9F}})
    kl_line(name, percentile(sorted, share));
  kl_line("Median", median(sorted));
  for (const auto& [name, share] :
       {std::pair{"10.0%", 0.1F}, {" 5.0%", 0.05F}, {" 1.0%", 0.01F}, {" 0.1%", 0.001F}})
    kl_line(name, percentile(sorted, share));
  kl_line("Minimum", sorted.front());

  out += "\n====== Token probability statistics ======\n";
  const Mean p = mean(p_, p2_);
  out += fmt::sprintf("Mean    Δp: %6.3f ± %5.3f %%\n", 100.0 * p.value, 100.0 * p.error);
  sorted = ps_;
  std::ranges::sort(sorted);
  const auto p_line = [&out](const char* name, float value) {
    out += fmt::sprintf("%-7s Δp: %6.3f%%\n", name, 100.0 * static_cast<double>(value));
  };
  p_line("Maximum", sorted.back());
  for (const auto& [name, share] :
       {std::pair{"99.9%", 0.999F}, {"99.0%", 0.99F}, {"95.0%", 0.95F}, {"90.0%", 0.9F}, {"75.0%", 0.75F}})
    p_line(name, percentile(sorted, share));
  p_line("Median", median(sorted));
  for (const auto& [name, share] :
       {std::pair{"25.0%", 0.25F}, {"10.0%", 0.1F}, {" 5.0%", 0.05F}, {" 1.0%", 0.01F}, {" 0.1%", 0.001F}})
    p_line(name, percentile(sorted, share));
  p_line("Minimum", sorted.front());
  const Mean change = rms();
  out += fmt::sprintf("RMS Δp    : %6.3f ± %5.3f %%\n", 100.0 * change.value, 100.0 * change.error);
  const double top = static_cast<double>(same_top_) / static_cast<double>(count_);
  out += fmt::sprintf("Same top p: %6.3f ± %5.3f %%\n", 100.0 * top,
                      100.0 * std::sqrt(top * (1.0 - top) / static_cast<double>(count_ - 1)));
  return out;
}

}  // namespace qeval::eval
