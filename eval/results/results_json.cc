// results.json: RunResults to JSON and back.
//
// results.TASK and groups.GROUP hold name, alias, sample_len and per metric "NAME,none" and
// "NAME_stderr,none". Everything of ours that concerns one task stands in "tasks".TASK; the order of tasks
// and groups is that of "task_order" and "group_order", because readers in other languages need not keep the
// order of objects. "unweighted_groups" names the groups that their unweighted mean stands for, and is left
// out where there are none.

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/error.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "eval/results/results.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr int schema_version = 1;

constexpr std::array<std::pair<const char*, int64_t TaskCounts::*>, 11> count_fields{{
    {"documents", &TaskCounts::documents},
    {"requests", &TaskCounts::requests},
    {"tokens_scored", &TaskCounts::tokens_scored},
    {"tokens_requested", &TaskCounts::tokens_requested},
    {"truncated_requests", &TaskCounts::truncated_requests},
    {"truncated_tokens", &TaskCounts::truncated_tokens},
    {"encoded_apart", &TaskCounts::encoded_apart},
    {"not_a_number", &TaskCounts::not_a_number},
    {"words", &TaskCounts::words},
    {"bytes", &TaskCounts::bytes},
    {"windows", &TaskCounts::windows},
}};

/// A metric behind a filter has the filter's name behind a comma already.
std::string metric_key(const std::string& name) {
  return name.find(',') == std::string::npos ? name + ",none" : name;
}
std::string error_key(const std::string& name) {
  const std::string key = metric_key(name);
  const size_t comma = key.find(',');
  return key.substr(0, comma) + "_stderr" + key.substr(comma);
}

ordered_json metrics_to_json(const std::string& name, int64_t documents,
                             const std::vector<MetricValue>& metrics) {
  ordered_json out = {{"name", name}, {"alias", name}, {"sample_len", documents}};
  for (const MetricValue& metric : metrics) {
    out[metric_key(metric.name)] = number_to_json(metric.value);
    if (metric.standard_error) out[error_key(metric.name)] = number_to_json(*metric.standard_error);
  }
  return out;
}

std::vector<MetricValue> metrics_from_json(const OrderedJsonObject& fields) {
  std::vector<MetricValue> out;
  for (const auto& [key, unused] : fields.value().items()) {
    const size_t comma = key.find(',');
    if (comma == std::string::npos || std::string_view(key).substr(0, comma).ends_with("_stderr")) continue;
    const std::string name = key.ends_with(",none") ? key.substr(0, comma) : key;
    MetricValue metric{name, fields.any_number(key), {}};
    const std::string error = error_key(name);
    // The harness writes "N/A" where we leave the field out.
    if (fields.has(error) && fields.at(error) != "N/A") metric.standard_error = fields.any_number(error);
    out.push_back(std::move(metric));
  }
  return out;
}

ordered_json directions(const std::vector<MetricValue>& metrics) {
  ordered_json out = ordered_json::object();
  for (const MetricValue& metric : metrics) out[metric.name] = higher_is_better(metric.name);
  return out;
}

ordered_json task_details(const TaskResults& task) {
  ordered_json out = {{"split", task.split}};
  for (const auto& [key, member] : count_fields) out[key] = task.counts.*member;
  out["tokens_computed"] = task.tokens_computed;
  out["data_hash"] = task.data_hash;
  out["prompt_hash"] = task.prompt_hash;
  if (!task.answer_hash.empty()) out["answer_hash"] = task.answer_hash;
  out["samples_hash"] = task.samples_hash;
  if (!task.companion_hashes.empty()) out["companion_hashes"] = task.companion_hashes;
  out["logits_hash"] = task.logits_hash;
  out["first_request_ids"] = task.first_request_ids;
  return out;
}

ordered_json task_config(const TaskResults& task) {
  ordered_json out = {{"task", task.name}, {"split", task.split}, {"num_fewshot", task.num_fewshot}};
  ordered_json metrics = ordered_json::array();
  for (const MetricValue& metric : task.metrics) {
    metrics.push_back({{"metric", metric.name}, {"higher_is_better", higher_is_better(metric.name)}});
  }
  out["metric_list"] = std::move(metrics);
  for (const auto& [key, value] : task.config.items()) out[key] = value;
  return out;
}

