// qeval verify: results that were left alone pass, and every way to tamper with them is noticed and named.
#include <array>
#include <filesystem>
#include <functional>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

class VerifyCli : public Cli {
 protected:
  /// base/ with kept log-probabilities, other/ of another model, and run/ with divergences from base.
  VerifyCli() {
    fs::copy(path("model"), path("model2"));
    std::string weights = read("model2/model.safetensors");
    weights[weights.size() - 2] = static_cast<char>(weights[weights.size() - 2] ^ 1);
    write("model2/model.safetensors", weights);
    EXPECT_EQ(eval({"-t", "piqa,sample", "--keep-logprobs", "-o", path("base")}).status, 0);
    EXPECT_EQ(run({"eval", "-m", path("model2"), "-d", path("data"), "-t", "piqa,sample", "--keep-logprobs",
                   "--base", path("base"), "-o", path("run")})
                  .status,
              0);
  }

  /// Replaces the first `from` in a file.
  void edit(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read(file);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << file;
    write(file, text.replace(at, from.size(), to));
  }
  /// Makes the hash that results.json records of itself right again.
  void seal() const {
    ordered_json json = ordered_json::parse(read("run/results.json"));
    ordered_json content = json;
    for (const char* key : {"date", "seconds", "peak_rss_bytes", "environment", "command", "content_hash"})
      content.erase(key);
    json["content_hash"] = sha256_hex(content.dump());
    write("run/results.json", json.dump(2) + "\n");
  }
  void set_hash(const char* kind, const std::string& task, const std::string& file) const {
    ordered_json json = ordered_json::parse(read("run/results.json"));
    ordered_json& details = json["tasks"][task];
    const std::string hash = sha256_hex(read("run/" + file));
    if (std::string(kind) == "samples") {
      details["samples_hash"] = hash;
    } else {
      details["companion_hashes"][file] = hash;
    }
    write("run/results.json", json.dump(2) + "\n");
    seal();
  }
  /// The same for the first document's line.
  void seal_first_sample() const {
    std::string text = read("run/samples_piqa.jsonl");
    const size_t sum = text.find(",\"checksum\":\"");
    write("run/samples_piqa.jsonl",
          text.replace(sum + 13, 16, sha256_hex(text.substr(0, sum)).substr(0, 16)));
    set_hash("samples", "piqa", "samples_piqa.jsonl");
  }
  void drop_line(const std::string& file, int number) const {
    std::string text = read(file);
    size_t begin = 0;
    for (int i = 0; i < number; ++i) begin = text.find('\n', begin) + 1;
    write(file, text.erase(begin, text.find('\n', begin) + 1 - begin));
  }
  Outcome verify(const std::string& folder = "run") const { return run({"verify", path(folder)}); }
};

TEST_F(VerifyCli, ResultsThatWereLeftAlonePass) {
  for (const char* folder : {"base", "run"}) {
    const Outcome outcome = verify(folder);
    expect_success(outcome);
    for (const char* file : {"results.json", "run.json", "samples_piqa.jsonl", "logprobs_piqa.bin"})
      EXPECT_THAT(outcome.output, HasSubstr("ok    " + path(folder) + "/" + file)) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("piqa: metrics, standard errors and counts follow"));
    EXPECT_THAT(outcome.output, HasSubstr("the groups follow from their tasks"));
    EXPECT_THAT(outcome.output, HasSubstr("checks, all passed\n"));
    EXPECT_THAT(outcome.output, Not(HasSubstr("WRONG")));
  }
  EXPECT_THAT(verify("run").output, HasSubstr("ok    " + path("run/divergence_piqa.jsonl")));
}

TEST_F(VerifyCli, AWrongFolderDoesNotHideTheOthers) {
  fs::remove(path("run/samples_piqa.jsonl"));
  const Outcome outcome = run({"verify", path("nowhere"), path("run"), path("base")});
  expect_one_line(outcome, kFailed, "nowhere: holds no results.json");
  EXPECT_THAT(outcome.output, HasSubstr("WRONG " + path("run/samples_piqa.jsonl")));
  EXPECT_THAT(outcome.output, HasSubstr("ok    " + path("base/results.json")));
}

TEST_F(VerifyCli, TimesAndMachineMayDiffer) {
  ordered_json json = ordered_json::parse(read("run/results.json"));
  json["seconds"] = 1e6;
  json["date"] = 0;
  json["environment"]["cpu"] = "another";
  write("run/results.json", json.dump() + "\n");
  expect_success(verify());
}

