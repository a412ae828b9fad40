#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/reader.h"

namespace qeval::datasets {

/// A file of datasets/sample/, which is inside the program: written for this project, free to use. `patterns`
/// are as for locate_split(): "sample_qa/{split}.jsonl". Error for a split that the sample does not have,
/// with those that it has.
DataText shipped_sample(std::span<const std::string> patterns, std::string_view split);

/// The rows of datasets/definitions/NAME.jsonl, which is inside the program: what tasks bring along besides
/// their own rows.
std::vector<Json> shipped_definition(std::string_view name);

}  // namespace qeval::datasets
