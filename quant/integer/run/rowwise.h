#pragma once

#include <cstdint>

#include "quant/integer/integer_model.h"

namespace qeval::quant {

// The operations on one row of codes, in integers.

/// codes ← table(codes), in place; nothing where the table is the identity.
void apply_table(const CodeTable& table, int64_t n, int16_t* codes);
/// out [n] ← norm of residual [n]; out may not be residual.
void norm_row(const IntegerNorm& norm, const int16_t* residual, int64_t n, int16_t* out);
/// Rotates the pairs (i, i + half) of one head [head_dim] in place and brings all channels to the output's
/// codes. `cosines` and `sines` [half] have kAngleBits fractional bits.
void rotate_head(const IntegerRotary& rotary, const int32_t* cosines, const int32_t* sines, int64_t half,
                 int64_t head_dim, int16_t* head);
/// residual [n] ← residual + update, in the codes of the next reader.
void add_row(const IntegerAdd& add, const int16_t* update, int64_t n, int16_t* residual);
/// gate [n] ← gate · up.
void multiply_row(const IntegerProduct& product, const int16_t* up, int64_t n, int16_t* gate);
/// Scores [n ≥ 1] become probabilities, in place.
void softmax_row(const IntegerAttention& attention, int64_t n, int16_t* row);

}  // namespace qeval::quant
