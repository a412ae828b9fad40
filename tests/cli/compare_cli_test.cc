// Several runs compared from the command line: divergence from a base, several arithmetics, whole matrices.
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "eval/results/divergence.h"
#include "eval/results/statistics.h"

namespace qeval::test {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Without what may differ between two runs of the same work.
void forget_times(ordered_json& json) {
  if (json.is_object()) {
    for (const char* key : {"seconds", "date", "peak_rss_bytes"}) json.erase(key);
  }
  if (!json.is_structured()) return;
  for (auto& item : json) forget_times(item);
}

/// The same with those fields kept, as a reader expects them.
void set_times(ordered_json& json) {
  if (json.is_object()) {
    for (const char* key : {"seconds", "date", "peak_rss_bytes"}) {
      if (json.contains(key)) json[key] = 1;
    }
  }
  if (!json.is_structured()) return;
  for (auto& item : json) set_times(item);
}

/// The arguments of a command of which no word needs quotes.
std::vector<std::string> words_of(const std::string& command) {
  std::vector<std::string> words;
  for (size_t at = command.find(' ') + 1; at != 0;) {
    const size_t end = command.find(' ', at);
    words.push_back(command.substr(at, end - at));
    at = end == std::string::npos ? 0 : end + 1;
  }
  return words;
}

/// What a comparison leaves that must not depend on interruptions: its lists and results, and the report of
/// the runs' results without their times.
struct Remains {
  ordered_json compare, results;
  std::string markdown;
};

class CompareCli : public Cli {
 protected:
  CompareCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
    write("calibration.txt", text);
  }

  std::vector<std::string> compare_arguments(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"compare",    "-m",        path("model"), "-d",
                                 path("data"), "--samples", "4",           "--sequence-length",
                                 "24",         "-o",        path("out")};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Outcome compare(const std::vector<std::string>& more) const { return run(compare_arguments(more)); }
  std::vector<std::string> calibrated(std::vector<std::string> more) const {
    more.insert(more.end(), {"--calibration", path("calibration.txt")});
    return more;
  }
  ordered_json json(const std::string& file) const { return ordered_json::parse(read(file)); }
  Remains remains() const;
};

Remains CompareCli::remains() const {
  Remains out{json("out/compare.json"), json("out/results.json"), {}};
  forget_times(out.results);
  for (const auto& entry : out.compare["entries"]) {
    const std::string file = "out/" + entry["results"].get<std::string>() + "/results.json";
    ordered_json results = json(file);
    set_times(results);
    write(file, results.dump());
  }
  expect_success(run({"report", path("out"), "-o", path("report.md")}));
  out.markdown = read("report.md");
  return out;
}

/// Ready-made checkpoints are no methods of the comparison; weights alone have no ranges of position 0.
TEST_F(CompareCli, ReadyMadeRunsAndRotatedWeightsAloneFollowFromTheirResults) {
  expect_success(
      run({"quantize", "-m", path("model"), "--method", "rtn", "--scheme", "w4a8", "--calibration",
           path("calibration.txt"), "--samples", "2", "--sequence-length", "24", "-o", path("q4")}));
  expect_success(
      compare(calibrated({"-t", "sample_qa", "--with", path("q4"), "--with", path("q4") + "@integer",
                          "--methods", "rtn,rotate", "--schemes", "w4a16"})));
  expect_success(run({"verify", path("out")}));
  expect_one_line(compare(calibrated({"-t", "sample_qa", "--methods", "rotate", "--schemes", "w4a16",
                                      "--first-token", "ranges"})),
                  kWrongUsage, "--first-token: ranges: not with scheme w4a16");
}

TEST_F(CompareCli, ARunAgainstItselfIsExactlyZero) {
  expect_success(eval({"-t", "piqa,sample", "-o", path("base"), "--keep-logprobs"}));
  const Outcome again =
      eval({"-t", "piqa,sample", "-o", path("again"), "--base", path("base"), "--batch-tokens", "7"});
  expect_success(again);
  EXPECT_THAT(again.output, AllOf(HasSubstr("top-1"), HasSubstr("100.00 %")));
  for (const std::string task : {"piqa", "sample_qa", "sample_text", "sample_letters"}) {
    const auto read = qeval::eval::read_divergence(path("again/" + qeval::eval::divergence_file(task)), task);
    const qeval::eval::DivergenceSummary summary = summarize(read.documents);
    EXPECT_GT(summary.positions, 0) << task;
    EXPECT_EQ(summary.max_kl, 0);
    EXPECT_EQ(summary.mean_kl_upper, 0);
    EXPECT_EQ(summary.top1_agreement, 1);
  }
}

