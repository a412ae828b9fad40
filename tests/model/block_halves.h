#pragma once

#include <cstddef>
#include <vector>

#include "model/checkpoint/tensor.h"

namespace qeval::model::fixtures {

/// Where the halves are in a block of a GGUF type: what tests of random blocks set to numbers.
inline std::vector<size_t> halves_of(DType type) {
  switch (type) {
    case DType::q8_0:
    case DType::q4_0:
    case DType::q5_0:
    case DType::iq4_nl:
    case DType::iq4_xs:
      return {0};
    case DType::q4_1:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
      return {0, 2};
    case DType::q2_k:
      return {80, 82};
    case DType::q3_k:
      return {108};
    case DType::q6_k:
      return {208};
    case DType::q1_0:
    case DType::q2_0:
    case DType::iq1_s:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq3_xxs:
    case DType::iq3_s:
      return {0};
    case DType::tq1_0:
      return {52};
    case DType::tq2_0:
      return {64};
    default:
      return {};
  }
}

}  // namespace qeval::model::fixtures
