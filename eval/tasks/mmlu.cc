#include "eval/tasks/mmlu.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/generating.h"

namespace qeval::eval {
namespace {

struct Subject {
  std::string_view name;
  std::string_view area;
};

// Hendrycks et al., "Measuring Massive Multitask Language Understanding" (2021).
constexpr std::array<Subject, 57> kSubjects = {{
    {"abstract_algebra", "stem"},
    {"anatomy", "stem"},
    {"astronomy", "stem"},
    {"business_ethics", "other"},
    {"clinical_knowledge", "other"},
    {"college_biology", "stem"},
    {"college_chemistry", "stem"},
    {"college_computer_science", "stem"},
    {"college_mathematics", "stem"},
    {"college_medicine", "other"},
    {"college_physics", "stem"},
    {"computer_security", "stem"},
    {"conceptual_physics", "stem"},
    {"econometrics", "social_sciences"},
    {"electrical_engineering", "stem"},
    {"elementary_mathematics", "stem"},
    {"formal_logic", "humanities"},
    {"global_facts", "other"},
    {"high_school_biology", "stem"},
    {"high_school_chemistry", "stem"},
    {"high_school_computer_science", "stem"},
    {"high_school_european_history", "humanities"},
    {"high_school_geography", "social_sciences"},
    {"high_school_government_and_politics", "social_sciences"},
    {"high_school_macroeconomics", "social_sciences"},
    {"high_school_mathematics", "stem"},
    {"high_school_microeconomics", "social_sciences"},
    {"high_school_physics", "stem"},
    {"high_school_psychology", "social_sciences"},
    {"high_school_statistics", "stem"},
    {"high_school_us_history", "humanities"},
    {"high_school_world_history", "humanities"},
    {"human_aging", "other"},
    {"human_sexuality", "social_sciences"},
    {"international_law", "humanities"},
    {"jurisprudence", "humanities"},
    {"logical_fallacies", "humanities"},
    {"machine_learning", "stem"},
    {"management", "other"},
    {"marketing", "other"},
    {"medical_genetics", "other"},
    {"miscellaneous", "other"},
    {"moral_disputes", "humanities"},
    {"moral_scenarios", "humanities"},
    {"nutrition", "other"},
    {"philosophy", "humanities"},
    {"prehistory", "humanities"},
    {"professional_accounting", "other"},
    {"professional_law", "humanities"},
    {"professional_medicine", "other"},
    {"professional_psychology", "social_sciences"},
    {"public_relations", "social_sciences"},
    {"security_studies", "social_sciences"},
    {"sociology", "social_sciences"},
    {"us_foreign_policy", "social_sciences"},
    {"virology", "other"},
    {"world_religions", "humanities"},
}};

constexpr size_t kChoices = 4;

std::vector<std::string> four_choices(const datasets::Row& row) {
  std::vector<std::string> choices = row.texts("choices");
  if (choices.size() != kChoices)
    row.fail_at("choices", fmt::format("{} choices where 4 are expected", choices.size()));
  return choices;
}

int64_t gold_of(const datasets::Row& row) {
  return row.index("answer", kChoices);
}

/// lm-evaluation-harness 0.4: the letters are scored.
Question ask_letters(const datasets::Row& row) {
  const std::string head = std::string(strip(row.text("question"))) + "\n";
  return choose(lettered_prompt(head, four_choices(row)), letters(kChoices), gold_of(row));
}

/// lm-evaluation-harness 0.3: the answer texts are scored, and there is no opening sentence.
Question ask_texts(const datasets::Row& row) {
  std::vector<std::string> choices = four_choices(row);
  std::string prompt = lettered_prompt("Question: " + row.text("question") + "\nChoices:\n", choices);
  return choose(std::move(prompt), std::move(choices), gold_of(row));
}

Task subject_task(std::string_view subject, Protocol protocol) {
  const std::string name(subject);
  std::string words = name;
  std::replace(words.begin(), words.end(), '_', ' ');
  const std::string folder = "mmlu/" + name;
  Task task{.name = "mmlu_" + name,
            .description = "MMLU, " + words + ": four lettered choices",
            .folder = folder,
            .split = "test",
            .metrics = {"acc"},
            .ask = ask_letters,
            .preamble = "The following are multiple choice questions (with answers) about " + words + ".\n\n",
            .fewshot_split = "dev",
            .fewshot_first = true,
            .files = {folder + "/{split}.jsonl", folder + "/" + name + "_{split}.csv",
                      "mmlu/" + name + "_{split}.csv", "mmlu/{split}/" + name + "_{split}.csv"},
            .dev_is_other = true};
  if (protocol == Protocol::lm_eval_0_3) {
    task.description = "MMLU, " + words + ": four choices scored by their texts";
    task.metrics = {"acc", "acc_norm", "acc_bytes"};
    task.ask = ask_texts;
    task.preamble.clear();
  }
  return task;
}

/// The letter is written by the model.
Question ask_written(const datasets::Row& row) {
  Question question = ask_letters(row);
  question.target = letters(kChoices)[static_cast<size_t>(question.gold.front())];
  question.references = {question.target};
  question.example = question.target;
  question.judge = exact_match({.ignore_case = true, .ignore_punctuation = true}, question.references);
  question.choices.clear();
  question.gold.clear();
  return question;
}

/// The answers' texts follow the question.
Question ask_continued(const datasets::Row& row) {
  return choose("Question: " + std::string(strip(row.text("question"))) + "\nAnswer:", four_choices(row),
                gold_of(row));
}

Task generative(Task task) {
  task.name += "_generative";
  task.description += ", of which the model writes one";
  task.version = 3;
  task.scoring = Scoring::generation;
  task.ask = ask_written;
  task.generation =
      generating({{"get_response", {regex_step("^(.*?)(?=\\n|$)"), strip_step(), regex_step("^(.*?)\\s*$")}}},
                 {"exact_match"}, {{"until", {"</s>", "\n"}}}, "exact_match, case and punctuation ignored");
  task.metrics = task.generation->metric_names();
  return task;
}

Task continuation(Task task) {
  task.name += "_continuation";
  task.description += ", their texts scored";
  task.metrics = {"acc", "acc_norm"};
  task.ask = ask_continued;
  const std::string kinds = "multiple choice questions";
  task.preamble.replace(task.preamble.find(kinds), kinds.size(), "questions");
  task.variant = true;
  return task;
}

}  // namespace

std::vector<Task> mmlu_forms() {
  std::vector<Task> tasks;
  for (const auto form : {generative, continuation}) {
    for (const Subject& subject : kSubjects)
      tasks.push_back(form(subject_task(subject.name, Protocol::lm_eval_0_4)));
  }
  return tasks;
}

std::vector<Task> mmlu_tasks(Protocol protocol) {
  std::vector<Task> tasks;
  tasks.reserve(kSubjects.size());
  for (const Subject& subject : kSubjects) tasks.push_back(subject_task(subject.name, protocol));
  return tasks;
}

std::vector<std::string_view> mmlu_areas() {
  return {"stem", "humanities", "social_sciences", "other"};
}

std::vector<std::string_view> mmlu_subjects(std::string_view area) {
  std::vector<std::string_view> out;
  for (const Subject& subject : kSubjects) {
    if (subject.area == area) out.push_back(subject.name);
  }
  return out;
}

}  // namespace qeval::eval
