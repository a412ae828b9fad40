#include <string>
#include <utility>
#include <vector>

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
using testing::HasSubstr;
using testing::StartsWith;

/// Loads the task that `description` and `rows` (rows.jsonl beside it) make.
LoadedTask load(const TemporaryFolder& folder, const std::string& description, const std::string& rows,
                const LoadOptions& options = {}) {
  folder.write("rows.jsonl", rows);
  const auto path = folder.write("task.json", description);
  return load_documents(resolve_tasks(path.string()).tasks.at(0), options);
}

/// The position of the right answer of a single row.
int64_t gold_of(const std::string& fields, const std::string& row) {
  const TemporaryFolder folder;
  return load(folder, R"({"name": "mine", "data": "rows.jsonl", "prompt": "{{q}}", )" + fields + "}", row)
      .documents.at(0)
      .facts.gold.at(0);
}

TEST(UserTask, FiveLinesAreEnough) {
  const TemporaryFolder folder;
  const LoadedTask loaded =
      load(folder, R"({
    "name": "capitals",
    "data": "rows.jsonl",
    "prompt": "Q{{number}}: {{meta.question}}\nA:",
    "choices": "options",
    "gold": "answer"
  })",
           R"({"number": 7, "meta": {"question": "France?"}, "options": ["Lyon", "Paris"], "answer": 1})"
           "\n");
  ASSERT_EQ(loaded.documents.size(), 1U);
  const Document& document = loaded.documents[0];
  EXPECT_EQ(document.requests[1].context, "Q7: France?\nA:");
  EXPECT_EQ(document.requests[1].continuation, " Paris");
  EXPECT_THAT(document.facts.gold, ElementsAre(1));
  EXPECT_THAT(document.facts.choice_chars, ElementsAre(4, 5));
  EXPECT_EQ(loaded.split, "test");
  EXPECT_THAT(resolve_tasks((folder.path() / "task.json").string()).tasks[0].metrics,
              ElementsAre("acc", "acc_norm"));
}

TEST(UserTask, AnAnswerFieldLetsTheModelWrite) {
  const TemporaryFolder folder;
  const std::string description = R"json({
    "name": "sums", "data": "rows.jsonl", "prompt": "Q: {{q}}\nA:", "answer": "{{a}}", "until": ["\n", "Q:"],
    "max_gen_toks": 32, "repeats": 3, "ignore": {"case": true, "patterns": [","]},
    "filters": {"number": [{"regex": "(-?[0-9,]+)",
                    "select" : -1
}, "majority_vote"], "first": [{"take_first_k": 1}, "strip"]
}
})json";
  const LoadedTask loaded = load(folder, description, R"({"q": "1000 + 1?", "a": "1001"})");
  const Document& document = loaded.documents.at(0);
  ASSERT_EQ(document.requests.size(), 3U);
  EXPECT_EQ(document.requests[2].context, "Q: 1000 + 1?\nA:");
  const Task task = resolve_tasks((folder.path() / "task.json").string()).tasks.at(0);
  EXPECT_THAT(task.metrics, ElementsAre("exact_match,number", "exact_match,first"));
  EXPECT_EQ(task.generation->max_tokens, 32);
  EXPECT_THAT(task.generation->until, ElementsAre("\n", "Q:"));
  const JudgedTexts judged = judge_texts(*task.generation, document, {" 7", "It is 1,001.", "1,001"});
  EXPECT_EQ(judged.filtered[0].second, "1,001");
  EXPECT_THAT(judged.values, ElementsAre(1, 0));
  // A list of right answers, any of which will do; without filters white space goes.
  const LoadedTask several =
      load(folder, R"({"name": "sums", "data": "rows.jsonl", "prompt": "q", "answer": "a"})",
           R"({"q": "x", "a": ["one", "two"]})");
  EXPECT_THAT(several.documents[0].judge("two"), ElementsAre(1));
  EXPECT_EQ(several.documents[0].target, "one");
}