TEST_F(VerifyCli, EveryTamperingIsNamed) {
  const std::string samples = "run/samples_piqa.jsonl", divergence = "run/divergence_piqa.jsonl";
  fs::copy(path("run"), path("kept"), fs::copy_options::recursive);
  const auto swap = [&](const std::string& from, const std::string& to) {
    fs::copy_file(path(from), path(to), fs::copy_options::overwrite_existing);
  };
  const auto truncate = [&](const std::string& file) {
    fs::resize_file(path(file), fs::file_size(path(file)) - 5);
  };
  const auto remove = [&](const std::string& file) { fs::remove(path(file)); };
  const std::vector<std::pair<std::function<void()>, std::string>> tamperings{
      // results.json
      {[&] { edit("run/results.json", "\"acc,none\": ", "\"acc,none\": 1"); }, "it was edited"},
      {[&] { edit("run/results.json", "\"max_length\": ", "\"max_length\": 1"); }, "it was edited"},
      {[&] { edit("run/results.json", "\"content_hash\": \"", "\"content_hash\": \"0"); }, "it was edited"},
      {[&] { edit("run/results.json", "\"content_hash\"", "\"contents\""); }, "holds no content_hash"},
      {[&] { truncate("run/results.json"); }, "results.json"},
      {[&] { write("run/results.json", ""); }, "results.json"},
      {[&] { swap("base/results.json", "run/results.json"); }, "run.json: is not of the run"},
      // the same with the hash made right: what follows from something else is still noticed
      {[&] {
         edit("run/results.json", "\"acc,none\": ", "\"acc,none\": 1");
         seal();
       },
       "the samples give"},
      {[&] {
         edit("run/results.json", "\"acc_stderr,none\": ", "\"acc_stderr,none\": 1");
         seal();
       },
       "the samples give"},
      {[&] {
         edit("run/results.json", "\"tokens_scored\": ", "\"tokens_scored\": 1");
         seal();
       },
       "the counts of results.json"},
      {[&] {
         edit("run/results.json", "\"logits_hash\": \"", "\"logits_hash\": \"x");
         seal();
       },
       "logits_hash"},
      {[&] {
         edit("run/results.json", "\"weight_hash\": \"", "\"weight_hash\": \"x");
         seal();
       },
       "run.json: is not of the run"},
      {[&] {
         ordered_json json = ordered_json::parse(read("run/results.json"));
         json["tasks"]["piqa"].erase("companion_hashes");
         write("run/results.json", json.dump(2));
         seal();
       },
       "names no such file"},
      {[&] {
         edit("run/results.json", "\"higher_is_better\": true", "\"higher_is_better\": false");
         seal();
       },
       "results.json: /configs/piqa/metric_list/0/higher_is_better is unknown, or contradicts"},
      {[&] {
         edit("run/results.json", "\"protocol\"", "\"note\": 1, \"protocol\"");
         seal();
       },
       "results.json: /note is unknown"},
      {[&] {
         edit("run/results.json", "\"n-shot\": {\n    \"piqa\": 0", "\"n-shot\": {\n    \"piqa\": 5");
         edit("run/results.json", "\"num_fewshot\": 0", "\"num_fewshot\": 5");
         seal();
       },
       "run.json: is not of the run of results.json: fewshot (0 there, 5,0,0,0 here)"},
      // of two equal keys every reader takes another one
      {[&] { edit("run/results.json", "\"acc,none\": ", "\"acc,none\": 1, \"acc,none\": "); },
       "results.json: key \"acc,none\" occurs twice"},
      {[&] { edit("run/run.json", "\"seed\": ", "\"seed\": \"5\", \"seed\": "); },
       "run.json: key \"seed\" occurs twice"},
      {[&] {
         edit(samples, "{\"", "{\"doc_id\":0,\"");
         seal_first_sample();
       },
       "samples_piqa.jsonl:1: key \"doc_id\" occurs twice"},
      // what an older version wrote of a model that computes NaN
      {[&] {
         std::string text = read(samples);
         const std::string before = "\"filtered_resps\":[[\"";
         const size_t at = text.find(before) + before.size();
         const std::string score = text.substr(at, text.find('"', at) - at);
         for (size_t found = 0; (found = text.find(score)) < text.find('\n');)
           text.replace(found, score.size(), "nan");
         write(samples, text);
         seal_first_sample();
       },
       "samples_piqa.jsonl: document 0: a log-likelihood is nan"},
      // run.json
      {[&] { edit("run/run.json", "\"tasks\": \"piqa,", "\"tasks\": \""); }, "of results.json: tasks ("},
      {[&] { edit("run/run.json", "\"answers piqa\": \"", "\"answers piqa\": \"0"); },
       "of results.json: answers piqa ("},
      {[&] {
         edit("run/results.json", "\"answer_hash\": \"", "\"answer_hash\": \"0");
         seal();
       },
       "of results.json: answers piqa ("},
      {[&] { edit("run/run.json", "\"fewshot\": \"", "\"fewshot\": \"5"); }, "fewshot (50 there, 0 here)"},
      {[&] { edit("run/run.json", "\"logprobs\": \"", "\"logprobs\": \"1"); },
       "logprobs (1256 there, 256 here)"},
      {[&] { edit("run/run.json", "\"logprobs\": \"256\",", ""); }, "logprobs (absent there, 256 here)"},
      {[&] { edit("run/run.json", "\"seed\": ", "\"hint\": \"x\", \"seed\": "); },
       "hint (x there, absent here)"},
      {[&] { edit("run/run.json", "{", "{\"hint\": 1,"); }, "run.json: \"hint\" is unknown"},
      {[&] { remove("run/run.json"); }, "run.json: is missing"},
      {[&] { swap("base/run.json", "run/run.json"); }, "run.json: is not of the run"},
      {[&] { truncate("run/run.json"); }, "run.json"},
      // samples
      {[&] { edit(samples, "-", "-1"); }, "samples_piqa.jsonl:1: the line does not match its checksum"},
      {[&] { drop_line(samples, 0); }, "samples_piqa.jsonl: its SHA-256"},
      {[&] { drop_line(samples, 1); }, "samples_piqa.jsonl: its SHA-256"},
      {[&] { truncate(samples); }, "samples_piqa.jsonl:2: the last line is incomplete"},
      {[&] { write(samples, ""); }, "samples_piqa.jsonl: its SHA-256"},
      {[&] { remove(samples); }, "samples_piqa.jsonl: cannot open"},
      {[&] { swap("base/samples_piqa.jsonl", samples); }, "samples_piqa.jsonl: its SHA-256"},
      {[&] { swap("run/samples_sample_qa.jsonl", samples); }, "samples_piqa.jsonl: its SHA-256"},
      {[&] { write(samples, read(samples) + read(samples)); }, "ascending order expected"},
      {[&] { swap(samples, "run/samples_arc_easy.jsonl"); }, "samples_arc_easy.jsonl: results.json names no"},
      {[&] { swap(samples, "run/journal_piqa.jsonl"); }, "unfinished work beside finished results"},
      {[&] {
         swap("base/samples_piqa.jsonl", samples);
         set_hash("samples", "piqa", "samples_piqa.jsonl");
       },
       "logits_hash of results.json is not that of the samples"},
      {[&] {
         drop_line(samples, 1);
         set_hash("samples", "piqa", "samples_piqa.jsonl");
       },
       "divergence_piqa.jsonl: is of other documents"},
      // divergences and kept distributions
      {[&] { edit(divergence, "\"kl\":[", "\"kl\":[1"); }, "divergence_piqa.jsonl: its SHA-256"},
      {[&] { remove(divergence); }, "divergence_piqa.jsonl: cannot open"},
      {[&] { truncate(divergence); }, "divergence_piqa.jsonl: its SHA-256"},
      {[&] { drop_line(divergence, 1); }, "divergence_piqa.jsonl: its SHA-256"},
      {[&] { swap("run/divergence_sample_qa.jsonl", divergence); }, "divergence_piqa.jsonl: its SHA-256"},
      {[&] {
         swap("run/divergence_sample_qa.jsonl", divergence);
         set_hash("companions", "piqa", "divergence_piqa.jsonl");
       },
       "task is "},
      {[&] {
         drop_line(divergence, 1);
         set_hash("companions", "piqa", "divergence_piqa.jsonl");
       },
       "divergence_piqa.jsonl: is of other documents"},
      {[&] {
         edit(divergence, "\"kl\":[", "\"kl\":[1");
         set_hash("companions", "piqa", "divergence_piqa.jsonl");
       },
       "does not match its checksum"},
      {[&] { edit("run/run.json", "\"base piqa\": \"", "\"base piqa\": \"0"); },
       "another base than run.json"},
      {[&] { remove("run/logprobs_piqa.bin"); }, "logprobs_piqa.bin: cannot open"},
      {[&] { truncate("run/logprobs_piqa.bin"); }, "logprobs_piqa.bin: its SHA-256"},
      {[&] { swap("base/logprobs_piqa.bin", "run/logprobs_piqa.bin"); }, "logprobs_piqa.bin: its SHA-256"},
      {[&] { swap("base/logprobs_piqa.bin", "run/logprobs_x.bin"); }, "results.json names no such file"},
  };
  for (size_t i = 0; i < tamperings.size(); ++i) {
    SCOPED_TRACE(fmt::format("tampering {}", i));
    fs::remove_all(path("run"));
    fs::copy(path("kept"), path("run"), fs::copy_options::recursive);
    tamperings[i].first();
    const Outcome outcome = verify();
    expect_one_line(outcome, kFailed, tamperings[i].second);
    EXPECT_THAT(outcome.error, HasSubstr("checks failed; the first: "));
    EXPECT_THAT(outcome.output, HasSubstr("WRONG"));
  }
}

