#pragma once

#include <cstdint>

#include "quant/arithmetic/integer/integer_model.h"
#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::quant {

/// C [m, n] (+)= A [m, k] · B [k, n] in integers, exactly. A holds int16_t codes; B panels of kPanel columns,
/// [k / 2, kPanel, 2] each, `panel_stride` codes apart. An odd k reads nothing of A beyond it; of B it reads
/// the other half of the last pair, and ignores it.
struct IntegerGemm {
  int64_t m = 0, n = 0, k = 0;
  const int16_t* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t panel_stride = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

/// C [m, panels · kPanel] (+)= A · B, A in 0 … 255 and B whole panels in the kernels' layout of quads. A row
/// of A is readable up to a whole entry or group (byte_stride()).
/// Only grouped quads have an overflow, so that only their kernels read `group`, `inputs` and `accumulate`.
struct QuadGemm {
  int64_t m = 0, panels = 0;
  const uint8_t* a = nullptr;
  int64_t lda = 0;
  const int8_t* b = nullptr;
  int64_t entries = 0;              ///< of each panel, whole groups
  int32_t group = 1;                ///< of grouped quads
  const int32_t* inputs = nullptr;  ///< [entries]: the first input of each, of an overflow; else null
  int32_t* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;
};

/// Rows of sums to codes by a factor of each column, where every total fits 32 bits and every factor is
/// fast(). Totals are computed modulo 2^32: (sums[i, j] + weight[j] · bases[i]) · 2^fast.lift + constant[j].
struct Requantization {
  int64_t rows = 0, n = 0;
  const int32_t* sums = nullptr;
  int64_t ld = 0;
  const int32_t* bases = nullptr;     ///< [rows], where there are weights
  const int32_t* weight = nullptr;    ///< [n], or null
  const int32_t* constant = nullptr;  ///< [n]
  FastRescaleView fast;
  CodeRange output;
};

/// Rows of sums to codes by one factor that is fast(): codes of (sums + base of the row) · 2^raise + constant
/// of the column, modulo 2^32.
struct UniformRequantization {
  int64_t rows = 0, n = 0;
  const int32_t* sums = nullptr;
  int64_t ld = 0;
  const int32_t* bases = nullptr;  ///< [rows], or null
  int32_t raise = 0;
  const int32_t* constant = nullptr;  ///< [n]
  Rescale factor;
  CodeRange output;
};

/// The integer kernels of one CPU path: the same integers from every path.
struct IntegerKernels {
  IntegerCpu cpu;
  /// A in 0 … 255, B int8_t, C int32_t; k ≤ 65536, so that no sum overflows.
  void (*gemm_narrow)(const IntegerGemm&);
  /// A any int16_t, B int8_t, C int32_t modulo 2^32.
  void (*gemm_modular)(const IntegerGemm&);
  /// A any int16_t, B int8_t, C int64_t.
  void (*gemm_wide)(const IntegerGemm&);
  /// A any int16_t, B int16_t, C int64_t.
  void (*gemm_wide16)(const IntegerGemm&);

  /// Sums modulo 2^32.
  void (*gemm_quads)(const QuadGemm&);
  PanelLayout quad_layout;  ///< what gemm_quads reads

  /// To codes, and to 32-bit numbers that are not clamped: out [rows, n], row stride out_ld.
  void (*requantize)(const Requantization&, int16_t* out, int64_t out_ld);
  void (*rescale)(const Requantization&, int32_t* out, int64_t out_ld);
  void (*requantize_uniform)(const UniformRequantization&, int16_t* out, int64_t out_ld);

  /// powers [n ≥ 1] ← exp of the differences to the row's largest code; returns their sum.
  uint64_t (*exponentials)(const ExpTable& exp, int64_t n, const int16_t* row, uint32_t* powers);
  /// row [n] ← powers · reciprocal / 2^shift as codes, 32 ≤ shift ≤ 62; returns the codes' sum.
  int64_t (*shares)(const uint32_t* powers, int64_t n, uint32_t reciprocal, int32_t shift,
                    const CodeRange& codes, int16_t* row);

  /// d [n] ← what a norm reads of the stream: code − zero_point.
  void (*read_stream)(const StreamFormat& format, int64_t n, const int32_t* stream, int32_t* d);
  int64_t (*sum_of_squares)(const int32_t* e, int64_t n);
  /// out [n] ← rescale(u · weight + bias) as codes, u = e · reciprocal / 2^shift rounded; weights from
  /// `first` on.
  void (*scale_norm)(const IntegerNorm& norm, int64_t first, const int32_t* e, int64_t n, int32_t reciprocal,
                     int32_t shift, int16_t* out);
  void (*add_row)(const IntegerAdd& add, const int16_t* update, int64_t n, int32_t* stream);
  void (*multiply_row)(const IntegerProduct& product, const int16_t* up, int64_t n, int16_t* gate);
  /// out [n] ← the products themselves, of at most 32 bits.
  void (*exact_products)(const IntegerProduct& product, const int16_t* up, int64_t n, const int16_t* gate,
                         int32_t* out);
  /// sums [n], modulo 2^32, += rescale(p · own) − p · taken: what a probability's products with a value lack
  /// that has been taken for one on another grid.
  void (*replace_value)(int32_t p, const Rescale& factor, const int32_t* own, const int32_t* taken, int64_t n,
                        int32_t* sums);
  /// `cosines` and `sines` [half] have the fractional bits that the factor was made for.
  void (*rotate_head)(const IntegerRotary& rotary, const int32_t* cosines, const int32_t* sines, int64_t half,
                      int64_t head_dim, int16_t* head);
  /// x [matrix.order] ← x · H; `scratch` [padded_order()].
  void (*hadamard)(const model::HadamardMatrix& matrix, int32_t* x, int32_t* scratch);
  int64_t (*row_sum)(const int16_t* codes, int64_t n);
};

const IntegerKernels& integer_kernels();
const IntegerKernels& integer_kernels(IntegerCpu cpu);

/// `size` bytes that belong to the calling thread until it asks again. Not the paths' own: what frees them at
/// a thread's end must run on every CPU.
uint8_t* gemm_scratch(int64_t size);

const IntegerKernels& integer_kernels_portable();
const IntegerKernels& integer_kernels_avx2();
const IntegerKernels& integer_kernels_avx_vnni();
const IntegerKernels& integer_kernels_avx512();
const IntegerKernels& integer_kernels_avx512_vnni();
const IntegerKernels& integer_kernels_avx512_amx();
const IntegerKernels& integer_kernels_neon();
const IntegerKernels& integer_kernels_neon_dot();
const IntegerKernels& integer_kernels_neon_i8mm();

}  // namespace qeval::quant
