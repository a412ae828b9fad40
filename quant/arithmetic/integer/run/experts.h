#pragma once

#include <cstdint>

#include "quant/arithmetic/integer/integer_model.h"

namespace qeval::quant {

/// The experts of a row, ascending, and the codes of their weights, `router.used` each, by the codes of its
/// logits [router.experts].
void choose_experts(const IntegerRouter& router, const int16_t* logits, int32_t* experts, int32_t* weights);

}  // namespace qeval::quant
