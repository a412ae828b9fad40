#pragma once

#include <cstdint>

namespace qeval::model {

/// How a checkpoint asks for a linear map's input or output, or for keys or values, to be rounded to codes
/// and back (quant/activation_rounding.h does it). A row is a token's features.
struct ActivationRounding {
  enum class Type : uint8_t { integer, e4m3, e2m1 } type = Type::integer;
  int bits = 8;  ///< of integers: −2^(bits−1) … 2^(bits−1) − 1
  /// Where scales come from.
  enum class Scale : uint8_t {
    fixed,         ///< `scale` and `zero_point`
    token,         ///< from a row's largest magnitude, or smallest and largest value
    group,         ///< from those of each `group` features
    power_of_two,  ///< MX: a power of two for each `group` features
    two_level      ///< NVFP4: an E4M3 number for each `group` features, times a fixed scale
  } source = Scale::fixed;
  bool symmetric = true;
  float scale = 1;
  int32_t zero_point = 0;
  int64_t group = 0;
  float upper_bound = 0;  ///< where not 0: magnitudes that scales come from end here
  /// Of `two_level`: the second scale, and whether it is stored as its reciprocal.
  float global = 1;
  bool global_divides = false;

  bool operator==(const ActivationRounding&) const = default;
};

}  // namespace qeval::model
