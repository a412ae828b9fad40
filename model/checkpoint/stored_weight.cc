#include "model/checkpoint/stored_weight.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/parallel.h"
#include "model/kernels/kernels.h"

namespace qeval::model {
namespace {

constexpr float e4m3(unsigned code) {
  const unsigned exponent = code >> 3U & 15U, mantissa = code & 7U;
  float value = exponent == 0 ? static_cast<float>(mantissa) / 8 : 1 + static_cast<float>(mantissa) / 8;
  for (unsigned e = std::max(exponent, 1U); e > 7; --e) value *= 2;
  for (unsigned e = std::max(exponent, 1U); e < 7; ++e) value /= 2;
  if ((code & 0x7FU) == 0x7FU) value = std::numeric_limits<float>::quiet_NaN();
  return (code & 0x80U) != 0 ? -value : value;
}

constexpr std::array<float, 256> kE4m3 = [] {
  std::array<float, 256> values{};
  for (unsigned code = 0; code < 256; ++code) values[code] = e4m3(code);
  return values;
}();
constexpr std::array<float, 16> kE2m1{0,     0.5F,  1,     1.5F,  2,     3,     4,     6,
                                      -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

template <typename T>
T load(const std::byte* data, int64_t i) {
  T value{};
  std::memcpy(&value, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

/// `n` elements from `first` on, `step` apart.
template <typename T>
void gather(const std::byte* data, int64_t first, int64_t step, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = load<T>(data, first + i * step);
}

/// Working memory of a decoded tile, one for each thread.
struct DecodingScratch {
  AlignedBuffer codes, scales, zeros, raw, column_scales, column_zeros;

  template <typename T>
  static T* sized(AlignedBuffer& buffer, int64_t n) {
    buffer.resize(static_cast<size_t>(n) * sizeof(T));
    return buffer.as<T>();
  }
};

/// Scales of groups [group, group + n) of a row.
void read_scales(const StoredScales& s, int64_t row, int64_t group, int64_t n, DecodingScratch& scratch,
                 float* out) {
  const int64_t first = row / s.rows_per_scale * s.row_step + group * s.group_step;
  switch (s.type) {
    case StoredScales::Type::one:
      std::fill_n(out, n, 1.0F);
      break;
    case StoredScales::Type::f32:
      gather(s.data, first, s.group_step, n, out);
      break;
    case StoredScales::Type::f16:
    case StoredScales::Type::bf16: {
      auto* raw = DecodingScratch::sized<uint16_t>(scratch.raw, n);
      gather(s.data, first, s.group_step, n, raw);
      (s.type == StoredScales::Type::f16 ? kernels().widen_f16 : kernels().widen_bf16)(raw, n, out);
      break;
    }
    case StoredScales::Type::f8_e4m3:
      for (int64_t i = 0; i < n; ++i) out[i] = kE4m3[load<uint8_t>(s.data, first + i * s.group_step)];
      break;
    case StoredScales::Type::e8m0:
      for (int64_t i = 0; i < n; ++i) out[i] = e8m0_value(load<uint8_t>(s.data, first + i * s.group_step));
      break;
    case StoredScales::Type::nested:
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = first + i * s.group_step;
        out[i] = s.map[load<uint8_t>(s.data, at)] * s.absmax[at / s.block] + s.offset;
      }
      break;
  }
  if (s.global == 1) return;
  for (int64_t i = 0; i < n; ++i) out[i] = s.divides ? out[i] / s.global : out[i] * s.global;
}

int32_t stored_zero(const StoredZeros& z, int64_t row, int64_t group) {
  const std::byte* line = z.data + group * z.stride * 4;
  switch (z.layout) {
    case StoredZeros::Layout::none:
      return 0;
    case StoredZeros::Layout::row_stream:
      if (z.word_add != 0) {  // whose fields do not straddle words
        const int64_t bit = row * z.bits;
        const uint32_t word = load<uint32_t>(line, bit / 32) + z.word_add;
        return static_cast<int32_t>(word >> (bit % 32) & ((1U << z.bits) - 1));
      }
      return static_cast<int32_t>(stream_code(line, z.bits, row));
    case StoredZeros::Layout::row_planes:
      return static_cast<int32_t>(plane_code(line, z.bits, row));
    case StoredZeros::Layout::awq: {
      constexpr std::array<int, 8> kNibbleOf{0, 4, 1, 5, 2, 6, 3, 7};  // kAwqOrder's inverse
      return static_cast<int32_t>(
          load<uint32_t>(line, row / 8) >> (4 * kNibbleOf[static_cast<size_t>(row % 8)]) & 15U);
    }
    case StoredZeros::Layout::int8:
      return load<int8_t>(z.data, row * z.row_step + group * z.group_step);
    case StoredZeros::Layout::column_stream:
      return static_cast<int32_t>(stream_code(z.data + 4 * group, z.bits, row, z.stride));
    case StoredZeros::Layout::column_words:
      return static_cast<int32_t>(word_code(z.data + 4 * group, z.bits, row, z.stride));
  }
  return 0;
}

void read_zeros(const StoredZeros& z, int64_t row, int64_t group, int64_t n, int32_t* out) {
  if (z.layout == StoredZeros::Layout::none) {
    std::fill_n(out, n, z.constant);
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = z.constant + ((stored_zero(z, row, group + i) + z.add) & z.mask);
}

}  // namespace

const float* e4m3_values() {
  return kE4m3.data();
}

const float* e2m1_values() {
  return kE2m1.data();
}

float e8m0_value(uint8_t byte) {
  if (byte == 0) return 0x1p-127F;
  if (byte == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(static_cast<uint32_t>(byte) << 23U);
}

void CodedWeight::decode(int64_t row, int64_t count_rows, int64_t col, int64_t count, float* out,
                         int64_t stride) const {
  thread_local DecodingScratch scratch;
  const uint8_t* unpacked = nullptr;
  int64_t unpacked_stride = count;
  if (codes.is_bytes()) {
    unpacked = reinterpret_cast<const uint8_t*>(codes.data) + row * codes.stride + col;
    unpacked_stride = codes.stride;
  } else {
    auto* buffer = DecodingScratch::sized<uint8_t>(scratch.codes, count_rows * count);
    unpack(codes, row, count_rows, col, count, buffer, count);
    unpacked = buffer;
  }
  for (int64_t r = 0; r < count_rows; ++r) {
    const uint8_t* own = unpacked + r * unpacked_stride;
    float* y = out + r * stride;
    const int64_t at = (flat ? (row + r) * cols : 0) + col;
    const int64_t first = group_of != nullptr ? 0 : at / group;
    const int64_t n = group_of != nullptr ? groups : (at + count - 1) / group - first + 1;
    auto* scale = DecodingScratch::sized<float>(scratch.scales, n);
    auto* zero = DecodingScratch::sized<int32_t>(scratch.zeros, n);
    read_scales(scales, row + r, first, n, scratch, scale);
    if (values == nullptr) read_zeros(zeros, row + r, first, n, zero);
    if (group_of != nullptr) {
      auto* column_scale = DecodingScratch::sized<float>(scratch.column_scales, count);
      auto* column_zero = DecodingScratch::sized<int32_t>(scratch.column_zeros, count);
      for (int64_t c = 0; c < count; ++c) {
        column_scale[c] = scale[group_of[col + c]];
        column_zero[c] = zero[group_of[col + c]];
      }
      kernels().dequantize_each(own, count, column_zero, column_scale, y);
    } else {
      kernels().dequantize({.codes = own,
                            .n = count,
                            .first = group - at % group,
                            .group = group,
                            .scales = scale,
                            .zeros = zero,
                            .values = values,
                            .value_count = value_count,
                            .out = y});
    }
    if (factor == 1) continue;
    for (int64_t c = 0; c < count; ++c) y[c] *= factor;
  }
}

void CodedWeight::read_grids(int64_t row, int64_t first, int64_t n, float* grid_scales,
                             int32_t* grid_zeros) const {
  thread_local DecodingScratch scratch;
  read_scales(scales, row, first, n, scratch, grid_scales);
  read_zeros(zeros, row, first, n, grid_zeros);
}

int64_t CodedWeight::byte_count() const {
  int64_t bytes = 0;
  for (const TensorView& tensor : tensors) bytes += std::ssize(tensor.bytes);
  return bytes;
}

std::string StoredWeight::format() const {
  return coded_ != nullptr ? coded_->format : std::string(info(dtype_).name);
}

void StoredWeight::decode(int64_t row, int64_t rows, int64_t col, int64_t count, float* out,
                          int64_t stride) const {
  if (coded_ != nullptr) {
    coded_->decode(first_row_ + row, rows, col, count, out, stride);
    return;
  }
  const DTypeInfo& type = info(dtype_);
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* source = this->row(row + r) + col / type.block_size * type.block_bytes;
    float* destination = out + r * stride;
    switch (dtype_) {
      case DType::f32:
        std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float));
        break;
      case DType::f16:
        kernels().widen_f16(reinterpret_cast<const uint16_t*>(source), count, destination);
        break;
      case DType::bf16:
        kernels().widen_bf16(reinterpret_cast<const uint16_t*>(source), count, destination);
        break;
      default:
        model::decode(dtype_, source, count, destination);
    }
  }
}

int64_t StoredWeight::byte_count(int64_t rows) const {
  if (coded_ == nullptr) return rows * row_bytes_;
  return rows == coded_->rows ? coded_->byte_count() : coded_->byte_count() * rows / coded_->rows;
}

void StoredWeight::visit_bytes(int64_t row, int64_t rows,
                               const std::function<void(std::span<const std::byte>)>& visit) const {
  if (coded_ == nullptr) {
    visit({this->row(row), static_cast<size_t>(rows * row_bytes_)});
    return;
  }
  for (const TensorView& tensor : coded_->tensors) visit(tensor.bytes);
}

}  // namespace qeval::model
