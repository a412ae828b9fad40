#pragma once

#include <span>
#include <string_view>

namespace qeval::datasets {

/// A file below datasets/sample/ or datasets/definitions/, put into the program by datasets/embed.cmake.
struct SampleFile {
  std::string_view path;  ///< relative to that folder: "sample_qa/test.jsonl"
  std::string_view text;
};

std::span<const SampleFile> sample_files();
std::span<const SampleFile> definitions_files();

}  // namespace qeval::datasets
