/// What each built-in task makes of one row, spelt out; and what it says of a row that it cannot ask.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/registry.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

using test::TemporaryFolder;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

LoadedTask load_from(const std::string& task, const TemporaryFolder& folder,
                     Protocol protocol = Protocol::lm_eval_0_4) {
  return load_documents(resolve_tasks(task, protocol).tasks.at(0), {.data = folder.path()});
}

/// The document of a data file of one row.
Document document_of(const std::string& task, const std::string& file, const std::string& row,
                     Protocol protocol = Protocol::lm_eval_0_4) {
  const TemporaryFolder folder;
  folder.write(file, row + "\n");
  return load_from(task, folder, protocol).documents.at(0);
}

std::vector<std::string> continuations(const Document& document) {
  std::vector<std::string> out;
  for (const TextRequest& request : document.requests) out.push_back(request.continuation);
  return out;
}

TEST(TaskPrompts, ArcTakesAnyLabels) {
  const Document document =
      document_of("arc_easy", "arc_easy/test.jsonl",
                  R"({"id": "x", "question": "What is it?", )"
                  R"("choices": {"text": ["a", "bé", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"})");
  EXPECT_EQ(document.requests[0].context, "Question: What is it?\nAnswer:");
  EXPECT_THAT(continuations(document), ElementsAre(" a", " bé", " c"));
  EXPECT_THAT(document.facts.gold, ElementsAre(2));
  EXPECT_THAT(document.facts.choice_chars, ElementsAre(1, 2, 1));
  EXPECT_THAT(document.facts.choice_bytes, ElementsAre(1, 3, 1));
  EXPECT_EQ(document.target, "2");
  EXPECT_EQ(document.row["id"], "x");
}

TEST(TaskPrompts, ArcOpenBookQaAndCommonsenseQaReadTheirOriginalReleases) {
  const std::string row =
      R"({"question": {"stem": "Why?", "choices": [{"text": "p", "label": "A"}, {"label": "B",
      "text": "q"}, {"label": "C", "text": "r"}, {"label": "D", "text": "s"}, {"label": "E", "text": "t"}]}, "answerKey": "B"})";
  std::string line = row;
  line.erase(line.find('\n'), 1);
  const Document arc = document_of("arc_challenge", "arc_challenge/ARC-Challenge-Test.jsonl", line);
  EXPECT_EQ(arc.requests[1].context + arc.requests[1].continuation, "Question: Why?\nAnswer: q");
  EXPECT_THAT(arc.facts.gold, ElementsAre(1));
  const Document book = document_of("openbookqa", "openbookqa/test.jsonl", line);
  EXPECT_EQ(book.requests[1].context + book.requests[1].continuation, "Why? q");
  const Document common = document_of("commonsense_qa", "commonsense_qa/dev.jsonl", line);
  EXPECT_EQ(common.requests[0].context, "Question: Why?\nA. p\nB. q\nC. r\nD. s\nE. t\nAnswer:");
  EXPECT_THAT(continuations(common), ElementsAre(" A", " B", " C", " D", " E"));
  EXPECT_EQ(common.target, "B");
}

TEST(TaskPrompts, HellaSwagCleansOnceInOrder) {
  const Document document = document_of(
      "hellaswag", "hellaswag/validation.jsonl",
      R"({"activity_label": " Pets", "ctx_a": "[header] How to [title] Wash it. [step] Do.", "ctx_b": "the DOG", )"
      R"("endings": ["[substeps] Sit.   Stay. [title] Go.", "plain", "[a]b]c", "x [y\n] z"], "label": "1"})");
  // The bracket at the front of the first ending leaves its space: two with the joining one.
  EXPECT_EQ(document.requests[0].context, "Pets: How to. Wash it. Do. The dog");
  EXPECT_THAT(continuations(document), ElementsAre("  Sit.  Stay.. Go.", " plain", " b]c", " x [y\n] z"));
  EXPECT_EQ(document.facts.choice_chars[0], 17);
  EXPECT_THAT(document.facts.gold, ElementsAre(1));
}

TEST(TaskPrompts, PiqaReadsLabelsFromBeside) {
  const TemporaryFolder folder;
  folder.write("piqa/valid.jsonl", R"({"goal": "Sit", "sol1": "chair ", "sol2": "lake"})"
                                   "\n");
  folder.write("piqa/valid-labels.lst", "1\n");
  const LoadedTask loaded = load_from("piqa", folder);
  EXPECT_EQ(loaded.documents[0].requests[0].context, "Question: Sit\nAnswer:");
  EXPECT_THAT(continuations(loaded.documents[0]), ElementsAre(" chair ", " lake"));
  EXPECT_THAT(loaded.documents[0].facts.gold, ElementsAre(1));
  EXPECT_EQ(loaded.files.size(), 2U);
}

