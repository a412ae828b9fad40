#pragma once

#include <cstdint>

#include "quant/arithmetic/integer/integer_model.h"

namespace qeval::quant {

// The operations on one row of codes that are not a kernel each.

/// codes ← table(codes), in place; nothing where the table is the identity.
void apply_table(const CodeTable& table, int64_t n, int16_t* codes);
/// √n / √squares as reciprocal / 2^shift, in units of 2^−kUnitBits; 0 of 0.
struct UnitScale {
  int32_t reciprocal = 0;
  int32_t shift = 1;
};
UnitScale unit_scale(const IntegerNorm& norm, int64_t squares);
/// out [n] ← norm of the residual stream [n], or of codes [n], which may be out; n is a multiple of the
/// group.
void norm_row(const IntegerNorm& norm, const int32_t* stream, int64_t n, int16_t* out);
void norm_row(const IntegerNorm& norm, const int16_t* codes, int64_t n, int16_t* out);
/// codes [n] ← the residual stream [n].
void read_stream_row(const StreamRead& read, const int32_t* stream, int64_t n, int16_t* codes);
/// Scores [n ≥ 1] become probabilities, in place, soft cap included; returns the sum of their codes.
int64_t softmax_row(const IntegerAttention& attention, int64_t n, int16_t* row);

}  // namespace qeval::quant
