#include <array>
#include <string>
#include <utility>

#include "base/unicode.h"
#include "eval/tasks/generating.h"

namespace qeval::eval {
namespace {

using datasets::Row;

/// The eight worked examples of Wei et al., "Chain-of-Thought Prompting" (2022), as the harness spells them.
constexpr std::array<std::pair<const char*, const char*>, 8> kChainOfThought = {{
    {"There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they "
     "are done, there will be 21 trees. How many trees did the grove workers plant today?",
     "There are 15 trees originally. Then there were 21 trees after some more were planted. So there "
     "must have been 21 - 15 = 6. The answer is 6."},
    {"If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking "
     "lot?",
     "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5."},
    {"Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left "
     "in total?",
     "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After "
     "eating 35, they had 74 - 35 = 39. The answer is 39."},
    {"Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many "
     "lollipops did Jason give to Denny?",
     "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - "
     "12 = 8. The answer is 8."},
    {"Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does "
     "he have now?",
     "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. "
     "5 + 4 = 9. The answer is 9."},
    {"There were nine computers in the server room. Five more computers were installed each day, from "
     "monday to thursday. How many computers are now in the server room?",
     "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 "
     "computers were added. 9 + 20 is 29. The answer is 29."},
    {"Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How "
     "many golf balls did he have at the end of wednesday?",
     "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing "
     "2 more, he had 35 - 2 = 33 golf balls. The answer is 33."},
    {"Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
     "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 "
     "dollars left. 23 - 15 is 8. The answer is 8."},
}};

std::vector<datasets::Json> examples(bool final_answer) {
  std::vector<datasets::Json> out;
  for (const auto& [question, reasoning] : kChainOfThought) {
    std::string target = reasoning;
    if (final_answer) {
      target.pop_back();
      target.replace(target.rfind("The answer"), 10, "The final answer");
    }
    out.push_back({{"question", question}, {"target", std::move(target)}});
  }
  return out;
}

std::function<std::vector<double>(const std::string&)> judge(const std::vector<std::string>& references) {
  return exact_match({.regexes_to_ignore = {",", "\\$", "(?s).*#### ", "\\.$"}, .ignore_case = true},
                     references);
}

Question written(std::string prompt, std::string answer, std::string join = " ") {
  Question question{.contexts = {std::move(prompt)}, .target = answer, .join = std::move(join)};
  question.references = {answer};
  question.judge = judge(question.references);
  question.example = std::move(answer);
  return question;
}

/// What follows the last "####" of an answer, or the whole of an example.
std::string final_number(const Row& row) {
  if (!row.has("answer")) return row.text("target");
  const std::string& answer = row.text("answer");
  const size_t mark = answer.rfind("####");
  return std::string(strip(mark == std::string::npos ? answer : std::string_view(answer).substr(mark + 4)));
}

Question ask_plain(const Row& row) {
  return written("Question: " + row.text("question") + "\nAnswer:", row.text("answer"));
}

Question ask_chain(const Row& row) {
  return written("Q: " + row.text("question") + "\nA:", final_number(row));
}

Question ask_step_by_step(const Row& row) {
  return written("Q: " + row.text("question") + "\nA: Let's think step by step.", row.text("answer"));
}

Question ask_llama(const Row& row) {
  return written("Given the following problem, reason and give a final answer to the problem.\nProblem: " +
                     row.text("question") +
                     "\nYour response should end with \"The final answer is [answer]\" where [answer] is the "
                     "response to the problem.\n",
                 final_number(row), "");
}

AnswerFilter flexible() {
  return {"flexible-extract", {regex_step("(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)}};
}

std::shared_ptr<const Generation> generation(AnswerFilter strict, nlohmann::ordered_json arguments) {
  return generating({std::move(strict), flexible()}, {"exact_match"}, std::move(arguments),
                    "exact_match, case ignored, without , $ .*####  and .");
}

}  // namespace

std::vector<Task> gsm8k_tasks() {
  const std::vector<std::string> stops_of_questions = {"Q:", "</s>", "<|im_end|>"};
  Task plain{
      .name = "gsm8k",
      .description = "GSM8K: word problems of grade-school mathematics, worked out",
      .folder = "gsm8k",
      .split = "test",
      .version = 3,
      .scoring = Scoring::generation,
      .ask = ask_plain,
      .num_fewshot = 5,
      .fewshot_draw = Task::Draw::harness,
      .generation = generation(
          {"strict-match", {regex_step("#### (\\-?[0-9\\.\\,]+)")}},
          {{"until", {"Question:", "</s>", "<|im_end|>"}}, {"do_sample", false}, {"temperature", 0.0}})};
  Task chain = plain;
  chain.name = "gsm8k_cot";
  chain.description = "GSM8K behind eight worked examples in words";
  chain.ask = ask_chain;
  chain.num_fewshot = 8;
  chain.fewshot_first = true;
  chain.fewshot_rows = examples(false);
  chain.generation = generation({"strict-match", {regex_step("The answer is (\\-?[0-9\\.\\,]+).")}},
                                {{"do_sample", false}, {"until", stops_of_questions}});
  Task zero = plain;
  zero.name = "gsm8k_cot_zeroshot";
  zero.description = "GSM8K, to be thought through step by step without an example";
  zero.ask = ask_step_by_step;
  zero.num_fewshot = 0;
  zero.generation = generation({"strict-match", {regex_step("The answer is (\\-?[0-9\\.\\,]+).")}},
                               {{"until", stops_of_questions}, {"do_sample", false}});
  Task llama = chain;
  llama.name = "gsm8k_cot_llama";
  llama.description = "GSM8K as Llama 3's authors ask it";
  llama.version = 4;
  llama.ask = ask_llama;
  llama.fewshot_rows = examples(true);
  llama.generation = generation(
      {"strict-match", {regex_step("The final answer is ((-?[$0-9.,]{2,})|(-?[0-9]+))", -1)}},
      {{"do_sample", false},
       {"until", {"<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "Q:", "</s>", "<|im_end|>"}}});
  return {plain, chain, zero, llama};
}

}  // namespace qeval::eval
