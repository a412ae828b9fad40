#include "eval/results/compare.h"

#include <algorithm>
#include <numbers>

#include "base/error.h"
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
          for (const Answer& answer : scores.answers)
            out.insert(out.end(), {answer.tokens, answer.truncated, answer.windows});
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

MetricComparison compare_metric(const MetricDefinition& definition, std::span<const Scores> base,
                                std::span<const Scores> other, const BootstrapOptions& options) {
  MetricComparison out;
  out.metric = definition.name;
  std::vector<DocumentTerm> base_terms, other_terms;
  std::vector<PairedTerm> pairs;
  for (size_t i = 0; i < base.size(); ++i) {
    const DocumentTerm a = document_term(base[i], definition.name),
                       b = document_term(other[i], definition.name);
    base_terms.push_back(a);
    other_terms.push_back(b);
    pairs.push_back({difference_value(definition.aggregation, a.value),
                     difference_value(definition.aggregation, b.value), a.weight});
    if (definition.right_or_wrong && a.value > b.value) out.lost.push_back(base[i].doc_id);
    if (definition.right_or_wrong && a.value < b.value) out.gained.push_back(base[i].doc_id);
  }
  out.base = aggregate(definition.aggregation, base_terms);
  out.other = aggregate(definition.aggregation, other_terms);
  BootstrapOptions drawn = options;
  if (!definition.right_or_wrong) drawn.resamples = std::max(options.resamples, least_comparison_resamples);
  out.difference = paired_bootstrap(pairs, drawn);
  if (definition.right_or_wrong) out.mcnemar_p = mcnemar_exact(std::ssize(out.lost), std::ssize(out.gained));
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
    out.metrics.push_back(compare_metric(find_metric(base[0].scoring, metric), base, other, options));
  }
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
  return compare_checked(group.name, aggregated_metrics(group), all_base, all_other, options);
}

TaskComparison compare_folders(const std::string& task, const std::filesystem::path& base,
                               const std::filesystem::path& other, const BootstrapOptions& options) {
  const std::string file = samples_file(task);
  return compare_documents(task, read_scores(base / file), read_scores(other / file), options);
}

}  // namespace qeval::eval
