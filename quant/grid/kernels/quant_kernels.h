#pragma once

#include <cstdint>

#include "model/kernels/cpu.h"

namespace qeval::quant {

struct Range {
  float lo = 0, hi = 0;
  bool operator==(const Range&) const = default;
};

/// A uniform grid of codes q_min … q_max: q = clamp(round(x / scale) + zero_point, q_min, q_max), and back
/// (q − zero_point) · scale. The zero point may lie outside the codes (the range excludes 0): 32 bits.
struct Grid {
  float scale = 1;
  int32_t zero_point = 0;
  int32_t q_min = 0, q_max = 0;
  bool operator==(const Grid&) const = default;
};

/// The quantizer's inner loops for one CPU path. Every result is bit for bit the same on all paths. No
/// alignment is required; outputs may be the inputs.
struct QuantKernels {
  model::CpuPath path;

  /// y = (clamp(round(x / s) + z, q_min, q_max) − z) · s, each step rounded to float32, half to even. NaN
  /// stays NaN.
  void (*fake_quantize)(const float* x, int64_t n, const Grid& grid, float* y);
  /// Smallest and largest of n ≥ 1 values; {NaN, NaN} where one of them is not finite.
  Range (*range)(const float* x, int64_t n);
  /// codes = clamp(round(x / s) + z, q_min, q_max) − offset, for a result that fits the type; x finite.
  void (*quantize_i8)(const float* x, int64_t n, const Grid& grid, int32_t offset, int8_t* codes);
  void (*quantize_i16)(const float* x, int64_t n, const Grid& grid, int32_t offset, int16_t* codes);
  /// y = (code − zero_point) · scale.
  void (*dequantize_i8)(const int8_t* codes, int64_t n, float scale, int32_t zero_point, float* y);
  void (*dequantize_i16)(const int16_t* codes, int64_t n, float scale, int32_t zero_point, float* y);
  /// y = max(y, |x|), per element: channel maxima over rows.
  void (*abs_max)(const float* x, int64_t n, float* y);
};

/// The kernels of the path in force (model::cpu_path()).
const QuantKernels& quant_kernels();
/// The kernels of a given path, which the CPU must support: for tests that compare paths.
const QuantKernels& quant_kernels(model::CpuPath path);

const QuantKernels& quant_kernels_portable();
const QuantKernels& quant_kernels_avx2();
const QuantKernels& quant_kernels_avx512();
const QuantKernels& quant_kernels_neon();

}  // namespace qeval::quant
