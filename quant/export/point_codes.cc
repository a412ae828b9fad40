#include "quant/export/point_codes.h"

#include <array>

#include "base/error.h"
#include "base/setting.h"

namespace qeval::quant {
namespace {

struct CodeType {
  onnx::TensorProto::DataType type;
  int64_t smallest, largest;
};
constexpr CodeType kUnsigned8{onnx::TensorProto::UINT8, 0, 255};
constexpr CodeType kSigned8{onnx::TensorProto::INT8, -128, 127};
constexpr CodeType kUnsigned16{onnx::TensorProto::UINT16, 0, 65535};
constexpr CodeType kSigned16{onnx::TensorProto::INT16, -32768, 32767};

/// The zero point that puts the steps lo … hi (multiples of the scale) into a type's codes: the grid's own
/// where it serves, else the nearest that does.
std::optional<int64_t> zero_point_in(const CodeType& type, int64_t own, int64_t lo, int64_t hi) {
  const auto serves = [&](int64_t zero) {
    return zero >= type.smallest && zero <= type.largest && lo + zero >= type.smallest &&
           hi + zero <= type.largest;
  };
  for (const int64_t zero : {own, type.smallest, type.largest}) {
    if (serves(zero)) return zero;
  }
  return std::nullopt;
}

}  // namespace

PointCodes point_codes(const Point& point, const QuantSpec& spec, const Grid& grid) {
  const int64_t lo = int64_t{grid.q_min} - grid.zero_point;
  const int64_t hi = int64_t{grid.q_max} - grid.zero_point;
  PointCodes result{.scale = grid.scale, .clip = std::nullopt, .has_zero = lo <= 0 && hi >= 0};
  const std::array types =
      spec.symmetric ? std::array{kSigned8, kSigned16} : std::array{kUnsigned8, kUnsigned16};
  for (const CodeType& type : types) {
    if (spec.bits > 8 && type.largest < 256) continue;
    const auto zero = zero_point_in(type, grid.zero_point, lo, hi);
    if (!zero) continue;
    result.type = type.type;
    result.zero_point = static_cast<int32_t>(*zero);
    if (lo + *zero != type.smallest || hi + *zero != type.largest) {
      result.clip = Range{static_cast<float>(lo) * grid.scale, static_cast<float>(hi) * grid.scale};
    }
    return result;
  }
  const Range range = representable(grid);
  fail(
      "{}: its range [{}, {}] excludes 0 by more steps than ONNX's 16-bit zero points reach; accepted: a "
      "range that includes 0 ({}), or fewer bits ({})",
      point_name(point), range.lo, range.hi, setting("act-ranges"), setting("qcfg"));
}

}  // namespace qeval::quant
