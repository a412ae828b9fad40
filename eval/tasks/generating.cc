#include "eval/tasks/generating.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/unicode.h"
#include "eval/tasks/python_pattern.h"

namespace qeval::eval {
namespace {

using datasets::Json;
using datasets::Row;

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

/// As Python's str(list) shows texts.
std::string list_text(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& text : texts) {
    const bool quoted = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
    const char quote = quoted ? '"' : '\'';
    out += out.size() > 1 ? ", " : "";
    out += quote;
    for (const char c : text) {
      if (c == '\\' || c == quote) out += '\\';
      if (c == '\n') {
        out += "\\n";
      } else {
        out += c;
      }
    }
    out += quote;
  }
  return out + "]";
}

/// A question with several right answers, of which the first stands in examples.
Question open_question(std::string prompt, std::vector<std::string> answers, const ExactMatchRules& rules) {
  Question question{.contexts = {std::move(prompt)}, .target = list_text(answers)};
  question.judge = exact_match(rules, answers);
  question.example = answers.front();
  question.references = std::move(answers);
  return question;
}

Question ask_triviaqa(const Row& row) {
  return open_question("Question: " + row.text("question") + "?\nAnswer:", row.texts("answer.aliases"),
                       {.ignore_case = true, .ignore_punctuation = true});
}

Question ask_nq_open(const Row& row) {
  return open_question("Q: " + row.text("question") + "?\nA:", row.texts("answer"),
                       {.regexes_to_ignore = {R"(\b(?:The |the |An |A |The |a |an ))"},
                        .ignore_case = true,
                        .ignore_punctuation = true});
}

/// One of DROP's answers: a number, texts, or a date.
std::vector<std::string> drop_answer(const Row& row, const std::string& at, const std::string& index) {
  const auto field = [&](const char* name) { return fmt::format("{}.{}{}", at, name, index); };
  const Json& number = row.at(field("number"));
  if (!number.is_string() || !number.get_ref<const std::string&>().empty())
    return {number.is_string() ? number.get<std::string>() : number.dump()};
  const Json& spans = row.at(field("spans"));
  if (!spans.is_array()) row.fail_at(field("spans"), "a list of texts is expected");
  if (!spans.empty()) return row.texts(field("spans"));
  const std::string date = field("date");
  return {std::string(
      strip(row.text(date + ".day") + " " + row.text(date + ".month") + " " + row.text(date + ".year")))};
}

Question ask_drop(const Row& row) {
  std::vector<std::vector<std::string>> right = {drop_answer(row, "answer", "")};
  const Json& validated = row.at("validated_answers.number");
  for (size_t i = 0; i < validated.size(); ++i) {
    std::vector<std::string> answer = drop_answer(row, "validated_answers", fmt::format(".{}", i));
    if (std::ranges::find(right, answer) == right.end()) right.push_back(std::move(answer));
  }
  // The harness's definition joins the names of the answer's fields.
  std::string target;
  for (const auto& [name, unused] : row.at("answer").items()) target += (target.empty() ? "" : ",") + name;
  Question question{
      .contexts = {row.text("passage") + " " + row.text("question")}, .target = target, .join = ""};
  question.example = target;
  for (const auto& answer : right) question.references.push_back(list_text(answer));
  question.judge = [right](const std::string& answer) { return drop_metrics(answer, right); };
  return question;
}

/// Whether the text holds the value, letters of either case being alike.
Question ask_squad_completion(const Row& row) {
  Question question{.contexts = {std::string(strip(row.text("text")))},
                    .target = std::string(strip(row.text("value")))};
  question.example = question.target;
  question.references = {question.target};
  question.judge =
      [wanted = PythonPattern::of_text(question.target)](const std::string& answer) -> std::vector<double> {
    return {wanted.find_all(answer).empty() ? 0.0 : 1.0};
  };
  return question;
}

constexpr const char* kProSubjects[] = {
    "biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history",
    "law",     "math",     "other",     "philosophy",       "physics",   "psychology"};

Question ask_mmlu_pro(const Row& row) {
  std::string prompt = "Question:\n" + row.text("question") + "\nOptions:\n";
  const std::vector<std::string> options = row.texts("options");
  constexpr size_t kMost = 10;
  for (size_t i = 0; i < std::min(options.size(), kMost); ++i)
    prompt += fmt::format("{}. {}\n", static_cast<char>('A' + i), strip(options[i]));
  Question question{.contexts = {prompt + "Answer: Let's think step by step."}, .target = row.text("answer")};
  question.references = {question.target};
  question.judge = exact_match({.ignore_case = true, .ignore_punctuation = true}, question.references);
  if (row.has("cot_content"))
    question.example = replaced(row.text("cot_content"), "A: Let's think step by step. ", "");
  return question;
}

std::string pro_name(std::string subject) {
  std::ranges::replace(subject, ' ', '_');
  return "mmlu_pro_" + subject;
}

Task mmlu_pro(const std::string& subject) {
  return {
      .name = pro_name(subject),
      .description = "MMLU-Pro, " + subject + ": up to ten choices, thought through before a letter is named",
      .folder = "mmlu_pro",
      .split = "test",
      .version = 3,
      .scoring = Scoring::generation,
      .ask = ask_mmlu_pro,
      .preamble = "The following are multiple choice questions (with answers) about " + subject +
                  ". Think step by step and then finish your answer with \"the answer is (X)\" where X is "
                  "the correct letter choice.\n",
      .num_fewshot = 5,
      .fewshot_split = "validation",
      .fewshot_first = true,
      .generation = generating(
          {{"custom-extract", {regex_step(R"(answer is \(?([ABCDEFGHIJ])\)?)")}}}, {"exact_match"},
          {{"until", {"Question:"}}, {"max_gen_toks", 2048}, {"do_sample", false}, {"temperature", 0.0}},
          "exact_match, case and punctuation ignored"),
      .keep = [subject](const Row& row) { return row.text("category") == subject; }};
}

/// Of short answers, which end with their line or sentence.
std::shared_ptr<const Generation> short_answer(const std::string& judgement) {
  return generating({{"remove_whitespace", {strip_step()}}}, {"exact_match"},
                    {{"until", {"\n", ".", ","}}, {"do_sample", false}, {"temperature", 0.0}}, judgement);
}

}  // namespace