TEST(UserTask, WhatAWrittenAnswerCannotHaveIsNamed) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& more) {
    return message_of([&] {
      load(folder, R"({"name": "m", "data": "rows.jsonl", "prompt": "q", "answer": "a", )" + more + "}",
           R"({"q": "x", "a": "y"})");
    });
  };
  EXPECT_THAT(refused(R"("choices": "o")"), HasSubstr("field \"choices\": not used beside \"answer\""));
  EXPECT_THAT(refused(R"("until": [""])"), HasSubstr("field \"until\""));
  EXPECT_THAT(refused(R"("filters": {"a": ["lower"]})"),
              HasSubstr("a step is \"lower\"; accepted: \"strip\""));
  EXPECT_THAT(refused(R"("filters": {"a": [{"regex": "(x"}]})"), HasSubstr("pattern '(x'"));
  EXPECT_THAT(refused(R"("ignore": {"accents": true})"), HasSubstr("case and punctuation"));
  EXPECT_THAT(refused(R"("repeats": 0)"), HasSubstr("field \"repeats\""));
  EXPECT_THAT(refused(R"("repeats": 1001)"), HasSubstr("a whole number from 1 to 1000 is expected"));
  EXPECT_THAT(refused(R"("metrics": ["acc"])"), HasSubstr("\"acc\" is none of exact_match"));
  EXPECT_THAT(
      message_of([&] {
        load(
            folder,
            R"({"name": "m", "data": "rows.jsonl", "prompt": "q", "choices": "o", "gold": "g", "until": ["x"]})",
            "{}");
      }),
      HasSubstr("field \"until\": not used without \"answer\""));
}

TEST(UserTask, ATextFieldAsksForPerplexity) {
  const TemporaryFolder folder;
  const LoadedTask loaded = load(folder, R"({"name": "news", "data": "rows.jsonl", "text": "body"})",
                                 R"({"body": "Two words."})"
                                 "\n"
                                 R"({"body": "é\n"})");
  ASSERT_EQ(loaded.documents.size(), 2U);
  EXPECT_EQ(loaded.documents[0].requests[0].context, "");
  EXPECT_EQ(loaded.documents[0].requests[0].continuation, "Two words.");
  EXPECT_EQ(loaded.documents[0].facts.words, 2);
  EXPECT_EQ(loaded.documents[1].facts.bytes, 3);
  const Task task = resolve_tasks((folder.path() / "task.json").string()).tasks[0];
  EXPECT_EQ(task.scoring, Scoring::rolling);
  EXPECT_THAT(task.metrics,
              ElementsAre("word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"));
}

TEST(UserTask, AnEmptyDocumentOfAPerplexityIsNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] {
                load(folder, R"({"name": "news", "data": "rows.jsonl", "text": "body"})",
                     R"({"body": "Two words."})"
                     "\n\n"
                     R"({"body": ""})");
              }),
              HasSubstr("rows.jsonl:3: document 1 is empty: a perplexity is measured on text"));
}

TEST(UserTask, AFileOfRunningTextIsOneDocument) {
  const TemporaryFolder folder;
  folder.write("book.txt", " = One = \r\n\r\n = Two = \n");
  const auto path = folder.write("task.json", R"({"name": "book", "data": "book.txt", "text": "page"})");
  const LoadedTask loaded = load_documents(resolve_tasks(path.string()).tasks.at(0), {});
  ASSERT_EQ(loaded.documents.size(), 1U);
  EXPECT_EQ(loaded.documents[0].requests[0].continuation, " = One = \n\n = Two = \n");
  folder.write("book.txt", " \n");
  EXPECT_THAT(message_of([&] { load_documents(resolve_tasks(path.string()).tasks.at(0), {}); }),
              HasSubstr("book.txt: no text"));
}

TEST(UserTask, TextOfARowIsNotATemplate) {
  const TemporaryFolder folder;
  const LoadedTask loaded = load(
      folder,
      R"({"name": "x", "data": "rows.jsonl", "prompt": "{{q}}{{a}}", "choices": ["{{a}}"], "gold": "g"})",
      R"({"q": "{{g}} {{", "a": "g}}", "g": 0})");
  EXPECT_EQ(loaded.documents[0].requests[0].context, "{{g}} {{g}}");
  EXPECT_EQ(loaded.documents[0].requests[0].continuation, " g}}");
}

TEST(UserTask, ChoicesAreAListOrTexts) {
  const TemporaryFolder folder;
  const LoadedTask loaded = load(
      folder,
      R"({"name": "mine", "data": "rows.jsonl", "prompt": "q", "choices": ["yes", "no, {{a}}"], "gold": "g",)"
      R"( "metrics": ["acc_bytes"], "preamble": "Begin.\n"})",
      R"({"q": "Q", "a": "never", "g": "yes"})");
  EXPECT_EQ(loaded.documents[0].requests[0].context, "Begin.\nQ");
  EXPECT_EQ(loaded.documents[0].requests[0].continuation, " yes");
  EXPECT_EQ(loaded.documents[0].requests[1].continuation, " no, never");
}

