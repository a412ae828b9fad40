#include "quant/arithmetic/coded_linear.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>

#include "quant/arithmetic/activation_rounding.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/integer/run/linear.h"

namespace qeval::quant {
namespace {

using model::CodedWeight;
using model::CodeLayout;

// What codes of inputs are stored with, to be those of unsigned bytes.
constexpr int32_t kInputOffset = 128;
// Of a weight: less its code, at most 255 or 256 away from 0; of an input at most 255.
constexpr int32_t kFarthestWeightZero = 128;
// 255 · 256 · 32768 < 2^31.
constexpr int64_t kLongestSegment = 32768;
// A task's outputs by inputs, and the rows whose sums stay in the first-level cache meanwhile.
constexpr int64_t kCodedColumns = 4 * kPanel, kCodedTaskRows = 1024, kCodedRows = 48;

/// Columns of a product, where the weights' codes are integers on grids of whole stretches of columns.
std::optional<int64_t> segment_of(const CodedWeight& w) {
  const bool in_rows = w.codes.layout == CodeLayout::rows_stream || w.codes.layout == CodeLayout::rows_words;
  if (!in_rows || w.values != nullptr || w.flat || w.group_of != nullptr) return std::nullopt;
  if (w.group >= w.cols) return std::min(w.cols, kLongestSegment);
  if (w.group > kLongestSegment) return std::nullopt;
  return w.group;
}

}  // namespace

CodedInput::CodedInput(const model::ActivationRounding& rounding, const float* x, int64_t rows, int64_t cols,
                       int64_t segment)
    : rows_(rows), cols_(cols), segment_(segment) {
  const int64_t segments = (cols + segment - 1) / segment;
  int64_t bytes = 0;
  for (int64_t s = 0; s < segments; ++s) {
    bytes_first_.push_back(bytes);
    bytes += rows * byte_stride(std::min(segment, cols - s * segment));
  }
  codes_.resize(static_cast<size_t>(rows * cols) * sizeof(int16_t));
  bytes_.resize(static_cast<size_t>(bytes));
  sums_.resize(static_cast<size_t>(segments * rows));
  scales_.resize(static_cast<size_t>(rows));
  zero_points_.resize(static_cast<size_t>(rows));
  parallel_ranges(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      auto* codes = codes_.as<int16_t>() + r * cols;
      const RowGrid grid = code_activation(rounding, x + r * cols, cols, codes);
      scales_[static_cast<size_t>(r)] = grid.scale;
      zero_points_[static_cast<size_t>(r)] = grid.zero_point + kInputOffset;
      for (int64_t i = 0; i < cols; ++i) codes[i] = static_cast<int16_t>(codes[i] + kInputOffset);
      for (int64_t s = 0; s < segments; ++s) {
        const int64_t count = std::min(segment, cols - s * segment);
        to_bytes(codes + s * segment, count,
                 bytes_.as<uint8_t>() + bytes_first_[static_cast<size_t>(s)] + r * byte_stride(count));
        int64_t sum = 0;
        for (int64_t i = s * segment; i < s * segment + count; ++i) sum += codes[i];
        sums_[static_cast<size_t>(s * rows + r)] = sum;
      }
    }
  });
}

std::optional<CodedLinear> CodedLinear::make(const model::LinearWeights& weights,
                                             const IntegerKernels& kernels) {
  const model::Matrix& stored = weights.weight;
  const CodedWeight* coded = stored.stored.coded();
  if (coded == nullptr || !weights.input || !has_row_codes(*weights.input)) return std::nullopt;
  const std::optional<int64_t> segment = segment_of(*coded);
  if (!segment) return std::nullopt;
  const int64_t rows = stored.rows, cols = stored.cols;
  const int64_t segments = (cols + *segment - 1) / *segment;
  const int32_t offset = 1 << (coded->codes.bits - 1);

  // Signed codes, row after row, and each row's grids.
  AlignedBuffer codes(static_cast<size_t>(rows * cols));
  std::vector<float> scales(static_cast<size_t>(rows * segments));
  std::vector<int32_t> zeros(scales.size());
  std::atomic<bool> fits = true;
  parallel_ranges(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t row = stored.stored.first_row() + stored.stored_row(r);
      auto* bytes = codes.as<uint8_t>() + r * cols;
      unpack(coded->codes, row, 1, 0, cols, bytes, cols);
      for (int64_t i = 0; i < cols; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] - offset);
      for (int64_t s = 0; s < segments; ++s) {
        const auto at = static_cast<size_t>(r * segments + s);
        coded->read_grids(row, s * *segment / coded->group, 1, &scales[at], &zeros[at]);
        zeros[at] -= offset;
        if (std::abs(zeros[at]) > kFarthestWeightZero) fits = false;
      }
    }
  });
  if (!fits) return std::nullopt;

  CodedLinear out(weights, kernels);
  out.segment_ = *segment;
  out.segments_.resize(static_cast<size_t>(segments));
  for (int64_t s = 0; s < segments; ++s) {
    Segment& part = out.segments_[static_cast<size_t>(s)];
    const int64_t first = s * *segment, count = std::min(*segment, cols - first);
    QuantizedMatrix own;
    own.spec.bits = 8;
    own.rows = rows;
    own.cols = count;
    own.codes.resize(static_cast<size_t>(rows * count));
    IntegerMatrix& matrix = part.matrix;
    matrix.rows = rows;
    matrix.cols = count;
    matrix.storage = coded->codes.bits <= 4 ? WeightStorage::int4 : WeightStorage::int8;
    matrix.zero_points.resize(static_cast<size_t>(matrix.panel_count() * kPanel));
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = static_cast<size_t>(r), grid = static_cast<size_t>(r * segments + s);
      const int8_t* from = codes.as<int8_t>() + r * cols + first;
      std::memcpy(own.codes.as<int8_t>() + r * count, from, static_cast<size_t>(count));
      int64_t sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += from[i];
      matrix.zero_points[row] = zeros[grid];
      matrix.has_zero_points = matrix.has_zero_points || zeros[grid] != 0;
      part.sums.push_back(static_cast<int32_t>(sum - count * zeros[grid]));
      part.scales.push_back(static_cast<double>(scales[grid]) * static_cast<double>(coded->factor));
    }
    pack_panels(own, kernels.quad_layout, matrix);
  }
  return out;
}

