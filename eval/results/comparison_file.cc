#include "eval/results/comparison_file.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/model_details.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr int comparison_file_version = 1;
constexpr size_t most_entries = 10'000;

/// A relative folder that stays below the one it is relative to.
std::string inner_folder(const OrderedJsonObject& entry, const char* key) {
  std::string text = entry.string(key);
  const std::filesystem::path path(text);
  if (path.is_absolute() || std::ranges::find(path, "..") != path.end())
    entry.refuse(key, "a relative folder without \"..\"");
  return text;
}

ComparisonEntry entry_from_json(const ordered_json& json, const std::string& where) {
  const OrderedJsonObject fields(json, where);
  ComparisonEntry entry{fields.string("name"),
                        fields.string("method"),
                        fields.string("variant"),
                        fields.string("scheme"),
                        fields.string("arithmetic"),
                        inner_folder(fields, "results"),
                        inner_folder(fields, "checkpoint"),
                        fields.strings("commands"),
                        fields.string("label", ""),  // older files have neither
                        fields.string("model", "")};
  if (entry.results.empty()) fields.refuse("results", "a folder");
  return entry;
}

}  // namespace

ComparisonEntry describe_entry(const ModelInfo& model, const std::string& where) {
  const ModelDetails details = model_details(model, where);
  ComparisonEntry entry;
  entry.method = details.method().empty() ? "fp" : details.method();
  entry.variant = details.variant();
  if (details.scheme != "float") entry.scheme = details.scheme;
  entry.arithmetic = model.arithmetic;
  return entry;
}

const ComparisonEntry& ComparisonFile::base_entry() const {
  const auto found = std::ranges::find(entries, base, &ComparisonEntry::name);
  assert(found != entries.end());
  return *found;
}

void write_comparison_file(const std::filesystem::path& directory, const ComparisonFile& comparison) {
  ordered_json json = {
      {"comparison", comparison_file_version}, {"base", comparison.base}, {"entries", ordered_json::array()}};
  for (const ComparisonEntry& entry : comparison.entries) {
    json["entries"].push_back({{"name", entry.name},
                               {"method", entry.method},
                               {"variant", entry.variant},
                               {"scheme", entry.scheme},
                               {"arithmetic", entry.arithmetic},
                               {"results", entry.results},
                               {"checkpoint", entry.checkpoint},
                               {"commands", entry.commands},
                               {"label", entry.label},
                               {"model", entry.model}});
  }
  qeval::create_directories(directory);
  const std::filesystem::path path = directory / comparison_file;
  write_file_atomically(path, dump_json(json, path.string(), 2) + "\n");
}

ComparisonFile read_comparison_file(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / comparison_file;
  const ordered_json json = parse_ordered_json(read_file(path), path.string());
  const OrderedJsonObject fields(json, path.string());
  if (fields.count("comparison") != comparison_file_version)
    fields.refuse("comparison", fmt::format("{}, the version that is known", comparison_file_version));
  const ordered_json& entries = fields.at("entries");
  if (!entries.is_array() || entries.empty() || entries.size() > most_entries)
    fields.refuse("entries", fmt::format("an array of 1 to {} entries", most_entries));
  ComparisonFile out{fields.string("base"), {}};
  for (size_t i = 0; i < entries.size(); ++i) {
    out.entries.push_back(entry_from_json(entries[i], fmt::format("{}, entry {}", path.string(), i)));
    const auto same = std::ranges::count(out.entries, out.entries.back().name, &ComparisonEntry::name);
    if (same > 1) fail("{}: the name {} is used twice", path.string(), printable(out.entries.back().name));
  }
  if (std::ranges::find(out.entries, out.base, &ComparisonEntry::name) == out.entries.end())
    fields.refuse("base", "the name of an entry");
  return out;
}

}  // namespace qeval::eval
