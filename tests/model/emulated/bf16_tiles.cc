#include "tests/model/emulated/bf16_tiles.h"

#include "tests/model/emulated/tiles.h"
// After what it emulates.
#include "model/kernels/bf16_tiles_impl.h"

namespace qeval::model {

void emulated_bf16_gemm_by_tiles(const Bf16Gemm& g) {
  bf16_gemm_by_tiles(g);
}

}  // namespace qeval::model
