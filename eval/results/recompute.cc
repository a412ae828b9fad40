#include "eval/results/recompute.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "base/strict_json.h"
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
  const ordered_json stored = parse_ordered_json(line.text, line.where);
  const ordered_json expected = parse_ordered_json(to_line(line.sample), line.where);
  for (const auto& [key, value] : expected.items()) {
    if (!stored.contains(key)) return fmt::format("field \"{}\" is missing", printable(key));
    if (key != "checksum" && stored[key] != value) {
      return fmt::format("field \"{}\" is {}, the rest of the line gives {}", printable(key),
                         printable(stored[key].dump(), 60), printable(value.dump(), 60));
    }
  }
  return "holds a field that is not ours, or ours in another order";
}

}  // namespace

CheckedSamples check_samples(const std::filesystem::path& directory, const TaskResults& stored,
                             const char* recorded_in) {
  const std::filesystem::path path = directory / samples_file(stored.name);
  CheckedSamples out;
  Sha256 hash;
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) {
    hash.update(line.text).update("\n");
    if (out.differences.size() < most_differences && to_line(line.sample) != line.text) {
      out.differences.push_back(fmt::format("{}: {}", line.where, odd_field(line)));
    }
    if (!out.documents.empty() && line.sample.scores.doc_id <= out.documents.back().doc_id) {
      fail("{}: document {} follows document {}: ascending order expected", line.where,
           line.sample.scores.doc_id, out.documents.back().doc_id);
    }
    out.documents.push_back(std::move(line.sample.scores));
  });
  const std::string digits = hash.hex();
  if (digits != stored.samples_hash) {
    out.differences.push_back(fmt::format("{}: its SHA-256 is {}, {} says {}", path.string(),
                                          digits.substr(0, 12) + "…", recorded_in,
                                          printable(stored.samples_hash.substr(0, 12)) + "…"));
  }
  return out;
}

std::vector<std::string> count_differences(const TaskResults& stored, std::span<const Scores> documents,
                                           const char* recorded_in) {
  const TaskCounts counts = count(documents);
  if (counts == stored.counts) return {};
  return {
      fmt::format("{}: the counts of {} are not those of the samples ({} documents there, {} "
                  "here; {} tokens scored there, {} here)",
                  printable(stored.name), recorded_in, stored.counts.documents, counts.documents,
                  stored.counts.tokens_scored, counts.tokens_scored)};
}

CheckedMetrics check_metrics(const TaskResults& stored, std::span<const Scores> documents,
                             const BootstrapOptions& bootstrap) {
  CheckedMetrics out{stored, {}};
  out.derived.metrics = compute_metrics(documents, bootstrap);
  out.derived.counts = count(documents);
  out.derived.logits_hash = logits_hash(documents);
  compare_metrics(stored.name, stored.metrics, out.derived.metrics, out.differences);
  if (out.derived.logits_hash != stored.logits_hash) {
    out.differences.push_back(fmt::format("{}: the logits_hash of {} is not that of the samples",
                                          printable(stored.name), results_file));
  }
  for (std::string& difference : count_differences(stored, documents))
    out.differences.push_back(std::move(difference));
  return out;
}

std::vector<std::string> rederive_groups(RunResults& run) {
  std::vector<std::string> differences;
  for (GroupResults& group : run.groups) {
    const GroupResults stored = group;
    group = make_group_results(run, stored.name, stored.members, aggregated_metrics(stored), stored.weighted);
    compare_metrics(stored.name, stored.metrics, group.metrics, differences);
    if (group.documents != stored.documents) {
      differences.push_back(fmt::format("{}: {} holds {} documents, its tasks have {}",
                                        printable(stored.name), results_file, stored.documents,
                                        group.documents));
    }
  }
  return differences;
}

Recomputed recompute(const std::filesystem::path& directory) {
  Recomputed out;
  out.stored = read_results(directory);
  out.derived = out.stored;
  const auto add = [&](std::vector<std::string> differences) {
    std::ranges::move(differences, std::back_inserter(out.differences));
  };
  for (TaskResults& task : out.derived.tasks) {
    const TaskResults stored = task;
    CheckedSamples samples = check_samples(directory, stored);
    out.documents += std::ssize(samples.documents);
    CheckedMetrics metrics = check_metrics(stored, samples.documents, out.stored.bootstrap);
    task = std::move(metrics.derived);
    add(std::move(samples.differences));
    add(std::move(metrics.differences));
  }
  add(rederive_groups(out.derived));
  return out;
}

}  // namespace qeval::eval
