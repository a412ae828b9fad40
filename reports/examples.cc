#include <algorithm>
#include <map>
#include <set>

#include "base/unicode.h"
#include "eval/results/metrics.h"
#include "eval/results/sample_file.h"
#include "reports/stages.h"

namespace qeval::reports {
namespace {

constexpr size_t most_lost = 8, most_gained = 4;  // of each row and column
constexpr size_t most_bytes = 2000;               // of a question; its end is kept

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

/// The flips to show, without their text.
std::vector<Example> choose(const eval::Comparison& comparison, const Report& report) {
  std::vector<Example> out;
  for (size_t row = 1; row < report.rows.size(); ++row) {
    const eval::RunDifference& run = comparison.differences[row - 1];
    for (size_t c = 0; c < report.columns.size(); ++c) {
      size_t lost = 0, gained = 0;
      for (const std::string& task : eval::tasks_of(comparison.base.results, report.columns[c].task)) {
        const eval::TaskDifference* difference = run.find_task(task);
        if (difference == nullptr) continue;
        for (const eval::MetricComparison& metric : difference->comparison.metrics) {
          if (metric.metric != eval::document_metric(report.columns[c].metric)) continue;
          for (const int64_t id : metric.lost) {
            if (lost++ < most_lost) out.push_back({.row = row, .column = c, .task = task, .doc_id = id});
          }
          for (const int64_t id : metric.gained) {
            if (gained++ < most_gained)
              out.push_back({.row = row, .column = c, .task = task, .doc_id = id, .gained = true});
          }
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
        add_choices(base.at(example.doc_id), other.at(example.doc_id),
                    eval::document_metric(report.columns[example.column].metric), example);
      }
    }
  }
}

}  // namespace qeval::reports
