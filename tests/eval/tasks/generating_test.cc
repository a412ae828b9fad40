/// Tasks whose answers are written by the model: what is asked, what is taken out of an answer, what it is
/// worth.

#include "eval/tasks/generating.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "eval/engine/chat_template.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/generation_settings.h"
#include "eval/tasks/python_pattern.h"
#include "eval/tasks/python_random.h"
#include "eval/tasks/registry.h"
#include "tests/message_of.h"
#include "tests/reference_data.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// python3 -c "import random; r = random.Random(1234); print(r.sample(range(319), 5), r.sample(range(20), 4))"
TEST(PythonRandom, DrawsAsPythonDoes) {
  PythonRandom random(1234);
  EXPECT_THAT(random.sample(319, 5), ElementsAre(225, 59, 3, 46, 298));
  EXPECT_THAT(random.sample(319, 5), ElementsAre(17, 42, 50, 181, 121));
  EXPECT_THAT(random.sample(20, 4), ElementsAre(0, 19, 18, 11));
  PythonRandom large(99999999999);
  EXPECT_THAT(large.sample(319, 5), ElementsAre(44, 315, 232, 125, 242));
  EXPECT_TRUE(large.sample(3, 0).empty());
}

TEST(PythonPattern, FindsAsReFindallDoes) {
  EXPECT_THAT(PythonPattern("a*").find_all("baac"),
              ElementsAre(ElementsAre(""), ElementsAre("aa"), ElementsAre(""), ElementsAre("")));
  EXPECT_THAT(PythonPattern("(x)|(y)").find_all("xy"),
              ElementsAre(ElementsAre("x", ""), ElementsAre("", "y")));
  EXPECT_EQ(PythonPattern("\\.$").remove_all("a.b.\n"), "a.b\n");
  EXPECT_EQ(PythonPattern("\\bé\\b").replace_all("é éa", "-"), "- éa");
  EXPECT_EQ(PythonPattern::of_text("(i.K\n)").find_all("(\u0130.k\n) (x.k\n)").size(), 1U);
  EXPECT_THAT(message_of([] { PythonPattern("(a"); }), HasSubstr("pattern '(a', byte 2"));
}

/// The documents of a line of expectations, read once for the lines that follow one another.
class Loader {
 public:
  Loader(fs::path data, fs::path chat_template)
      : data_(std::move(data)), chat_(load_chat_template(chat_template), nlohmann::ordered_json::object()) {}

  const LoadedTask& load(const json& expected) {
    const std::string key = fmt::format("{} {} {} {}", expected["task"].dump(), expected["shots"].dump(),
                                        expected["system"].dump(), expected["chat"].dump());
    if (key == key_) return loaded_;
    LoadOptions options{.data = data_, .num_fewshot = expected["shots"].get<int64_t>()};
    options.run_code = true;  // which no prompt does
    options.style.system_instruction = expected["system"].get<std::string>();
    if (expected["chat"].is_string()) {
      options.style.chat = [this](const nlohmann::ordered_json& messages) { return chat_(messages); };
      options.style.fewshot_as_multiturn = expected["chat"] == "turns";
    }
    task_ = resolve_tasks(expected["task"].get<std::string>()).tasks.at(0);
    loaded_ = load_documents(task_, options);
    key_ = key;
    return loaded_;
  }
  const Task& task() const { return task_; }

 private:
  fs::path data_;
  ChatRenderer chat_;
  std::string key_;
  Task task_;
  LoadedTask loaded_;
};

void expect_judged(const Task& task, const Document& document, const json& answer) {
  const std::string text = answer["text"].get<std::string>();
  SCOPED_TRACE(json(text).dump() + " of " + json(document.references).dump());
  const JudgedTexts judged = judge_texts(*task.generation, document, {text});
  ASSERT_EQ(judged.filtered.size(), answer["filtered"].size());
  for (const auto& [filter, filtered] : judged.filtered)
    EXPECT_EQ(json(filtered), answer["filtered"][filter]);
  ASSERT_EQ(task.metrics.size(), answer["values"].size());
  for (size_t i = 0; i < task.metrics.size(); ++i)
    EXPECT_DOUBLE_EQ(judged.values[i], answer["values"][task.metrics[i]].get<double>()) << task.metrics[i];
}

