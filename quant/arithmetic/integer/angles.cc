#include "quant/arithmetic/integer/angles.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "model/rotary.h"
#include "quant/arithmetic/integer/integer_model.h"

namespace qeval::quant {
namespace {

/// What the cosines and sines of a position are multiplied by.
double factor_at(const model::RotateOp& op, int64_t position) {
  return op.position_beta == 0 ? 1 : static_cast<double>(model::position_factor(op, position));
}

/// The most that keep every number at 2^kAngleBits or less.
int32_t bits_for(double largest) {
  return kAngleBits - (largest <= 1 ? 0 : static_cast<int32_t>(std::ceil(std::log2(largest))));
}

}  // namespace

AngleTables::AngleTables(const model::Rotary& rotary, const model::RotateOp& op, int64_t positions)
    : rotary_(rotary),
      op_(op),
      positions_(positions),
      bits_(bits_for(rotary.scaling.attention_factor * std::max(1.0, factor_at(op, positions)))),
      usual_(make(positions, 0)) {}

std::shared_ptr<const AngleTable> AngleTables::at(int64_t length) const {
  const int64_t length_class = rotary_.length_class(length);
  if (length_class == 0) return usual_;
  constexpr size_t kMost = 16;  // lengths that are scored one after the other
  const std::lock_guard lock(mutex_);
  auto& table = others_[length_class];
  if (table) return table;
  const bool of_this_length = rotary_.scaling.kind == model::RopeScaling::Kind::dynamic;
  const auto made = make(of_this_length ? length : positions_, length);
  table = made;
  if (others_.size() > kMost) {
    const auto first = others_.begin();
    others_.erase(first->first == length_class ? std::next(first) : first);
  }
  return made;
}

std::shared_ptr<const AngleTable> AngleTables::make(int64_t positions, int64_t length) const {
  const model::RotaryTable table(rotary_, positions, length);
  AngleTable fixed{.half = table.half(), .positions = positions, .values = {}};
  fixed.values.resize(static_cast<size_t>(positions * 2 * fixed.half));
  parallel_ranges(positions, 64, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const double factor = factor_at(op_, p);
      const auto to_fixed = [&](float x) {
        return static_cast<int32_t>(std::lround(std::ldexp(static_cast<double>(x) * factor, bits_)));
      };
      int32_t* row = fixed.values.data() + p * 2 * fixed.half;
      for (int64_t i = 0; i < fixed.half; ++i) {
        row[i] = to_fixed(table.cosines(p)[i]);
        row[fixed.half + i] = to_fixed(table.sines(p)[i]);
      }
    }
  });
  return std::make_shared<const AngleTable>(std::move(fixed));
}

}  // namespace qeval::quant
