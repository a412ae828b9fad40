#pragma once

#include <cstdint>
#include <vector>

#include "quant/arithmetic/integer/integer_model.h"
#include "quant/grid/quantizer.h"

namespace qeval::quant {

/// A grid and how its codes are stored (CodeRange). Load time only: the scale is a real number.
struct PointGrid {
  Grid grid;
  int32_t offset = 0;  ///< stored code = q − offset
  CodeRange codes;

  double scale() const { return static_cast<double>(grid.scale); }
  /// Largest |code − zero_point|.
  int64_t reach() const;
  /// The value of a stored code, and the stored code of a value, in float32 as the simulation rounds.
  float value(int32_t code) const;
  int16_t code(float value) const;
  bool operator==(const PointGrid&) const = default;
};

PointGrid make_point_grid(const QuantSpec& spec, Range range);

/// The residual stream where a norm reads it: the 16-bit grid, and what is kept below its step.
struct StreamGrid {
  PointGrid grid;
  int32_t guard_bits = 0;

  StreamFormat format() const;
  /// The stream's number for a finite value, and back.
  int32_t code(float value) const;
  float value(int32_t code) const;
};

/// The fixed-point form of a factor > 0 for |x| ≤ bound.
Rescale make_rescale(double factor, double bound);

/// The same factors side by side, or nothing where one of them is not fast with the lift that another needs.
FastRescale make_fast(const std::vector<Rescale>& factors);

/// to.code(function(from.value(c))) for every code c of `from`.
template <typename Function>
CodeTable make_table(const PointGrid& from, const PointGrid& to, const Function& function) {
  CodeTable table{.lo = from.codes.lo, .values = {}};
  table.values.reserve(static_cast<size_t>(from.codes.hi - from.codes.lo) + 1);
  for (int32_t c = from.codes.lo; c <= from.codes.hi; ++c) {
    table.values.push_back(to.code(function(from.value(c))));
  }
  return table;
}

/// The table that rounds codes of `from` to those of `to`; the identity where they are the same grid.
CodeTable regrid(const PointGrid& from, const PointGrid& to);

}  // namespace qeval::quant
