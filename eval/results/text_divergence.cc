#include "eval/results/text_divergence.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json_object.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

/// Tokens of a block at most: dependence beyond them is weak.
constexpr int64_t kBlock = 512;

/// Value(block) of every block, with its tokens.
template <typename Value>
std::vector<BlockSum> sums(std::span<const DivergenceBlock> blocks, const Value& value) {
  std::vector<BlockSum> out;
  for (const DivergenceBlock& block : blocks)
    out.push_back({static_cast<double>(value(block)), block.tokens});
  return out;
}

/// A perplexity or a ratio of two, of a mean of negative log-likelihoods.
Estimate exponential(const Estimate& log) {
  return mapped(log, std::exp(log.value), [](double value) { return std::exp(value); });
}

/// A share: its interval ends at 0 and 1.
Estimate share(Estimate estimate) {
  if (estimate.interval)
    estimate.interval =
        Interval{std::max(0.0, estimate.interval->low), std::min(1.0, estimate.interval->high)};
  return estimate;
}

std::vector<double> quantiles(std::vector<float> values) {
  std::vector<double> out;
  if (values.empty()) return out;
  std::ranges::sort(values);
  for (const double share : kDivergenceShares) {
    const double at = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    const double part = at - static_cast<double>(below);
    out.push_back((1 - part) * static_cast<double>(values[below]) +
                  part * static_cast<double>(values[above]));
  }
  return out;
}

ordered_json estimate_json(const Estimate& estimate) {
  ordered_json out = {
      {"value", number_to_json(estimate.value)}, {"standard_error", nullptr}, {"interval_95", nullptr}};
  if (estimate.standard_error) out["standard_error"] = number_to_json(*estimate.standard_error);
  if (estimate.interval)
    out["interval_95"] = {number_to_json(estimate.interval->low), number_to_json(estimate.interval->high)};
  return out;
}

struct NamedSum {
  const char* name;
  double DivergenceBlock::*field;
};
constexpr std::array kSums{NamedSum{"base_nll", &DivergenceBlock::base_nll},
                           NamedSum{"nll", &DivergenceBlock::nll},
                           NamedSum{"kl", &DivergenceBlock::kl},
                           NamedSum{"reverse_kl", &DivergenceBlock::reverse_kl},
                           NamedSum{"acceptance", &DivergenceBlock::acceptance},
                           NamedSum{"p_difference", &DivergenceBlock::p_difference},
                           NamedSum{"squared_p_difference", &DivergenceBlock::squared_p_difference}};

std::vector<double> numbers(const OrderedJsonObject& fields, const char* key, size_t count) {
  std::vector<double> out = fields.numbers(key);
  if (out.size() != count) fields.refuse(key, fmt::format("an array of {} numbers", count));
  return out;
}

}  // namespace

int64_t TextDivergence::tokens() const {
  int64_t tokens = 0;
  for (const DivergenceBlock& block : blocks) tokens += block.tokens;
  return tokens;
}

Estimate TextDivergence::base_perplexity() const {
  return exponential(block_mean(sums(blocks, [](const auto& block) { return block.base_nll; })));
}
Estimate TextDivergence::perplexity() const {
  return exponential(block_mean(sums(blocks, [](const auto& block) { return block.nll; })));
}
Estimate TextDivergence::perplexity_ratio() const {
  return exponential(block_mean(sums(blocks, [](const auto& block) { return block.nll - block.base_nll; })));
}
Estimate TextDivergence::kl() const {
  return positive_block_mean(sums(blocks, [](const auto& block) { return block.kl; }));
}
Estimate TextDivergence::reverse_kl() const {
  return positive_block_mean(sums(blocks, [](const auto& block) { return block.reverse_kl; }));
}
Estimate TextDivergence::acceptance() const {
  return share(block_mean(sums(blocks, [](const auto& block) { return block.acceptance; })));
}
Estimate TextDivergence::top1_agreement() const {
  return share(block_mean(sums(blocks, [](const auto& block) { return block.same_top; })));
}
Estimate TextDivergence::rms_p_difference() const {
  const Estimate squared =
      positive_block_mean(sums(blocks, [](const auto& block) { return block.squared_p_difference; }));
  const double rms = std::sqrt(squared.value);
  return mapped(squared, rms > 0 ? 0.5 / rms : 0, [](double value) { return std::sqrt(value); });
}

