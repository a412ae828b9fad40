#pragma once

#include <cstdint>

#include "model/checkpoint/stored_weight.h"

namespace qeval::model {

/// scales and zeros [n] ← those of groups [first, first + n) of a row, without the weight's factor; zero
/// points of unpacked codes. Precondition: codes are numbers (no CodedWeight::values).
void read_grids(const CodedWeight& weight, int64_t row, int64_t first, int64_t n, float* scales,
                int32_t* zeros);

}  // namespace qeval::model
