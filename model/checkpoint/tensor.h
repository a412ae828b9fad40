#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qeval::model {

/// How the elements of a stored tensor are encoded. From q8_0 on, they are GGUF's blocks. i8, u8 and the f8
/// types are codes or scales of quantized weights and mean something only beside other tensors
/// (stored_weight.h).
enum class DType : uint8_t {
  f32,
  f64,
  f16,
  bf16,
  i64,
  i32,
  i8,
  u8,
  f8_e4m3,
  f8_e8m0,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  q1_0,
  q2_0,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4
};

struct DTypeInfo {
  std::string_view name;  ///< as the file format spells it: "F32", "Q4_1"
  int64_t block_size;     ///< elements per block; 1 for plain types
  int64_t block_bytes;    ///< bytes per block
  bool is_float;          ///< has values of its own, which decode() gives
};

const DTypeInfo& info(DType dtype);

/// A tensor inside a mapped file or an owned buffer: a view, valid as long as its Checkpoint.
/// The checkpoint reader has checked that `bytes` holds exactly the elements of `shape`, and that a row is a
/// whole number of blocks. Plain elements are aligned to their size.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  ///< outermost dimension first; the last one is contiguous
  std::span<const std::byte> bytes;

  int64_t element_count() const;
};

/// Decodes `count` consecutive elements (a multiple of the block size) at `source` to float32, by the
/// formulas and in the operation order of the GGUF reference, so that the results are bitwise equal to it.
/// Precondition: info(dtype).is_float.
void decode(DType dtype, const std::byte* source, int64_t count, float* destination);

/// float32 to float16 and bfloat16, round half to even; NaN stays NaN, what is too large becomes infinite.
uint16_t narrow_f16(float value);
inline uint16_t narrow_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<uint16_t>(nan ? bits >> 16 | 0x40U : (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

}  // namespace qeval::model
