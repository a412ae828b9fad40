// The second Open LLM Leaderboard's tasks that score choices: GPQA, MuSR, MMLU-Pro (BIG-Bench Hard is in
// bbh.cc).

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/python_list.h"
#include "eval/tasks/python_pattern.h"
#include "eval/tasks/python_random.h"

namespace qeval::eval {
namespace {

using datasets::Row;

Question ask_leaderboard_mmlu_pro(const Row& row) {
  std::string prompt = row.text("question") + "\n";
  const std::vector<std::string> options = row.texts("options");
  if (options.size() > 26) row.fail_at("options", "26 choices at most, which have letters");
  for (size_t i = 0; i < options.size(); ++i)
    prompt += fmt::format("{}. {}\n", static_cast<char>('A' + i), options[i]);
  const std::string& answer = row.text("answer");
  std::vector<std::string> names = letters(options.size());
  const auto found = std::ranges::find(names, answer);
  if (found == names.end())
    row.fail_at("answer", fmt::format("\"{}\" is none of the letters {}", printable(answer, 20),
                                      fmt::join(names, ", ")));
  const int64_t gold = found - names.begin();
  Question question = choose(prompt + "Answer:", std::move(names), gold);
  question.target = answer;
  return question;
}

Question ask_musr(const Row& row) {
  const std::optional<std::vector<std::string>> choices = python_list(row.text("choices"));
  if (!choices || choices->empty()) row.fail_at("choices", "a list of texts as Python writes it is expected");
  std::string listed;
  for (size_t i = 0; i < choices->size(); ++i) listed += fmt::format("{} - {}\n", i + 1, (*choices)[i]);
  const std::string& answer = row.text("answer_choice");
  const auto found = std::ranges::find(*choices, answer);
  if (found == choices->end()) row.fail_at("answer_choice", "is none of the choices");
  Question question =
      choose(row.text("narrative") + "\n\n" + row.text("question") + "\n\n" + listed + "\nAnswer:", *choices,
             found - choices->begin());
  question.target = answer;
  return question;
}

/// The orders in which random.shuffle puts the four choices of one row after another, begun with seed 0, as
/// the harness does when it reads a set for the first time: a row's order follows from where it stands in its
/// file, whichever rows are asked and in whatever order.
class Shuffles {
 public:
  using Order = std::array<size_t, 4>;
  /// All rows of a file, in their order.
  void read(std::span<const Row> rows) {
    const std::scoped_lock lock(mutex_);
    PythonRandom random(0);
    for (const Row& row : rows) {
      Order order{0, 1, 2, 3};
      for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
      orders_[{row.file(), row.line()}] = order;
    }
  }
  /// Of a row that was read.
  Order of(const Row& row) {
    const std::scoped_lock lock(mutex_);
    const auto found = orders_.find({row.file(), row.line()});
    if (found == orders_.end())
      fail("{}:{}: is not among the rows that were read", printable(row.file(), 4096), row.line());
    return found->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, int64_t>, Order> orders_;  ///< by file and line
};

std::string cleaned(const Row& row, const char* field) {
  const datasets::Json* value = row.find(field);
  if (value == nullptr || value->is_null()) return " ";
  static const PythonPattern brackets("\\[.*?\\]");
  std::string text(strip(row.text(field)));
  for (const auto& [from, to] : {std::pair(" [title]", ". "), {"", ""}, {"  ", " "}}) {
    const std::string_view sought = from, put = to;
    if (sought.empty()) text = brackets.remove_all(text);
    for (size_t at = 0; !sought.empty() && (at = text.find(sought, at)) != std::string::npos;
         at += put.size())
      text.replace(at, sought.size(), put);
  }
  return text;
}

Question ask_gpqa(const Row& row, Shuffles& shuffles) {
  const std::array<std::string, 4> texts = {
      cleaned(row, "Incorrect Answer 1"), cleaned(row, "Incorrect Answer 2"),
      cleaned(row, "Incorrect Answer 3"), cleaned(row, "Correct Answer")};
  const Shuffles::Order order = shuffles.of(row);
  std::string prompt = "What is the correct answer to this question:" + row.text("Question") + "\nChoices:\n";
  std::vector<std::string> names;
  int64_t gold = -1;
  for (size_t i = 0; i < order.size(); ++i) {
    names.push_back(fmt::format("({})", static_cast<char>('A' + i)));
    prompt += names.back() + " " + texts[order[i]] + "\n";
    if (gold < 0 && texts[order[i]] == texts[3]) gold = static_cast<int64_t>(i);
  }
  Question question = choose(prompt + "Answer: ", names, gold);
  question.target = names[static_cast<size_t>(gold)];
  return question;
}

constexpr std::array kGpqa = {"diamond", "extended", "main"};
constexpr std::array kMusr = {"murder_mysteries", "object_placements", "team_allocation"};

}  // namespace

std::vector<Task> leaderboard_tasks() {
  std::vector<Task> out;
  for (const char* set : kGpqa) {
    const auto shuffles = std::make_shared<Shuffles>();
    out.push_back({.name = fmt::format("leaderboard_gpqa_{}", set),
                   .description = "GPQA: questions that a search does not answer",
                   .folder = fmt::format("gpqa/gpqa_{}", set),
                   .split = "train",
                   .metrics = {"acc_norm"},
                   .ask = [shuffles](const Row& row) { return ask_gpqa(row, *shuffles); },
                   .see_all = [shuffles](std::span<const Row> rows) { shuffles->read(rows); }});
  }
  for (const char* set : kMusr) {
    out.push_back({.name = fmt::format("leaderboard_musr_{}", set),
                   .description = "MuSR: a long story, and a question about it",
                   .folder = "musr",
                   .split = set,
                   .metrics = {"acc_norm"},
                   .ask = ask_musr});
  }
  out.push_back({.name = "leaderboard_mmlu_pro",
                 .description = "MMLU-Pro: up to ten lettered choices",
                 .folder = "mmlu_pro",
                 .split = "test",
                 .metrics = {"acc"},
                 .ask = ask_leaderboard_mmlu_pro,
                 .num_fewshot = 5,
                 .fewshot_split = "validation",
                 .fewshot_first = true});
  return out;
}

std::vector<Group> leaderboard_groups() {
  Group gpqa{.name = "leaderboard_gpqa", .description = "GPQA: its three sets", .metrics = {"acc_norm"}};
  for (const char* set : kGpqa) gpqa.tasks.push_back(fmt::format("leaderboard_gpqa_{}", set));
  Group musr{
      .name = "leaderboard_musr", .description = "MuSR: its three kinds of stories", .metrics = {"acc_norm"}};
  for (const char* set : kMusr) musr.tasks.push_back(fmt::format("leaderboard_musr_{}", set));
  Group instructions{.name = "leaderboard_instruction_following",
                     .description = "IFEval, as the leaderboard asks it",
                     .tasks = {"leaderboard_ifeval"}};
  return {gpqa, musr, instructions};
}

}  // namespace qeval::eval
