#pragma once

#include <string>

#include "model/config.h"

namespace qeval::model {

/// Holds a configuration read from a file against what the decoder can run: sizes positive, within bounds
/// that keep every later product far from overflow, heads dividing evenly, finite constants. Errors begin
/// with `where`.
void check_config(const ModelConfig& config, const std::string& where);

}  // namespace qeval::model
