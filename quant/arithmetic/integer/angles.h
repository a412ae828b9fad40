#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "model/config.h"

namespace qeval::quant {

/// Cosines and sines of a rotary embedding in fixed point, for positions 0 … positions − 1.
struct AngleTable {
  int64_t half = 0, positions = 0;
  std::vector<int32_t> values;  ///< [positions, 2, half]: cosines, sines

  const int32_t* row(int64_t position) const { return values.data() + position * 2 * half; }
};

/// The tables of one rotary embedding, one for each class of lengths (Rotary::length_class): constants, of
/// which those of other lengths are computed when they are first asked for.
class AngleTables {
 public:
  /// Those that `op`, or one like it, turns by; what it multiplies rows by is in them.
  AngleTables(const model::Rotary& rotary, const model::RotateOp& op, int64_t positions);

  /// Fractional bits of all of them: kAngleBits, or fewer where factors take cosines beyond 1.
  int32_t bits() const { return bits_; }
  /// Of sequences of `length` tokens. Thread-safe.
  std::shared_ptr<const AngleTable> at(int64_t length) const;

 private:
  std::shared_ptr<const AngleTable> make(int64_t positions, int64_t length) const;

  model::Rotary rotary_;
  model::RotateOp op_;
  int64_t positions_;
  int32_t bits_;
  std::shared_ptr<const AngleTable> usual_;
  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::shared_ptr<const AngleTable>> others_;
};

}  // namespace qeval::quant
