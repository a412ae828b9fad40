#include "tests/reports/report_fixture.h"

#include <fstream>

namespace qeval::reports {

using eval::Sample;
using eval::Scoring;

Sample question(int64_t doc_id, bool right) {
  Sample sample;
  sample.scores.doc_id = doc_id;
  sample.scores.scoring = Scoring::multiple_choice;
  sample.scores.metrics = {"acc", "acc_norm"};
  sample.scores.facts.gold = {1};
  sample.scores.facts.choice_chars = {5, 5};
  sample.scores.facts.choice_bytes = {5, 5};
  for (const double log_likelihood : {-12.5, right ? -10.25 : -20.0})
    sample.scores.answers.push_back({log_likelihood, false, 5, 0, 12});
  sample.scores.token_hash = "00112233445566778899aabbccddee" + std::to_string(10 + doc_id % 90);
  sample.doc = {{"question", "q"}};
  sample.target = 1;
  const std::string text = "Question " + std::to_string(doc_id) + " <b>&</b> ```\nAnswer:";
  sample.requests = {{text, " wrong"}, {text, " right"}};
  return sample;
}

Sample page(int64_t doc_id, double log_likelihood) {
  Sample sample;
  sample.scores.doc_id = doc_id;
  sample.scores.scoring = Scoring::rolling;
  sample.scores.metrics = {"word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"};
  sample.scores.facts.words = 100;
  sample.scores.facts.bytes = 500;
  sample.scores.answers.push_back({log_likelihood, false, 120, 0, 120, 2});
  sample.scores.token_hash = "ffeeddccbbaa99887766554433221100";
  sample.doc = {{"page", "secret page"}};
  sample.target = "secret page";
  sample.requests.push_back({"", "secret page"});
  return sample;
}

std::vector<Sample> questions(int64_t count, int64_t right) {
  std::vector<Sample> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(question(i, i < right));
  return out;
}

std::vector<Sample> pages(int64_t count, double log_likelihood) {
  std::vector<Sample> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(page(i, log_likelihood - static_cast<double>(i % 7)));
  return out;
}

MadeRun& MadeRun::add(const std::string& task, std::vector<Sample> documents) {
  std::vector<eval::Scores> scores;
  for (const Sample& sample : documents) scores.push_back(sample.scores);
  eval::TaskResults made = eval::make_task_results(task, scores, results.bootstrap);
  made.version = "1";
  made.split = "test";
  made.original_documents = 1000;
  made.tokens_computed = 5000;
  made.data_hash = "da7a0123456789abcdef";
  made.prompt_hash = "9409";
  made.first_request_ids = {1, 504, 32};
  results.tasks.push_back(std::move(made));
  samples.push_back(std::move(documents));
  return *this;
}

Source MadeRun::write(const std::filesystem::path& folder) const {
  std::filesystem::create_directories(folder);
  for (size_t i = 0; i < samples.size(); ++i) {
    std::ofstream file(folder / eval::samples_file(results.tasks[i].name));
    for (const Sample& sample : samples[i]) file << eval::to_line(sample) << '\n';
  }
  eval::write_results(folder, results);
  return make_source(folder, results);
}

MadeRun made_run(const std::string& model, const std::string& arithmetic) {
  MadeRun out;
  out.results.model = {
      model, arithmetic, "safetensors", "0123456789abcdef0123", "", nlohmann::ordered_json::object()};
  out.results.environment = {"A CPU", "avx2", 2, "0.1.0"};
  out.results.protocol = "lm-eval-0.4";
  out.results.prefix_policy = "bos";
  out.results.tokenizer_hash = "70ce";
  out.results.max_length = 2048;
  out.results.bootstrap = {200, 7};
  out.results.command = "qeval eval -m " + model;
  out.results.seconds = 12.5;
  out.results.peak_rss_bytes = 800'000'000;
  return out;
}

MadeRun quantized_run(const std::string& method, const std::string& scheme) {
  MadeRun out = made_run("tiny-" + method, "fake");
  out.results.model.quantization_hash = "fedcba9876543210";
  out.results.model.details = {
      {"parameters", 1'000'000},
      {"size_bytes", scheme == "w4a8" ? 700'000 : 1'100'000},
      {"weight_bits", 8},
      {"activation_bits", 8},
      {"scheme", scheme},
      {"quantize",
       {{"method", method},
        {"seconds", 61.0},
        {"peak_rss_bytes", 900'000'000},
        {"command", "qeval quantize --method " + method}}},
      {"training_loss", {{0, 100.0}, {1, 80.0}, {2, 75.5}}},
      {"layer_errors",
       {{{"layer", 0}, {"error", 0.01}}, {{"layer", 1}, {"error", 0.05}}, {{"layer", 2}, {"error", 0.02}}}}};
  return out;
}

SourceList example_sources(const std::filesystem::path& folder) {
  const auto fill = [](MadeRun run, double log_likelihood, int64_t right) {
    run.add("wikitext", pages(40, log_likelihood)).add("arc_easy", questions(200, right));
    run.add("part_one", questions(120, right / 2)).add("part_two", questions(80, right / 4));
    run.results.groups.push_back(
        eval::make_group_results(run.results, "both", {"part_one", "part_two"}, {"acc"}));
    return run;
  };
  MadeRun base = fill(made_run("tiny", "float"), -300, 150);
  base.results.model.details = {
      {"size_bytes", 4'000'000}, {"weight_bits", 32}, {"activation_bits", 32}, {"scheme", "float"}};
  return {
      .runs = {fill(quantized_run("rtn", "w8a8"), -330, 80).write(folder / "rtn"), base.write(folder / "fp"),
               fill(quantized_run("mobilequant", "w8a8"), -303, 148).write(folder / "mobilequant")},
      .unfinished = {}};
}

}  // namespace qeval::reports
