#include "cli/score_texts.h"

#include <iostream>
#include <map>

#include "base/error.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "eval/results/metrics.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/registry.h"

namespace qeval::cli {
namespace {

using nlohmann::ordered_json;

using Texts = std::map<int64_t, std::vector<std::string>>;  ///< by doc_id

/// All of a document's texts: ours stand in lists of their own, the harness's in one.
std::vector<std::string> texts_of(const OrderedJsonObject& line) {
  if (line.has("text")) return {line.string("text")};
  std::vector<std::string> out;
  for (const ordered_json& list : line.array("resps")) {
    if (!list.is_array()) line.refuse("resps", "[[\"text\"]]");
    for (const ordered_json& text : list) {
      if (!text.is_string()) line.refuse("resps", "[[\"text\"]]");
      out.push_back(text.get<std::string>());
    }
  }
  if (out.empty()) line.refuse("resps", "[[\"text\"]]");
  return out;
}

Texts read_texts(std::istream& input, size_t documents) {
  Texts out;
  std::string text;
  for (int64_t number = 1; std::getline(input, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("standard input, line {}", number);
    const ordered_json json = parse_ordered_json(text, where);
    const OrderedJsonObject line(json, where);
    const int64_t document = line.count("doc_id");
    if (document >= static_cast<int64_t>(documents))
      line.refuse("doc_id", fmt::format("0 to {}, the documents of the split", documents - 1));
    const auto [found, is_new] = out.try_emplace(document, texts_of(line));
    // The harness's samples files have a line per filter.
    if (!is_new && found->second != texts_of(line))
      fail("{}: document {} stands there twice, with two texts", where, document);
  }
  if (out.empty()) fail("standard input holds no text to judge");
  return out;
}

const eval::Task& only_task(const eval::Selection& selection) {
  if (selection.tasks.size() != 1) refuse("task", "one task at a time has texts judged");
  const eval::Task& task = selection.tasks.front();
  if (!task.generation)
    refuse("task",
           fmt::format("{} asks for log-likelihoods; accepted: tasks that generate texts", task.name));
  return task;
}

eval::JudgedTexts judge(const eval::Task& task, const eval::Document& document,
                        const std::vector<std::string>& texts) {
  try {
    return judge_texts(*task.generation, document, texts);
  } catch (const Error& error) {
    fail("task {}, {}", task.name, error.what());
  }
}

}  // namespace

int score_texts(const po::variables_map& arguments) {
  const eval::Selection selection = eval::resolve_tasks(require(arguments, "task"), protocol(arguments));
  const eval::Task& task = only_task(selection);
  const eval::LoadedTask loaded =
      load_documents(task, {.data = arguments["data"].as<std::string>(),
                            .split = optional<std::string>(arguments, "split"),
                            .num_fewshot = 0,
                            .run_code = arguments.count("confirm-run-unsafe-code") != 0});
  std::vector<eval::Scores> all;
  for (const auto& [document, texts] : read_texts(std::cin, loaded.documents.size())) {
    const eval::JudgedTexts judged = judge(task, loaded.documents[static_cast<size_t>(document)], texts);
    ordered_json line{{"doc_id", document}, {"filtered", ordered_json::object()}};
    for (const auto& [filter, filtered] : judged.filtered) line["filtered"][filter] = filtered;
    for (size_t i = 0; i < task.metrics.size(); ++i) line[task.metrics[i]] = judged.values[i];
    std::cout << dump_json(line, fmt::format("document {}", document)) << '\n';
    eval::Scores& scores = all.emplace_back();
    scores.doc_id = document;
    scores.scoring = task.scoring;
    scores.metrics = task.metrics;
    scores.values = judged.values;
    scores.facts = loaded.documents[static_cast<size_t>(document)].facts;
  }
  ordered_json means{{"task", task.name}, {"version", task.version}, {"documents", all.size()}};
  for (const eval::MetricValue& metric : eval::compute_metrics(all)) {
    const size_t comma = std::min(metric.name.find(','), metric.name.size());
    const std::string filter = comma == metric.name.size() ? ",none" : metric.name.substr(comma);
    means[metric.name.substr(0, comma) + filter] = metric.value;
    if (metric.standard_error)
      means[metric.name.substr(0, comma) + "_stderr" + filter] = *metric.standard_error;
  }
  std::cout << means.dump() << '\n';
  return 0;
}

}  // namespace qeval::cli
