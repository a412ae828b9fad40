#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "base/unicode.h"
#include "eval/results/metrics.h"
#include "eval/results/sample_file.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

constexpr size_t most_lost = 8, most_gained = 4, most_runaways = 4;  // of each row and column
constexpr size_t most_bytes = 2000;                                  // of a question; its end is kept

/// The last bytes of a text, from the start of a character on.
std::string end_of(const std::string& text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t begin = text.size() - bytes;
  while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80) ++begin;
  return "…" + text.substr(begin);
}

std::string cut(const std::string& text, size_t bytes) {
  if (text.size() <= bytes) return text;
  size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
  return text.substr(0, end) + "…";
}

void add_choices(const eval::Sample& base, const eval::Sample& other, std::string_view metric,
                 Example& example) {
  const auto& requests = base.requests;
  const bool one_context = std::ranges::all_of(
      requests, [&](const auto& request) { return request.context == requests[0].context; });
  example.question = end_of(one_context && !requests.empty() ? requests[0].context : "", most_bytes);
  const bool only = base.scores.scoring == eval::Scoring::last_word;  // one answer, taken where it is greedy
  const auto taken = [&](const eval::Scores& scores) {
    if (only) return scores.answers.at(0).is_greedy ? int64_t{0} : int64_t{-1};
    return eval::chosen(scores, metric);
  };
  const int64_t by_base = taken(base.scores), by_other = taken(other.scores);
  const std::vector<int64_t>& gold = base.scores.facts.gold;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    Choice choice;
    choice.text = one_context ? cut(requests[i].continuation, most_bytes)
                              : end_of(requests[i].context + requests[i].continuation, most_bytes);
    choice.base = base.scores.answers[i].log_likelihood;
    choice.other = other.scores.answers[i].log_likelihood;
    choice.gold = only || std::ranges::find(gold, index) != gold.end();
    choice.chosen_by_base = index == by_base;
    choice.chosen_by_other = index == by_other;
    example.choices.push_back(std::move(choice));
  }
}

void add_texts(const eval::Sample& base, const eval::Sample& other, std::string_view metric,
               Example& example) {
  example.question = end_of(base.requests.at(0).context, most_bytes);
  // "exact_match,strict-match" is of what the filter strict-match took out.
  const size_t comma = metric.find(',');
  const std::string_view filter = comma == std::string_view::npos ? "" : metric.substr(comma + 1);
  const auto answer = [&](const eval::Sample& sample) {
    const auto& filtered = sample.generated.filtered;
    const auto found = std::ranges::find(filtered, filter, &std::pair<std::string, std::string>::first);
    return cut(found == filtered.end() ? filtered.front().second : found->second, most_bytes);
  };
  const std::string &before = base.generated.responses.at(0), &after = other.generated.responses.at(0);
  example.written = Example::Written{
      .target =
          cut(base.target.is_string() ? base.target.get<std::string>() : base.target.dump(), most_bytes),
      .base = before,
      .other = after,
      .base_answer = answer(base),
      .other_answer = answer(other),
      .common = eval::common_prefix(before, after)};
}

using Samples = std::map<int64_t, eval::Sample>;

Samples read_wanted(const std::filesystem::path& folder, const std::string& task,
                    const std::set<int64_t>& wanted) {
  Samples out;
  eval::for_each_sample(folder / eval::samples_file(task), eval::Tail::refuse, [&](eval::SampleLine&& line) {
    const int64_t id = line.sample.scores.doc_id;
    if (wanted.contains(id)) out.emplace(id, std::move(line.sample));
  });
  return out;
}

/// Documents whose text ended, and without a loop, in the baseline alone, in ascending order; of those that
/// flipped there are examples already.
std::vector<int64_t> runaways(const eval::TaskDifference& task, const std::set<int64_t>& flipped) {
  std::set<int64_t> out;
  if (!task.texts) return {};
  for (const eval::MetricComparison& habit : task.texts->habits) {
    if (habit.right_or_wrong) out.insert(habit.lost.begin(), habit.lost.end());
  }
  std::vector<int64_t> rest;
  std::ranges::set_difference(out, flipped, std::back_inserter(rest));
  return rest;
}

/// The documents to show, without their text.
std::vector<Example> choose(const eval::Comparison& comparison, const Report& report) {
  std::vector<Example> out;
  for (size_t row = 1; row < report.rows.size(); ++row) {
    const eval::RunDifference& run = comparison.differences[row - 1];
    for (size_t c = 0; c < report.columns.size(); ++c) {
      size_t lost = 0, gained = 0, away = 0;
      for (const std::string& task : eval::tasks_of(comparison.base.results, report.columns[c].task)) {
        const eval::TaskDifference* difference = run.find_task(task);
        if (difference == nullptr) continue;
        std::set<int64_t> flipped;
        for (const eval::MetricComparison& metric : difference->comparison.metrics) {
          if (metric.metric != eval::document_metric(report.columns[c].metric)) continue;
          flipped.insert(metric.lost.begin(), metric.lost.end());
          flipped.insert(metric.gained.begin(), metric.gained.end());
          for (const int64_t id : metric.lost) {
            if (lost++ < most_lost) out.push_back({.row = row, .column = c, .task = task, .doc_id = id});
          }
          for (const int64_t id : metric.gained) {
            if (gained++ < most_gained)
              out.push_back({.row = row, .column = c, .task = task, .doc_id = id, .gained = true});
          }
        }
        for (const int64_t id : runaways(*difference, flipped)) {
          if (away++ < most_runaways)
            out.push_back({.row = row, .column = c, .task = task, .doc_id = id, .runaway = true});
        }
      }
    }
  }
  return out;
}

}  // namespace

void add_examples(std::span<const Source> sources, const eval::Comparison& comparison, Report& report) {
  report.examples = choose(comparison, report);
  std::map<std::string, std::set<int64_t>> wanted;
  for (const Example& example : report.examples) wanted[example.task].insert(example.doc_id);
  for (const auto& entry : wanted) {
    const std::string& task = entry.first;
    const std::set<int64_t>& ids = entry.second;
    const Samples base = read_wanted(sources[0].folder, task, ids);
    for (size_t row = 1; row < sources.size(); ++row) {
      const bool here = std::ranges::any_of(report.examples, [&](const Example& example) {
        return example.row == row && example.task == task;
      });
      if (!here) continue;
      const Samples other = read_wanted(sources[row].folder, task, ids);
      for (Example& example : report.examples) {
        if (example.row != row || example.task != task) continue;
        const eval::Sample &before = base.at(example.doc_id), &after = other.at(example.doc_id);
        const std::string_view metric = eval::document_metric(report.columns[example.column].metric);
        if (before.scores.scoring == eval::Scoring::generation) {
          add_texts(before, after, metric, example);
        } else {
          add_choices(before, after, metric, example);
        }
      }
    }
  }
}

}  // namespace qeval::reports
