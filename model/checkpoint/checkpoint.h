#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/checkpoint/tensor.h"

namespace qeval::model {

/// Named tensors of a checkpoint, whatever file format they come from (safetensors, GGUF, PyTorch pickle).
/// Opening checks every size and offset against the file; later access cannot leave the mapping. Immutable
/// once opened, so any number of threads may read. One of the project's three inheritance seams.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  /// All tensors, in the order of the file(s).
  std::span<const TensorView> tensors() const { return tensors_; }
  /// nullptr where there is no such tensor.
  const TensorView* find(std::string_view name) const;
  /// As find, but a missing tensor is an Error that names it and the file.
  const TensorView& require(std::string_view name) const;
  /// Tensors that an index lists and no file holds, with the file that should: other tools list the head of a
  /// tied model, which is not stored.
  const std::map<std::string, std::filesystem::path, std::less<>>& listed_only() const {
    return listed_only_;
  }
  /// Text that a safetensors header carries beside its tensors.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  /// What to call the checkpoint in messages: the file or folder.
  const std::filesystem::path& path() const { return path_; }
  /// "safetensors", "gguf" or "pytorch".
  std::string_view format() const { return format_; }
  /// Gives back the memory of what was read of the file(s) so far; tensors stay valid.
  virtual void release_pages() const = 0;

 protected:
  /// `format` is a literal.
  Checkpoint(std::filesystem::path path, std::string_view format) : path_(std::move(path)), format_(format) {}
  /// Adds a tensor; a second one of the same name is an Error. Where the file leaves elements unaligned, the
  /// tensor becomes an aligned copy.
  void add(TensorView tensor);
  void add_listed_only(std::string name, std::filesystem::path file);
  /// Of shards, what the first of them says of a key.
  void add_metadata(std::string key, std::string text);

 private:
  std::filesystem::path path_;
  std::string_view format_;
  std::vector<TensorView> tensors_;
  std::vector<std::unique_ptr<std::byte[]>> aligned_copies_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::filesystem::path, std::less<>> listed_only_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

std::unique_ptr<Checkpoint> open_safetensors(const std::filesystem::path& file);
/// PyTorch `.bin`: a zip of raw storages and a pickle of the tensor dict, read by a data-only interpreter.
std::unique_ptr<Checkpoint> open_pytorch(const std::filesystem::path& file);
/// The weights of a Hugging Face or MobileQuant folder: `model.safetensors`, `model.safetensors.index.json`
/// with its shards, `pytorch_model.bin` or `pytorch_model.bin.index.json` with its shards; the first that
/// exists, in that order. None of them is an Error that lists what was looked for.
std::unique_ptr<Checkpoint> open_directory(const std::filesystem::path& directory);

}  // namespace qeval::model
