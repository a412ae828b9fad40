#include "model/kernels/bf16_tiles_impl.h"

namespace qeval::model {

void bf16_gemm_avx512_amx(const Bf16Gemm& g) {
  bf16_gemm_by_tiles(g);
}

}  // namespace qeval::model