TEST(TaskPrompts, WinograndePutsTheOptionInTheContext) {
  const Document document = document_of(
      "winogrande", "winogrande/validation.jsonl",
      R"({"sentence": "Ann met Eve and _  laughed. ", "option1": "Ann", "option2": "Eve", "answer": "2"})");
  EXPECT_EQ(document.requests[0].context, "Ann met Eve and Ann");
  EXPECT_EQ(document.requests[1].context, "Ann met Eve and Eve");
  EXPECT_THAT(continuations(document), ElementsAre(" laughed.", " laughed."));
  EXPECT_EQ(document.target, "laughed.");
  EXPECT_THAT(document.facts.gold, ElementsAre(1));
}

TEST(TaskPrompts, BoolqReadsBothSpellingsOfTheAnswer) {
  for (const char* answer : {R"("label": 1)", R"("answer": true)"}) {
    const Document document =
        document_of("boolq", "boolq/validation.jsonl",
                    std::string(R"({"passage": "P.", "question": "is it", )") + answer + "}");
    EXPECT_EQ(document.requests[0].context, "P.\nQuestion: is it?\nAnswer:");
    EXPECT_THAT(continuations(document), ElementsAre(" no", " yes"));
    EXPECT_THAT(document.facts.gold, ElementsAre(1));
  }
}

TEST(TaskPrompts, SciqKeepsTheLineOfAnEmptySupport) {
  const Document document = document_of(
      "sciq", "sciq/test.jsonl",
      R"({"support": "", "question": "Q?", "distractor3": "c", "distractor1": "a", "distractor2": "b",)"
      R"( "correct_answer": "d"})");
  EXPECT_EQ(document.requests[0].context, "\nQuestion: Q?\nAnswer:");
  EXPECT_THAT(continuations(document), ElementsAre(" a", " b", " c", " d"));
  EXPECT_THAT(document.facts.gold, ElementsAre(3));
}

TEST(TaskPrompts, CopaJoinsByTwoSpaces) {
  const Document document =
      document_of("copa", "copa/validation.jsonl",
                  R"({"premise": "It rained.", "question": "effect", "choice1": "I ran.",)"
                  R"( "choice2": "Élan won.", "label": 1})");
  EXPECT_EQ(document.requests[0].context, "It rained therefore");
  EXPECT_THAT(continuations(document), ElementsAre("  i ran.", "  élan won."));
  EXPECT_EQ(document.target, " élan won.");
}

// What the harness strips goes, of every kind that Python calls white space; the rest stays.
TEST(TaskPrompts, OddWhiteSpaceAndCase) {
  const Document sciq = document_of(
      "sciq", "sciq/test.jsonl",
      R"({"support": "\u00a0\t\n lead \u2003", "question": " q ", "distractor1": " a", "distractor2": "b ",)"
      R"( "distractor3": "c", "correct_answer": "d"})");
  EXPECT_EQ(sciq.requests[0].context, "lead \u2003\nQuestion:  q \nAnswer:");
  EXPECT_THAT(continuations(sciq), ElementsAre("  a", " b ", " c", " d"));
  const Document copa = document_of(
      "copa", "copa/validation.jsonl",
      R"({"premise": "\u001c The man fell.\u3000\r\n", "question": "cause", "choice1": "\u0130t",)"
      R"( "choice2": "\u01c5x", "label": 0})");
  EXPECT_EQ(copa.requests[0].context, "The man fell because");
  EXPECT_THAT(continuations(copa), ElementsAre("  i\u0307t", "  \u01C6x"));
  EXPECT_EQ(copa.target, " i\u0307t");
  const Document common =
      document_of("commonsense_qa", "commonsense_qa/validation.jsonl",
                  R"({"question": "\u2028 what? ", "choices": {"label": ["A", "B", "C", "D", "E"],)"
                  R"( "text": [" a", "b ", "c", "d", "e"]}, "answerKey": "B"})");
  EXPECT_EQ(common.requests[0].context, "Question: what?\nA.  a\nB. b \nC. c\nD. d\nE. e\nAnswer:");
  const Document swag = document_of(
      "hellaswag", "hellaswag/validation.jsonl",
      R"({"activity_label": "Act", "ctx_a": "A", "ctx_b": "\ufb01NE \u039f\u03a3", "endings": ["x"], "label": 0})");
  EXPECT_EQ(swag.requests[0].context, "Act: A Fine ο\u03C2");
}

