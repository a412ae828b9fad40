#include "eval/tasks/fewshot.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/setting.h"

namespace qeval::eval {
namespace {

class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

  /// Uniform in [0, bound): values from the incomplete last stretch are drawn again.
  uint64_t below(uint64_t bound) {
    const uint64_t rejected = (0 - bound) % bound;
    uint64_t value = next();
    while (value < rejected) value = next();
    return value % bound;
  }

 private:
  uint64_t state_;
};

std::pair<Message, Message> worked_example(const Task& task, const datasets::Row& row) {
  const Question question = task.ask(row);
  if (task.scoring == Scoring::generation) {
    return {{"user", question.contexts.front(), question.join},
            {"assistant", question.example, task.fewshot_ending}};
  }
  const auto right = static_cast<size_t>(question.gold.front());
  const std::string& context = question.contexts[question.contexts.size() == 1 ? 0 : right];
  // The harness joins the last word of an example with the space that stands before it, too.
  const std::string& answer = task.scoring == Scoring::last_word ? question.target : question.choices[right];
  return {{"user", context, question.join}, {"assistant", answer, task.fewshot_ending}};
}

[[noreturn]] void fail_too_few(const std::string& file, size_t found, size_t count) {
  fail("{}: {} usable rows where {} {} takes {} examples, a drawn one never the scored document",
       printable(file, 4096), found, setting("num-fewshot"), count, count);
}

}  // namespace

std::vector<size_t> draw_order(size_t count, uint64_t seed) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  SplitMix64 random(seed);
  for (size_t i = 0; i + 1 < count; ++i) std::swap(order[i], order[i + random.below(count - i)]);
  return order;
}

FewShot::FewShot(const Task& task, const datasets::Table& table, int64_t count, uint64_t seed)
    : count_(static_cast<size_t>(count)),
      fixed_(task.fewshot_first),
      where_(table.files.empty() ? task.name : table.files.front().path) {
  if (!fixed_ && task.fewshot_draw != Task::Draw::ours) {
    beside_ = task.fewshot_draw == Task::Draw::harness_beside;
    if (table.rows.size() < count_ + (beside_ ? 1 : 0)) fail_too_few(where_, table.rows.size(), count_);
    harness_draw_.emplace(seed);
    rows_ = table.rows;
    task_ = task;
    return;
  }
  std::vector<size_t> order(table.rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (!fixed_) order = draw_order(table.rows.size(), seed);
  const size_t wanted =
      fixed_ ? count_ : count_ + 1;  // a drawn example may turn out to be the scored document
  for (const size_t position : order) {
    if (examples_.size() == wanted) break;
    const datasets::Row& row = table.rows[position];
    // Equal rows count once in a draw: then a scored document can be at most one of the examples.
    const bool known = !fixed_ && std::ranges::any_of(examples_, [&](const Example& example) {
      return example.row == row.fields();
    });
    if (known) continue;
    auto [question, answer] = worked_example(task, row);
    examples_.push_back({row.fields(), std::move(question), std::move(answer)});
  }
  if (examples_.size() < count_) fail_too_few(where_, examples_.size(), count_);
}

/// ContextSampler.sample() of lm-evaluation-harness.
std::vector<Message> FewShot::drawn_before(const datasets::Row& scored) {
  std::vector<size_t> drawn = harness_draw_->sample(rows_.size(), count_ + (beside_ ? 1 : 0));
  if (beside_) {
    const auto is_scored = [&](size_t position) { return rows_[position].fields() == scored.fields(); };
    std::erase_if(drawn, is_scored);
    if (drawn.size() < count_) {  // the document stands there more than once
      std::vector<size_t> others(rows_.size());
      std::iota(others.begin(), others.end(), size_t{0});
      std::erase_if(others, is_scored);
      if (others.size() < count_) fail_too_few(where_, others.size(), count_);
      drawn.clear();
      for (const size_t position : harness_draw_->sample(others.size(), count_))
        drawn.push_back(others[position]);
    }
    drawn.resize(count_);
  }
  std::vector<Message> out;
  for (const size_t position : drawn) {
    auto [question, answer] = worked_example(task_, rows_[position]);
    out.push_back(std::move(question));
    out.push_back(std::move(answer));
  }
  return out;
}

std::vector<Message> FewShot::before(const datasets::Row& scored) {
  if (harness_draw_) return drawn_before(scored);
  std::vector<Message> out;
  size_t used = 0;
  for (const Example& example : examples_) {
    if (used == count_) break;
    if (!fixed_ && example.row == scored.fields()) continue;
    out.push_back(example.question);
    out.push_back(example.answer);
    ++used;
  }
  if (used < count_) fail_too_few(where_, used, count_);
  return out;
}

}  // namespace qeval::eval
