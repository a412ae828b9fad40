#include "quant/grid/quantized_matrix.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qeval::quant {
namespace {

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

WeightRange parse_weight_range(std::string_view name) {
  if (name == "minmax") return WeightRange::minmax;
  if (name == "mse") return WeightRange::mse;
  if (name == "output") return WeightRange::output;
  fail("{}: unknown range of weights; accepted: {}", printable(name), kWeightRangeNames);
}

std::string_view name(WeightRange range) {
  return range == WeightRange::minmax ? "minmax" : range == WeightRange::mse ? "mse" : "output";
}

Grid storable_grid(const QuantSpec& spec, Range range) {
  const Grid grid = make_grid(spec, range);
  if (grid.zero_point >= grid.q_min && grid.zero_point <= grid.q_max) return grid;
  return make_grid(spec, {std::min(range.lo, 0.0F), std::max(range.hi, 0.0F)});
}

namespace {

/// Σ (x − rounded x)² of n weights; `rounded` has room for them. May stop once the sum is not below `bound`.
double rounding_error(const float* x, int64_t n, const Grid& grid, double bound, float* rounded) {
  constexpr int64_t kStretch = 256;
  double sum = 0;
  for (int64_t first = 0; first < n && sum < bound; first += kStretch) {
    const int64_t count = std::min(kStretch, n - first);
    quant_kernels().fake_quantize(x + first, count, grid, rounded);
    for (int64_t i = 0; i < count; ++i) {
      const double difference = static_cast<double>(rounded[i]) - static_cast<double>(x[first + i]);
      sum += difference * difference;
    }
  }
  return sum;
}

constexpr int kNarrowings = 80;

/// The k-th candidate: f = 1 − k/100.
Range narrowed(Range range, int k) {
  const float f = 1.0F - static_cast<float>(k) / 100.0F;
  return {f * range.lo, f * range.hi};
}

/// The grid of least error over n weights, one stretch.
Grid searched_grid(const float* x, int64_t n, const QuantSpec& spec, Range range, float* rounded) {
  Grid best = storable_grid(spec, range);
  double least = rounding_error(x, n, best, INFINITY, rounded);
  for (int k = 1; k < kNarrowings; ++k) {
    const Grid grid = storable_grid(spec, narrowed(range, k));
    const double error = rounding_error(x, n, grid, least, rounded);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

/// The same over a whole matrix; rows are added up in their order.
Grid searched_grid(const model::Matrix& matrix, const QuantSpec& spec, Range range) {
  std::vector<Grid> candidates;
  for (int k = 0; k < kNarrowings; ++k) candidates.push_back(storable_grid(spec, narrowed(range, k)));
  std::vector<double> errors(static_cast<size_t>(matrix.rows * kNarrowings));
  for_each_decoded_row(matrix, [&](int64_t r, const float* values) {
    std::vector<float> rounded(static_cast<size_t>(matrix.cols));
    for (int k = 0; k < kNarrowings; ++k) {
      errors[static_cast<size_t>(r * kNarrowings + k)] =
          rounding_error(values, matrix.cols, candidates[static_cast<size_t>(k)], INFINITY, rounded.data());
    }
  });
  size_t best = 0;
  double least = INFINITY;
  for (size_t k = 0; k < candidates.size(); ++k) {
    double error = 0;
    for (size_t r = 0; r < static_cast<size_t>(matrix.rows); ++r) error += errors[r * kNarrowings + k];
    if (error < least) {
      least = error;
      best = k;
    }
  }
  return candidates[best];
}

}  // namespace

std::vector<Grid> weight_grids(const model::Matrix& matrix, const QuantSpec& spec, WeightRange range) {
  const std::vector<Range> ranges = weight_ranges(matrix, spec);
  std::vector<Grid> grids;
  for (const Range& whole : ranges) grids.push_back(storable_grid(spec, whole));
  if (range != WeightRange::mse) return grids;
  if (!spec.per_channel && spec.group_size <= 0) return {searched_grid(matrix, spec, ranges.front())};
  const int64_t groups = std::ssize(grids) / matrix.rows, group = matrix.cols / groups;
  for_each_decoded_row(matrix, [&](int64_t r, const float* values) {
    std::vector<float> rounded(static_cast<size_t>(group));
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>(r * groups + g);
      grids[at] = searched_grid(values + g * group, group, spec, ranges[at], rounded.data());
    }
  });
  return grids;
}

QuantizedMatrix on_grids(const model::Matrix& matrix, const QuantSpec& spec, const std::vector<Grid>& grids) {
  QuantizedMatrix result;
  result.spec = spec;
  result.rows = matrix.rows;
  result.cols = matrix.cols;
  const bool grouped = spec.group_size > 0;
  result.group = grouped ? spec.group_size : matrix.cols;
  result.per_tensor = !spec.per_channel && !grouped;
  for (const Grid& grid : grids) {
    result.scales.push_back(grid.scale);
    result.zero_points.push_back(grid.zero_point - result.code_offset());
  }
  result.codes.resize(static_cast<size_t>(result.byte_count()));
  return result;
}

QuantizedMatrix quantize_matrix(const model::Matrix& matrix, const QuantSpec& spec,
                                const std::vector<Grid>& grids) {
  QuantizedMatrix result = on_grids(matrix, spec, grids);
  const QuantKernels& kernel = quant_kernels();
  const int32_t offset = result.code_offset();
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

QuantizedMatrix quantize_matrix(const model::Matrix& matrix, const QuantSpec& spec) {
  std::vector<Grid> grids;
  for (const Range& range : weight_ranges(matrix, spec)) grids.push_back(make_grid(spec, range));
  return quantize_matrix(matrix, spec, grids);
}

model::WeightView view(const QuantizedMatrix& matrix, const float* bias) {
  return {matrix.rows, matrix.cols, bias, &matrix, decode};
}

}  // namespace qeval::quant
