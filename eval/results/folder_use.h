#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace qeval::eval {

/// What a folder is used for, as its files say from the first moment on.
enum class FolderUse : uint8_t {
  none,         ///< nothing that results could be mixed with
  run,          ///< a run or a shard, finished or not: run.json, samples, results.json
  methods,      ///< a comparison of methods: matrix.json
  arithmetics,  ///< a comparison of a model's arithmetics: compare.json, without matrix.json
  model,        ///< config.json
};

/// Only looks. A folder that does not exist is not used.
FolderUse folder_use(const std::filesystem::path& directory);

/// Throws Error unless the folder is used for `use` or for nothing, saying what it holds and what to do.
void require_use(const std::filesystem::path& directory, FolderUse use);

/// The settings of a comparison of methods, in its output folder.
inline constexpr const char* matrix_file = "matrix.json";

/// Whether a run keeps a task's documents in files of this name, finished or not: samples, journals, and
/// companions.
bool is_document_file(std::string_view name);
/// Of these, the companions there are: what divergence.h and eval/kept_distributions.h name.
bool is_companion_file(std::string_view name);

/// Whether a folder of results has a file of this name.
bool is_result_file(std::string_view name);

/// Whether it is rank-K, where a further process of a run keeps what it has finished.
bool is_rank_folder(const std::filesystem::path& path);

}  // namespace qeval::eval