TEST(TaskPrompts, SocialIqaCountsFromOne) {
  const Document document = document_of(
      "social_iqa", "social_iqa/validation.jsonl",
      R"({"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"})");
  EXPECT_EQ(document.requests[0].context, "Q: C. Q?\nA:");
  EXPECT_THAT(document.facts.gold, ElementsAre(2));
}

TEST(TaskPrompts, TruthfulQaNamesAllTrueChoices) {
  const std::string row = R"({"question": "Q?", "mc1_targets": {"choices": ["t", "f"], "labels": [1, 0]}, )"
                          R"("mc2_targets": {"choices": ["t", "f", "u"], "labels": [1, 0, 1]}})";
  const Document mc1 = document_of("truthfulqa_mc1", "truthfulqa/validation.jsonl", row);
  const Document mc2 = document_of("truthfulqa_mc2", "truthfulqa/validation.jsonl", row);
  EXPECT_THAT(mc1.requests[0].context,
              StartsWith("Q: What is human life expectancy in the United States?\nA: "));
  EXPECT_THAT(mc1.requests[0].context, EndsWith(" Barcelona, Spain.\n\nQ: Q?\nA:"));
  EXPECT_THAT(mc1.facts.gold, ElementsAre(0));
  EXPECT_THAT(mc2.facts.gold, ElementsAre(0, 2));
  EXPECT_THAT(continuations(mc2), ElementsAre(" t", " f", " u"));
}

TEST(TaskPrompts, LambadaSplitsAtTheLastSpaceOnly) {
  const Document document = document_of("lambada_openai", "lambada_openai/test.jsonl",
                                        "{\"text\": \"one two\\u00a0three\\nfour\"}");
  ASSERT_EQ(document.requests.size(), 1U);
  EXPECT_EQ(document.requests[0].context, "one");
  EXPECT_EQ(document.requests[0].continuation, " two\u00A0three\nfour");
  EXPECT_EQ(document.target, " two\u00A0three\nfour");
}

TEST(TaskPrompts, MmluReadsJsonlAndCsv) {
  const TemporaryFolder folder;
  folder.write("mmlu/test/high_school_physics_test.csv", " What? ,w,x,y,z,C\n");
  const Document document = load_from("mmlu_high_school_physics", folder).documents.at(0);
  EXPECT_EQ(document.requests[0].context,
            "The following are multiple choice questions (with answers) about high school physics.\n\n"
            "What?\nA. w\nB. x\nC. y\nD. z\nAnswer:");
  EXPECT_THAT(continuations(document), ElementsAre(" A", " B", " C", " D"));
  EXPECT_EQ(document.row["subject"], "high_school_physics");
  EXPECT_THAT(document.facts.gold, ElementsAre(2));
}

TEST(TaskPrompts, MmluOfTheOlderProtocolScoresTexts) {
  const Document document = document_of(
      "mmlu_anatomy", "mmlu/anatomy/test.jsonl",
      R"({"question": " What?", "choices": ["ww", "x", "y", "z"], "answer": 0})", Protocol::lm_eval_0_3);
  EXPECT_EQ(document.requests[0].context, "Question:  What?\nChoices:\nA. ww\nB. x\nC. y\nD. z\nAnswer:");
  EXPECT_THAT(continuations(document), ElementsAre(" ww", " x", " y", " z"));
  EXPECT_THAT(resolve_tasks("mmlu_anatomy", Protocol::lm_eval_0_3).tasks[0].metrics,
              ElementsAre("acc", "acc_norm", "acc_bytes"));
}

TEST(TaskPrompts, WikitextCountsTheRawPage) {
  const TemporaryFolder folder;
  folder.write("wikitext2/wiki.test.raw", " \n = A = \n One , two . \n");
  const LoadedTask loaded = load_from("wikitext", folder);
  ASSERT_EQ(loaded.documents.size(), 1U);
  EXPECT_EQ(loaded.documents[0].requests[0].context, "");
  EXPECT_EQ(loaded.documents[0].requests[0].continuation, " = A =\nOne, two. ");
  EXPECT_EQ(loaded.documents[0].facts.words, 9);
  EXPECT_EQ(loaded.documents[0].facts.bytes, 21);
}

