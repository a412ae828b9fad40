#include "quant/arithmetic/blocks/block_rows.h"

#include <algorithm>
#include <cassert>

#include "model/checkpoint/block_formats.h"
#include "model/checkpoint/tensor.h"
#include "quant/arithmetic/blocks/kernels.h"

namespace qeval::quant {
namespace {

constexpr int64_t kAlign = 64, kSubBlock = 16;  // a float of Q8_1 is as long as two sums

int64_t aligned(int64_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

float as_half(float x) {
  return model::half_to_float(model::narrow_f16(x));
}

}  // namespace

BlockRowLayout::BlockRowLayout(GgmlRow row_type, int64_t columns)
    : type(row_type),
      cols(columns),
      scales(aligned(cols)),
      sums(scales + aligned(cols / block_size(type) * static_cast<int64_t>(sizeof(float)))),
      stride(sums + aligned(cols / kSubBlock * static_cast<int64_t>(sizeof(int16_t)))) {
  assert(has_codes(type) && cols % block_size(type) == 0);
}

void encode_row(const BlockRowLayout& layout, const float* x, std::byte* out) {
  auto* codes = reinterpret_cast<int8_t*>(out);
  auto* scales = reinterpret_cast<float*>(out + layout.scales);
  std::byte* sums = out + layout.sums;
  const int64_t blocks = layout.cols / block_size(layout.type);
  if (layout.type == GgmlRow::q8_k) {
    block_kernels().encode_q8_k(x, blocks, codes, scales, reinterpret_cast<int16_t*>(sums));
    return;
  }
  constexpr int64_t kAtOnce = 64;
  const bool scaled = layout.type == GgmlRow::q8_1;
  for (int64_t first = 0; first < blocks; first += kAtOnce) {
    const int64_t count = std::min(kAtOnce, blocks - first);
    int16_t code_sums[2 * kAtOnce];
    float scaled_sums[kAtOnce];
    block_kernels().encode_q8(x + first * kRun, count, codes + first * kRun, scales + first, code_sums,
                              scaled_sums);
    for (int64_t b = 0; b < count; ++b) {
      scales[first + b] = as_half(scales[first + b]);
      if (scaled) {
        reinterpret_cast<float*>(sums)[first + b] = as_half(scaled_sums[b]);
      } else {
        std::copy_n(code_sums + 2 * b, 2, reinterpret_cast<int16_t*>(sums) + 2 * (first + b));
      }
    }
  }
}

BlockRows encode_rows(GgmlRow type, const model::Tensor& in, model::Tensor& out) {
  const BlockRowLayout layout(type, in.cols);
  out.resize(in.rows, layout.stride / static_cast<int64_t>(sizeof(float)), sizeof(float));
  parallel_ranges(in.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      encode_row(layout, in.row<float>(r), reinterpret_cast<std::byte*>(out.row<float>(r)));
  });
  return {layout, in.rows, reinterpret_cast<const std::byte*>(out.row<float>(0)), layout.stride};
}

}  // namespace qeval::quant