TEST(UserTask, GoldIsAPositionALetterATextOrALabel) {
  const std::string row = R"("q": "Q", "c": ["x", "y", "z"], "l": ["1", "2", "3"])";
  const std::string plain = R"("choices": "c", "gold": "g")";
  EXPECT_EQ(gold_of(plain, "{" + row + R"(, "g": 2})"), 2);
  EXPECT_EQ(gold_of(plain, "{" + row + R"(, "g": "2"})"), 2);
  EXPECT_EQ(gold_of(plain, "{" + row + R"(, "g": "C"})"), 2);
  EXPECT_EQ(gold_of(plain, "{" + row + R"(, "g": "y"})"), 1);
  EXPECT_EQ(gold_of(plain + R"(, "gold_start": 1)", "{" + row + R"(, "g": 2})"), 1);
  EXPECT_EQ(gold_of(plain + R"(, "labels": "l")", "{" + row + R"(, "g": "2"})"), 1);
  EXPECT_EQ(gold_of(R"("choices": ["no", "yes"], "gold": "{{g}}")", "{" + row + R"(, "g": true})"), 1);
  // A text wins over the number that it spells.
  EXPECT_EQ(gold_of(R"("choices": "l", "gold": "g")", "{" + row + R"(, "g": "2"})"), 1);
}

/// A run was resumed with another "gold" and printed the old scores: nothing that it compared had changed.
TEST(UserTask, WhatAnswersAreJudgedByHasAHash) {
  const std::string row = R"({"q": "Q", "c": ["x", "y"], "names": ["2", "1"], "g": "1"})";
  const auto with = [&](const std::string& fields) {
    const TemporaryFolder folder;
    return load(folder, R"({"name": "mine", "data": "rows.jsonl", "prompt": "{{q}}", )" + fields + "}", row);
  };
  const LoadedTask first = with(R"("choices": "c", "gold": "g")");
  EXPECT_EQ(with(R"("choices": "c", "gold": "{{g}}")").answer_hash, first.answer_hash);
  for (const std::string fields :
       {R"("choices": "c", "gold": "g", "gold_start": 1)",
        R"("choices": "c", "gold": "g", "metrics": ["acc"])",
        R"("choices": "c", "gold": "g", "labels": "names", "metrics": ["acc_norm", "acc"])"}) {
    const LoadedTask other = with(fields);
    EXPECT_NE(other.answer_hash, first.answer_hash) << fields;
    EXPECT_EQ(other.prompt_hash, first.prompt_hash) << fields;
  }
}

TEST(UserTask, SplitsAndExamplesHaveFilesOfTheirOwn) {
  const TemporaryFolder folder;
  folder.write("test.jsonl", R"({"q": "T", "c": ["x", "y"], "g": 0})");
  folder.write("more/examples.jsonl", R"({"q": "E", "c": ["x", "y"], "g": 1})");
  const std::string fields =
      R"("name": "mine", "data": "{split}.jsonl", "prompt": "q", "choices": "c", "gold": "g")";
  const auto path = folder.write("task.json", "{" + fields + R"(, "fewshot": "more/examples.jsonl"})");
  const Task task = resolve_tasks(path.string()).tasks.at(0);
  EXPECT_EQ(load_documents(task, {.num_fewshot = 1}).documents[0].requests[0].context, "E y\n\nT");
  EXPECT_THAT(message_of([&] { load_documents(task, {.split = "validation"}); }),
              HasSubstr("validation.jsonl: not found; split test would read"));
}

TEST(UserTask, OneFileHasNoSplitsAndNoExamples) {
  const TemporaryFolder folder;
  const std::string description =
      R"({"name": "mine", "data": "rows.jsonl", "prompt": "q", "choices": "c", "gold": "g"})";
  const std::string row = R"({"q": "T", "c": ["x", "y"], "g": 0})";
  EXPECT_THAT(message_of([&] { load(folder, description, row, {.split = "train"}); }),
              HasSubstr("task mine reads one file and has no split \"train\""));
  EXPECT_THAT(message_of([&] { load(folder, description, row, {.num_fewshot = 1}); }),
              HasSubstr("add the field \"fewshot\""));
}

