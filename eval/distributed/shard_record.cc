#include "eval/distributed/shard_record.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"

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
  const OrderedJsonObject fields(json, where);
  ShardRecord record;
  try {
    record.shard = parse_shard(fields.string("shard"));
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
  const OrderedJsonObject fingerprint = fields.object("fingerprint");
  for (const auto& [key, unused] : fingerprint.value().items())
    record.fingerprint[key] = fingerprint.string(key);
  record.run = run_results_from_json(fields.at("run"), where);
  const OrderedJsonObject documents = fields.object("documents");
  for (const TaskResults& task : record.run.tasks)
    record.documents[task.name] = documents.count(task.name.c_str());
  const OrderedJsonObject metrics = fields.object("group_metrics");
  for (const GroupResults& group : record.run.groups)
    record.group_metrics[group.name] = metrics.strings(group.name.c_str());
  record.vocab_size = fields.count("vocab_size");
  return record;
}

}  // namespace qeval::eval
