#include "eval/results/run_record.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string shortened(const Fingerprint& fingerprint, const std::string& key) {
  const auto found = fingerprint.find(key);
  if (found == fingerprint.end()) return "absent";
  if (found->second.empty()) return "none";
  constexpr size_t digits = 12;  // enough of a hash to tell two apart
  const std::string& value = found->second;
  const bool hash = value.size() >= 32 && value.find_first_not_of("0123456789abcdef") == std::string::npos;
  return hash ? value.substr(0, digits) + "…" : printable(value, 60);
}

}  // namespace

std::string fewshot_setting(std::span<const int64_t> examples) {
  const bool alike = std::ranges::all_of(examples, [&](int64_t count) { return count == examples.front(); });
  return fmt::format(
      "{}", fmt::join(examples.first(alike ? std::min<size_t>(1, examples.size()) : examples.size()), ","));
}

std::string describe_changes(const Fingerprint& there, const Fingerprint& here) {
  Fingerprint all = there;
  all.insert(here.begin(), here.end());
  std::string out;
  for (const auto& [key, unused] : all) {
    const auto a = there.find(key), b = here.find(key);
    if (a != there.end() && b != here.end() && a->second == b->second) continue;
    out += fmt::format("{}{} ({} there, {} here)", out.empty() ? "" : ", ", printable(key, 60),
                       shortened(there, key), shortened(here, key));
  }
  return out;
}

std::optional<RunRecord> read_run_record(const fs::path& directory) {
  const fs::path path = directory / run_file;
  if (!fs::exists(path)) return {};
  const ordered_json json = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject file(json, path.string()), fields = file.object("fingerprint");
  for (const auto& [key, unused] : json.items()) {
    if (key != "fingerprint" && key != "cpu_paths")
      fail("{}: \"{}\" is unknown; a later qeval may have written it", path.string(), printable(key, 60));
  }
  RunRecord out;
  for (const auto& [key, value] : fields.value().items()) out.fingerprint[key] = fields.string(key);
  if (!file.has("cpu_paths")) return out;
  for (std::string& cpu_path : file.strings("cpu_paths")) out.cpu_paths.insert(std::move(cpu_path));
  return out;
}

void write_run_record(const fs::path& directory, const RunRecord& record) {
  const fs::path path = directory / run_file;
  ordered_json json = {{"fingerprint", record.fingerprint}};
  if (!record.cpu_paths.empty()) json["cpu_paths"] = record.cpu_paths;
  write_file_atomically(path, dump_json(json, path.string(), 2) + "\n");
}

}  // namespace qeval::eval
