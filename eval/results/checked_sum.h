#pragma once

#include <cstdint>

#include "base/error.h"

namespace qeval::eval {

/// Adds `more` to `total`. Counts come from files of strangers: an Error where the sum does not fit.
inline void add_count(int64_t& total, int64_t more) {
  if (__builtin_add_overflow(total, more, &total))
    fail("counts of tokens or documents that cannot be: their sum exceeds 2^63");
}

}  // namespace qeval::eval