TEST_F(CompareCli, KeptLogProbabilitiesDependNeitherOnThreadsNorOnBatches) {
  expect_success(eval({"-t", "piqa", "-o", path("a"), "--keep-logprobs"}));
  expect_success(
      eval({"-t", "piqa", "-o", path("b"), "--keep-logprobs", "--threads", "1", "--batch-tokens", "5"}));
  EXPECT_EQ(read("a/logprobs_piqa.bin"), read("b/logprobs_piqa.bin"));
}

TEST_F(CompareCli, ABaseThatDoesNotFitIsNamed) {
  expect_success(eval({"-t", "piqa", "-o", path("base"), "--keep-logprobs", "--limit", "1"}));
  expect_success(eval({"-t", "piqa", "-o", path("bare")}));
  const auto against = [&](const std::string& task, const std::string& base) {
    return eval({"-t", task, "-o", path("out"), "--base", path(base)});
  };
  expect_one_line(against("piqa", "base"), kFailed, "holds 1 documents of task piqa, this run has 2");
  expect_one_line(against("piqa", "bare"), kFailed, "--keep-logprobs");
  expect_one_line(against("sample_qa", "base"), kFailed, "no results of task sample_qa");
  expect_one_line(against("piqa", "nowhere"), kFailed, "nowhere");
  expect_one_line(eval({"-t", "piqa", "--keep-logprobs"}), kWrongUsage, "-o DIR");
  // These were compared, though a report refuses them.
  const auto by = [&](const std::string& option, const std::string& value) {
    return eval({"-t", "piqa", "--limit", "1", "-o", path("out"), "--base", path("base"), option, value});
  };
  expect_one_line(by("--protocol", "lm-eval-0.3"), kFailed, "protocol (lm-eval-0.4 there, lm-eval-0.3 here)");
  expect_one_line(by("--max-length", "32"), kFailed,
                  "base: cannot be the base: it was scored by other rules");
  expect_one_line(by("--max-length", "32"), kFailed, "maximum length (128 there, 32 here)");
  expect_one_line(by("--prefix-token", "none"), kFailed, "prefix token (");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  expect_success(by("--batch-tokens", "9"));
}

TEST_F(CompareCli, SeveralArithmeticsGiveAComparison) {
  expect_success(
      run({"quantize", "-m", path("model"), "--method", "rtn", "--calibration", path("calibration.txt"),
           "--samples", "4", "--sequence-length", "24", "-o", path("q")}));
  const Outcome outcome = run({"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa", "-o", path("out"),
                               "--arithmetic", "fake,integer,float"});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("Against float"), HasSubstr("mean KL")));
  const ordered_json file = json("out/compare.json");
  EXPECT_EQ(file["base"], "float");
  EXPECT_EQ(file["entries"].size(), 3U);
  EXPECT_EQ(file["entries"][1]["results"], "fake");
  const ordered_json results = json("out/results.json");
  EXPECT_GT(results["runs"][0]["tasks"]["piqa"]["divergence"]["mean_kl"], 0);
  EXPECT_EQ(json("out/integer/results.json")["model"]["arithmetic"], "integer");
  expect_success(run({"verify", path("out")}));
  // Every entry had the whole command.
  EXPECT_EQ(
      file["entries"][2]["commands"],
      ordered_json({"qeval eval --model " + path("q") + " --tasks piqa --data " + path("data") +
                    " --arithmetic integer --base " + path("out/float") + " -o " + path("out/integer")}));
  for (const char* run_of : {"float", "integer"}) {
    const std::string folder = std::string("out/") + run_of, samples = read(folder + "/samples_piqa.jsonl");
    const ordered_json entry = file["entries"][run_of == std::string("float") ? 0 : 2];
    EXPECT_EQ(json(folder + "/results.json")["command"], entry["commands"][0]);
    expect_success(run(words_of(entry["commands"][0])));
    EXPECT_EQ(read(folder + "/samples_piqa.jsonl"), samples);
  }
  // Only the first kept them.
  EXPECT_FALSE(std::filesystem::exists(path("out/fake/logprobs_piqa.bin")));
  expect_success(run({"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa", "-o", path("kept"),
                      "--arithmetic", "fake,float", "--keep-logprobs"}));
  for (const char* kept : {"kept/fake/logprobs_piqa.bin", "kept/float/logprobs_piqa.bin"})
    EXPECT_TRUE(std::filesystem::exists(path(kept))) << kept;
  expect_one_line(
      run({"eval", "-m", path("q"), "-d", path("data"), "-t", "piqa", "--arithmetic", "fake,float"}),
      kWrongUsage, "-o DIR");
  expect_one_line(eval({"-t", "piqa", "-o", path("x"), "--arithmetic", "fake,decimal"}), kWrongUsage,
                  "decimal");
}

