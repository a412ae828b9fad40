#include "eval/results/compare.h"

#include <algorithm>
#include <numbers>

#include "base/error.h"
#include "eval/results/headline.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

void check_same(const std::string& task, std::span<const Scores> base, std::span<const Scores> other) {
  const auto refuse = [&](const std::string& reason) {
    fail("{}: the two runs cannot be compared: {}", printable(task), reason);
  };
  for (size_t i = 0; i < std::max(base.size(), other.size()); ++i) {
    const bool only_base = i >= other.size() || (i < base.size() && base[i].doc_id < other[i].doc_id);
    const bool only_other = i >= base.size() || (i < other.size() && other[i].doc_id < base[i].doc_id);
    if (only_base) refuse(fmt::format("document {} is in the first only", base[i].doc_id));
    if (only_other) refuse(fmt::format("document {} is in the second only", other[i].doc_id));
    const Scores &a = base[i], &b = other[i];
    if (a.scoring != b.scoring || a.facts != b.facts) {
      refuse(fmt::format("document {} is scored by different rules or is not the same document", a.doc_id));
    }
    if (a.token_hash != b.token_hash || a.answers.size() != b.answers.size()) {
      refuse(fmt::format("document {} was scored from different token ids", a.doc_id));
    }
    const auto tokens =
        [](const Scores& scores) {  // a rolling document in other windows is another measurement
          std::vector<int64_t> out;
          for (const Answer& answer : scores.answers) {
            // How much a model writes is its own affair.
            const int64_t scored = scores.scoring == Scoring::generation ? 0 : answer.tokens;
            out.insert(out.end(), {scored, answer.truncated, answer.windows});
          }
          return out;
        };
    if (tokens(a) != tokens(b)) refuse(fmt::format("document {} was cut into different windows", a.doc_id));
  }
}

/// The part of a document in the difference: −ll for perplexities, in bits for bits per byte.
double difference_value(Aggregation aggregation, double value) {
  switch (aggregation) {
    case Aggregation::mean:
      return value;
    case Aggregation::perplexity:
      return -value;
    case Aggregation::bits_per_unit:
      return -value / std::numbers::ln2;
  }
  return value;
}

DocumentTerm scaled_term(const Scores& scores, std::string_view metric, double factor) {
  const DocumentTerm term = document_term(scores, metric);
  return {term.value * factor, term.weight * factor};
}

/// `factors`: what each document's value and weight are multiplied by; empty: 1.
MetricComparison compare_metric(const std::string& metric, std::span<const Scores> base,
                                std::span<const Scores> other, std::span<const double> factors,
                                const BootstrapOptions& options) {
  const MetricDefinition& definition = find_metric(base[0].scoring, metric);
  MetricComparison out;
  out.metric = metric;
  out.right_or_wrong = definition.right_or_wrong;
  std::vector<DocumentTerm> base_terms, other_terms;
  std::vector<PairedTerm> pairs;
  for (size_t i = 0; i < base.size(); ++i) {
    const double factor = factors.empty() ? 1 : factors[i];
    const DocumentTerm a = scaled_term(base[i], metric, factor), b = scaled_term(other[i], metric, factor);
    base_terms.push_back(a);
    other_terms.push_back(b);
    pairs.push_back({difference_value(definition.aggregation, a.value),
                     difference_value(definition.aggregation, b.value), a.weight});
    if (definition.right_or_wrong && a.value > b.value) out.lost.push_back(base[i].doc_id);
    if (definition.right_or_wrong && a.value < b.value) out.gained.push_back(base[i].doc_id);
  }
  out.base = aggregate(definition.aggregation, base_terms);
  out.other = aggregate(definition.aggregation, other_terms);
  if (definition.right_or_wrong && factors.empty()) {
    out.difference = paired_proportions(std::ssize(out.lost), std::ssize(out.gained), std::ssize(base));
  } else {
    BootstrapOptions drawn = options;
    drawn.resamples = std::max(options.resamples, least_comparison_resamples);
    out.difference = paired_bootstrap(pairs, drawn);
    const bool no_flips = definition.right_or_wrong && out.lost.empty() && out.gained.empty();
    if (no_flips) out.difference.interval.reset();  // of no width, whatever the number of documents
  }
  return out;
}