TaskResults task_from_json(const std::string& name, const OrderedJsonObject& run) {
  const OrderedJsonObject results = run.object("results").object(name);
  const OrderedJsonObject details = run.object("tasks").object(name);
  TaskResults task;
  task.name = name;
  task.version = run.object("versions").string(name);
  task.num_fewshot = run.object("n-shot").count(name);
  task.original_documents = run.object("n-samples").object(name).count("original");
  task.metrics = metrics_from_json(results);
  task.split = details.string("split");
  for (const auto& [key, member] : count_fields) task.counts.*member = details.count(key);
  task.tokens_computed = details.count("tokens_computed");
  task.data_hash = details.string("data_hash");
  task.prompt_hash = details.string("prompt_hash");
  if (details.has("answer_hash")) task.answer_hash = details.string("answer_hash");
  task.samples_hash = details.string("samples_hash");
  if (details.has("companion_hashes")) {
    const OrderedJsonObject hashes = details.object("companion_hashes");
    for (const auto& [file, unused] : hashes.value().items())
      task.companion_hashes[file] = hashes.string(file);
  }
  task.logits_hash = details.string("logits_hash");
  task.first_request_ids = details.counts("first_request_ids");
  for (const auto& [key, value] : run.object("configs").object(name).value().items()) {
    if (key != "task" && key != "split" && key != "num_fewshot" && key != "metric_list")
      task.config[key] = value;
  }
  return task;
}

void write_harness_sections(const RunResults& run, ordered_json& out) {
  const char* const sections[] = {"results",  "groups", "group_subtasks",   "configs",
                                  "versions", "n-shot", "higher_is_better", "n-samples"};
  for (const char* section : sections) out[section] = ordered_json::object();
  for (const TaskResults& task : run.tasks) {
    out["results"][task.name] = metrics_to_json(task.name, task.counts.documents, task.metrics);
    out["configs"][task.name] = task_config(task);
    out["versions"][task.name] = task.version;
    out["n-shot"][task.name] = task.num_fewshot;
    out["higher_is_better"][task.name] = directions(task.metrics);
    out["n-samples"][task.name] = {{"original", task.original_documents},
                                   {"effective", task.counts.documents}};
  }
  for (const GroupResults& group : run.groups) {
    const ordered_json metrics = metrics_to_json(group.name, group.documents, group.metrics);
    out["results"][group.name] = metrics;
    if (!group.metrics.empty()) out["groups"][group.name] = metrics;
    out["group_subtasks"][group.name] = group.members;
    out["higher_is_better"][group.name] = directions(group.metrics);
    ordered_json shots;  // as the harness does: where its members agree
    for (const std::string& member : group.members) {
      const ordered_json of_member = out["n-shot"].value(member, ordered_json());
      if (member != group.members.front() && of_member != shots) {
        shots = nullptr;
        break;
      }
      shots = of_member;
    }
    if (!shots.is_null()) out["n-shot"][group.name] = shots;
  }
  if (out["groups"].empty()) out.erase("groups");
  out["config"] = {{"model", "qeval"},
                   {"model_args", {{"pretrained", run.model.name}, {"arithmetic", run.model.arithmetic}}},
                   {"batch_size", nullptr},
                   {"device", "cpu"},
                   {"limit", run.limit.empty() ? ordered_json() : ordered_json(run.limit)},
                   {"bootstrap_iters", run.bootstrap.resamples},
                   {"bootstrap_seed", run.bootstrap.seed},
                   {"fewshot_seed", run.seed}};
  out["date"] = run.date;
  out["model_name"] = run.model.name;
  run.chat.write(out);
  out["max_length"] = run.max_length;
}

void write_own_sections(const RunResults& run, ordered_json& out) {
  out["schema_version"] = schema_version;
  out["model"] = {{"name", run.model.name},
                  {"arithmetic", run.model.arithmetic},
                  {"format", run.model.format},
                  {"weight_hash", run.model.weight_hash},
                  {"quantization_hash", run.model.quantization_hash},
                  {"details", run.model.details}};
  out["protocol"] = run.protocol;
  out["prefix_policy"] = run.prefix_policy;
  out["add_bos_token"] = run.add_bos_token.empty()       ? ordered_json(nullptr)
                         : run.add_bos_token == "always" ? ordered_json(run.add_bos_token)
                                                         : ordered_json(run.add_bos_token == "true");
  out["tokenizer_hash"] = run.tokenizer_hash;
  out["tasks"] = ordered_json::object();
  out["task_order"] = ordered_json::array();
  out["group_order"] = ordered_json::array();
  for (const TaskResults& task : run.tasks) {
    out["tasks"][task.name] = task_details(task);
    out["task_order"].push_back(task.name);
  }
  ordered_json unweighted = ordered_json::array();
  for (const GroupResults& group : run.groups) {
    out["group_order"].push_back(group.name);
    if (!group.weighted) unweighted.push_back(group.name);
  }
  if (!unweighted.empty()) out["unweighted_groups"] = std::move(unweighted);
  out["tokens_computed"] = run.tokens_computed();
  out["tokens_requested"] = run.tokens_requested();
  out["command"] = run.command;
  out["environment"] = {{"cpu", run.environment.cpu},
                        {"cpu_path", run.environment.cpu_path},
                        {"threads", run.environment.threads},
                        {"version", run.environment.version}};
  if (!run.environment.commit.empty()) out["environment"]["commit"] = run.environment.commit;
  out["seconds"] = run.seconds;
  out["peak_rss_bytes"] = run.peak_rss_bytes;
}

}  // namespace

