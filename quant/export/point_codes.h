#pragma once

#include <cstdint>
#include <optional>

#include <onnx/onnx.pb.h>

#include "quant/grid/points.h"
#include "quant/grid/quantizer.h"

namespace qeval::quant {

/// A static point as ONNX's QuantizeLinear and DequantizeLinear compute it, value for value:
/// codes = saturate(round(x / scale) + zero_point), half to even, in the limits of `type`.
struct PointCodes {
  onnx::TensorProto::DataType type = onnx::TensorProto::UINT8;
  float scale = 1;
  int32_t zero_point = 0;
  /// Where the grid has fewer codes than the type: x is clipped to this first, which gives the same codes,
  /// since rounding keeps order and the limits fall on codes.
  std::optional<Range> clip;
  /// 0 is on the grid: a masked element stays 0.
  bool has_zero = true;
};

/// The types are u8 and s8 up to 8 bits, u16 and s16 above. A zero point must lie among a type's codes; where
/// a range excludes 0 so that it does not, 8-bit grids take a 16-bit type, clipped. A 16-bit grid that far
/// from 0 has no exact form: an Error that names the point and what to change.
PointCodes point_codes(const Point& point, const QuantSpec& spec, const Grid& grid);

}  // namespace qeval::quant
