#include "eval/results/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/setting.h"
#include "eval/results/headline.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

template <typename Items, typename Name>
auto find_named(Items& items, std::string_view name, Name name_of) {
  const auto found =
      std::ranges::find_if(items, [&](const auto& item) { return std::string_view(name_of(item)) == name; });
  return found == items.end() ? nullptr : &*found;
}

/// Groups with metrics, and the tasks below each.
std::map<std::string, std::vector<std::string>> group_tasks(const RunResults& run) {
  std::map<std::string, std::vector<std::string>> out;
  for (const GroupResults& group : run.groups) {
    if (group.metrics.empty()) continue;
    std::vector<std::string>& tasks = out[group.name] = tasks_of(run, group.name);
    std::erase_if(tasks, [&](const std::string& task) { return run.find_task(task) == nullptr; });
  }
  return out;
}

DivergenceSummary read_summary(const ComparedRun& base, const ComparedRun& run, const std::string& task,
                               std::span<const Scores> scores) {
  const std::filesystem::path path = run.directory / divergence_file(task);
  const TaskDivergence divergence = read_divergence(path, task);
  const ModelInfo& model = base.results.model;
  const DivergenceBase expected{model.weight_hash, model.arithmetic, model.quantization_hash,
                                base.results.find_task(task)->samples_hash};
  if (divergence.base != expected) {
    fail("{}: was measured from another base than {}: evaluate again with {} {}", path.string(),
         printable(base.name), setting("base"), base.directory.string());
  }
  const bool same = std::ranges::equal(
      divergence.documents, scores, [](const DocumentDivergence& document, const Scores& score) {
        return document.doc_id == score.doc_id && document.token_hash == score.token_hash;
      });
  if (!same)
    fail("{}: is of other documents than {}", path.string(), (run.directory / samples_file(task)).string());
  return summarize(divergence.documents);
}

class Comparer {
 public:
  Comparer(const ComparedRun& base, const ComparedRun& run, const BootstrapOptions& options)
      : base_(base), run_(run), options_(options) {}

  RunDifference compare() {
    RunDifference out;
    const auto groups = group_tasks(base_.results), other_groups = group_tasks(run_.results);
    std::map<std::string, std::vector<Scores>> base_scores, run_scores;
    for (const TaskResults& task : base_.results.tasks) {
      if (run_.results.find_task(task.name) == nullptr) continue;
      const std::string file = samples_file(task.name);
      std::vector<Scores> base = read_scores(base_.directory / file, task.samples_hash);
      std::vector<Scores> run =
          read_scores(run_.directory / file, run_.results.find_task(task.name)->samples_hash);
      TaskDifference difference{compare_documents(task.name, base, run, options_), {}};
      if (std::error_code code; std::filesystem::exists(run_.directory / divergence_file(task.name), code))
        difference.divergence = read_summary(base_, run_, task.name, run);
      if (!base.empty() && base.front().scoring == Scoring::generation) {
        difference.texts =
            compare_texts(read_texts(base_.directory / file), read_texts(run_.directory / file), options_);
      }
      out.tasks.push_back(std::move(difference));
      base_scores[task.name] = std::move(base);
      run_scores[task.name] = std::move(run);
    }
    if (out.tasks.empty()) {
      fail("{} and {} share no task: nothing can be compared", base_.directory.string(),
           run_.directory.string());
    }
    for (const GroupResults& group : base_.results.groups) {
      const auto mine = groups.find(group.name), theirs = other_groups.find(group.name);
      if (mine == groups.end() || theirs == other_groups.end() || mine->second != theirs->second) continue;
      std::vector<std::vector<Scores>> base, run;
      for (const std::string& task : mine->second) {
        base.push_back(base_scores.at(task));
        run.push_back(run_scores.at(task));
      }
      out.groups.push_back(compare_group(group, base, run, options_));
    }
    return out;
  }

 private:
  const ComparedRun& base_;
  const ComparedRun& run_;
  const BootstrapOptions& options_;
};

const MetricComparison* find_compared_metric(const TaskComparison& comparison, std::string_view metric) {
  return find_named(comparison.metrics, metric, [](const MetricComparison& item) { return item.metric; });
}