/// Orders of random.Random(0).shuffle([0, 1, 2, 3]), one after another.
TEST(TaskPrompts, GpqaShufflesARowByWhereItStands) {
  const TemporaryFolder folder;
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    rows += fmt::format(
        R"({{"Question": "Q{0}", "Incorrect Answer 1": "w{0}", "Incorrect Answer 2": "x{0}", "Incorrect Answer 3": "y{0}", "Correct Answer": "z{0}"}})"
        "\n\n",
        i);
  }
  folder.write("gpqa/gpqa_main/train.jsonl", rows);
  const Task task = resolve_tasks("leaderboard_gpqa_main").tasks.at(0);
  const auto contexts = [&](LoadOptions options) {
    options.data = folder.path();
    std::vector<std::string> out;
    for (const Document& document : load_documents(task, options).documents)
      out.push_back(document.requests.at(0).context);
    return out;
  };
  const std::vector<std::string> plain = contexts({});
  EXPECT_THAT(plain.at(0), HasSubstr("(A) y0\n(B) w0\n(C) x0\n(D) z0\n"));
  EXPECT_THAT(plain.at(1), HasSubstr("(A) w1\n(B) x1\n(C) z1\n(D) y1\n"));
  for (const int64_t shots : {1, 3}) {
    const std::vector<std::string> behind_examples = contexts({.num_fewshot = shots});
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_TRUE(behind_examples[i].ends_with(plain[i])) << behind_examples[i];
      // The examples, which are rows of the same file, have their own orders too.
      for (const std::string& other : plain) {
        const std::string question = other.substr(0, other.find('\n') + 1);
        if (behind_examples[i].find(question) != std::string::npos) {
          EXPECT_THAT(behind_examples[i], HasSubstr(other));
        }
      }
    }
  }
  EXPECT_THAT(contexts({.limit = 2}), ElementsAre(plain[0], plain[1]));
}

TEST(TaskPrompts, SampleNeedsNoData) {
  const Selection selection = resolve_tasks("sample");
  ASSERT_EQ(selection.tasks.size(), 3U);
  const std::vector<size_t> sizes = {34, 30, 1};
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(load_documents(selection.tasks[i], {}).documents.size(), sizes[i]);
  }
}

/// A row that cannot be asked: the task, its file, the row, and what the message says behind "FILE:1: ".
struct BadRow {
  const char* task;
  const char* file;
  const char* row;
  const char* message;
};