/// The lines that a script in tests/python writes into `folder`; nothing, and why in `said`, where Python
/// lacks what it needs.
std::string expected_lines(const std::string& script, const fs::path& folder, std::string& said) {
  const char* python = std::getenv("QEVAL_PYTHON");
  const auto log = folder / "log";
  const std::string command =
      fmt::format("'{}' '{}/python/{}' '{}' > '{}' 2>&1", python == nullptr ? "python3" : python,
                  QEVAL_TESTS_DIR, script, folder.string(), log.string());
  const int status = std::system(command.c_str());
  said = read_file(log);
  if (said.find("skip") != std::string::npos || said.find("not found") != std::string::npos) return {};
  EXPECT_EQ(status, 0) << said;
  return read_file(folder / "expected.jsonl");
}

/// IFEval's 25 kinds of instructions on odd responses, with the scores of the harness's own checkers
/// (make_odd_instructions.py).
TEST(GeneratingTasks, InstructionsAreCheckedAsTheHarnessChecksThem) {
  const test::TemporaryFolder folder;
  std::string said;
  const std::string expected = expected_lines("make_odd_instructions.py", folder.path(), said);
  if (expected.empty()) GTEST_SKIP() << said;
  const Task task = resolve_tasks("ifeval").tasks.at(0);
  const LoadedTask loaded = load_documents(task, {.data = folder.path() / "data"});
  std::istringstream lines(expected);
  size_t judged = 0;
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    const Document& document = loaded.documents.at(row["doc_id"].get<size_t>());
    SCOPED_TRACE(document.row.dump());
    for (const json& answer : row["answers"]) {
      expect_judged(task, document, answer);
      ++judged;
    }
  }
  EXPECT_GT(judged, 3000U);
}

/// A few of all these, for machines without the harness (tests/goldens/tasks).
TEST(GeneratingTasks, TheGoldensAreAskedAndJudgedAsTheHarnessDoes) {
  const fs::path goldens = fs::path(QEVAL_GOLDENS_DIR) / "tasks";
  std::istringstream lines(read_file(goldens / "expected.jsonl"));
  size_t documents = 0, judged = 0;
  for (std::string line; std::getline(lines, line); ++documents) {
    const json expected = json::parse(line);
    const Task task = resolve_tasks(expected["task"].get<std::string>()).tasks.at(0);
    const LoadedTask loaded = load_documents(
        task, {.data = goldens / "data", .num_fewshot = expected["shots"].get<int64_t>(), .run_code = true});
    const Document& document = loaded.documents.at(expected["doc_id"].get<size_t>());
    SCOPED_TRACE(fmt::format("{}, document {}", task.name, document.doc_id));
    EXPECT_EQ(sha256_hex(document.requests.at(0).context), expected["prompt_sha256"].get<std::string>());
    for (const json& answer : expected["answers"]) {
      expect_judged(task, document, answer);
      ++judged;
    }
  }
  EXPECT_GT(documents, 150U);
  EXPECT_GT(judged, 800U);
}

TEST(GeneratingTasks, InstructionsThatCannotBeCheckedAreNamed) {
  const test::TemporaryFolder folder;
  const auto refused = [&](const std::string& kind, const std::string& arguments) {
    folder.write(
        "data/ifeval/train.jsonl",
        fmt::format(R"({{"prompt": "x", "instruction_id_list": ["{}"], "kwargs": [{}]}})", kind, arguments));
    return message_of(
        [&] { load_documents(resolve_tasks("ifeval").tasks.at(0), {.data = folder.path() / "data"}); });
  };
  EXPECT_THAT(refused("keywords:rhymes", "{}"), HasSubstr("train.jsonl:1: field \"instruction_id_list.0\": "
                                                          "\"keywords:rhymes\" is none of the kinds"));
  EXPECT_THAT(refused("length_constraints:number_words", R"({"num_words": 0, "relation": "at least"})"),
              HasSubstr("kwargs.0.num_words\": is missing or zero"));
  EXPECT_THAT(refused("length_constraints:number_words", R"({"num_words": 3, "relation": "exactly"})"),
              HasSubstr("\"less than\" or \"at least\""));
  EXPECT_THAT(refused("language:response_language", R"({"language": "de"})"),
              AllOf(HasSubstr("langdetect: is missing: the profiles"),
                    HasSubstr("is told; scripts/fetch_datasets.py --tasks ifeval fetches them")));
  EXPECT_THAT(
      refused("length_constraints:number_sentences", R"({"num_sentences": 2, "relation": "at least"})"),
      AllOf(HasSubstr("punkt_english: is missing: NLTK's model"),
            HasSubstr("scripts/fetch_datasets.py --tasks ifeval fetches it")));
  EXPECT_EQ(refused("punctuation:no_comma", "{}"), "");
}

