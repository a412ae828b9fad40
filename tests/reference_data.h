#pragma once

#include <cstdlib>
#include <filesystem>

namespace qeval::test {

/// Tiny models and vocabularies with the answers of independent implementations (tests/goldens/README.md).
/// They belong to the sources: a test that misses one fails.
inline std::filesystem::path goldens() {
  return QEVAL_GOLDENS_DIR;
}

/// Reference data that is not part of the sources, below the folder that the environment's QEVAL_SHARED_DIR
/// names. A test skips, saying what it misses, where the path that this returns does not exist.
inline std::filesystem::path shared_data(const std::filesystem::path& below) {
  const char* folder = std::getenv("QEVAL_SHARED_DIR");
  return std::filesystem::path(folder == nullptr ? "QEVAL_SHARED_DIR" : folder) / below;
}

}  // namespace qeval::test