std::shared_ptr<const Generation> generating(std::vector<AnswerFilter> filters,
                                             std::vector<std::string> metrics,
                                             nlohmann::ordered_json arguments, std::string judgement) {
  auto out = std::make_shared<Generation>();
  out->until = arguments.at("until").get<std::vector<std::string>>();
  out->max_tokens = arguments.value("max_gen_toks", out->max_tokens);
  out->arguments = std::move(arguments);
  out->filters = std::move(filters);
  out->metrics = std::move(metrics);
  out->judgement = std::move(judgement);
  return out;
}

std::vector<std::string> mmlu_pro_names() {
  std::vector<std::string> out;
  for (const char* subject : kProSubjects) out.push_back(pro_name(subject));
  return out;
}

// clang-format off
std::vector<Task> generating_tasks() {
  std::vector<Task> tasks = gsm8k_tasks();
  tasks.push_back(
      {.name = "triviaqa", .description = "TriviaQA, closed book: a fact's name is to be written",
       .folder = "triviaqa", .split = "validation", .version = 3, .scoring = Scoring::generation,
       .ask = ask_triviaqa, .fewshot_draw = Task::Draw::harness_beside,
       .generation = short_answer("exact_match, case and punctuation ignored")});
  tasks.push_back(
      {.name = "nq_open", .description = "Natural Questions, closed book: what people asked a search engine",
       .folder = "nq_open", .split = "validation", .version = 4, .scoring = Scoring::generation,
       .ask = ask_nq_open, .preamble = "Answer these questions:\n\n",
       .fewshot_draw = Task::Draw::harness_beside, .fewshot_ending = "\n",
       .generation = short_answer("exact_match, case, punctuation and articles ignored")});
  tasks.push_back(
      {.name = "drop", .description = "DROP: arithmetic and reading about a passage",
       .folder = "drop", .split = "validation", .version = 3, .scoring = Scoring::generation,
       .ask = ask_drop, .fewshot_draw = Task::Draw::harness_beside,
       .generation = generating({{"none", {}}}, {"em", "f1"}, {{"until", {"."}}}, "DROP's em and f1")});
  tasks.push_back(
      {.name = "squad_completion", .description = "SQuAD as texts that break off before an answer",
       .folder = "squad_completion", .split = "validation", .scoring = Scoring::generation,
       .ask = ask_squad_completion, .fewshot_split = "validation", .fewshot_draw = Task::Draw::harness_beside,
       .generation = generating({{"none", {}}}, {"contains"},
                                {{"until", {"\n\n"}}, {"do_sample", false}, {"temperature", 0}, {"max_gen_toks", 48}},
                                "the value is in the text, case ignored")});
  for (const char* subject : kProSubjects) tasks.push_back(mmlu_pro(subject));
  for (std::vector<Task> more : {ifeval_tasks(), bbh_tasks(), math_tasks(), program_tasks(), leaderboard_tasks()})
    std::ranges::move(more, std::back_inserter(tasks));
  for (Task& task : tasks) {
    if (task.generation) task.metrics = task.generation->metric_names();
  }
  return tasks;
}
// clang-format on

}  // namespace qeval::eval
