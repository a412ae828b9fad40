#pragma once

#include "eval/engine/session.h"

namespace qeval::fuzz {

/// A session with the model of tiny_model_folder(); made once.
eval::Session& tiny_session();

}  // namespace qeval::fuzz