TEST_F(VerifyCli, NamesThatLeadOutOfTheFolderAreNotFollowed) {
  ordered_json json = ordered_json::parse(read("run/results.json"));
  json["tasks"]["piqa"]["companion_hashes"]["../base/samples_piqa.jsonl"] =
      sha256_hex(read("base/samples_piqa.jsonl"));
  write("run/results.json", json.dump(2) + "\n");
  seal();
  expect_one_line(verify(), kFailed, "is no file of a task");
}

TEST_F(VerifyCli, ShardsAndMergedRunsAreChecked) {
  for (const char* index : {"1", "2"}) {
    expect_success(eval({"-t", "piqa,sample", "--keep-logprobs", "--shard", std::string(index) + "/2", "-o",
                         path(std::string("s") + index)}));
    expect_success(verify(std::string("s") + index));
  }
  expect_success(run({"merge", path("s1"), path("s2"), "-o", path("merged")}));
  expect_success(verify("merged"));
  const std::string kept = read("s1/shard.json");
  edit("s1/shard.json", "{", "{\"note\": 1,");
  expect_one_line(verify("s1"), kFailed, "shard.json: /note is unknown");
  write("s1/shard.json", kept);
  edit("s1/run.json", "\"shard\": \"1/2\"", "\"shard\": \"2/2\"");
  expect_one_line(verify("s1"), kFailed,
                  "run.json: is not of the run of shard.json: shard (2/2 there, 1/2 here)");
  edit("s1/run.json", "\"shard\": \"2/2\"", "\"shard\": \"1/2\"");
  expect_success(verify("s1"));
  edit("s1/shard.json", "\"tokens_scored\": ", "\"tokens_scored\": 1");
  expect_one_line(verify("s1"), kFailed, "shard.json: its content has");
  fs::remove(path("s2/logprobs_piqa.bin"));
  expect_one_line(verify("s2"), kFailed, "logprobs_piqa.bin");
  expect_one_line(run({"verify", path("base"), path("s2")}), kFailed, path("s2"));
}

