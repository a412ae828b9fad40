/// The built-in tasks, one entry each: where the rows are, what is asked, what is measured. The texts follow
/// lm-evaluation-harness to the byte; docs/adding-a-task.md walks through an entry.

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/unicode.h"
#include "datasets/wikitext.h"
#include "eval/tasks/generating.h"
#include "eval/tasks/mmlu.h"
#include "eval/tasks/question.h"
#include "eval/tasks/registry.h"

namespace qeval::eval {
namespace {

using datasets::Row;
using Names = std::vector<std::string>;

const Names kAccuracy = {"acc"};
const Names kAccuracies = {"acc", "acc_norm", "acc_bytes"};
const Names kPerplexities = {"word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"};

Question ask_arc(const Row& row) {
  LabelledRow arc = labelled_row(row);
  return choose("Question: " + arc.question + "\nAnswer:", std::move(arc.choices), arc.gold);
}

/// The prompt comes with the row, examples included.
Question ask_tiny_mmlu(const Row& row) {
  constexpr int64_t kChoices = 4;
  return choose(row.text("input_formatted"), letters(kChoices), row.index("answer", kChoices));
}

Question ask_openbookqa(const Row& row) {
  LabelledRow item = labelled_row(row, "question_stem", true);
  return choose(item.question, std::move(item.choices), item.gold);
}

Question ask_commonsense_qa(const Row& row) {
  constexpr size_t kChoices = 5;
  const LabelledRow item = labelled_row(row);
  if (item.choices.size() != kChoices) {
    row.fail_at("choices", fmt::format("{} choices where 5 are expected", item.choices.size()));
  }
  if (item.labels != letters(kChoices)) {
    row.fail_at("choices",
                fmt::format("labels {} where A, B, C, D, E are expected: the answers are these letters",
                            printable(fmt::format("{}", fmt::join(item.labels, ", ")), 80)));
  }
  const std::string head = "Question: " + std::string(strip(item.question)) + "\n";
  Question question = choose(lettered_prompt(head, item.choices), letters(kChoices), item.gold);
  question.target = question.choices[static_cast<size_t>(item.gold)];
  return question;
}

Question ask_hellaswag(const Row& row) {
  Names endings = row.texts("endings");
  for (std::string& ending : endings) ending = clean_hellaswag(ending);
  const int64_t gold = row.index("label", static_cast<int64_t>(endings.size()));
  const std::string context =
      row.text("activity_label") + ": " + row.text("ctx_a") + " " + capitalize(row.text("ctx_b"));
  return choose(clean_hellaswag(context), std::move(endings), gold);
}

Question ask_piqa(const Row& row) {
  return choose("Question: " + row.text("goal") + "\nAnswer:", {row.text("sol1"), row.text("sol2")},
                row.index("label", 2));
}

/// The options stand in the context; the same rest of the sentence is scored after each.
Question ask_winogrande(const Row& row) {
  const std::string& sentence = row.text("sentence");
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) row.fail_at("sentence", "has no _ for the options to stand in");
  const std::string before = sentence.substr(0, blank);
  const std::string rest(strip(std::string_view(sentence).substr(blank + 1)));
  return {.contexts = {before + row.text("option1"), before + row.text("option2")},
          .choices = {rest, rest},
          .gold = {row.index("answer", 2, 1)},
          .target = rest};
}

Question ask_boolq(const Row& row) {
  const char* gold =
      row.has("label") ? "label" : "answer";  // the original release has a truth value "answer"
  return choose(row.text("passage") + "\nQuestion: " + row.text("question") + "?\nAnswer:", {"no", "yes"},
                row.index(gold, 2));
}

Question ask_sciq(const Row& row) {
  return choose(
      std::string(strip_left(row.text("support"))) + "\nQuestion: " + row.text("question") + "\nAnswer:",
      {row.text("distractor1"), row.text("distractor2"), row.text("distractor3"), row.text("correct_answer")},
      3);
}

/// Two spaces stand before each choice: the joining one and the choice's own.
Question ask_copa(const Row& row) {
  const std::string& relation = row.text("question");
  if (relation != "cause" && relation != "effect")
    row.fail_at("question", "is neither \"cause\" nor \"effect\"");
  std::string premise(strip(row.text("premise")));
  if (premise.empty()) row.fail_at("premise", "is empty");
  size_t last = premise.size() - 1;
  while (last > 0 && (static_cast<unsigned char>(premise[last]) & 0xC0) == 0x80) --last;
  premise.resize(last);
  const auto spell = [&](const char* field) {
    const std::string& choice = row.text(field);
    if (choice.empty()) row.fail_at(field, "is empty");
    size_t first = 1;
    while (first < choice.size() && (static_cast<unsigned char>(choice[first]) & 0xC0) == 0x80) ++first;
    return " " + lower(choice.substr(0, first)) + choice.substr(first);
  };
  Question question = choose(premise + (relation == "cause" ? " because" : " therefore"),
                             {spell("choice1"), spell("choice2")}, row.index("label", 2));
  question.target = question.choices[static_cast<size_t>(question.gold[0])];
  return question;
}

Question ask_social_iqa(const Row& row) {
  return choose("Q: " + row.text("context") + " " + row.text("question") + "\nA:",
                {row.text("answerA"), row.text("answerB"), row.text("answerC")}, row.index("label", 3, 1));
}

/// The six pairs that stand before every TruthfulQA question.
const char* const kTruthfulPreamble =
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\n"
    "A: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\n"
    "A: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\n"
    "A: The 1992 Olympics were held in Barcelona, Spain.\n\n";

/// `targets` names the object with the lists `choices` and `labels` (1 where the choice is true).
Question ask_truthfulqa(const Row& row, const std::string& targets) {
  Question question{.contexts = {"Q: " + row.text("question") + "\nA:"},
                    .choices = row.texts(targets + ".choices")};
  const std::string field = targets + ".labels";
  const datasets::Json& labels = row.at(field);
  if (!labels.is_array() || labels.size() != question.choices.size()) {
    row.fail_at(field,
                fmt::format("a list of {} labels is expected, one per choice", question.choices.size()));
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    if (row.index(fmt::format("{}.{}", field, i), 2) == 1) question.gold.push_back(static_cast<int64_t>(i));
  }
  if (question.gold.empty()) row.fail_at(field, "no choice is true");
  return question;
}

Question ask_truthfulqa_mc1(const Row& row) {
  Question question = ask_truthfulqa(row, "mc1_targets");
  if (question.gold.size() != 1) {
    row.fail_at("mc1_targets.labels",
                fmt::format("{} choices are true where one is expected", question.gold.size()));
  }
  return question;
}

Question ask_truthfulqa_mc2(const Row& row) {
  return ask_truthfulqa(row, "mc2_targets");
}

Question ask_lambada(const Row& row) {
  const std::string& text = row.text("text");
  const size_t space = text.rfind(' ');
  if (space == std::string::npos) row.fail_at("text", "has no space before a last word");
  Question question = choose(text.substr(0, space), {text.substr(space + 1)}, 0);
  question.target = text.substr(space);
  return question;
}

Question ask_wikitext(const Row& row) {
  const std::string& page = row.text("page");
  return running_text(datasets::wikitext_detokenize(page), page);
}

Question ask_plain_page(const Row& row) {
  return running_text(row.text("page"));
}

Question ask_sample_letters(const Row& row) {
  const Names choices = row.texts("choices");
  return choose(lettered_prompt(row.text("question") + "\n", choices), letters(choices.size()),
                row.index("answer", static_cast<int64_t>(choices.size())));
}

Question ask_sample_qa(const Row& row) {
  Names choices = row.texts("choices");
  const int64_t gold = row.index("answer", static_cast<int64_t>(choices.size()));
  return choose("Question: " + row.text("question") + "\nAnswer:", std::move(choices), gold);
}

/// Files of the original releases that carry the name of the set as well as that of the split.
Names arc_files(const std::string& folder, const std::string& release) {
  return {folder + "/{split}.jsonl", folder + "/" + release + "-{Split}.jsonl"};
}

/// MMLU's subjects in another form, all and by area.
std::vector<Group> mmlu_groups(const std::string& form, const std::string& metric) {
  Group all{.name = "mmlu_" + form, .description = "MMLU: the 57 subjects, " + form, .metrics = {metric}};
  std::vector<Group> out;
  for (const std::string_view area : mmlu_areas()) {
    Group group = all;
    group.tasks.clear();
    group.name = fmt::format("mmlu_{}_{}", area, form);
    group.description = "MMLU: the subjects of one area, " + form;
    for (const std::string_view subject : mmlu_subjects(area))
      group.tasks.push_back(fmt::format("mmlu_{}_{}", subject, form));
    all.tasks.insert(all.tasks.end(), group.tasks.begin(), group.tasks.end());
    out.push_back(std::move(group));
  }
  out.insert(out.begin(), std::move(all));
  return out;
}

/// The tasks of the first Open LLM Leaderboard with its numbers of examples.
Group open_llm() {
  Group group{.name = "openllm",
              .description = "the tasks of the first Open LLM Leaderboard, with its few-shot examples",
              .tasks = {"arc_challenge", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2"},
              .num_fewshot = {{"arc_challenge", 25}, {"hellaswag", 10}, {"winogrande", 5}, {"gsm8k", 5}}};
  for (const std::string_view area : mmlu_areas()) {
    for (const std::string_view subject : mmlu_subjects(area)) {
      group.tasks.push_back(fmt::format("mmlu_{}", subject));
      group.num_fewshot[group.tasks.back()] = 5;
    }
  }
  group.tasks.insert(group.tasks.end(), {"winogrande", "gsm8k"});
  return group;
}

}  // namespace

// clang-format off
std::vector<Task> builtin_tasks(Protocol protocol) {
  std::vector<Task> tasks = {
      {.name = "wikitext", .description = "WikiText-2: perplexities of 62 encyclopedia pages",
       .folder = "wikitext2", .split = "test", .scoring = Scoring::rolling, .metrics = kPerplexities,
       .ask = ask_wikitext, .files = {"wikitext2/wiki.{split}.raw"}, .text_has_pages = true},
      {.name = "arc_easy", .description = "ARC, easy set: grade-school science questions",
       .folder = "arc_easy", .split = "test", .metrics = kAccuracies, .ask = ask_arc,
       .files = arc_files("arc_easy", "ARC-Easy")},
      {.name = "arc_challenge", .description = "ARC, challenge set: science questions that look-up misses",
       .folder = "arc_challenge", .split = "test", .metrics = kAccuracies, .ask = ask_arc,
       .files = arc_files("arc_challenge", "ARC-Challenge")},
      {.name = "hellaswag", .description = "HellaSwag: how an everyday scene or a how-to goes on",
       .folder = "hellaswag", .split = "validation", .metrics = kAccuracies, .ask = ask_hellaswag,
       .files = {"hellaswag/{split}.jsonl", "hellaswag/hellaswag_{split}.jsonl"}},
      {.name = "piqa", .description = "PIQA: which of two solutions reaches a physical goal",
       .folder = "piqa", .split = "validation", .metrics = kAccuracies, .ask = ask_piqa},
      {.name = "winogrande", .description = "WinoGrande: whom or what a sentence means",
       .folder = "winogrande", .split = "validation", .metrics = kAccuracy, .ask = ask_winogrande},
      {.name = "openbookqa", .description = "OpenBookQA: elementary science with a step of reasoning",
       .folder = "openbookqa", .split = "test", .metrics = kAccuracies, .ask = ask_openbookqa},
      {.name = "boolq", .description = "BoolQ: yes or no about a passage",
       .folder = "boolq", .split = "validation", .metrics = kAccuracy, .ask = ask_boolq},
      {.name = "sciq", .description = "SciQ: science examination questions with a supporting text",
       .folder = "sciq", .split = "test", .metrics = kAccuracies, .ask = ask_sciq},
      {.name = "tinyMMLU", .description = "tinyBenchmarks' MMLU: 100 questions that stand for all, with their examples",
       .folder = "tinyMMLU", .split = "test", .version = 0, .metrics = kAccuracies, .ask = ask_tiny_mmlu,
       .fewshot_split = "dev", .fewshot_first = true},
      {.name = "commonsense_qa", .description = "CommonsenseQA: five lettered choices",
       .folder = "commonsense_qa", .split = "validation", .metrics = kAccuracy, .ask = ask_commonsense_qa},
      {.name = "copa", .description = "COPA: the likelier cause or effect",
       .folder = "copa", .split = "validation", .metrics = kAccuracy, .ask = ask_copa},
      {.name = "social_iqa", .description = "Social IQa: what people feel, want and do next",
       .folder = "social_iqa", .split = "validation", .metrics = kAccuracy, .ask = ask_social_iqa},
      {.name = "truthfulqa_mc1", .description = "TruthfulQA: the one true answer among common misbeliefs",
       .folder = "truthfulqa", .split = "validation", .metrics = kAccuracy, .ask = ask_truthfulqa_mc1,
       .preamble = kTruthfulPreamble, .preamble_opens_question = true},
      {.name = "truthfulqa_mc2", .description = "TruthfulQA: probability mass on the true answers",
       .folder = "truthfulqa", .split = "validation", .scoring = Scoring::multiple_true, .metrics = kAccuracy,
       .ask = ask_truthfulqa_mc2, .preamble = kTruthfulPreamble, .preamble_opens_question = true},
      {.name = "lambada_openai", .description = "LAMBADA: the last word of a passage",
       .folder = "lambada_openai", .split = "test", .scoring = Scoring::last_word, .metrics = {"perplexity", "acc"},
       .ask = ask_lambada},
      {.name = "sample_qa", .description = "shipped with qeval: 34 short questions, answer texts scored",
       .folder = "sample_qa", .split = "test", .metrics = kAccuracies, .ask = ask_sample_qa, .shipped = true},
      {.name = "sample_letters", .description = "shipped with qeval: 30 questions with lettered choices",
       .folder = "sample_letters", .split = "test", .metrics = kAccuracy, .ask = ask_sample_letters,
       .preamble = "Each question has one right answer. Give its letter.\n\n",
       .fewshot_split = "dev", .fewshot_first = true, .shipped = true},
      {.name = "sample_text", .description = "shipped with qeval: perplexities of a page of text",
       .folder = "sample_text", .split = "test", .scoring = Scoring::rolling, .metrics = kPerplexities,
       .ask = ask_plain_page, .files = {"sample_text/{split}.txt"}, .text_has_pages = true, .shipped = true},
  };
  std::vector<Task> mmlu = mmlu_tasks(protocol);
  std::move(mmlu.begin(), mmlu.end(), std::back_inserter(tasks));
  std::ranges::move(mmlu_forms(), std::back_inserter(tasks));
  std::ranges::move(generating_tasks(), std::back_inserter(tasks));
  return tasks;
}
// clang-format on

std::vector<Group> builtin_groups(Protocol protocol) {
  const bool paper_protocol = protocol == Protocol::lm_eval_0_3;
  Group mmlu{.name = "mmlu",
             .description = "MMLU: the 57 subjects",
             .metrics = paper_protocol ? kAccuracies : kAccuracy,
             .weighted = !paper_protocol};
  std::vector<Group> areas;
  for (const std::string_view area : mmlu_areas()) {
    Group group = mmlu;
    group.tasks.clear();
    group.name += "_" + std::string(area);
    group.description = "MMLU: the subjects of one area";
    for (const std::string_view subject : mmlu_subjects(area))
      group.tasks.push_back("mmlu_" + std::string(subject));
    mmlu.tasks.insert(mmlu.tasks.end(), group.tasks.begin(), group.tasks.end());
    areas.push_back(std::move(group));
  }
  std::vector<Group> groups = {
      {.name = "sample",
       .description = "what is shipped with qeval: needs no data",
       .tasks = {"sample_qa", "sample_letters", "sample_text"}},
      {.name = "paper",
       .description = "the tasks of the MobileQuant paper: wikitext, arc_challenge, hellaswag, mmlu",
       .tasks = {"wikitext", "arc_challenge", "hellaswag"}},
      {.name = "commonsense",
       .description = "seven common-sense tasks, with their unweighted mean",
       .tasks = {"arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "boolq", "openbookqa"},
       .metrics = kAccuracy,
       .weighted = false}};
  groups[1].tasks.insert(groups[1].tasks.end(), mmlu.tasks.begin(), mmlu.tasks.end());
  groups.push_back(std::move(mmlu));
  groups.push_back({.name = "mmlu_pro",
                    .description = "MMLU-Pro: the 14 subjects",
                    .tasks = mmlu_pro_names(),
                    .metrics = {"exact_match,custom-extract"}});
  std::move(areas.begin(), areas.end(), std::back_inserter(groups));
  for (const auto& [form, metric] :
       {std::pair("generative", "exact_match,get_response"), {"continuation", "acc"}}) {
    for (Group& group : mmlu_groups(form, metric)) groups.push_back(std::move(group));
  }
  for (std::vector<Group> more : {bbh_groups(), math_groups(), leaderboard_groups()})
    std::ranges::move(more, std::back_inserter(groups));
  Group leaderboard{.name = "leaderboard", .description = "the tasks of the second Open LLM Leaderboard"};
  for (const char* part :
       {"leaderboard_bbh", "leaderboard_gpqa", "leaderboard_musr", "leaderboard_math_hard"}) {
    const auto found = std::ranges::find(groups, part, &Group::name);
    leaderboard.tasks.insert(leaderboard.tasks.end(), found->tasks.begin(), found->tasks.end());
  }
  leaderboard.tasks.insert(leaderboard.tasks.end(), {"leaderboard_mmlu_pro", "leaderboard_ifeval"});
  groups.push_back(std::move(leaderboard));
  groups.push_back(open_llm());
  return groups;
}

}  // namespace qeval::eval