TEST(GenerationSettings, AreTheHarnesses) {
  const Generation own = *resolve_tasks("gsm8k").tasks.at(0).generation;
  const auto with = [&](const std::string& text) {
    std::vector<std::string> warnings;
    return *with_settings(own, parse_generation_settings(text), warnings);
  };
  const Generation changed =
      with("max_gen_toks=7,do_sample=true,temperature=0.5,top_k=3,top_p=0.9,seed=5,repeats=2");
  EXPECT_EQ(changed.max_tokens, 7);
  EXPECT_EQ(changed.temperature, 0.5);
  EXPECT_EQ(changed.top_k, 3);
  EXPECT_EQ(changed.top_p, 0.9);
  EXPECT_EQ(changed.seed, 5U);
  EXPECT_EQ(changed.repeats, 2);
  EXPECT_EQ(changed.until, own.until);
  EXPECT_EQ(changed.arguments["temperature"], 0.5);
  EXPECT_EQ(with("do_sample=True").temperature, 1);
  EXPECT_EQ(with("do_sample=false,temperature=0.7").temperature, 0);
  EXPECT_EQ(with("temperature=0").temperature, 0);
  EXPECT_THAT(with(R"({"until": ["a", "b"]})").until, ElementsAre("a", "b"));
  EXPECT_THAT(with("until=x").until, ElementsAre("x"));
  EXPECT_EQ(with("max_new_tokens=9").max_tokens, 9);
  const auto refusal = [&](const std::string& text) { return message_of([&] { with(text); }); };
  EXPECT_THAT(refusal("beams=4"), HasSubstr("beams is unknown; accepted: until"));
  for (const char* nothing : {"", " ", ",", " , ,", "{}"})
    EXPECT_THAT(refusal(nothing), HasSubstr("has no setting; NAME=VALUE")) << nothing;
  EXPECT_THAT(refusal("top_k=1,top_k=2"), HasSubstr("top_k is given twice"));
  EXPECT_THAT(refusal("max_gen_toks=1,max_new_tokens=2"), HasSubstr("max_gen_toks is given twice"));
  EXPECT_THAT(refusal("repeats=1001"), HasSubstr("repeats is 1001; accepted: a number of texts per document, "
                                                 "1 to 1000"));
  EXPECT_THAT(refusal("max_gen_toks=0"), HasSubstr("max_gen_toks is 0"));
  EXPECT_THAT(refusal("top_p=2"), HasSubstr("top_p is 2"));
  EXPECT_THAT(refusal("temperature=-1"), HasSubstr("temperature is -1"));
  EXPECT_THAT(refusal("temperature"), HasSubstr("NAME=VALUE"));
}

/// normalize_gen_kwargs() of lm-evaluation-harness: do_sample, the task's own too, goes before a temperature.
TEST(GenerationSettings, WhatHasNoEffectIsSaidAndRecordedAsItIsDone) {
  std::vector<std::string> warnings;
  const auto with = [&](const char* task, const std::string& text) {
    warnings.clear();
    return with_settings(*resolve_tasks(task).tasks.at(0).generation, parse_generation_settings(text),
                         warnings);
  };
  auto made = with("gsm8k", "temperature=0.7");  // do_sample: false
  EXPECT_EQ(made->temperature, 0);
  EXPECT_EQ(made->arguments["temperature"], 0.0);
  EXPECT_EQ(made->settings()["do_sample"], false);
  EXPECT_THAT(warnings,
              ElementsAre(HasSubstr("temperature=0.7 has no effect where do_sample is false, as the "
                                    "task says")));
  made = with("drop", "temperature=0.7");  // says nothing of do_sample
  EXPECT_EQ(made->temperature, 0.7);
  EXPECT_THAT(warnings, ElementsAre());
  made = with("gsm8k", "do_sample=true,temperature=0");
  EXPECT_EQ(made->temperature, 0);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("do_sample=true with temperature=0")));
  with("gsm8k", "repeats=2,top_k=4");
  EXPECT_THAT(warnings,
              ElementsAre(HasSubstr("top_k without drawing"), HasSubstr("repeats=2 without drawing")));
  made = with("gsm8k", "do_sample=true");
  EXPECT_EQ(made->arguments["temperature"], 1.0);
  EXPECT_THAT(warnings, ElementsAre());
}

