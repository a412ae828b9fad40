#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"

namespace qeval::cli {

/// One --with: PATH[@ARITHMETIC][=LABEL].
struct ComparedModel {
  std::filesystem::path path;
  std::string arithmetic;  ///< empty: the checkpoint's own default
  std::string label;       ///< empty: of the checkpoint's format
};

void add_with_option(po::options_description& options);

/// The values of --with, in their order.
std::vector<ComparedModel> compared_models(const po::variables_map& arguments);

/// A path may hold '@' and '=': the longest part that exists is the path. Throws UsageError for an arithmetic
/// that is unknown and an empty label or path.
ComparedModel parse_compared_model(std::string_view text);

}  // namespace qeval::cli
