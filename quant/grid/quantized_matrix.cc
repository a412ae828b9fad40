#include "quant/grid/quantized_matrix.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qeval::quant {
namespace {

constexpr int64_t kRowGrain = 16;

/// Calls body(row, values) for each decoded row, in parallel.
template <typename Body>
void for_each_decoded_row(const model::Matrix& matrix, const Body& body) {
  parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<float> values(static_cast<size_t>(matrix.cols));
    for (int64_t r = first; r < last; ++r) {
      matrix.decode_rows(r, 1, values.data());
      body(r, values.data());
    }
  });
}

template <typename Code, typename Dequantize>
void decode_stretch(const QuantizedMatrix& matrix, int64_t row, int64_t col, int64_t count,
                    float* destination, Dequantize dequantize) {
  const Code* codes = matrix.codes.as<Code>() + row * matrix.cols;
  while (count > 0) {
    const int64_t n = std::min(count, matrix.group - col % matrix.group);
    const auto grid = static_cast<size_t>(matrix.grid_index(row, col));
    dequantize(codes + col, n, matrix.scales[grid], matrix.zero_points[grid], destination);
    col += n;
    destination += n;
    count -= n;
  }
}

void decode(const void* context, const model::WeightView::Tile& tile) {
  const auto& matrix = *static_cast<const QuantizedMatrix*>(context);
  const QuantKernels& kernel = quant_kernels();
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* out = tile.out + r * tile.stride;
    if (matrix.wide()) {
      decode_stretch<int16_t>(matrix, tile.row + r, tile.col, tile.cols, out, kernel.dequantize_i16);
    } else {
      decode_stretch<int8_t>(matrix, tile.row + r, tile.col, tile.cols, out, kernel.dequantize_i8);
    }
  }
}

}  // namespace

std::vector<Range> weight_ranges(const model::Matrix& matrix, const QuantSpec& spec) {
  const bool grouped = spec.group_size > 0;
  const int64_t group = grouped ? spec.group_size : matrix.cols;
  const int64_t groups = matrix.cols / group;
  const QuantKernels& kernel = quant_kernels();
  std::vector<Range> ranges(static_cast<size_t>(matrix.rows * groups));
  for_each_decoded_row(matrix, [&](int64_t r, const float* values) {
    for (int64_t g = 0; g < groups; ++g) {
      ranges[static_cast<size_t>(r * groups + g)] = kernel.range(values + g * group, group);
    }
  });
  for (const Range& range : ranges) {
    if (std::isnan(range.lo)) fail("tensor {}.weight: a weight is not finite: cannot quantize", matrix.name);
  }
  if (spec.per_channel || grouped) return ranges;
  Range whole = ranges.front();
  for (const Range& range : ranges) whole = {std::min(whole.lo, range.lo), std::max(whole.hi, range.hi)};
  return {whole};
}

QuantizedMatrix quantize_matrix(const model::Matrix& matrix, const QuantSpec& spec) {
  QuantizedMatrix result;
  result.spec = spec;
  result.rows = matrix.rows;
  result.cols = matrix.cols;
  const bool grouped = spec.group_size > 0;
  result.group = grouped ? spec.group_size : matrix.cols;
  result.per_tensor = !spec.per_channel && !grouped;
  const QuantKernels& kernel = quant_kernels();
  const std::vector<Range> ranges = weight_ranges(matrix, spec);

  const int32_t offset = spec.symmetric ? 0 : 1 << (spec.bits - 1);
  std::vector<Grid> grids;
  grids.reserve(ranges.size());
  for (const Range& range : ranges) {
    grids.push_back(make_grid(spec, range));
    result.scales.push_back(grids.back().scale);
    result.zero_points.push_back(grids.back().zero_point - offset);
  }

  result.codes.resize(static_cast<size_t>(result.byte_count()));
  for_each_decoded_row(matrix, [&](int64_t r, const float* values) {
    for (int64_t col = 0; col < matrix.cols; col += result.group) {
      const Grid& grid = grids[static_cast<size_t>(result.grid_index(r, col))];
      const int64_t at = r * matrix.cols + col;
      if (result.wide()) {
        kernel.quantize_i16(values + col, result.group, grid, offset, result.codes.as<int16_t>() + at);
      } else {
        kernel.quantize_i8(values + col, result.group, grid, offset, result.codes.as<int8_t>() + at);
      }
    }
  });
  return result;
}

model::WeightView view(const QuantizedMatrix& matrix, const float* bias) {
  return {matrix.rows, matrix.cols, bias, &matrix, decode};
}

}  // namespace qeval::quant
