#include "eval/results/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/json_object.h"
#include "eval/results/checked_sum.h"

namespace qeval::eval {
namespace {

constexpr auto mean = Aggregation::mean;
constexpr auto perplexity = Aggregation::perplexity;
constexpr auto bits = Aggregation::bits_per_unit;

constexpr MetricDefinition multiple_choice_metrics[] = {
    {"acc", mean, true}, {"acc_norm", mean, true}, {"acc_bytes", mean, true}};
constexpr MetricDefinition multiple_true_metrics[] = {{"acc", mean, false}};
constexpr MetricDefinition last_word_metrics[] = {{"acc", mean, true}, {"perplexity", perplexity}};
constexpr MetricDefinition generation_metrics[] = {{"exact_match", mean, true},
                                                   {"em", mean, true},
                                                   {"f1", mean, false},
                                                   {"contains", mean, true},
                                                   {"prompt_level_strict_acc", mean, true},
                                                   {"inst_level_strict_acc", mean, false, true},
                                                   {"prompt_level_loose_acc", mean, true},
                                                   {"inst_level_loose_acc", mean, false, true},
                                                   {"exact_match_original", mean, true},
                                                   {"pass@1", mean, true},
                                                   {"pass_at_1", mean, true}};
constexpr MetricDefinition rolling_metrics[] = {{"word_perplexity", perplexity},
                                                {"byte_perplexity", perplexity},
                                                {"bits_per_byte", bits},
                                                {"token_perplexity", perplexity}};

/// Σ exp(ll) over the gold choices / Σ exp(ll) over all, with the largest taken out so that nothing
/// underflows.
double true_mass(const Scores& scores) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const Answer& answer : scores.answers) {
    if (std::isnan(answer.log_likelihood)) return nan;
    largest = std::max(largest, answer.log_likelihood);
  }
  if (std::isinf(largest)) return nan;
  double all = 0, gold = 0;
  for (const Answer& answer : scores.answers) all += std::exp(answer.log_likelihood - largest);
  for (const int64_t index : scores.facts.gold) {
    gold += std::exp(scores.answers[static_cast<size_t>(index)].log_likelihood - largest);
  }
  return gold / all;
}

/// Metrics of documents that disagree would be a mean of unlike things.
void check_alike(std::span<const Scores> documents) {
  for (size_t i = 1; i < documents.size(); ++i) {
    const Scores& a = documents[i - 1];
    const Scores& b = documents[i];
    if (b.doc_id <= a.doc_id)
      fail("document {} stands after document {}: ascending order expected", b.doc_id, a.doc_id);
    if (b.scoring != a.scoring || b.metrics != a.metrics) {
      fail("documents {} and {} are scored by different rules", a.doc_id, b.doc_id);
    }
  }
}

}  // namespace

std::span<const MetricDefinition> metrics_of(Scoring scoring) {
  switch (scoring) {
    case Scoring::multiple_choice:
      return multiple_choice_metrics;
    case Scoring::multiple_true:
      return multiple_true_metrics;
    case Scoring::last_word:
      return last_word_metrics;
    case Scoring::rolling:
      return rolling_metrics;
    case Scoring::generation:
      return generation_metrics;
  }
  return {};
}

const MetricDefinition& find_metric(Scoring scoring, std::string_view name) {
  std::string known;
  const std::string_view plain = scoring == Scoring::generation ? name.substr(0, name.find(',')) : name;
  for (const MetricDefinition& definition : metrics_of(scoring)) {
    if (definition.name == plain) return definition;
    known += (known.empty() ? "" : ", ") + std::string(definition.name);
  }
  fail("{} documents have no metric \"{}\"; there are {}", scoring_name(scoring), printable(name), known);
}

bool higher_is_better(std::string_view name) {
  return !name.ends_with("perplexity") && !name.starts_with("bits_per_");
}

int64_t arg_max(std::span<const double> values) {
  int64_t best = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) continue;
    if (best < 0 || values[i] > values[static_cast<size_t>(best)]) best = static_cast<int64_t>(i);
  }
  return best;
}

int64_t chosen(const Scores& scores, std::string_view metric) {
  std::span<const int64_t> lengths;
  if (metric == "acc_norm") lengths = scores.facts.choice_chars;
  if (metric == "acc_bytes") lengths = scores.facts.choice_bytes;
  std::vector<double> values;
  for (size_t i = 0; i < scores.answers.size(); ++i) {
    const double length = lengths.empty() ? 1.0 : static_cast<double>(lengths[i]);
    const double log_likelihood = scores.answers[i].log_likelihood;
    values.push_back(length > 0 || std::isnan(log_likelihood) ? log_likelihood / length
                                                              : -std::numeric_limits<double>::infinity());
  }
  return arg_max(values);
}

