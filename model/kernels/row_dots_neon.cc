#include <arm_neon.h>

#include "model/kernels/row_dots_impl.h"

namespace qeval::model {
namespace {

struct F32Rows {
  using Number = float;
  static constexpr int64_t step = 8;
  static float widen(float x) { return x; }
  template <typename Use>
  static void columns(const float* const* rows, int64_t i, const Use& use) {
    Vec r[8];
    for (int j = 0; j < 8; ++j) r[j] = load(rows[j] + i);
    turn(r);
    for (int j = 0; j < 8; ++j) use(j, r[j]);
  }
};

/// Numbers of 16 bits, turned before they are widened.
template <typename Widen>
struct Rows16 {
  using Number = uint16_t;
  static constexpr int64_t step = 8;
  static float widen(uint16_t x) { return vgetq_lane_f32(Widen::eight(vdupq_n_u16(x)).low, 0); }
  template <typename Use>
  static void columns(const uint16_t* const* rows, int64_t i, const Use& use) {
    // Rows 0 and 4, 1 and 5 … side by side; the same of these pairs; the same of those: columns.
    uint16x8_t r[8], t[8];
    for (int j = 0; j < 8; ++j) r[j] = vld1q_u16(rows[j] + i);
    interleave(r, t);
    interleave(t, r);
    interleave(r, t);
    for (int j = 0; j < 8; ++j) use(j, Widen::eight(t[j]));
  }

 private:
  static void interleave(const uint16x8_t* from, uint16x8_t* to) {
    for (int j = 0; j < 4; ++j) {
      to[2 * j] = vzip1q_u16(from[j], from[j + 4]);
      to[2 * j + 1] = vzip2q_u16(from[j], from[j + 4]);
    }
  }
};
struct WidenF16 {
  static Vec eight(uint16x8_t x) { return widen_f16(x); }
};
struct WidenBf16 {
  static Vec eight(uint16x8_t x) { return widen_bf16(x); }
};

}  // namespace

RowDotsKernel block_row_dots(DType) {
  return nullptr;
}

void row_dots(const RowDots& d) {
  row_dots_by_type<F32Rows, Rows16<WidenF16>, Rows16<WidenBf16>>(d);
}

}  // namespace qeval::model
