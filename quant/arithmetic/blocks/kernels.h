#pragma once

#include <cstdint>

#include "quant/arithmetic/blocks/panel_form.h"
#include "quant/arithmetic/ggml_rounding.h"
#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::quant {

/// C [m, kPanelColumns] (+)= inputs · weights, both as codes, over a stretch of blocks. An element is one
/// chain over the blocks in ascending order, each of which adds, rounded after every operation,
///   sum · (scale · s) [+ minimum · t]                          blocks of 32, in pairs twice one of 16
///   sum · (scale · unit · s) [, then − least · (minimum · s)]  blocks of 256
/// where s is the input's scale of the block, t its sum (BlockRowLayout), `sum` the exact Σ input · (code −
/// offset) [· step] and `least` the exact Σ input · least, both rounded to float32. So bits depend neither on
/// m, nor on how the blocks were cut into stretches, nor on the CPU.
struct BlockProduct {
  const PanelForm* form = nullptr;
  int64_t m = 0, blocks = 0;
  // Of the first block of the stretch, row by row `ld` bytes apart.
  const int8_t* codes = nullptr;
  const float* scales = nullptr;
  const void* sums = nullptr;
  int64_t ld = 0;
  const uint8_t* panel = nullptr;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

/// The kernels of one CPU path: the same bits from every path.
struct BlockKernels {
  IntegerCpu cpu;
  void (*product)(const BlockProduct&);
  /// Blocks of 32 elements of x as codes [blocks · 32]. `scales` and `scaled_sums` [blocks]: before they are
  /// rounded to halves; NaN for what is not finite. `sums` [blocks · 2], of 16 elements each.
  void (*encode_q8)(const float* x, int64_t blocks, int8_t* codes, float* scales, int16_t* sums,
                    float* scaled_sums);
  /// Blocks of 256 elements; `sums` [blocks · 16].
  void (*encode_q8_k)(const float* x, int64_t blocks, int8_t* codes, float* scales, int16_t* sums);
};

const BlockKernels& block_kernels();
const BlockKernels& block_kernels(IntegerCpu cpu);

const BlockKernels& block_kernels_portable();
const BlockKernels& block_kernels_avx2();
const BlockKernels& block_kernels_avx_vnni();
const BlockKernels& block_kernels_avx512();
const BlockKernels& block_kernels_avx512_vnni();
const BlockKernels& block_kernels_neon();
const BlockKernels& block_kernels_neon_dot();
const BlockKernels& block_kernels_neon_i8mm();

}  // namespace qeval::quant
