#pragma once

#include <cstdint>

#include "model/checkpoint/activation_rounding.h"

namespace qeval::quant {

/// x [n], one row, → the nearest codes and back, as the library of the checkpoint's format computes it in
/// float32: ties to even; a stretch that is all zeros stays so. NaN stays NaN.
void round_activation(const model::ActivationRounding& rounding, float* x, int64_t n);

/// The nearest E4M3 number (448 at most) and E2M1 number (6 at most), ties to even.
float round_e4m3(float x);
float round_e2m1(float x);

}  // namespace qeval::quant
