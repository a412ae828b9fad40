#include "eval/results/recompute.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/results/json_fields.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_differences = 100;  // of the lines of one file

bool agree(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= 1e-12 * std::max(std::abs(a), std::abs(b));
}

bool agree(const std::optional<double>& a, const std::optional<double>& b) {
  return a.has_value() == b.has_value() && (!a || agree(*a, *b));
}

std::string number(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : "nothing";
}

void compare_metrics(const std::string& name, const std::vector<MetricValue>& stored,
                     const std::vector<MetricValue>& derived, std::vector<std::string>& differences) {
  const auto find = [](const std::vector<MetricValue>& metrics, const std::string& metric) {
    const auto found = std::ranges::find(metrics, metric, &MetricValue::name);
    return found == metrics.end() ? nullptr : &*found;
  };
  const auto differ = [&](const std::string& metric, std::optional<double> a, std::optional<double> b) {
    differences.push_back(fmt::format("{} {}: {} holds {}, the samples give {}", printable(name),
                                      printable(metric), results_file, number(a), number(b)));
  };
  for (const MetricValue& now : derived) {
    const MetricValue* then = find(stored, now.name);
    if (then == nullptr) {
      differ(now.name, {}, now.value);
      continue;
    }
    if (!agree(then->value, now.value)) differ(now.name, then->value, now.value);
    if (!agree(then->standard_error, now.standard_error)) {
      differ(now.name + " standard error", then->standard_error, now.standard_error);
    }
  }
  for (const MetricValue& then : stored) {
    if (find(derived, then.name) == nullptr) differ(then.name, then.value, {});
  }
}

/// The first field of a line that is not what its sample would be written as.
std::string odd_field(const SampleLine& line) {
  const ordered_json stored = parse_json(line.text, line.where);
  const ordered_json expected = parse_json(to_line(line.sample), line.where);
  for (const auto& [key, value] : expected.items()) {
    if (!stored.contains(key)) return fmt::format("field \"{}\" is missing", printable(key));
    if (key != "checksum" && stored[key] != value) {
      return fmt::format("field \"{}\" is {}, the rest of the line gives {}", printable(key),
                         printable(stored[key].dump(), 60), printable(value.dump(), 60));
    }
  }
  return "holds a field that is not ours, or ours in another order";
}

std::vector<Scores> read_and_check(const std::filesystem::path& path, const TaskResults& stored,
                                   std::vector<std::string>& differences) {
  std::vector<Scores> documents;
  Sha256 hash;
  const size_t before = differences.size();
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) {
    hash.update(line.text).update("\n");
    if (differences.size() < before + most_differences && to_line(line.sample) != line.text) {
      differences.push_back(fmt::format("{}: {}", line.where, odd_field(line)));
    }
    if (!documents.empty() && line.sample.scores.doc_id <= documents.back().doc_id) {
      fail("{}: document {} follows document {}: ascending order expected", line.where,
           line.sample.scores.doc_id, documents.back().doc_id);
    }
    documents.push_back(std::move(line.sample.scores));
  });
  const std::string digits = hash.hex();
  if (digits != stored.samples_hash) {
    differences.push_back(fmt::format("{}: its SHA-256 is {}, {} says {}", path.string(),
                                      digits.substr(0, 12) + "…", results_file,
                                      printable(stored.samples_hash.substr(0, 12)) + "…"));
  }
  return documents;
}

}  // namespace

Recomputed recompute(const std::filesystem::path& directory) {
  Recomputed out;
  out.stored = read_results(directory);
  out.derived = out.stored;
  for (TaskResults& task : out.derived.tasks) {
    const TaskResults stored = task;
    const auto documents = read_and_check(directory / samples_file(task.name), stored, out.differences);
    out.documents += std::ssize(documents);
    task.metrics = compute_metrics(documents, out.stored.bootstrap);
    task.counts = count(documents);
    task.logits_hash = logits_hash(documents);
    compare_metrics(task.name, stored.metrics, task.metrics, out.differences);
    if (task.logits_hash != stored.logits_hash) {
      out.differences.push_back(fmt::format("{}: the logits_hash of {} is not that of the samples",
                                            printable(task.name), results_file));
    }
    if (task.counts != stored.counts) {
      out.differences.push_back(
          fmt::format("{}: the counts of {} are not those of the samples ({} documents there, {} "
                      "here; {} tokens scored there, {} here)",
                      printable(task.name), results_file, stored.counts.documents, task.counts.documents,
                      stored.counts.tokens_scored, task.counts.tokens_scored));
    }
  }
  for (GroupResults& group : out.derived.groups) {
    const GroupResults stored = group;
    std::vector<std::string> aggregated;
    for (const MetricValue& metric : stored.metrics) {
      if (!metric.name.ends_with("_unweighted")) aggregated.push_back(metric.name);
    }
    group = make_group_results(out.derived, stored.name, stored.members, aggregated);
    compare_metrics(stored.name, stored.metrics, group.metrics, out.differences);
  }
  return out;
}

}  // namespace qeval::eval
