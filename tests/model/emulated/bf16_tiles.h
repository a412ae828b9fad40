#pragma once

#include "model/kernels/bf16.h"

namespace qeval::model {

/// The product by AMX's tiles, its instructions emulated.
void emulated_bf16_gemm_by_tiles(const Bf16Gemm& g);

}  // namespace qeval::model
