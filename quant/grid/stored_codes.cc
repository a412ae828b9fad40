#include "quant/grid/stored_codes.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "model/checkpoint/code_layout.h"

namespace qeval::quant {
namespace {

using model::CodedWeight;
using model::StoredScales;
using model::StoredZeros;

/// Those whose layout a spec can say: compressed-tensors' zero points, and none.
bool has_readable_zeros(const StoredZeros& zeros) {
  switch (zeros.layout) {
    case StoredZeros::Layout::none:
    case StoredZeros::Layout::int8:
    case StoredZeros::Layout::column_stream:
      return zeros.add == 0 && zeros.mask == -1 && zeros.word_add == 0;
    default:
      return false;
  }
}

}  // namespace

std::string describe(const QuantSpec& spec) {
  if (!spec.enabled()) return "float";
  return fmt::format("{}-bit {}{}{}{}", spec.bits, spec.symmetric ? "symmetric" : "asymmetric",
                     spec.per_channel ? " per channel" : "",
                     spec.group_size > 0 ? fmt::format(" in groups of {}", spec.group_size) : "",
                     spec.dynamic ? ", dynamic" : "");
}

bool is_stored_as(const model::Matrix& matrix, const QuantSpec& spec) {
  const CodedWeight* coded = matrix.stored.coded();
  if (coded == nullptr || !spec.enabled()) return false;
  const bool integers = coded->values == nullptr && !coded->flat && coded->group_of == nullptr &&
                        coded->factor == 1 && has_readable_zeros(coded->zeros);
  const StoredScales& scales = coded->scales;
  const bool numbers = scales.type == StoredScales::Type::f32 || scales.type == StoredScales::Type::f16 ||
                       scales.type == StoredScales::Type::bf16;
  const bool plain_scales =
      scales.type == StoredScales::Type::one || (numbers && scales.global == 1 && scales.rows_per_scale == 1);
  // A part of a fused tensor has other rows; qeval writes none.
  if (!integers || !plain_scales || coded->rows != matrix.rows || matrix.block_rows != 0) return false;
  const bool per_tensor = scales.type == StoredScales::Type::one;
  const bool grouped = spec.group_size > 0;
  return coded->codes.bits == spec.bits &&
         (coded->zeros.layout == StoredZeros::Layout::none) == spec.symmetric &&
         per_tensor == (!spec.per_channel && !grouped) &&
         coded->group == (grouped ? spec.group_size : matrix.cols);
}

QuantizedMatrix quantized_weight(const model::Matrix& matrix, const QuantSpec& spec) {
  if (!is_stored_as(matrix, spec)) return quantize_matrix(matrix, spec);
  const CodedWeight& coded = *matrix.stored.coded();
  QuantizedMatrix result;
  result.spec = spec;
  result.rows = matrix.rows;
  result.cols = matrix.cols;
  result.group = coded.group;
  result.per_tensor = coded.scales.type == StoredScales::Type::one;
  result.codes.resize(static_cast<size_t>(result.byte_count()));
  const int64_t groups = result.per_tensor ? 1 : matrix.cols / coded.group;
  const int64_t grid_rows = result.per_tensor ? 1 : matrix.rows;
  // Codes and zero points are stored as unsigned numbers, here both are less 2^(bits − 1).
  const int32_t half = 1 << (coded.codes.bits - 1);
  result.scales.resize(static_cast<size_t>(grid_rows * groups));
  result.zero_points.resize(result.scales.size());
  for (int64_t r = 0; r < grid_rows; ++r) {
    const auto at = static_cast<size_t>(r * groups);
    coded.read_grids(matrix.stored_row(r), 0, groups, &result.scales[at], &result.zero_points[at]);
  }
  for (int32_t& zero : result.zero_points) zero -= half;
  parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<uint8_t> unpacked(static_cast<size_t>(matrix.cols));
    for (int64_t r = first; r < last; ++r) {
      model::unpack(coded.codes, matrix.stored_row(r), 1, 0, matrix.cols, unpacked.data(), matrix.cols);
      std::ranges::transform(unpacked, result.codes.as<int8_t>() + r * matrix.cols,
                             [half](uint8_t code) { return static_cast<int8_t>(code - half); });
    }
  });
  return result;
}

namespace {

/// What a stored weight is a view of.
struct OwnedCodes {
  model::CodedWeight weight;
  AlignedBuffer codes;
  std::vector<float> scales;
  std::vector<int8_t> zeros;
};

}  // namespace

void pack_stream(const uint8_t* codes, int64_t count, int bits, uint32_t* words) {
  std::fill_n(words, (count * bits + 31) / 32, 0U);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bit = i * bits;
    const int shift = static_cast<int>(bit % 32);
    words[bit / 32] |= static_cast<uint32_t>(codes[i]) << shift;
    if (shift + bits > 32) words[bit / 32 + 1] |= static_cast<uint32_t>(codes[i]) >> (32 - shift);
  }
}

model::StoredWeight store_codes(const QuantizedMatrix& matrix) {
  const int bits = matrix.spec.bits, half = 1 << (bits - 1);
  assert(bits <= 8);
  auto owned = std::make_shared<OwnedCodes>();
  const int64_t words = (matrix.cols * bits + 31) / 32;
  owned->codes.resize(static_cast<size_t>(matrix.rows * words) * sizeof(uint32_t));
  parallel_ranges(matrix.rows, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<uint8_t> row(static_cast<size_t>(matrix.cols));
    for (int64_t r = first; r < last; ++r) {
      const int8_t* codes = matrix.codes.as<int8_t>() + r * matrix.cols;
      std::transform(codes, codes + matrix.cols, row.begin(),
                     [half](int8_t code) { return static_cast<uint8_t>(code + half); });
      pack_stream(row.data(), matrix.cols, bits, owned->codes.as<uint32_t>() + r * words);
    }
  });
  owned->scales = matrix.scales;
  owned->zeros.assign(matrix.zero_points.begin(), matrix.zero_points.end());
  model::CodedWeight& weight = owned->weight;
  weight.format = describe(matrix.spec);
  weight.rows = matrix.rows;
  weight.cols = matrix.cols;
  weight.codes = {.bits = bits, .data = owned->codes.data(), .cols = matrix.cols, .stride = words * 4};
  const int64_t groups = matrix.cols / matrix.group;
  if (matrix.per_tensor) {
    weight.scales = {.type = StoredScales::Type::one, .global = matrix.scales.front()};
  } else {
    weight.scales = {.data = reinterpret_cast<const std::byte*>(owned->scales.data()),
                     .row_step = groups,
                     .group_step = 1};
  }
  weight.zeros.constant = half;
  if (!matrix.spec.symmetric) {
    weight.zeros.layout = StoredZeros::Layout::int8;
    weight.zeros.data = reinterpret_cast<const std::byte*>(owned->zeros.data());
    weight.zeros.row_step = matrix.per_tensor ? 0 : groups;
    weight.zeros.group_step = matrix.per_tensor ? 0 : 1;
  }
  weight.group = matrix.group;
  weight.groups = groups;
  return {std::shared_ptr<const model::CodedWeight>(owned, &owned->weight), 0};
}

}  // namespace qeval::quant