void DivergenceTally::add(const TokenDivergence& token) {
  if (!open_ || out_.blocks.back().tokens == kBlock) out_.blocks.emplace_back();
  open_ = true;
  DivergenceBlock& block = out_.blocks.back();
  ++block.tokens;
  block.base_nll += token.base_nll;
  block.nll += token.nll;
  block.kl += token.kl;
  block.reverse_kl += token.reverse_kl;
  block.acceptance += token.acceptance;
  block.p_difference += token.p_difference;
  block.squared_p_difference += token.p_difference * token.p_difference;
  block.same_top += token.same_top ? 1 : 0;
  kl_.push_back(static_cast<float>(token.kl));
  p_.push_back(static_cast<float>(token.p_difference));
}

TextDivergence DivergenceTally::finish() && {
  out_.kl_quantiles = quantiles(std::move(kl_));
  out_.p_quantiles = quantiles(std::move(p_));
  return std::move(out_);
}

Estimate kl_difference(const TextDivergence& a, const TextDivergence& b, double level) {
  std::vector<BlockSum> differences;
  if (!std::ranges::equal(a.blocks, b.blocks, {}, &DivergenceBlock::tokens, &DivergenceBlock::tokens))
    fail("divergences of other windows of text cannot be paired");
  for (size_t i = 0; i < a.blocks.size(); ++i)
    differences.push_back({b.blocks[i].kl - a.blocks[i].kl, a.blocks[i].tokens});
  return block_mean(differences, level);
}

size_t best_of(std::span<const TextDivergence> runs) {
  const auto mean = [](const TextDivergence& run) { return run.kl().value; };
  return static_cast<size_t>(std::ranges::min_element(runs, {}, mean) - runs.begin());
}

std::vector<bool> tied_for_best(std::span<const TextDivergence> runs) {
  std::vector<bool> tied(runs.size(), true);
  if (runs.size() < 2) return tied;
  const size_t best = best_of(runs);
  const double level = 1 - 0.05 / static_cast<double>(runs.size() - 1);
  for (size_t i = 0; i < runs.size(); ++i) {
    const Estimate difference = kl_difference(runs[best], runs[i], level);
    if (i != best && difference.interval) tied[i] = difference.interval->low <= 0;
  }
  return tied;
}

ordered_json to_json(const TextDivergence& divergence) {
  ordered_json out = {{"tokens", divergence.tokens()},
                      {"kl", estimate_json(divergence.kl())},
                      {"reverse_kl", estimate_json(divergence.reverse_kl())},
                      {"perplexity_ratio", estimate_json(divergence.perplexity_ratio())},
                      {"perplexity", estimate_json(divergence.perplexity())},
                      {"base_perplexity", estimate_json(divergence.base_perplexity())},
                      {"acceptance", estimate_json(divergence.acceptance())},
                      {"top1_agreement", estimate_json(divergence.top1_agreement())},
                      {"rms_p_difference", estimate_json(divergence.rms_p_difference())},
                      {"quantiles", kDivergenceShares},
                      {"kl_quantiles", divergence.kl_quantiles},
                      {"p_quantiles", divergence.p_quantiles},
                      {"blocks", ordered_json::object()}};
  ordered_json& blocks = out["blocks"];
  for (const char* name : {"tokens", "same_top"}) blocks[name] = ordered_json::array();
  for (const NamedSum& sum : kSums) blocks[sum.name] = ordered_json::array();
  for (const DivergenceBlock& block : divergence.blocks) {
    blocks["tokens"].push_back(block.tokens);
    blocks["same_top"].push_back(block.same_top);
    for (const NamedSum& sum : kSums) blocks[sum.name].push_back(block.*sum.field);
  }
  return out;
}

TextDivergence text_divergence_from_json(const ordered_json& json, const std::string& where) {
  const OrderedJsonObject fields(json, where);
  TextDivergence out;
  out.kl_quantiles = numbers(fields, "kl_quantiles", kDivergenceShares.size());
  out.p_quantiles = numbers(fields, "p_quantiles", kDivergenceShares.size());
  const OrderedJsonObject blocks = fields.object("blocks");
  const std::vector<int64_t> tokens = blocks.counts("tokens"), same_top = blocks.counts("same_top");
  if (same_top.size() != tokens.size()) blocks.refuse("same_top", "as long as \"tokens\"");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 1 || same_top[i] > tokens[i])
      blocks.refuse("tokens", "1 or more, and \"same_top\" at most");
    out.blocks.push_back({.tokens = tokens[i], .same_top = same_top[i]});
  }
  for (const NamedSum& sum : kSums) {
    const std::vector<double> values = numbers(blocks, sum.name, tokens.size());
    for (size_t i = 0; i < values.size(); ++i) out.blocks[i].*sum.field = values[i];
  }
  return out;
}

}  // namespace qeval::eval
