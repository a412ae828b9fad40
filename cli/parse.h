#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace qeval::cli {

/// A command's options, --help among them.
po::options_description all_options(const Command& command);

/// What the words behind a command's name say. Throws UsageError naming the option, with its near names where
/// it is unknown.
po::variables_map parse_arguments(const Command& command, const std::vector<std::string>& words);

}  // namespace qeval::cli
