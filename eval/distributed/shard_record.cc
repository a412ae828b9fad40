#include "eval/distributed/shard_record.h"

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "eval/results/json_fields.h"

namespace qeval::eval {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

void write_shard_record(const fs::path& directory, const ShardRecord& record) {
  const fs::path path = directory / shard_file;
  const ordered_json json{{"shard", name(record.shard)},     {"fingerprint", record.fingerprint},
                          {"documents", record.documents},   {"group_metrics", record.group_metrics},
                          {"vocab_size", record.vocab_size}, {"run", to_json(record.run)}};
  write_file_atomically(path, dump_json(json, path.string(), 2) + "\n");
}

ShardRecord read_shard_record(const fs::path& directory) {
  const std::string where = (directory / shard_file).string();
  const ordered_json json = parse_ordered_json(read_file(where), where);
  const JsonFields fields(json, where);
  ShardRecord record;
  try {
    record.shard = parse_shard(fields.text("shard"));
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
  const JsonFields fingerprint = fields.object("fingerprint");
  for (const auto& [key, unused] : fingerprint.json().items())
    record.fingerprint[key] = fingerprint.text(key.c_str());
  record.run = run_results_from_json(fields.at("run"), where);
  const JsonFields documents = fields.object("documents");
  for (const TaskResults& task : record.run.tasks)
    record.documents[task.name] = documents.integer(task.name.c_str());
  const JsonFields metrics = fields.object("group_metrics");
  for (const GroupResults& group : record.run.groups)
    record.group_metrics[group.name] = metrics.texts(group.name.c_str());
  record.vocab_size = fields.integer("vocab_size");
  return record;
}

}  // namespace qeval::eval
