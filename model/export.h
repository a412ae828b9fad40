#pragma once

#include <filesystem>
#include <vector>

#include "model/weights.h"

namespace qeval::model {

/// Writes model.safetensors and then config.json of a model in the unified layout (QUANTIZATION.md §3):
/// unified tensor names, Gemma's +1 already in the norm weights, a tied head left out. `dtype`: f32, f16 or
/// bf16. The folder must exist.
void write_unified(const Model& model, const std::filesystem::path& folder, DType dtype);

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