/// The family: outer groups in place of the tasks below them, then the tasks that belong to none.
std::vector<HeadlineTest> headline_tests(const Comparison& comparison) {
  std::vector<HeadlineTest> tests;
  const RunResults& base = comparison.base.results;
  const auto groups = group_tasks(base);
  const std::vector<const GroupResults*> outer = outer_groups(base);
  for (size_t run = 0; run < comparison.runs.size(); ++run) {
    const RunDifference& difference = comparison.differences[run];
    const auto add = [&](const TaskComparison& compared, const std::string& metric) {
      if (const MetricComparison* found = find_compared_metric(compared, metric))
        tests.push_back({run, compared.task, metric, found->difference.p_value, 1});
    };
    std::set<std::string> covered;
    for (const TaskComparison& group : difference.groups) {
      const std::vector<std::string>& tasks = groups.at(group.task);
      covered.insert(tasks.begin(), tasks.end());
      const auto found = std::ranges::find(outer, group.task, &GroupResults::name);
      if (found != outer.end()) add(group, headline_metric(**found));
    }
    for (const TaskDifference& task : difference.tasks) {
      const std::string& name = task.comparison.task;
      if (!covered.contains(name)) add(task.comparison, headline_metric(*base.find_task(name)));
    }
  }
  std::vector<double> p_values;
  p_values.reserve(tests.size());
  for (const HeadlineTest& test : tests) p_values.push_back(test.p_value);
  const std::vector<double> adjusted = holm(p_values);
  for (size_t i = 0; i < tests.size(); ++i) tests[i].adjusted_p = adjusted[i];
  return tests;
}

}  // namespace

const TaskDifference* RunDifference::find_task(std::string_view task) const {
  return find_named(tasks, task, [](const TaskDifference& item) { return item.comparison.task; });
}
const TaskComparison* RunDifference::find_group(std::string_view group) const {
  return find_named(groups, group, [](const TaskComparison& item) { return item.task; });
}
const HeadlineTest* Comparison::find_test(size_t run, std::string_view name) const {
  const auto found = std::ranges::find_if(
      tests, [&](const HeadlineTest& test) { return test.run == run && test.name == name; });
  return found == tests.end() ? nullptr : &*found;
}

void ComparisonBuilder::add(ComparedRun run) {
  comparison_.differences.push_back(Comparer(comparison_.base, run, options_).compare());
  comparison_.runs.push_back(std::move(run));
}

Comparison ComparisonBuilder::finish() && {
  comparison_.tests = headline_tests(comparison_);
  return std::move(comparison_);
}

size_t nearest_run(const Comparison& comparison, size_t first) {
  const auto runs = std::span(comparison.differences).subspan(first);
  const auto kl = [](const RunDifference& difference) {
    double sum = 0;
    int64_t positions = 0;
    for (const TaskDifference& task : difference.tasks) {
      if (!task.divergence) continue;
      sum += task.divergence->mean_kl * static_cast<double>(task.divergence->positions);
      positions += task.divergence->positions;
    }
    return positions == 0 || std::isnan(sum) ? INFINITY : sum / static_cast<double>(positions);
  };
  const auto disagreement = [](const RunDifference& difference) {
    double sum = 0, documents = 0;
    for (const TaskDifference& task : difference.tasks) {
      if (!task.texts) continue;
      sum += (1 - task.texts->agreement) * static_cast<double>(task.texts->documents);
      documents += static_cast<double>(task.texts->documents);
    }
    return documents == 0 ? INFINITY : sum / documents;
  };
  const bool diverged = std::ranges::any_of(runs, [](const RunDifference& difference) {
    return std::ranges::any_of(difference.tasks,
                               [](const auto& task) { return task.divergence.has_value(); });
  });
  const auto nearest =
      diverged ? std::ranges::min_element(runs, {}, kl) : std::ranges::min_element(runs, {}, disagreement);
  return static_cast<size_t>(&*nearest - comparison.differences.data());
}

Comparison compare_runs(const ComparedRun& base, std::vector<ComparedRun> runs,
                        const BootstrapOptions& options) {
  ComparisonBuilder builder(base, options);
  for (ComparedRun& run : runs) builder.add(std::move(run));
  return std::move(builder).finish();
}

}  // namespace qeval::eval