TEST_F(VerifyCli, AComparisonIsCheckedWithItsRuns) {
  write("text.txt", std::string(300, 'x') + " and a few words to calibrate on\n");
  EXPECT_EQ(run({"compare", "-m", path("model"), "-d", path("data"), "-t", "piqa", "--methods", "rtn",
                 "--schemes", "w8a8", "--calibration", path("text.txt"), "--samples", "2",
                 "--sequence-length", "16", "-o", path("c")})
                .status,
            0);
  const Outcome good = verify("c");
  expect_success(good);
  EXPECT_THAT(good.output, HasSubstr("the comparison follows from the runs"));
  const std::string kept = read("c/results.json");
  ordered_json json = ordered_json::parse(kept);
  json["runs"][0]["tasks"]["piqa"]["metrics"]["acc"]["p"] = 0.01;
  write("c/results.json", json.dump(2));
  expect_one_line(verify("c"), kFailed, "/runs/0/tasks/piqa/metrics/acc/p is not what the runs give");
  write("c/results.json", kept);
  expect_success(verify("c"));
  // Nobody looked at these, and a report showed them.
  const std::string entries = read("c/compare.json");
  for (const auto& [field, is, was] :
       std::vector<std::array<std::string, 3>>{{"method", "rtn", "smoothquant"},
                                               {"scheme", "w8a8", "w4a8"},
                                               {"arithmetic", "fake", "integer"},
                                               {"variant", "", "original"}}) {
    const std::string end = fmt::format("\"{}\": \"", field);
    write("c/compare.json", entries);
    const size_t second = entries.find("\"name\": \"rtn w8a8\"");
    std::string edited = entries;
    edited.replace(edited.find(end, second), end.size() + is.size(), end + was);
    write("c/compare.json", edited);
    expect_one_line(verify("c"), kFailed, fmt::format("{} of rtn w8a8 is \"{}\", ", field, was));
  }
  write("c/compare.json", entries);
  drop_line("c/results/rtn-w8a8-fake/divergence_piqa.jsonl", 1);
  expect_one_line(verify("c"), kFailed, "divergence_piqa.jsonl: its SHA-256");
}

TEST_F(VerifyCli, SaysWhatItNeeds) {
  expect_one_line(verify("data"), kFailed, "expected: a folder that qeval eval, compare or merge wrote");
  expect_one_line(verify("nowhere"), kFailed, "holds no results.json");
  fs::remove(path("run/results.json"));
  expect_one_line(verify(), kFailed, "holds an unfinished run");
  EXPECT_EQ(run({"verify"}).status, kWrongUsage);
}

}  // namespace
}  // namespace qeval::test