TEST(UserTask, DescriptionErrorsNameFileAndField) {
  const TemporaryFolder folder;
  const std::string name = R"("name": "mine", )";
  const std::string data = R"("data": "rows.jsonl", )";
  const std::string prompt = R"("prompt": "{{q}}", )";
  const std::string choices = R"("choices": "c", )";
  const std::string gold = R"("gold": "g")";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{" + data + prompt + choices + gold + "}", "field \"name\": missing"},
      {"{" + name + prompt + choices + gold + "}", "field \"data\": missing"},
      {"{" + name + data + choices + gold + "}", "field \"prompt\": missing"},
      {"{" + name + data + prompt + gold + "}", "field \"choices\": missing"},
      {"{" + name + data + prompt + choices + R"("metrics": ["acc"]})", "field \"gold\": missing"},
      {"{" + name + data + prompt + choices + gold + R"(, "promt": 1})",
       "field \"promt\": unknown; the fields are name"},
      {R"({"name": "a/b", )" + data + prompt + choices + gold + "}", "field \"name\": letters, digits"},
      {R"({"name": "piqa", )" + data + prompt + choices + gold + "}",
       "field \"name\": \"piqa\" is a built-in name"},
      {R"({"name": 3, )" + data + prompt + choices + gold + "}", "field \"name\": a number where a string"},
      {"{" + name + data + R"("prompt": "{{q", )" + choices + gold + "}",
       "field \"prompt\": a \"{{\" that no \"}}\" closes"},
      {"{" + name + data + R"("prompt": "a {{ }}", )" + choices + gold + "}",
       "field \"prompt\": an empty \"{{}}\""},
      {"{" + name + data + prompt + R"("choices": [], )" + gold + "}",
       "field \"choices\": an empty list where"},
      {"{" + name + data + prompt + R"("choices": ["a", 2], )" + gold + "}",
       "field \"choices\": a number in the list"},
      {"{" + name + data + prompt + R"("choices": "{{c}}", )" + gold + "}",
       "field \"choices\": a template where"},
      {"{" + name + data + prompt + choices + R"("gold": "{{a}} {{b}}"})",
       "field \"gold\": the path of one field"},
      {"{" + name + data + prompt + choices + gold + R"(, "gold_start": 2})", "field \"gold_start\": 0 or 1"},
      {"{" + name + data + prompt + choices + gold + R"(, "metrics": ["f1"]})",
       "field \"metrics\": \"f1\" is none of acc"},
      {"{" + name + data + R"("text": "t", "metrics": ["acc"]})",
       "field \"metrics\": \"acc\" is none of word_perplexity"},
      {"{" + name + data + R"("text": "t", )" + gold + "}", "field \"gold\": not used beside \"text\""},
      {"{" + name + data + prompt + choices + gold + R"(, "metrics": []})",
       "field \"metrics\": a list of names"},
      {"[1]", "a list where a JSON object is expected"},
      {"{,}", "not JSON: syntax error"},
  };
  for (const auto& [description, message] : cases) {
    const auto path = folder.write("task.json", description);
    EXPECT_THAT(message_of([&, &text = path] { resolve_tasks(text.string()); }),
                StartsWith(path.string() + ": " + message))
        << description;
  }
  EXPECT_THAT(message_of([&] { resolve_tasks("nowhere/task.json"); }),
              StartsWith("nowhere/task.json: cannot open"));
  const auto good = folder.write("task.json", "{" + name + data + prompt + choices + gold + "}").string();
  EXPECT_THAT(message_of([&] { resolve_tasks(good + "," + good); }), HasSubstr("the name of two tasks"));
}

TEST(UserTask, RowErrorsNameFileLineAndField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"c": ["x"], "g": 0})", "field \"q\": missing"},
      {R"({"q": 1.5, "c": ["x"], "g": 0})", "field \"q\": a fraction where a string or a whole number"},
      {R"({"q": "Q", "g": 0})", "field \"c\": missing"},
      {R"({"q": "Q", "c": [], "g": 0})", "field \"c\": an empty list"},
      {R"({"q": "Q", "c": ["x", ""], "g": 0})", "choice 2 is empty text"},
      {R"({"q": "Q", "c": ["x"], "g": 1})", "field \"g\": 1 is none of 0 to 0"},
      {R"({"q": "Q", "c": ["x"], "g": "B"})", "field \"g\": B where there are 1 choices"},
      {R"({"q": "Q", "c": ["x"], "g": "why"})",
       "field \"g\": \"why\" is neither a choice's text, a letter nor"},
      {R"({"q": "Q", "c": ["x", "x"], "g": "x"})", "field \"g\": \"x\" stands twice among the choices"},
      {R"({"q": "Q", "c": ["x"], "g": null})", "field \"g\": null where a whole number is expected"},
  };
  for (const auto& [row, message] : cases) {
    const TemporaryFolder folder;
    const std::string description =
        R"({"name": "mine", "data": "rows.jsonl", "prompt": "q", "choices": "c", "gold": "g"})";
    EXPECT_THAT(message_of([&, &line = row] {
                  load(folder, description,
                       R"({"q": "Q", "c": ["x"], "g": 0})"
                       "\n\n" +
                           line);
                }),
                StartsWith((folder.path() / "rows.jsonl").string() + ":3: " + message))
        << row;
  }
}

}  // namespace
}  // namespace qeval::eval
