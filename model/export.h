#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/checkpoint/safetensors_writer.h"
#include "model/weights.h"

namespace qeval::model {

/// Writes model.safetensors and then config.json of a model in the unified layout
/// (docs/specification.md#unified-layout): unified tensor names, Gemma's +1 already in the norm weights, a
/// tied head left out. `dtype`: f32, f16 or bf16. The folder must exist.
void write_unified(const Model& model, const std::filesystem::path& folder, DType dtype);

/// Settings and tensor names that a model's folder is written with.
struct FolderLayout {
  nlohmann::json config;  ///< config.json
  /// Whether these are the architecture's own, which transformers loads, instead of the unified ones.
  bool published = false;
  bool norm_plus_one = false;             ///< norms are written less 1
  std::string embedding, head;            ///< without ".weight"
  std::map<Module, std::string> modules;  ///< "{}" is the layer, a second one the expert
  /// Whole names of LayerWeights::vectors, but for those of convolutions, which have modules.
  std::map<Module, std::string> vectors;
  std::string state_decay, state_step, state_skip;  ///< whole names of LayerWeights::state
  /// Inputs of layers: Model::layer_embedding, layer_projection, layer_projection_norm.
  std::string layer_embedding, layer_projection, layer_projection_norm;
  std::string block, root;  ///< in front of the modules of a block, and of all but the head

  std::string name(int64_t layer, Module module, int64_t expert = 0) const;
};

/// The unified layout, `torch_dtype` as config.json says it.
FolderLayout unified_layout(const ModelConfig& config, const std::string& torch_dtype);
/// The architecture's own layout. Nothing where the model came without its settings (the unified layout's),
/// has biases that they cannot say, fuses, transposes or reorders tensors, or has norms that are not what
/// they were after −1 and +1.
std::optional<FolderLayout> published_layout(const Model& model, const std::string& torch_dtype);

/// A matrix on its way into a folder.
struct FolderMatrix {
  const Matrix& matrix;
  std::string name;  ///< without ".weight"
  int64_t layer = 0;
  std::optional<Module> module{};  ///< none: an embedding, or …
  bool map = false;                ///< … a linear map that no point is of

  bool is_linear() const { return module || map; }
};
/// All tensors of a model by a layout's names, a tied head left out; matrices as `add` makes them, whatever
/// else there is as numbers. The model must outlive the result.
std::vector<TensorSource> folder_tensors(
    const Model& model, const FolderLayout& layout,
    const std::function<void(const FolderMatrix& matrix, std::vector<TensorSource>& tensors)>& add);
/// A matrix as numbers.
TensorSource number_source(const FolderMatrix& matrix);

/// Writes model.safetensors, numbers as `dtype`, and then config.json. The folder must exist.
void write_folder(const std::filesystem::path& folder, std::span<const TensorSource> tensors,
                  const nlohmann::json& config, DType dtype);

/// Copies what load_tokenizer needs from a model's folder, or from its GGUF file as `tokenizer.gguf`, the
/// file's metadata without tensors. A model without a tokenizer (ids only) has nothing to copy: returns
/// false.
bool copy_tokenizer(const Model& model, const std::filesystem::path& folder);

/// Reads the files that copy_tokenizer copies, so that one that it cannot read is an Error before anything is
/// written.
void read_tokenizer_files(const Model& model);

/// The names of all files that the two may write, config.json first: a folder without it is no model.
std::vector<const char*> exported_files();

}  // namespace qeval::model
