#pragma once

#include <array>
#include <cstdint>

namespace qeval::model {

/// The code books of GGUF's types of 1, 2 and 3 bits. An entry is a run of consecutive values, one byte each,
/// the first in the lowest byte: 8 magnitudes (IQ2), 4 magnitudes (IQ3) or 8 of −1, 0 and 1 (IQ1_S and
/// IQ1_M).
extern const std::array<uint64_t, 256> kIq2XxsGrid;
extern const std::array<uint64_t, 512> kIq2XsGrid;
extern const std::array<uint64_t, 1024> kIq2SGrid;
extern const std::array<uint64_t, 2048> kIq1SGrid;
extern const std::array<uint32_t, 256> kIq3XxsGrid;
extern const std::array<uint32_t, 512> kIq3SGrid;

}  // namespace qeval::model
