// MATH (Hendrycks et al. 2021) in the harness's three forms. Answers are compared as normalised texts; where
// the harness asks sympy whether two formulas are equal, ours are not.

#include <array>

#include "base/error.h"
#include "base/unicode.h"
#include "datasets/sample.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/math_answers.h"

namespace qeval::eval {
namespace {

using datasets::Row;

struct MathSubject {
  const char *name, *folder, *leaderboard;
};
constexpr std::array<MathSubject, 7> kMathSubjects = {
    {{"algebra", "algebra", "algebra"},
     {"counting_and_prob", "counting_and_probability", "counting_and_prob"},
     {"geometry", "geometry", "geometry"},
     {"intermediate_algebra", "intermediate_algebra", "intermediate_algebra"},
     {"num_theory", "number_theory", "num_theory"},
     {"prealgebra", "prealgebra", "prealgebra"},
     {"precalc", "precalculus", "precalculus"}}};

std::string boxed(const Row& row) {
  std::optional<std::string> answer = boxed_answer(row.text("solution"));
  if (!answer) row.fail_at("solution", "its answer stands in no \\boxed{}");
  return *std::move(answer);
}

/// Between the first dollar sign and the last, or all of it.
std::string between_dollars(const std::string& text) {
  const size_t first = text.find('$'), last = text.rfind('$');
  return first == last ? text : text.substr(first + 1, last - first - 1);
}

Question ask_hendrycks(const Row& row) {
  const std::string answer = boxed(row);
  Question question{.contexts = {"Problem: " + row.text("problem") + "\nAnswer:"}, .target = answer};
  question.references = {answer};
  question.example = answer;
  question.judge = [answer, form = hendrycks_form(answer)](const std::string& text) -> std::vector<double> {
    const std::string given = between_dollars(text);
    const std::optional<std::string> given_form = hendrycks_form(given);
    const bool same = form && given_form ? *form == *given_form : answer == given;
    return {same ? 1.0 : 0.0};
  };
  return question;
}

/// An example is its solution, whose answer is not taken out.
Question ask_minerva(const Row& row, bool leaderboard) {
  const bool example = row.has("few_shot");
  const std::string answer = example       ? ""
                             : leaderboard ? boxed_answer(row.text("solution")).value_or("[invalidanswer]")
                                           : minerva_form(boxed(row), false);
  Question question{.contexts = {"Problem:\n" + row.text("problem") + "\n\nSolution:"}, .target = answer};
  question.references = {answer};
  question.example = example ? row.text("solution") : answer;
  question.judge = [answer, leaderboard](const std::string& text) -> std::vector<double> {
    const std::string given = minerva_form(minerva_answer(text), leaderboard);
    if (!leaderboard) return {!given.empty() && given == answer ? 1.0 : 0.0};
    const std::string wanted = minerva_form(answer, true);
    return {given != "[invalidanswer]" && strip(given) == strip(wanted) ? 1.0 : 0.0};
  };
  return question;
}

Task minerva(const MathSubject& subject, bool leaderboard) {
  Task task{.name = leaderboard ? fmt::format("leaderboard_math_{}_hard", subject.leaderboard)
                                : fmt::format("minerva_math_{}", subject.name),
            .description = leaderboard
                               ? "MATH, the hardest problems, as the second Open LLM Leaderboard asks them"
                               : "MATH behind four worked examples",
            .folder = fmt::format("hendrycks_math/{}", subject.folder),
            .split = "test",
            .version = 3,
            .scoring = Scoring::generation,
            .ask = [leaderboard](const Row& row) { return ask_minerva(row, leaderboard); },
            .num_fewshot = 4,
            .fewshot_first = true,
            .fewshot_rows = datasets::shipped_definition(leaderboard ? "leaderboard_math" : "minerva_math")};
  nlohmann::ordered_json arguments{{"until", {"Problem:"}}, {"do_sample", false}, {"temperature", 0}};
  if (leaderboard) arguments["max_gen_toks"] = 1024;
  task.generation = generating({{"none", {}}}, {leaderboard ? "exact_match_original" : "exact_match"},
                               std::move(arguments), "normalised texts of formulas, equal as texts");
  if (leaderboard) task.keep = [](const Row& row) { return row.text("level") == "Level 5"; };
  return task;
}

Task hendrycks(const MathSubject& subject) {
  return {.name = fmt::format("hendrycks_math_{}", subject.name),
          .description = "MATH, asked without an example",
          .folder = fmt::format("hendrycks_math/{}", subject.folder),
          .split = "test",
          .scoring = Scoring::generation,
          .ask = ask_hendrycks,
          .fewshot_draw = Task::Draw::harness,
          .generation = generating({{"none", {}}}, {"exact_match"},
                                   {{"until", {"Problem:"}}, {"do_sample", false}, {"temperature", 0}},
                                   "normalised texts of formulas")};
}

}  // namespace

std::vector<Task> math_tasks() {
  std::vector<Task> out;
  for (const MathSubject& subject : kMathSubjects) out.push_back(hendrycks(subject));
  for (const MathSubject& subject : kMathSubjects) out.push_back(minerva(subject, false));
  for (const MathSubject& subject : kMathSubjects) out.push_back(minerva(subject, true));
  return out;
}

std::vector<Group> math_groups() {
  Group plain{.name = "hendrycks_math", .description = "MATH: seven subjects", .metrics = {"exact_match"}};
  Group worked{.name = "minerva_math",
               .description = "MATH: seven subjects, behind worked examples",
               .metrics = {"exact_match"}};
  Group hard{.name = "leaderboard_math_hard",
             .description = "MATH: the hardest problems of seven subjects",
             .metrics = {"exact_match_original"}};
  for (const MathSubject& subject : kMathSubjects) {
    plain.tasks.push_back(hendrycks(subject).name);
    worked.tasks.push_back(fmt::format("minerva_math_{}", subject.name));
    hard.tasks.push_back(fmt::format("leaderboard_math_{}_hard", subject.leaderboard));
  }
  return {plain, worked, hard};
}

}  // namespace qeval::eval
