#pragma once

#include <filesystem>
#include <string>

#include "eval/results/results.h"
#include "tests/eval/sample_fixture.h"
#include "tests/temporary_folder.h"

namespace qeval::eval {

using test::TemporaryFolder;

inline std::vector<Sample> choice_samples(int64_t count) {
  std::vector<Sample> samples;
  for (int64_t i = 0; i < count; ++i) samples.push_back(choice_sample(i));
  return samples;
}

inline std::vector<Scores> scores_of(const std::vector<Sample>& samples) {
  std::vector<Scores> scores;
  for (const Sample& sample : samples) scores.push_back(sample.scores);
  return scores;
}

/// Two choice tasks (3 right documents, 1 wrong one), one of pages, a group with an aggregate and a list.
inline RunResults example_run() {
  std::vector<Sample> wrong = choice_samples(1);
  wrong[0].scores.facts.gold = {1};
  const std::vector<Sample> pages{rolling_sample(0, -30, 10, 50, 20), rolling_sample(1, -90, 20, 70, 40)};
  RunResults run;
  run.bootstrap = {200, 7};
  run.tasks.push_back(make_task_results("zeta", scores_of(choice_samples(3)), run.bootstrap));
  run.tasks.push_back(make_task_results("alpha", scores_of(wrong), run.bootstrap));
  run.tasks.push_back(make_task_results("pages", scores_of(pages), run.bootstrap));
  for (TaskResults& task : run.tasks) {
    task.version = "1";
    task.split = "test";
    task.original_documents = 40;
    task.tokens_computed = 25;
    task.data_hash = "da7a";
    task.prompt_hash = "9409";
    task.first_request_ids = {1, 2, 3};
  }
  run.tasks[0].num_fewshot = 5;
  run.tasks[0].config["description"] = "a task";
  run.groups.push_back(make_group_results(run, "both", {"zeta", "alpha"}, {"acc"}));
  run.groups.push_back(make_group_results(run, "everything", {"both", "pages"}, {}));
  run.model = {"tiny", "float", "safetensors", "abc", "", {{"bytes", 123}}};
  run.environment = {"CPU", "avx2", 2, "0.1.0"};
  run.protocol = "lm-eval-0.4";
  run.prefix_policy = "bos";
  run.tokenizer_hash = "70ce";
  run.max_length = 2048;
  run.seed = 0xffffffffffffffffU;
  run.command = "qeval eval -m tiny -t zeta,alpha,pages";
  run.date = 1.7e9;
  run.seconds = 1.25;
  run.peak_rss_bytes = 1 << 20;
  return run;
}

}  // namespace qeval::eval
