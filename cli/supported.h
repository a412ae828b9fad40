#pragma once

#include <string>

namespace qeval::cli {

/// A Markdown table of every architecture: what its files are, and which arithmetics, learning and export
/// take a model with its default settings.
std::string supported_table();

}  // namespace qeval::cli