bool all_have(std::span<const Scores> documents, const std::string& metric) {
  return std::ranges::all_of(documents, [&](const Scores& scores) {
    return std::ranges::find(scores.metrics, metric) != scores.metrics.end();
  });
}

/// Those of the metrics that all documents have in both runs. Both of the same documents, which was checked.
TaskComparison compare_checked(const std::string& name, std::span<const std::string> metrics,
                               std::span<const Scores> base, std::span<const Scores> other,
                               const BootstrapOptions& options) {
  TaskComparison out{name, std::ssize(base), {}};
  if (base.empty()) return out;
  for (const std::string& metric : metrics) {
    if (!all_have(base, metric) || !all_have(other, metric)) continue;
    out.metrics.push_back(compare_metric(metric, base, other, {}, options));
  }
  return out;
}

/// Per document 1 / the documents of its task.
std::vector<double> task_factors(std::span<const std::vector<Scores>> tasks) {
  std::vector<double> out;
  for (const std::vector<Scores>& task : tasks)
    out.insert(out.end(), task.size(), 1 / static_cast<double>(task.size()));
  return out;
}

/// The comparison of the group's unweighted mean, where that is its headline: a mean of the documents'
/// values, each over the documents of its task.
std::optional<MetricComparison> compare_unweighted(const GroupResults& group, std::span<const Scores> base,
                                                   std::span<const Scores> other,
                                                   std::span<const double> factors,
                                                   const BootstrapOptions& options) {
  const std::string headline = headline_metric(group), averaged(document_metric(headline));
  if (averaged == headline || !all_have(base, averaged) || !all_have(other, averaged)) return {};
  if (find_metric(base[0].scoring, averaged).aggregation != Aggregation::mean) return {};
  MetricComparison out = compare_metric(averaged, base, other, factors, options);
  out.metric = headline;
  return out;
}

}  // namespace

TaskComparison compare_documents(const std::string& task, std::span<const Scores> base,
                                 std::span<const Scores> other, const BootstrapOptions& options) {
  check_same(task, base, other);
  const std::vector<std::string> metrics = base.empty() ? std::vector<std::string>() : base[0].metrics;
  return compare_checked(task, metrics, base, other, options);
}

TaskComparison compare_group(const GroupResults& group, std::span<const std::vector<Scores>> base,
                             std::span<const std::vector<Scores>> other, const BootstrapOptions& options) {
  if (base.size() != other.size())
    fail("{}: the two runs cannot be compared: {} tasks against {}", printable(group.name), base.size(),
         other.size());
  std::vector<Scores> all_base, all_other;
  for (size_t i = 0; i < base.size(); ++i) {
    check_same(group.name, base[i], other[i]);
    all_base.insert(all_base.end(), base[i].begin(), base[i].end());
    all_other.insert(all_other.end(), other[i].begin(), other[i].end());
  }
  for (const Scores& scores : all_base) {
    if (scores.scoring != all_base.front().scoring)
      fail("{}: its tasks measure different things", printable(group.name));
  }
  TaskComparison out = compare_checked(group.name, aggregated_metrics(group), all_base, all_other, options);
  if (all_base.empty()) return out;
  if (auto unweighted = compare_unweighted(group, all_base, all_other, task_factors(base), options))
    out.metrics.push_back(std::move(*unweighted));
  return out;
}

TaskComparison compare_folders(const std::string& task, const std::filesystem::path& base,
                               const std::filesystem::path& other, const BootstrapOptions& options) {
  const std::string file = samples_file(task);
  return compare_documents(task, read_scores(base / file), read_scores(other / file), options);
}

}  // namespace qeval::eval
