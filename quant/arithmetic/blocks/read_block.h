#pragma once

#include <cstdint>
#include <cstring>

#include "model/checkpoint/tensor.h"

namespace qeval::quant {

/// A stored block apart (model/checkpoint/block_formats.cc has the fields), as its PanelForm means the parts.
struct StoredBlock {
  uint8_t codes[256];
  int8_t steps[16];  ///< of sub-blocks
  uint8_t least[16];
  uint16_t scale, minimum;  ///< halves; MXFP4's scale is bfloat16, NVFP4's minimum a second scale
};

/// Part `part` of a stored block that holds several of its PanelForm's. Precondition: panel_form(type).
void read_block(model::DType type, const uint8_t* stored, int64_t part, StoredBlock& out);

inline uint32_t load_four(const uint8_t* from) {
  uint32_t x = 0;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

}  // namespace qeval::quant
