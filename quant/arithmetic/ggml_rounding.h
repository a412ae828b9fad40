#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "model/checkpoint/tensor.h"

namespace qeval::quant {

/// How llama.cpp's CPU code (ggml) stores rows of activations: those that products read, and keys and values.
enum class GgmlRow : uint8_t { f32, f16, bf16, q8_0, q8_1, q8_k, q4_0, q4_1, q5_0, q5_1 };

/// The type to which the input of a product with weights of `dtype` is rounded (ggml's `vec_dot_type`).
/// Nothing where ggml has no such weights.
std::optional<GgmlRow> dot_type(model::DType dtype);

/// Bits of a number in such a row, without its scales.
int bits(GgmlRow type);

/// "f16", "q8_0" …: the types of keys and values, as llama.cpp's -ctk and -ctv name them.
std::optional<GgmlRow> find_kv_type(std::string_view name);
inline constexpr std::string_view kGgmlKvTypes = "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1";

/// x [n] → the nearest numbers of such a row, as ggml's x86 code finds them: blocks of 32 (q8_k: 256) with a
/// scale each, which is a half but in q8_k. n is a whole number of blocks. NaN stays NaN. (q8_1's sum of a
/// block is another half; here it is the sum of the numbers.)
void round_row(GgmlRow type, float* x, int64_t n);
/// Elements that share a scale.
int64_t block_size(GgmlRow type);

}  // namespace qeval::quant
