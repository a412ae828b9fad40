// The weights of a folder, whole or in shards. An index file is JSON {"metadata": …, "weight_map": {tensor
// name: file name}}; the files lie beside it.

#include <algorithm>
#include <array>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/checkpoint/checkpoint.h"

namespace qeval::model {
namespace {

using Opener = std::unique_ptr<Checkpoint> (*)(const std::filesystem::path&);

/// A name from the index must not lead out of the folder.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c >= 0x20 && c != 0x7F && c != '/' && c != '\\'; });
}

class ShardedCheckpoint : public Checkpoint {
 public:
  ShardedCheckpoint(const std::filesystem::path& index_file, std::string_view format, Opener open_shard)
      : Checkpoint(index_file, format) {
    const auto index = parse_strict_json(read_file(index_file), index_file.string());
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
      fail("{}: no \"weight_map\" object", index_file.string());
    }
    std::map<std::string, std::vector<std::string>> names_by_shard;
    for (const auto& [name, file] : index["weight_map"].items()) {
      if (!file.is_string() || !is_plain_file_name(file.get_ref<const std::string&>())) {
        fail("{}: tensor {} is in {}; accepted: the name of a file in the same folder", index_file.string(),
             printable(name), printable(file.dump(), 80));
      }
      names_by_shard[file.get<std::string>()].push_back(name);
    }
    if (names_by_shard.empty()) fail("{}: the weight_map is empty", index_file.string());
    for (const auto& [file, names] : names_by_shard) {
      const Checkpoint& shard = *shards_.emplace_back(open_shard(index_file.parent_path() / file));
      for (const std::string& name : names) {
        if (shard.find(name) == nullptr) add_listed_only(name, shard.path());
      }
      for (const TensorView& tensor : shard.tensors()) add(tensor);
      for (const auto& [key, text] : shard.metadata()) add_metadata(key, text);
    }
  }

  void release_pages() const override {
    for (const auto& shard : shards_) shard->release_pages();
  }

 private:
  std::vector<std::unique_ptr<Checkpoint>> shards_;
};

}  // namespace

std::unique_ptr<Checkpoint> open_directory(const std::filesystem::path& directory) {
  struct Candidate {
    const char* file;
    std::string_view format;
    Opener open;
    bool is_index;
  };
  static constexpr std::array<Candidate, 4> kCandidates{{
      {"model.safetensors", "safetensors", open_safetensors, false},
      {"model.safetensors.index.json", "safetensors", open_safetensors, true},
      {"pytorch_model.bin", "pytorch", open_pytorch, false},
      {"pytorch_model.bin.index.json", "pytorch", open_pytorch, true},
  }};
  std::string looked_for;
  for (const Candidate& candidate : kCandidates) {
    const auto file = directory / candidate.file;
    std::error_code code;
    if (std::filesystem::exists(file, code)) {
      if (!candidate.is_index) return candidate.open(file);
      return std::make_unique<ShardedCheckpoint>(file, candidate.format, candidate.open);
    }
    looked_for += looked_for.empty() ? candidate.file : fmt::format(", {}", candidate.file);
  }
  fail("{}: no weights in this folder; looked for {}", directory.string(), looked_for);
}

}  // namespace qeval::model
