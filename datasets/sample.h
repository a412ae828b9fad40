#pragma once

#include <span>
#include <string>
#include <string_view>

#include "datasets/reader.h"

namespace qeval::datasets {

/// A file of datasets/sample/, which is inside the program: written for this project, free to use. `patterns`
/// are as for locate_split(): "sample_qa/{split}.jsonl". Error for a split that the sample does not have,
/// with those that it has.
DataText shipped_sample(std::span<const std::string> patterns, std::string_view split);

}  // namespace qeval::datasets