TEST_F(CompareCli, NamesAreCheckedBeforeWorkStarts) {
  const std::vector<std::string> task{"-t", "piqa"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), task.begin(), task.end());
    return compare(calibrated(more));
  };
  expect_one_line(with({"--methods", "rtn,quip"}), kWrongUsage, "quip");
  expect_one_line(with({"--schemes", "w8a8,w1a1"}), kWrongUsage, "w1a1");
  expect_one_line(with({"--methods", "rtn,rtn"}), kWrongUsage, "twice");
  expect_one_line(with({"--arithmetic", "float"}), kWrongUsage, "accepted: fake, integer");
  expect_one_line(with({"--integer", "worst"}), kWrongUsage, "accepted: best, all");
  expect_one_line(with({"--arithmetic", "integer", "--integer", "best"}), kWrongUsage, "--integer");
  expect_one_line(with({"--methods", "rtn", "--epochs", "2"}), kWrongUsage, "--epochs");
  expect_one_line(with({"--methods", "rtn", "--schemes", "w4a16", "--integer", "best"}), kWrongUsage,
                  "w4a16");
  expect_one_line(compare(calibrated({"-t", "no_such_task"})), kWrongUsage, "no_such_task");
  expect_one_line(compare(calibrated({"-t", "boolq"})), kFailed, "boolq");
  expect_one_line(run({"compare", "-m", path("model"), "-d", path("data"), "-t", "piqa", "-o", path("out")}),
                  kWrongUsage, "--calibration");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  write("out", "a file");
  expect_one_line(with({"--methods", "rtn"}), kFailed, "out");
}

/// Two of its tasks have acc alone, the others acc_norm as well; it was refused after all of its work.
TEST_F(CompareCli, TheCommonSenseTasksAreComparedByTheirMean) {
  const std::string arc =
      R"({"question": "Is ice cold?", "choices": {"text": ["no", "yes"], "label": ["A", "B"]}, "answerKey": "B"})"
      "\n";
  write("data/arc_easy/test.jsonl", arc);
  write("data/arc_challenge/test.jsonl", arc + arc);
  write(
      "data/hellaswag/validation.jsonl",
      R"({"activity_label": "Tea", "ctx_a": "She boils water.", "ctx_b": "then she", "endings": ["pours it.", "sings."], "label": 0})"
      "\n");
  write(
      "data/winogrande/validation.jsonl",
      R"({"sentence": "The cup fell on the plate and _ broke.", "option1": "cup", "option2": "plate", "answer": "1"})"
      "\n");
  write("data/boolq/validation.jsonl", R"({"passage": "Ice is cold.", "question": "is ice hot", "label": 0})"
                                       "\n");
  write(
      "data/openbookqa/test.jsonl",
      R"({"question_stem": "Ice is", "choices": {"text": ["cold", "hot"], "label": ["A", "B"]}, "answerKey": "A"})"
      "\n");
  expect_success(compare(calibrated({"-t", "commonsense", "--methods", "rtn", "--schemes", "w4a8"})));
  const ordered_json results = json("out/results.json");
  const ordered_json& group = results["runs"][0]["groups"]["commonsense"];
  EXPECT_EQ(group["documents"], 9);
  EXPECT_EQ(group["metrics"].size(), 2U);
  EXPECT_TRUE(group["metrics"].contains("acc"));
  EXPECT_EQ(results["base"]["results"]["unweighted_groups"], ordered_json::array({"commonsense"}));
  EXPECT_EQ(results["tests"][0]["metric"], "acc_unweighted");
  EXPECT_EQ(results["tests"].size(), 1U);
  EXPECT_THAT(read("out/report.md"), HasSubstr("acc_unweighted, % ↑"));
}

