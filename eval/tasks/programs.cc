// HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021): the model writes programs, which are run
// against tests.

#include "base/error.h"
#include "datasets/sample.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/program_run.h"

namespace qeval::eval {
namespace {

using datasets::Row;

/// Whether the program passes the test, which follows it as the harness's scorer puts it.
std::function<std::vector<double>(const std::string&)> passes(const std::string& test) {
  return [test](const std::string& program) -> std::vector<double> {
    return {program_passes(program + "\n" + test) ? 1.0 : 0.0};
  };
}

Question ask_humaneval(const Row& row) {
  Question question{.contexts = {row.text("prompt")}, .join = ""};
  question.target = row.text("test") + "\ncheck(" + row.text("entry_point") + ")";
  question.references = {question.target};
  question.example = question.target;
  question.judge = passes(question.target);
  return question;
}

/// The harness's filter create_test: what was written continues the prompt.
AnswerFilter::Step behind_prompt() {
  return {"behind the prompt", [](AnswerFilter::Texts texts, const Document& document) {
            for (std::string& text : texts)
              text.insert(0, document.row.at("prompt").get_ref<const std::string&>());
            return texts;
          }};
}

Question ask_mbpp(const Row& row) {
  const std::vector<std::string> tests = row.texts("test_list");
  if (tests.size() < 3) row.fail_at("test_list", "three tests are expected");
  const std::string listed = tests[0] + "\n" + tests[1] + "\n" + tests[2];
  Question question{
      .contexts = {"You are an expert Python programmer, and here is your task: " + row.text("text") +
                   " Your code should pass these tests:\n\n" + listed + "\n[BEGIN]\n"},
      .target = listed,
      .join = ""};
  question.references = {listed};
  question.example = row.has("is_fewshot") ? row.text("code") + "\n[DONE]" : listed;
  question.judge = passes(listed);
  return question;
}

std::shared_ptr<const Generation> programs(AnswerFilter filter, const char* metric,
                                           nlohmann::ordered_json arguments) {
  auto out = std::make_shared<Generation>(
      *generating({std::move(filter)}, {metric}, std::move(arguments), "the program passes the tests"));
  out->runs_code = true;
  return out;
}

}  // namespace

std::vector<Task> program_tasks() {
  return {{.name = "humaneval",
           .description = "HumanEval: a Python function from its description, run against tests",
           .folder = "humaneval",
           .split = "test",
           .scoring = Scoring::generation,
           .ask = ask_humaneval,
           .generation = programs({"create_test", {behind_prompt()}}, "pass@1",
                                  {{"until", {"\nclass", "\ndef", "\n#", "\nif", "\nprint"}},
                                   {"max_gen_toks", 1024},
                                   {"do_sample", false}})},
          {.name = "mbpp",
           .description = "MBPP: a Python function from a sentence and three tests",
           .folder = "mbpp",
           .split = "test",
           .scoring = Scoring::generation,
           .ask = ask_mbpp,
           .num_fewshot = 3,
           .fewshot_first = true,
           .fewshot_rows = datasets::shipped_definition("mbpp"),
           .generation = programs({"none", {}}, "pass_at_1", {{"until", {"[DONE]"}}, {"do_sample", false}})}};
}

}  // namespace qeval::eval