TEST(GenerationSettings, TheirOrderIsNotRecorded) {
  const Generation own = *resolve_tasks("drop").tasks.at(0).generation;
  std::vector<std::string> warnings;
  const auto arguments = [&](const std::string& text) {
    return with_settings(own, parse_generation_settings(text), warnings)->arguments.dump();
  };
  EXPECT_EQ(arguments("top_k=20,temperature=0.9,max_gen_toks=5"),
            arguments("max_new_tokens=5,temperature=0.9,top_k=20"));
  EXPECT_EQ(arguments(R"({"seed": 3, "do_sample": true})"), arguments("do_sample=true,seed=3"));
}

TEST(AnswerFilter, WhatCannotBeAppliedIsNamed) {
  Document document;
  document.doc_id = 7;
  document.judge = exact_match({}, {"1"});
  Generation generation;
  generation.repeats = 3;
  generation.filters = {{"second", {regex_step("[0-9]+", 1)}}};
  generation.metrics = {"exact_match"};
  EXPECT_THAT(message_of([&] { judge_texts(generation, document, {"only 1"}); }),
              HasSubstr("document 7, filter second: the pattern [0-9]+ has one match in the text, of which "
                        "number 1 is to be taken"));
  // Whether there are enough texts is known before there are any.
  generation.check_filters();
  generation.filters.push_back({"maj@4", {strip_step(), first_step(4), majority_step()}});
  const auto refusal = [&] {
    return message_of([&] {
      std::vector<std::string> warnings;
      with_settings(generation, nlohmann::ordered_json::object(), warnings);
    });
  };
  EXPECT_THAT(refusal(),
              HasSubstr("filter maj@4: a step takes 4 texts of each document, of which 3 are written"));
  generation.repeats = 4;
  generation.check_filters();
  generation.filters.back().steps = {majority_step(), first_step(2)};
  EXPECT_THAT(refusal(),
              HasSubstr("filter maj@4: a step takes 2 texts of each document, of which one is written"));
}

TEST(AnswerFilter, TextsOfADocumentVote) {
  const Document document;
  const AnswerFilter vote{"maj", {strip_step(), majority_step()}};
  EXPECT_EQ(vote.apply({"a", " b", "b", "a ", "c"}, document), "a");
  EXPECT_EQ(vote.apply({"c", "b", "b"}, document), "b");
  const AnswerFilter first{"maj@2", {first_step(2), majority_step()}};
  EXPECT_EQ(first.apply({"c", "b", "b"}, document), "c");
  EXPECT_THAT(message_of([&] { first.apply({"c"}, document); }), HasSubstr("takes 2 texts of each document"));
}

/// python3 -c "import random; r = random.Random(0); print(r.gauss(0, 1), r.gauss(0, 1), r.random(),
/// r.choice(range(55)))"
TEST(PythonRandom, DrawsNumbersAsPythonDoes) {
  PythonRandom random(0);
  EXPECT_DOUBLE_EQ(random.gauss(), 0.9417154046806644);
  EXPECT_DOUBLE_EQ(random.gauss(), -1.3965781047011498);
  EXPECT_DOUBLE_EQ(random.uniform(), 0.420571580830845);
  EXPECT_EQ(random.below(55), 16U);
}