TEST(TaskRowErrors, NameFileLineAndField) {
  const char* const arc = "arc_easy/test.jsonl";
  const char* const swag = "hellaswag/validation.jsonl";
  const char* const mmlu = "mmlu/virology/test.jsonl";
  const std::vector<BadRow> cases = {
      {"arc_easy", arc, R"({"choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"})",
       "field \"question\": missing"},
      {"arc_easy", arc, R"({"question": "q", "choices": {"text": [], "label": []}, "answerKey": "A"})",
       "field \"choices.text\": an empty list where at least one string is expected"},
      {"arc_easy", arc,
       R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})",
       "field \"answerKey\": \"C\" is none of the labels A, B"},
      {"arc_easy", arc,
       R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"})",
       "field \"choices.label\": 1 labels for 2 choices"},
      {"arc_easy", arc,
       R"({"question": "q", "choices": {"text": ["a", ""], "label": ["A", "B"]}, "answerKey": "A"})",
       "choice 2 is empty text: nothing can be scored"},
      {"hellaswag", swag,
       R"({"activity_label": "x", "ctx_a": "x", "ctx_b": "x", "endings": ["a"], "label": ""})",
       "field \"label\": \"\" where a whole number is expected"},
      {"hellaswag", swag,
       R"({"activity_label": "x", "ctx_a": "x", "ctx_b": "x", "endings": ["a"], "label": "1"})",
       "field \"label\": 1 is none of 0 to 0"},
      {"hellaswag", swag,
       R"({"activity_label": "x", "ctx_a": "x", "ctx_b": 3, "endings": ["a"], "label": 0})",
       "field \"ctx_b\": a number where a string is expected"},
      {"piqa", "piqa/validation.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b"})",
       "field \"label\": missing"},
      {"winogrande", "winogrande/validation.jsonl",
       R"({"sentence": "none", "option1": "a", "option2": "b", "answer": "1"})",
       "field \"sentence\": has no _ for the options to stand in"},
      {"winogrande", "winogrande/validation.jsonl",
       R"({"sentence": "x _", "option1": "a", "option2": "b", "answer": "1"})", "choice 1 is empty text"},
      {"winogrande", "winogrande/validation.jsonl",
       R"({"sentence": "x _ y", "option1": "a", "option2": "b", "answer": "0"})",
       "field \"answer\": 0 is none of 1 to 2"},
      {"copa", "copa/validation.jsonl",
       R"({"premise": "p.", "question": "why", "choice1": "a", "choice2": "b", "label": 0})",
       "field \"question\": is neither \"cause\" nor \"effect\""},
      {"copa", "copa/validation.jsonl",
       R"({"premise": "", "question": "cause", "choice1": "a", "choice2": "b", "label": 0})",
       "field \"premise\": is empty"},
      {"copa", "copa/validation.jsonl",
       R"({"premise": " \u00a0", "question": "cause", "choice1": "a", "choice2": "b", "label": 0})",
       "field \"premise\": is empty"},
      {"commonsense_qa", "commonsense_qa/validation.jsonl",
       R"({"question": "q", "choices": {"text": ["a", "b", "c", "d", "e"],)"
       R"( "label": ["B", "A", "C", "D", "E"]}, "answerKey": "A"})",
       "field \"choices\": labels B, A, C, D, E where A, B, C, D, E are expected"},
      {"arc_easy", arc,
       R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": " B"})",
       "field \"answerKey\": \" B\" is none of the labels A, B"},
      {"commonsense_qa", "commonsense_qa/validation.jsonl",
       R"({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"})",
       "field \"choices\": 1 choices where 5 are expected"},
      {"truthfulqa_mc1", "truthfulqa/validation.jsonl",
       R"({"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}})",
       "field \"mc1_targets.labels\": 2 choices are true where one is expected"},
      {"truthfulqa_mc2", "truthfulqa/validation.jsonl",
       R"({"question": "q", "mc2_targets": {"choices": ["a", "b"], "labels": [0, 0]}})",
       "field \"mc2_targets.labels\": no choice is true"},
      {"truthfulqa_mc2", "truthfulqa/validation.jsonl",
       R"({"question": "q", "mc2_targets": {"choices": ["a", "b"], "labels": [1]}})",
       "field \"mc2_targets.labels\": a list of 2 labels is expected"},
      {"lambada_openai", "lambada_openai/test.jsonl", R"({"text": "one"})",
       "field \"text\": has no space before a last word"},
      {"lambada_openai", "lambada_openai/test.jsonl", R"({"text": "one "})", "choice 1 is empty text"},
      {"mmlu_virology", mmlu, R"({"question": "q", "choices": ["a", "b", "c"], "answer": 0})",
       "field \"choices\": 3 choices where 4 are expected"},
      {"mmlu_virology", mmlu, R"({"question": "q", "choices": ["a", "b", "c", "d"], "answer": 4})",
       "field \"answer\": 4 is none of 0 to 3"},
      {"mmlu_virology", mmlu, "{\"question\": \"\xFF\"}", "byte 15 of the line (0xff) is not UTF-8"},
  };
  for (const BadRow& bad : cases) {
    const TemporaryFolder folder;
    const auto path = folder.write(bad.file, bad.row);
    const std::string message = message_of([&] { load_from(bad.task, folder); });
    EXPECT_THAT(message, StartsWith(path.string() + ":1: " + bad.message)) << bad.row;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(TaskRowErrors, ALongRowIsScored) {
  const std::string passage(1 << 20, 'p');
  const Document document = document_of("boolq", "boolq/validation.jsonl",
                                        R"({"passage": ")" + passage + R"(", "question": "q", "label": 0})");
  EXPECT_THAT(document.requests[0].context, StartsWith("ppp"));
  EXPECT_GT(document.requests[0].context.size(), passage.size());
}

TEST(TaskRowErrors, AMissingFileNamesThePathAndTheOtherSplit) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "sciq/test.jsonl").string();
  EXPECT_THAT(message_of([&] { load_from("sciq", folder); }), testing::StartsWith(path + ": not found; "));
  folder.write("sciq/validation.jsonl", "{}");
  EXPECT_THAT(message_of([&] { load_from("sciq", folder); }), HasSubstr("split validation would read"));
  EXPECT_THAT(message_of([&] { load_documents(resolve_tasks("sciq").tasks[0], {}); }), HasSubstr("with -d"));
}

}  // namespace
}  // namespace qeval::eval