std::string content_hash(const ordered_json& results) {
  ordered_json content = results;
  for (const char* key : {"date", "seconds", "peak_rss_bytes", "environment", "command", "content_hash"})
    content.erase(key);
  // How the model was quantized is told with its costs, too.
  const ordered_json::json_pointer record("/model/details/quantize");
  if (content.contains(record) && content[record].is_object()) {
    for (const char* key : {"seconds", "peak_rss_bytes", "threads", "command"}) content[record].erase(key);
  }
  return sha256_hex(content.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

ordered_json to_json(const RunResults& run) {
  ordered_json out;
  write_harness_sections(run, out);
  write_own_sections(run, out);
  out["content_hash"] = content_hash(out);
  return out;
}

RunResults run_results_from_json(const ordered_json& json, const std::string& where) {
  const OrderedJsonObject fields(json, where);
  if (fields.count("schema_version") != schema_version) {
    fail("{}: schema_version {} is not known; {} expected", where, fields.count("schema_version"),
         schema_version);
  }
  RunResults run;
  for (const std::string& name : fields.strings("task_order")) {
    if (run.find_task(name) != nullptr) fail("{}: task {} is listed twice", where, printable(name));
    run.tasks.push_back(task_from_json(name, fields));
  }
  std::set<std::string> unweighted;
  if (fields.has("unweighted_groups")) {
    const std::vector<std::string> names = fields.strings("unweighted_groups");
    unweighted.insert(names.begin(), names.end());
  }
  for (const std::string& name : fields.strings("group_order")) {
    const OrderedJsonObject results = fields.object("results").object(name);
    run.groups.push_back({name, fields.object("group_subtasks").strings(name), metrics_from_json(results),
                          results.count("sample_len"), !unweighted.contains(name)});
  }
  const OrderedJsonObject model = fields.object("model"), environment = fields.object("environment");
  run.model = {
      model.string("name"),        model.string("arithmetic"),        model.string("format"),
      model.string("weight_hash"), model.string("quantization_hash"), model.object("details").value()};
  run.environment = {environment.string("cpu"), environment.string("cpu_path"), environment.count("threads"),
                     environment.string("version"), environment.string("commit", "")};
  run.protocol = fields.string("protocol");
  run.prefix_policy = fields.string("prefix_policy");
  // Files of earlier versions could not choose.
  if (const auto value = fields.value().find("add_bos_token");
      value != fields.value().end() && !value->is_null()) {
    if (!value->is_boolean() && *value != "always")
      fields.refuse("add_bos_token", "true, false, \"always\" or null");
    run.add_bos_token = value->is_string() ? "always" : value->get<bool>() ? "true" : "false";
  }
  run.chat = ChatSettings::read(json, where);
  run.tokenizer_hash = fields.string("tokenizer_hash");
  run.max_length = fields.count("max_length");
  const OrderedJsonObject config = fields.object("config");
  if (!config.at("limit").is_null()) run.limit = config.string("limit");
  const int64_t resamples = config.count("bootstrap_iters");
  if (resamples > 1'000'000) config.refuse("bootstrap_iters", "at most 1000000");
  run.bootstrap = {static_cast<int>(resamples), config.seed("bootstrap_seed")};
  run.seed = config.seed("fewshot_seed");
  run.command = fields.string("command");
  run.date = fields.any_number("date");
  run.seconds = fields.any_number("seconds");
  run.peak_rss_bytes = fields.count("peak_rss_bytes");
  return run;
}

}  // namespace qeval::eval