void CodedLinear::multiply(const CodedInput& in, int64_t first, int64_t count, int64_t first_row,
                           int64_t row_count, float* out, int64_t ld) const {
  assert(in.segment_ == segment_ && first % kPanel == 0);
  thread_local AlignedBuffer sum_buffer, total_buffer;
  sum_buffer.resize(static_cast<size_t>(kCodedRows * kCodedColumns) * sizeof(int32_t));
  total_buffer.resize(static_cast<size_t>(kCodedRows * kCodedColumns) * sizeof(double));
  auto* sums = sum_buffer.as<int32_t>();
  auto* totals = total_buffer.as<double>();
  for (int64_t column = first; column < first + count; column += kCodedColumns) {
    const int64_t columns = std::min(kCodedColumns, first + count - column);
    const float* bias = weights_->bias.empty() ? nullptr : weights_->bias.data() + column;
    for (int64_t begin = first_row; begin < first_row + row_count; begin += kCodedRows) {
      const int64_t rows = std::min(kCodedRows, first_row + row_count - begin);
      std::fill_n(totals, rows * kCodedColumns, 0.0);
      for (size_t s = 0; s < segments_.size(); ++s) {
        const Segment& part = segments_[s];
        const LinearInput input{.rows = in.rows_,
                                .cols = in.cols_,
                                .codes = in.codes_.as<int16_t>() + static_cast<int64_t>(s) * segment_,
                                .bytes = in.bytes_.as<uint8_t>() + in.bytes_first_[s]};
        linear_sums(*kernels_, part.matrix, column, columns, input, begin, rows, sums, kCodedColumns);
        const int32_t* zero_points = part.matrix.zero_points.data() + column;
        const int32_t* weight_sums = part.sums.data() + column;
        const double* scales = part.scales.data() + column;
        for (int64_t r = 0; r < rows; ++r) {
          const auto row = static_cast<size_t>(begin + r);
          const double scale = in.scales_[row];
          const auto zero = static_cast<uint32_t>(in.zero_points_[row]);
          // Where the products have the weights' zero points off already, nothing is left of them.
          const auto input_sum =
              part.matrix.has_zero_points
                  ? static_cast<uint32_t>(in.sums_[s * static_cast<size_t>(in.rows_) + row])
                  : 0U;
          const int32_t* own = sums + r * kCodedColumns;
          double* total = totals + r * kCodedColumns;
          for (int64_t j = 0; j < columns; ++j) {
            // Modulo 2^32; what comes out fits.
            const auto exact = static_cast<int32_t>(static_cast<uint32_t>(own[j]) -
                                                    static_cast<uint32_t>(zero_points[j]) * input_sum -
                                                    static_cast<uint32_t>(weight_sums[j]) * zero);
            total[j] += static_cast<double>(exact) * (scale * scales[j]);
          }
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        float* y = out + (begin - first_row + r) * ld + column - first;
        const double* total = totals + r * kCodedColumns;
        for (int64_t j = 0; j < columns; ++j) y[j] = static_cast<float>(total[j]);
        if (bias == nullptr) continue;
        for (int64_t j = 0; j < columns; ++j) y[j] += bias[j];
      }
    }
  }
}

void CodedLinear::multiply(const CodedInput& in, std::span<const Target> targets) {
  struct Task {
    const Target* target;
    int64_t first, row;
  };
  std::vector<Task> tasks;
  for (const Target& target : targets) {
    for (int64_t row = 0; row < in.rows_; row += kCodedTaskRows) {
      for (int64_t first = 0; first < target.linear->rows(); first += kCodedColumns)
        tasks.push_back({&target, first, row});
    }
  }
  parallel_tasks(std::ssize(tasks), [&](int64_t t) {
    const Task& task = tasks[static_cast<size_t>(t)];
    const int64_t width = task.target->linear->rows();
    task.target->linear->multiply(in, task.first, std::min(kCodedColumns, width - task.first), task.row,
                                  std::min(kCodedTaskRows, in.rows_ - task.row),
                                  task.target->out + task.row * width + task.first, width);
  });
}

}  // namespace qeval::quant