/// Odd rows and odd answers, with what the harness's definitions, samplers, filters and metrics make of them
/// (make_odd_answers.py).
TEST(GeneratingTasks, AskAndJudgeAsTheHarnessDoes) {
  const test::TemporaryFolder folder;
  std::string said;
  const std::string wanted = expected_lines("make_odd_answers.py", folder.path(), said);
  if (wanted.empty()) GTEST_SKIP() << said;
  std::istringstream lines(wanted);
  Loader loader(folder.path() / "data", folder.path() / "template.jinja");
  size_t prompts = 0, judged = 0;
  for (std::string line; std::getline(lines, line);) {
    const json expected = json::parse(line);
    const LoadedTask& loaded = loader.load(expected);
    const Document& document = loaded.documents.at(expected["doc_id"].get<size_t>());
    SCOPED_TRACE(
        fmt::format("{}, document {}: {}", expected["task"].dump(), document.doc_id, document.row.dump()));
    ASSERT_EQ(document.requests.at(0).context, expected["prompt"].get<std::string>());
    EXPECT_EQ(json(loader.task().generation->arguments), expected["arguments"]);
    ++prompts;
    for (const json& answer : expected["answers"]) {
      expect_judged(loader.task(), document, answer);
      ++judged;
    }
  }
  EXPECT_GT(prompts, 1000U);
  EXPECT_GT(judged, 1000U);
}

/// Prompts, filters and scores of what the harness itself ran.
TEST(GeneratingTasks, AreThoseOfTheReference) {
  const fs::path reference = test::shared_data("reference/generation");
  if (!fs::is_directory(reference)) GTEST_SKIP() << "no " << reference;
  const test::TemporaryFolder folder;
  folder.write(
      "template.jinja",
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
      "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
      "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
      "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "
      "endif %}");
  Loader loader(reference / "data", folder.path() / "template.jinja");
  size_t compared = 0;
  for (const char* name : {"gsm8k", "gsm8k_cot", "gsm8k_cot_chat", "gsm8k_chat_system"}) {
    const json run = json::parse(read_file(reference / (std::string(name) + ".json")));
    const json& settings = run["settings"];
    const bool chat = settings.value("apply_chat_template", false);
    for (const json& sample : run["samples"]) {
      SCOPED_TRACE(fmt::format("{}, document {}", name, sample["doc_id"].dump()));
      const LoadedTask& loaded = loader.load(
          {{"task", run["task"]},
           {"shots", run["config"]["num_fewshot"]},
           {"system", settings.value("system_instruction", "")},
           {"chat",
            chat ? settings.value("fewshot_as_multiturn", true) ? json("turns") : json("one") : json()}});
      const Document& document = loaded.documents.at(sample["doc_id"].get<size_t>());
      EXPECT_EQ(document.requests.at(0).context, sample["arguments"][0][0].get<std::string>());
      EXPECT_EQ(json(loader.task().generation->arguments), sample["arguments"][0][1]);
      EXPECT_EQ(document.target, sample["target"]);
      const JudgedTexts judged =
          judge_texts(*loader.task().generation, document, {sample["resps"][0][0].get<std::string>()});
      for (size_t i = 0; i < judged.filtered.size(); ++i) {
        if (judged.filtered[i].first != sample["filter"]) continue;
        EXPECT_EQ(json(judged.filtered[i].second), sample["filtered_resps"][0]);
        EXPECT_EQ(judged.values[i], sample["exact_match"].get<double>());
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 28U);
}

TEST(GeneratingTasks, WhatCannotBeAskedIsNamed) {
  const test::TemporaryFolder folder;
  folder.write("triviaqa/validation.jsonl", "{\"question\": \"Q\", \"answer\": {\"aliases\": [\"a\"]}}\n");
  const Task task = resolve_tasks("triviaqa").tasks.at(0);
  EXPECT_EQ(load_documents(task, {.data = folder.path()}).documents.at(0).requests.at(0).context,
            "Question: Q?\nAnswer:");
  EXPECT_THAT(message_of([&] { load_documents(task, {.data = folder.path(), .num_fewshot = 1}); }),
              HasSubstr("no file of the train split"));
  folder.write("triviaqa/train.jsonl", "{\"question\": \"Q\", \"answer\": {\"aliases\": [\"a\"]}}\n");
  EXPECT_THAT(message_of([&] { load_documents(task, {.data = folder.path(), .num_fewshot = 1}); }),
              HasSubstr("1 usable rows where num_fewshot 1 takes 1 examples"));
  folder.write("mmlu_pro/test.jsonl", "{\"question\": \"Q\", \"category\": \"law\"}\n");
  EXPECT_THAT(message_of([&] {
                load_documents(resolve_tasks("mmlu_pro_math").tasks.at(0),
                               {.data = folder.path(), .num_fewshot = 0});
              }),
              HasSubstr("no row of task mmlu_pro_math"));
}

}  // namespace
}  // namespace qeval::eval
