#pragma once

#include <string>

#include "model/config.h"

namespace qeval::model {

/// Holds the sizes of a configuration read from a file against what the decoder can run: positive, within
/// bounds that keep every later product far from overflow, heads dividing evenly. Errors begin with `where`.
void check_sizes(const ModelConfig& config, const std::string& where);

/// The same for all of it: rotary channels, finite constants and token ids, too.
void check_config(const ModelConfig& config, const std::string& where);

/// The key of a config.json whose blocks' norms have no eps (l2norm_as_rmsnorm) and whose other programs know
/// one eps for all norms, written as next to nothing: the final norm's.
inline constexpr const char* kFinalNormEpsKey = "qeval_norm_eps";

}  // namespace qeval::model
