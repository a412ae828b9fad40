#pragma once

#include <filesystem>

namespace qeval::fuzz {

/// A folder with the tests' tiny model and a byte-level tokenizer of all bytes and "<end>"; made once.
const std::filesystem::path& tiny_model_folder();

}  // namespace qeval::fuzz