TEST_F(CompareCli, AnotherMatrixInTheSameFolderIsRefused) {
  const auto with = [&](const std::string& schemes, const std::string& limit) {
    return compare(calibrated({"-t", "piqa", "--methods", "rtn", "--schemes", schemes, "--limit", limit}));
  };
  const Outcome plan =
      compare(calibrated({"-t", "piqa", "--methods", "rtn", "--schemes", "w8a8", "--limit", "2", "--plan"}));
  expect_success(plan);
  EXPECT_THAT(plan.output, AllOf(HasSubstr("quantize rtn w8a8"), HasSubstr("left to do")));
  const Outcome ranks = compare(calibrated(
      {"-t", "piqa", "--methods", "rtn", "--schemes", "w8a8", "--limit", "2", "--plan", "--ranks", "2"}));
  expect_success(ranks);
  EXPECT_THAT(ranks.output, HasSubstr("2 ranks"));
  expect_one_line(compare(calibrated({"-t", "piqa", "--ranks", "2"})), kWrongUsage, "--plan");
  expect_one_line(compare(calibrated({"-t", "piqa", "--plan", "--ranks", "0"})), kWrongUsage, "--ranks 0");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  expect_success(with("w8a8", "2"));
  expect_one_line(with("w4a8", "2"), kFailed, "schemes (w8a8 there, w4a8 here)");
  expect_one_line(with("w8a8", "1"), kFailed, "evaluation limit (2 there, 1 here)");
  const std::string before = read("out/results.json");
  const Outcome again = with("w8a8", "2");
  expect_success(again);
  EXPECT_THAT(again.output, HasSubstr("done"));
  EXPECT_EQ(read("out/results.json"), before);
  std::filesystem::remove(path("out/matrix.json"));
  expect_one_line(with("w8a8", "2"), kFailed, "no matrix.json");
}

/// What decides no result was compared as it had been typed: another path to the same text, or how often the
/// state is saved, could not continue a comparison.
TEST_F(CompareCli, OnlySettingsThatDecideResultsAreOthers) {
  const auto with = [&](const std::string& text, std::vector<std::string> more) {
    more.insert(more.begin(), {"-t", "piqa", "--methods", "smoothquant,omniquant,mobilequant", "--schemes",
                               "w8a8", "--calibration", path(text)});
    return compare(more);
  };
  expect_success(with("calibration.txt", {"--epochs", "1"}));
  std::filesystem::create_symlink(path("calibration.txt"), path("link.txt"));
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--seed", "0"},
                                               {"--save-minutes", "9"},
                                               {"--activation-memory", "0"},
                                               {"--preset", "laptop"},
                                               {"--loss", "output"},
                                               {"--alpha", "0.50"}}) {
    std::vector<std::string> all{"--epochs", "1"};
    all.insert(all.end(), more.begin(), more.end());
    SCOPED_TRACE(more[0]);
    expect_success(with("link.txt", all));
  }
  const auto refuses = [&](const std::vector<std::string>& more, const std::string& change) {
    expect_one_line(with("calibration.txt", more), kFailed, change);
  };
  refuses({"--epochs", "2"},
          "mobilequant w8a8 epochs (1 there, 2 here), omniquant w8a8 epochs (1 there, 2 here)");
  refuses({"--epochs", "1", "--loss", "logits"}, "mobilequant w8a8 loss (\"output\" there, \"logits\" here)");
  refuses({"--epochs", "1", "--alpha", "0.7"}, "alpha (0.5 there, 0.7 here)");
  refuses({"--epochs", "1", "--no-smooth"}, "smooth (yes there, no here)");
  refuses({"--epochs", "1", "--seed", "1"}, "calibration");
}

/// What one method alone knows could not be given beside another method.
TEST_F(CompareCli, AnOptionIsOfTheMethodsThatKnowIt) {
  expect_success(
      compare(calibrated({"-t", "piqa", "--methods", "omniquant,mobilequant", "--schemes", "w8a8", "--preset",
                          "distill", "--epochs", "1", "--lrl-lr", "1e-3", "--no-smooth"})));
  const auto settings = [&](const std::string& method) {
    return json("out/checkpoints/" + method + "-w8a8/quantize.json")["settings"];
  };
  EXPECT_EQ(settings("mobilequant")["loss"], "logits");
  EXPECT_EQ(settings("mobilequant")["lrl_lr"], 1e-3);
  EXPECT_EQ(settings("omniquant")["loss"], "output");
  EXPECT_EQ(settings("omniquant")["let_lr"], 1e-3);
  const ordered_json entries = json("out/compare.json")["entries"];
  const std::string omniquant = entries[1]["commands"][0], mobilequant = entries[2]["commands"][0];
  EXPECT_THAT(omniquant,
              AllOf(HasSubstr("--epochs 1"), Not(HasSubstr("distill")), Not(HasSubstr("--lrl-lr"))));
  EXPECT_THAT(mobilequant, AllOf(HasSubstr("--preset distill"), HasSubstr("--lrl-lr")));
}