DocumentTerm document_term(const Scores& scores, std::string_view metric) {
  const MetricDefinition& definition = find_metric(scores.scoring, metric);
  const auto weight = [](int64_t units) { return static_cast<double>(units); };
  switch (scores.scoring) {
    case Scoring::multiple_choice:
      return {std::ranges::count(scores.facts.gold, chosen(scores, metric)) > 0 ? 1.0 : 0.0, 1};
    case Scoring::multiple_true:
      return {true_mass(scores), 1};
    case Scoring::last_word:
      if (metric == "acc") return {scores.answers.at(0).is_greedy ? 1.0 : 0.0, 1};
      return {scores.answers.at(0).log_likelihood, 1};
    case Scoring::generation: {
      const auto found = std::ranges::find(scores.metrics, metric);
      if (found == scores.metrics.end())
        fail("document {} has no metric \"{}\"", scores.doc_id, printable(metric));
      const double value = scores.values.at(static_cast<size_t>(found - scores.metrics.begin()));
      if (!definition.of_parts) return {value, 1};
      return {std::round(value * weight(scores.facts.parts)), weight(scores.facts.parts)};
    }
    case Scoring::rolling:
      break;
  }
  const Answer& answer = scores.answers.at(0);
  if (metric == "word_perplexity") return {answer.log_likelihood, weight(scores.facts.words)};
  if (metric == "token_perplexity") return {answer.log_likelihood, weight(answer.tokens)};
  return {answer.log_likelihood, weight(scores.facts.bytes)};
}

nlohmann::ordered_json document_metric_json(const Scores& scores, std::string_view metric) {
  const DocumentTerm term = document_term(scores, metric);
  if (scores.scoring != Scoring::rolling) return number_to_json(term.value / term.weight);
  return nlohmann::ordered_json::array({number_to_json(term.value), static_cast<int64_t>(term.weight)});
}

std::vector<MetricValue> compute_metrics(std::span<const Scores> documents,
                                         const BootstrapOptions& bootstrap) {
  check_alike(documents);
  std::vector<MetricValue> out;
  if (documents.empty()) return out;
  for (const std::string& name : documents[0].metrics) {
    const MetricDefinition& definition = find_metric(documents[0].scoring, name);
    const Aggregation aggregation = definition.aggregation;
    std::vector<DocumentTerm> terms;
    for (const Scores& scores : documents) terms.push_back(document_term(scores, name));
    MetricValue metric{name, aggregate(aggregation, terms), {}};
    if (terms.size() > 1 && std::isfinite(metric.value)) {
      metric.standard_error = aggregation == Aggregation::mean && !definition.of_parts
                                  ? mean_standard_error(terms)
                                  : bootstrap_standard_error(aggregation, terms, bootstrap);
    }
    out.push_back(std::move(metric));
  }
  return out;
}

std::string_view document_metric(std::string_view metric) {
  if (metric.ends_with(unweighted_suffix)) metric.remove_suffix(unweighted_suffix.size());
  return metric;
}

std::vector<MetricValue> aggregate_group(std::string_view metric, std::span<const GroupMember> members) {
  double weighted = 0, plain = 0, documents = 0, pooled = 0, squares = 0;
  bool all_have_error = !members.empty(), pool_defined = true;
  for (const GroupMember& member : members) {
    const auto n = static_cast<double>(member.documents);
    weighted += n * member.value;
    plain += member.value;
    documents += n;
    all_have_error = all_have_error && member.standard_error;
    pool_defined = pool_defined && (member.standard_error || member.documents <= 1);
    if (member.standard_error) {
      const double variance = *member.standard_error * *member.standard_error;
      pooled += n * (n - 1) * variance;
      squares += variance;
    }
  }
  const auto k = static_cast<double>(members.size());
  MetricValue by_size{std::string(metric), weighted / documents, {}};
  if (pool_defined && documents > k) by_size.standard_error = std::sqrt(pooled / (documents - k) / documents);
  MetricValue unweighted{std::string(metric) + std::string(unweighted_suffix), plain / k, {}};
  if (all_have_error) unweighted.standard_error = std::sqrt(squares) / k;
  return {std::move(by_size), std::move(unweighted)};
}

TaskCounts count(std::span<const Scores> documents) {
  TaskCounts counts;
  for (const Scores& scores : documents) {
    ++counts.documents;
    bool not_a_number = false;
    for (const Answer& answer : scores.answers) {
      ++counts.requests;
      add_count(counts.tokens_scored, answer.tokens);
      add_count(counts.tokens_requested, answer.input_tokens);
      counts.truncated_requests += answer.truncated > 0 ? 1 : 0;
      add_count(counts.truncated_tokens, answer.truncated);
      counts.encoded_apart += answer.encoded_apart ? 1 : 0;
      if (scores.scoring == Scoring::rolling) add_count(counts.windows, answer.windows);
      not_a_number = not_a_number || std::isnan(answer.log_likelihood);
    }
    counts.not_a_number += not_a_number ? 1 : 0;
    add_count(counts.words, scores.facts.words);
    add_count(counts.bytes, scores.facts.bytes);
  }
  return counts;
}

}  // namespace qeval::eval
