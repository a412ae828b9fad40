#pragma once

#include <cstdint>

#include "model/checkpoint/activation_rounding.h"

namespace qeval::quant {

/// x [n], one row, → the nearest codes and back, as the library of the checkpoint's format computes it in
/// float32: ties to even; a stretch that is all zeros stays so. NaN stays NaN.
void round_activation(const model::ActivationRounding& rounding, float* x, int64_t n);

/// Whether a row's codes are integers of at most 8 bits on one grid.
bool has_row_codes(const model::ActivationRounding& rounding);
/// The grid of a row: x ≈ (code − zero_point) · scale. The scale is NaN where the row holds NaN, or
/// round_activation() would make some.
struct RowGrid {
  float scale = 1;
  int32_t zero_point = 0;
};
/// codes [n] ← the codes that round_activation() rounds x to. Precondition: has_row_codes().
RowGrid code_activation(const model::ActivationRounding& rounding, const float* x, int64_t n, int16_t* codes);

/// The nearest E4M3 number (448 at most) and E2M1 number (6 at most), ties to even.
float round_e4m3(float x);
float round_e2m1(float x);

}  // namespace qeval::quant