/// A preset that brings a rotation brings it to its own method.
TEST_F(CompareCli, NearLosslessIsMobileQuantOfARotatedModel) {
  expect_success(
      compare(calibrated({"-t", "piqa", "--methods", "smoothquant,mobilequant", "--schemes", "w4a8",
                          "--preset", "near-lossless", "--epochs", "1", "--rotate", "offline"})));
  const auto settings = [&](const std::string& method) {
    return json("out/checkpoints/" + method + "-w4a8/quantize.json")["settings"];
  };
  EXPECT_FALSE(settings("smoothquant").contains("rotate"));
  EXPECT_EQ(settings("mobilequant")["rotate"], "offline");
  EXPECT_EQ(settings("mobilequant")["rounding"], "gptq");
  EXPECT_EQ(settings("mobilequant")["first_token"], "ranges");
  EXPECT_EQ(settings("mobilequant")["smooth"], false);
  EXPECT_EQ(settings("mobilequant")["round_first"], true);
  const std::string command = json("out/compare.json")["entries"][2]["commands"][0];
  EXPECT_THAT(command, AllOf(HasSubstr("--preset near-lossless"), HasSubstr("--rotate offline"),
                             Not(HasSubstr("--variant")), Not(HasSubstr("--alpha"))));
}

/// A preset may go by the weights' bits, and then does in every scheme of a comparison.
TEST_F(CompareCli, APresetIsThatOfEachScheme) {
  expect_success(compare(calibrated({"-t", "piqa", "--methods", "mobilequant", "--schemes", "w8a8,w4a8",
                                     "--preset", "near-lossless", "--epochs", "1", "--rotate", "offline"})));
  const auto settings = [&](const std::string& scheme) {
    return json("out/checkpoints/mobilequant-" + scheme + "/quantize.json")["settings"];
  };
  EXPECT_EQ(settings("w8a8")["lwc_lr"], 2e-4);
  EXPECT_EQ(settings("w4a8")["lwc_lr"], 2e-3);
  EXPECT_EQ(settings("w4a8")["batch_size"], 4);
}

/// All methods of a comparison share their samples: as many as the preset asks for the most demanding one.
TEST_F(CompareCli, APresetDecidesHowManySamplesAreShared) {
  const std::vector<std::string> arguments{"compare",
                                           "-m",
                                           path("model"),
                                           "-d",
                                           path("data"),
                                           "-t",
                                           "piqa",
                                           "--sequence-length",
                                           "8",
                                           "--calibration",
                                           path("calibration.txt"),
                                           "--schemes",
                                           "w8a8",
                                           "--plan",
                                           "-o",
                                           path("out"),
                                           "--methods"};
  // Calibration on all samples, and twice the first two for the layers' errors.
  const auto calibration = [](int64_t samples) { return std::to_string(8 * (samples + 2 * 2)); };
  const auto plan = [&](std::vector<std::string> more) {
    more.insert(more.begin(), arguments.begin(), arguments.end());
    const Outcome outcome = run(more);
    expect_success(outcome);
    return outcome.output;
  };
  EXPECT_THAT(plan({"rtn,omniquant,mobilequant", "--preset", "paper"}), HasSubstr(" " + calibration(1024)));
  EXPECT_THAT(plan({"rtn,omniquant", "--preset", "paper"}), HasSubstr(" " + calibration(128)));
  EXPECT_THAT(plan({"rtn,omniquant"}), HasSubstr(" " + calibration(32)));
  // A method that does not smooth leaves the pass that measures channels to the next one.
  const auto omniquant = [&](const std::string& methods) {
    const std::string all = plan({methods, "--preset", "near-lossless", "--samples", "4", "--epochs", "1"});
    const size_t line = all.find("quantize omniquant");
    return all.substr(line, all.find('\n', line) - line);
  };
  EXPECT_THAT(omniquant("rtn,mobilequant,omniquant"), testing::Eq(omniquant("rtn,omniquant,mobilequant")));
}

