#pragma once

#include <cstdint>

#include "model/kernels/cpu.h"

namespace qeval::model {

/// C[m, n] (+)= A[m, k] · B[k, n], B in panels of `panel` columns: element (i, j) of B is at
/// b[(j / panel) · panel_stride + i · ldb + j % panel]; the last panel is padded to full width.
/// Every element of C is one chain of fused multiply-adds (multiply, then add on the portable path) over i =
/// 0 … k−1, starting from 0 or, with `accumulate`, from C: the result does not depend on m, n, tiling, or on
/// how a long k was cut into calls.
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t lda = 0;
  int64_t a_step = 1;  ///< element (r, i) of A is at a[r · lda + i · a_step]: a transposed A has lda = 1
  const float* b = nullptr;
  int64_t ldb = 0, panel_stride = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

/// What log-sum-exp needs of one tile of logits.
struct LogitTile {
  float max = 0;        ///< largest logit
  float sum = 0;        ///< Σ exp(x − max)
  int32_t arg_max = 0;  ///< first index of the largest
};

/// Codes of one row of a quantized matrix, a byte each, and the grids they are on.
struct CodeRow {
  const uint8_t* codes = nullptr;
  int64_t n = 0;
  int64_t first = 0, group = 0;    ///< codes of the first group and of those behind it: at least 1
  const float* scales = nullptr;   ///< of each group
  const int32_t* zeros = nullptr;  ///< of each group; not read where there are values
  /// What codes stand for, where they are not numbers: 16 or 256 values.
  const float* values = nullptr;
  int value_count = 0;
  float* out = nullptr;  ///< [n]
};

/// The float kernels of one CPU path. All pointers are to float32 rows; no alignment is required. Results
/// depend on the row's content and length only, so any partition over rows or threads gives the same bits.
struct Kernels {
  CpuPath path;
  int64_t panel;  ///< columns of a Gemm panel

  void (*gemm)(const Gemm&);
  /// Writes rows [rows ≤ panel, k] (row stride ld) as one panel [k, panel]; missing rows become zeros.
  void (*pack_panel)(const float* rows, int64_t ld, int64_t row_count, int64_t k, float* panel_out);
  /// x ← softmax(scale · x) over n ≥ 1 elements.
  void (*softmax)(float* x, int64_t n, float scale);
  /// RMSNorm: y = x · w / √(mean(x²) + eps).
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* y);
  /// RMSNorm as an L2 norm (docs/specification.md#points): y = √n · x / max(‖x‖₂, 1e-12) · w.
  void (*l2_norm)(const float* x, const float* w, int64_t n, float* y);
  /// LayerNorm: y = (x − mean) / √(variance + eps) · w + b; b may be null.
  void (*layer_norm)(const float* x, const float* w, const float* b, float eps, int64_t n, float* y);
  /// Rotates the pairs (i, i + half) of one head in place, i < half, by angles given as cosines and sines.
  void (*rotate)(float* head, const float* cosines, const float* sines, int64_t half);
  /// y ← y + x.
  void (*add)(const float* x, int64_t n, float* y);
  /// y = silu(x) = x / (1 + exp(−x)); y may be x.
  void (*silu)(const float* x, int64_t n, float* y);
  /// y = 1 / (1 + exp(−x)); y may be x.
  void (*sigmoid)(const float* x, int64_t n, float* y);
  /// tanh form of GELU; y may be x.
  void (*gelu_tanh)(const float* x, int64_t n, float* y);
  /// erf form of GELU, x · Φ(x), within 2e-7 · max(1, |x|); y may be x.
  void (*gelu_erf)(const float* x, int64_t n, float* y);
  /// y ← y · x.
  void (*multiply)(const float* x, int64_t n, float* y);
  /// x [order] ← x · H of a HadamardMatrix, whose masks these are; `scratch`: [order],
  /// unused where base_order is 1.
  void (*hadamard)(int64_t order, int64_t base_order, const int32_t* masks, float* x, float* scratch);
  /// Over n ≥ 1 logits.
  LogitTile (*logit_tile)(const float* x, int64_t n);
  /// IEEE half and bfloat16 to float, exact.
  void (*widen_f16)(const uint16_t* x, int64_t n, float* y);
  void (*widen_bf16)(const uint16_t* x, int64_t n, float* y);
  /// out = (code − zero) · scale, or value[code] · scale: the difference exact, the product rounded once.
  void (*dequantize)(const CodeRow& row);
  /// The same with a zero point and a scale for each of n codes.
  void (*dequantize_each)(const uint8_t* codes, int64_t n, const int32_t* zeros, const float* scales,
                          float* y);
};

/// The kernels of the path in force (cpu_path()).
const Kernels& kernels();
/// The kernels of a given path, which the CPU must support: for tests that compare paths.
const Kernels& kernels(CpuPath path);

const Kernels& kernels_portable();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_neon();

}  // namespace qeval::model