TEST_F(CompareCli, AnEntryIsReproducedByItsCommands) {
  expect_success(compare(calibrated({"-t", "piqa", "--methods", "smoothquant,mobilequant", "--schemes",
                                     "w4a8", "--epochs", "1", "--variant", "original"})));
  const ordered_json entry = json("out/compare.json")["entries"][2];
  EXPECT_EQ(entry["name"], "mobilequant w4a8");
  EXPECT_EQ(entry["variant"], "original");
  const ordered_json details = json("out/results/mobilequant-w4a8-fake/results.json")["model"]["details"];
  EXPECT_EQ(details["scheme"], "w4a8");
  EXPECT_EQ(details["weight_bits"], 4.0);
  EXPECT_EQ(details["activation_bits"], 8);
  EXPECT_EQ(details["quantize"]["method"], "mobilequant");
  EXPECT_EQ(details["training_loss"].size(), 4U);  // samples × epochs
  EXPECT_EQ(details["layer_errors"].size(), 2U);
  EXPECT_LT(details["size_bytes"], json("out/results/fp/results.json")["model"]["details"]["size_bytes"]);
  const std::string samples = read("out/results/mobilequant-w4a8-fake/samples_piqa.jsonl");
  const std::string divergence = read("out/results/mobilequant-w4a8-fake/divergence_piqa.jsonl");
  std::filesystem::remove_all(path("out/checkpoints/mobilequant-w4a8"));
  std::filesystem::remove_all(path("out/results/mobilequant-w4a8-fake"));
  for (const std::string command : entry["commands"]) expect_success(run(words_of(command)));
  EXPECT_EQ(read("out/results/mobilequant-w4a8-fake/samples_piqa.jsonl"), samples);
  EXPECT_EQ(read("out/results/mobilequant-w4a8-fake/divergence_piqa.jsonl"), divergence);
}

TEST_F(CompareCli, CalibrationOnAnEvaluatedTextIsWarnedOf) {
  write("data/wikitext2/wiki.test.raw", " = A page = \n" + read("calibration.txt"));
  const Outcome outcome = compare(calibrated({"-t", "wikitext", "--methods", "rtn", "--schemes", "w8a8"}));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("warning: rtn w8a8: task wikitext"), HasSubstr("calibrated")));
}

/// Runs qeval for that much CPU time at most, then the system ends it without warning; 0: without a limit.
/// Returns its exit status, or −1 where it was ended; `used` is the CPU time it took.
int run_for(const std::vector<std::string>& arguments, const std::string& output, double seconds,
            double* used = nullptr) {
  std::vector<std::string> words{QEVAL_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    struct itimerval timer {};
    timer.it_value.tv_sec = static_cast<time_t>(seconds);
    timer.it_value.tv_usec =
        static_cast<suseconds_t>((seconds - static_cast<double>(timer.it_value.tv_sec)) * 1e6);
    ::setitimer(ITIMER_PROF, &timer, nullptr);  // SIGPROF, which nobody catches; survives exec
    if (std::freopen(output.c_str(), "w", stdout) == nullptr) ::_exit(99);
    ::execv(QEVAL_BINARY, argv.data());
    ::_exit(99);
  }
  int status = 0;
  struct rusage usage {};
  if (::wait4(child, &status, 0, &usage) != child) return 98;
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  if (used != nullptr) *used = of(usage.ru_utime) + of(usage.ru_stime);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(CompareCli, AMatrixKilledAtTenMomentsAndContinuedGivesTheSame) {
  const std::vector<std::string> arguments =
      compare_arguments(calibrated({"-t", "piqa,sample", "--methods", "rtn,smoothquant,omniquant,mobilequant",
                                    "--schemes", "w8a8,w4a8", "--epochs", "2", "--integer", "best"}));
  double whole = 0;
  ASSERT_EQ(run_for(arguments, path("stdout"), 0, &whole), 0);
  const Remains expected = remains();
  ASSERT_EQ(expected.compare["entries"].size(), 10U);
  qeval::eval::Random random(8);
  int kills = 0;
  while (kills < 10) {
    std::filesystem::remove_all(path("out"));
    // Long enough to get on each time: what a process does before it goes on takes time as well.
    for (int attempt = 0;; ++attempt) {
      const double seconds = whole * (0.15 + 0.35 * random.uniform());
      const int status = run_for(arguments, path("stdout"), attempt < 4 ? seconds : 0);
      if (status == 0) break;
      ASSERT_EQ(status, -1) << "it failed by itself";
      ++kills;
    }
    const Remains left = remains();
    EXPECT_EQ(left.compare, expected.compare);
    EXPECT_EQ(left.results, expected.results);
    EXPECT_EQ(left.markdown, expected.markdown);
  }
}

}  // namespace
}  // namespace qeval::test
