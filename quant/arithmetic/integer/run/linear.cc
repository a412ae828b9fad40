#include "quant/arithmetic/integer/run/linear.h"

#include <algorithm>
#include <cassert>

#include "model/kernels/bytes.h"
#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/rowwise.h"

namespace qeval::quant {
namespace {

// Rows whose accumulators wait for their requantization at a time: whole tiles of every path, of which the
// first-level cache holds the sums. Twice as many win 2 % with AMX and would fill the 32 KiB of other CPUs.
constexpr int64_t kRows = 48;
constexpr int64_t kColumns = 4 * kPanel;

/// Two codes a byte: of sixteen bytes first the lower halves, then the upper ones, each less offsets[its
/// place % 64], modulo 2^8. `bytes` is a multiple of 16. Of 16 bytes on every path: it is as fast as memory.
void unpack(const uint8_t* packed, int64_t bytes, const int8_t* offsets, int8_t* codes) {
  for (int64_t i = 0; i < bytes; i += 16) {
    const int8_t* less = offsets + 2 * i % kQuadEntry;
    const model::Bytes both = model::load_16(packed + i);
    model::store_16(codes + 2 * i, model::low_nibbles(both) - model::load_16(less));
    model::store_16(codes + 2 * i + 16, model::high_nibbles(both) - model::load_16(less + 16));
  }
}

/// The codes of `count` panels from the first on, unpacked where they are stored in four bits.
const void* unpacked(const IntegerMatrix& w, int64_t first_panel, int64_t count, AlignedBuffer& scratch) {
  const std::byte* stored = w.panels.data() + first_panel * w.panel_bytes();
  if (w.storage != WeightStorage::int4) return stored;
  const int64_t bytes = count * w.panel_bytes();
  scratch.resize(static_cast<size_t>(2 * bytes));
  const auto* packed = reinterpret_cast<const uint8_t*>(stored);
  auto* codes = scratch.as<int8_t>();
  int8_t offsets[kQuadEntry];
  std::fill(std::begin(offsets), std::end(offsets), int8_t{8});
  for (int64_t p = 0; p < count; ++p) {
    if (w.layout == PanelLayout::grouped_quads) {  // codes less their zero points
      for (int64_t j = 0; j < kQuadEntry; ++j) {
        const auto row = static_cast<size_t>((first_panel + p) * kPanel + j / 4);
        offsets[j] = static_cast<int8_t>(8 + w.zero_points[row]);
      }
    }
    unpack(packed + p * w.panel_bytes(), w.panel_bytes(), offsets, codes + p * w.panel_codes());
  }
  return codes;
}

/// The products of a stretch of rows with whole panels, and with their overflow.
void multiply_quads(const IntegerKernels& kernel, const IntegerMatrix& w, int64_t first_panel, int64_t panels,
                    const void* codes, const uint8_t* bytes, int64_t rows, int32_t* sums, int64_t ld) {
  QuadGemm gemm{.m = rows,
                .panels = panels,
                .a = bytes,
                .lda = byte_stride(w.cols),
                .b = static_cast<const int8_t*>(codes),
                .entries = w.entries,
                .group = w.group,
                .c = sums,
                .ldc = ld};
  kernel.gemm_quads(gemm);
  if (w.overflow_inputs.empty()) return;
  gemm.panels = 1;
  gemm.accumulate = true;
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t first = w.overflow_first[static_cast<size_t>(first_panel + p)];
    gemm.entries = w.overflow_first[static_cast<size_t>(first_panel + p) + 1] - first;
    if (gemm.entries == 0) continue;
    gemm.b = w.overflow.as<int8_t>() + first * kQuadEntry;
    gemm.inputs = w.overflow_inputs.data() + first;
    gemm.c = sums + p * kPanel;
    kernel.gemm_quads(gemm);
  }
}

/// Calls sink(row, rows, column, columns, sums) with the products [rows, columns] of a part of the tile at a
/// time, row stride kColumns, before constants and zero points.
template <typename Sum, typename Sink>
void accumulate(const IntegerKernels& kernel, const IntegerMatrix& w, int64_t first, int64_t count,
                const LinearInput& in, int64_t first_row, int64_t row_count, void (*gemm)(const IntegerGemm&),
                const Sink& sink) {
  thread_local AlignedBuffer unpacked_panels;
  thread_local AlignedBuffer sums;
  assert(first % kPanel == 0);
  sums.resize(static_cast<size_t>(kRows * kColumns) * sizeof(Sum));
  for (int64_t column = 0; column < count; column += kColumns) {
    const int64_t columns = std::min(kColumns, count - column);
    const void* panels =
        unpacked(w, (first + column) / kPanel, (columns + kPanel - 1) / kPanel, unpacked_panels);
    for (int64_t row = 0; row < row_count; row += kRows) {
      const int64_t rows = std::min(kRows, row_count - row);
      if constexpr (sizeof(Sum) == sizeof(int32_t)) {
        if (w.layout != PanelLayout::pairs) {
          multiply_quads(kernel, w, (first + column) / kPanel, (columns + kPanel - 1) / kPanel, panels,
                         in.bytes + (first_row + row) * byte_stride(w.cols), rows, sums.as<Sum>(), kColumns);
          sink(row, rows, column, columns, sums.as<Sum>());
          continue;
        }
      }
      gemm({.m = rows,
            .n = columns,
            .k = w.cols,
            .a = in.codes + (first_row + row) * in.cols,
            .lda = in.cols,
            .b = panels,
            .panel_stride = w.panel_codes(),
            .c = sums.data(),
            .ldc = kColumns});
      sink(row, rows, column, columns, sums.as<Sum>());
    }
  }
}

/// What the zero points of a map's weights add to the sums of rows from `row` on, by weight.
void row_bases(const LinearInput& in, int64_t row, int64_t rows, int32_t* bases) {
  for (int64_t r = 0; r < rows; ++r) bases[r] = modulo32(-in.sums[row + r]);
}

/// The sums of columns from output on, where every total fits 32 bits and every factor is fast.
Requantization requantization(const IntegerMatrix& w, int64_t output, int64_t rows, int64_t columns,
                              const int32_t* sums, const int32_t* bases) {
  return {.rows = rows,
          .n = columns,
          .sums = sums,
          .ld = kColumns,
          .bases = bases,
          .weight = w.has_zero_points ? w.zero_points.data() + output : nullptr,
          .constant = w.fast_constant.data() + output,
          .fast = w.fast.view(output),
          .output = w.output};
}

auto fast_gemm(const IntegerKernels& kernel, const IntegerMatrix& w) {
  return w.narrow_input ? kernel.gemm_narrow : kernel.gemm_modular;
}

/// Calls sink(row, column, output, sum) for every output of the tile, whatever the sums need.
template <typename Sink>
void accumulate_any(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in,
                    int64_t first_row, int64_t row_count, const Sink& sink) {
  const IntegerKernels& kernel = integer_kernels();
  accumulate<int64_t>(
      kernel, w, first, count, in, first_row, row_count,
      w.storage == WeightStorage::int16 ? kernel.gemm_wide16 : kernel.gemm_wide,
      [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int64_t* sums) {
        for (int64_t r = 0; r < rows; ++r, sums += kColumns) {
          const int64_t input_sum = w.has_zero_points ? in.sums[first_row + row + r] : 0;
          for (int64_t j = 0; j < columns; ++j) {
            const auto output = static_cast<size_t>(first + column + j);
            sink(row + r, column + j, output,
                 ((sums[j] - w.zero_points[output] * input_sum) << w.raise) + w.constant[output]);
          }
        }
      });
}

/// totals [rows, columns] (row stride kColumns) += multipliers times the accumulators of one group's part, of
/// rows from `row` and outputs from `output` on. `in`: the codes of the part's inputs.
template <typename Sum>
void add_group(const IntegerKernels& kernel, const IntegerMatrix& part, const int32_t* multipliers,
               int64_t output, int64_t columns, const LinearInput& in, int64_t row, int64_t row_count,
               void (*gemm)(const IntegerGemm&), int64_t* totals) {
  accumulate<Sum>(
      kernel, part, output, columns, in, row, row_count, gemm,
      [&](int64_t first, int64_t rows, int64_t, int64_t count, const Sum* sums) {
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t input_sum =
              part.has_zero_points ? kernel.row_sum(in.codes + (row + first + r) * in.cols, part.cols) : 0;
          int64_t* total = totals + (first + r) * kColumns;
          for (int64_t j = 0; j < count; ++j) {
            const auto at = static_cast<size_t>(output + j);
            total[j] += multipliers[at] * (static_cast<int64_t>(sums[r * kColumns + j]) -
                                           part.zero_points[at] * input_sum + part.constant[at]);
          }
        }
      });
}

/// Calls sink(row, column, output, sum) for every output of a map whose weights are in groups.
template <typename Sink>
void accumulate_groups(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in,
                       int64_t first_row, int64_t row_count, const Sink& sink) {
  thread_local std::vector<int64_t> totals;
  const IntegerKernels& kernel = integer_kernels();
  totals.resize(static_cast<size_t>(kRows * kColumns));
  const size_t padded = w.group_multipliers.size() / w.groups.size();
  for (int64_t column = 0; column < count; column += kColumns) {
    const int64_t columns = std::min(kColumns, count - column);
    for (int64_t row = 0; row < row_count; row += kRows) {
      const int64_t rows = std::min(kRows, row_count - row);
      std::fill(totals.begin(), totals.end(), 0);
      for (size_t g = 0; g < w.groups.size(); ++g) {
        const LinearInput part{
            .rows = in.rows, .cols = in.cols, .codes = in.codes + static_cast<int64_t>(g) * w.group_cols};
        const int32_t* multipliers = w.group_multipliers.data() + g * padded;
        if (w.narrow_input && w.storage != WeightStorage::int16) {
          add_group<int32_t>(kernel, w.groups[g], multipliers, first + column, columns, part, first_row + row,
                             rows, kernel.gemm_narrow, totals.data());
        } else {
          add_group<int64_t>(kernel, w.groups[g], multipliers, first + column, columns, part, first_row + row,
                             rows, w.storage == WeightStorage::int16 ? kernel.gemm_wide16 : kernel.gemm_wide,
                             totals.data());
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < columns; ++j) {
          const auto output = static_cast<size_t>(first + column + j);
          sink(row + r, column + j, output,
               (totals[static_cast<size_t>(r * kColumns + j)] << w.raise) + w.constant[output]);
        }
      }
    }
  }
}

}  // namespace

void linear_codes(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in,
                  int64_t first_row, int64_t row_count, int16_t* out, int64_t ld) {
  const IntegerKernels& kernel = integer_kernels();
  if (w.fast.usable()) {
    accumulate<int32_t>(kernel, w, first, count, in, first_row, row_count, fast_gemm(kernel, w),
                        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int32_t* sums) {
                          int16_t* codes = out + row * ld + column;
                          int32_t bases[kRows];
                          if (w.has_zero_points) row_bases(in, first_row + row, rows, bases);
                          if (w.uniform) {
                            for (int64_t r = 0; w.has_zero_points && r < rows; ++r)
                              bases[r] = modulo32(int64_t{w.zero_points[0]} * bases[r]);
                            kernel.requantize_uniform({.rows = rows,
                                                       .n = columns,
                                                       .sums = sums,
                                                       .ld = kColumns,
                                                       .bases = w.has_zero_points ? bases : nullptr,
                                                       .raise = w.raise,
                                                       .constant = w.fast_constant.data() + first + column,
                                                       .factor = w.factors[0],
                                                       .output = w.output},
                                                      codes, ld);
                          } else {
                            kernel.requantize(requantization(w, first + column, rows, columns, sums, bases),
                                              codes, ld);
                          }
                          if (w.output_table.identity()) return;
                          for (int64_t r = 0; r < rows; ++r)
                            apply_table(w.output_table, columns, codes + r * ld);
                        });
    return;
  }
  const auto finish = [&](int64_t row, int64_t column, size_t output, int64_t sum) {
    const int16_t code = requantize(sum, w.factors[output], w.output);
    out[row * ld + column] = w.output_table.identity() ? code : w.output_table(code);
  };
  if (!w.groups.empty()) {
    accumulate_groups(w, first, count, in, first_row, row_count, finish);
  } else {
    accumulate_any(w, first, count, in, first_row, row_count, finish);
  }
}

void linear_wide(const IntegerMatrix& w, int64_t first, int64_t count, const LinearInput& in, int32_t* out,
                 int64_t ld) {
  const IntegerKernels& kernel = integer_kernels();
  if (w.fast.usable()) {
    accumulate<int32_t>(kernel, w, first, count, in, 0, in.rows, fast_gemm(kernel, w),
                        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int32_t* sums) {
                          int32_t bases[kRows];
                          if (w.has_zero_points) row_bases(in, row, rows, bases);
                          kernel.rescale(requantization(w, first + column, rows, columns, sums, bases),
                                         out + row * ld + column, ld);
                        });
    return;
  }
  accumulate_any(
      w, first, count, in, 0, in.rows, [&](int64_t row, int64_t column, size_t output, int64_t sum) {
        out[row * ld + column] =
            static_cast<int32_t>(std::clamp<int64_t>(rescale(sum, w.factors[output]), INT32_MIN, INT32_MAX));
      });
}

void linear_sums(const IntegerKernels& kernel, const IntegerMatrix& w, int64_t first, int64_t count,
                 const LinearInput& in, int64_t first_row, int64_t row_count, int32_t* out, int64_t ld) {
  accumulate<int32_t>(kernel, w, first, count, in, first_row, row_count, kernel.gemm_narrow,
                      [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int32_t* sums) {
                        for (int64_t r = 0; r < rows; ++r)
                          std::copy_n(sums + r * kColumns, columns, out + (row + r) * ld + column);
                      });
}

FirstInput::FirstInput(const IntegerMatrix& w, const model::Tensor& codes)
    : rows(codes.rows),
      bytes_apart(w.storage != WeightStorage::int16 && w.groups.empty()),
      sums(static_cast<size_t>(codes.rows)) {
  row_sums(codes.row<int16_t>(0), rows, codes.cols, sums.data());
  parts.resize((bytes_apart ? 2 : 1) * rows + 1, codes.cols, sizeof(int16_t));
  for (int64_t r = 0; r < rows; ++r) {
    const auto* from = codes.row<int16_t>(r);
    if (!bytes_apart) {
      std::copy_n(from, codes.cols, parts.row<int16_t>(r));
      continue;
    }
    auto *high = parts.row<int16_t>(2 * r), *low = parts.row<int16_t>(2 * r + 1);
    for (int64_t i = 0; i < codes.cols; ++i) {
      const int32_t shifted = from[i] + 32768;
      high[i] = static_cast<int16_t>(shifted >> 8);
      low[i] = static_cast<int16_t>(shifted & 255);
    }
  }
  std::fill_n(parts.row<int16_t>(parts.rows - 1), codes.cols, int16_t{1});
  if (!bytes_apart) return;
  bytes.resize(parts.rows, byte_stride(codes.cols), 1);
  for (int64_t r = 0; r < parts.rows; ++r) to_bytes(parts.row<int16_t>(r), codes.cols, bytes.row<uint8_t>(r));
}

namespace {

/// totals [input.rows, count] ← the accumulators of rows at position 0 where weights are in groups, the
/// inputs' zero point taken off. The sums of a group's weights are those of the input's last row, of ones.
void accumulate_first_groups(const IntegerMatrix& w, const IntegerFirstLinear& first, int64_t first_column,
                             int64_t count, const FirstInput& input, std::vector<int64_t>& totals) {
  const IntegerKernels& kernel = integer_kernels();
  const size_t padded = first.group_multipliers.size() / w.groups.size();
  std::vector<int64_t> products(static_cast<size_t>(input.parts.rows * count));
  for (size_t g = 0; g < w.groups.size(); ++g) {
    const IntegerMatrix& part = w.groups[g];
    const LinearInput in{.rows = input.parts.rows,
                         .cols = input.parts.cols,
                         .codes = input.parts.row<int16_t>(0) + static_cast<int64_t>(g) * w.group_cols};
    accumulate<int64_t>(kernel, part, first_column, count, in, 0, in.rows,
                        w.storage == WeightStorage::int16 ? kernel.gemm_wide16 : kernel.gemm_wide,
                        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int64_t* sums) {
                          for (int64_t r = 0; r < rows; ++r)
                            std::copy_n(sums + r * kColumns, columns,
                                        products.data() + (row + r) * count + column);
                        });
    const int64_t* ones = products.data() + input.rows * count;
    for (int64_t r = 0; r < input.rows; ++r) {
      const int64_t sum = kernel.row_sum(in.codes + r * in.cols, part.cols);
      for (int64_t j = 0; j < count; ++j) {
        const auto output = static_cast<size_t>(first_column + j);
        const int64_t zero = part.zero_points[output];
        const int64_t product = products[static_cast<size_t>(r * count + j)] - zero * sum;
        const int64_t weights = ones[j] - zero * part.cols;
        totals[static_cast<size_t>(r * count + j)] +=
            first.group_multipliers[g * padded + output] * (product - first.zero_point * weights);
      }
    }
  }
}

}  // namespace

void first_linear_codes(const IntegerMatrix& w, const IntegerFirstLinear& first, int64_t first_column,
                        int64_t count, const FirstInput& input, int16_t* out, int64_t ld) {
  const IntegerKernels& kernel = integer_kernels();
  const auto finish = [&](int64_t r, int64_t j, int64_t total) {
    const auto output = static_cast<size_t>(first_column + j);
    total <<= first.raise;
    if (!first.bias.empty()) total += first.bias[output];
    const int16_t code = requantize(total, first.factors[output], first.output);
    out[r * ld + j] = first.output_table.identity() ? code : first.output_table(code);
  };
  if (!w.groups.empty()) {
    std::vector<int64_t> totals(static_cast<size_t>(input.rows * count));
    accumulate_first_groups(w, first, first_column, count, input, totals);
    for (int64_t r = 0; r < input.rows; ++r) {
      for (int64_t j = 0; j < count; ++j) finish(r, j, totals[static_cast<size_t>(r * count + j)]);
    }
    return;
  }
  const LinearInput in{.rows = input.parts.rows,
                       .cols = input.parts.cols,
                       .codes = input.parts.row<int16_t>(0),
                       .sums = nullptr,
                       .bytes = input.bytes_apart ? input.bytes.row<uint8_t>(0) : nullptr};
  // Σ x·w of every row, the last one's Σ w; as the panels hold them, with or without their zero points.
  std::vector<int64_t> products(static_cast<size_t>(in.rows * count));
  if (input.bytes_apart) {
    std::vector<int32_t> narrow(products.size());
    linear_sums(kernel, w, first_column, count, in, 0, in.rows, narrow.data(), count);
    std::copy(narrow.begin(), narrow.end(), products.begin());
  } else {
    accumulate<int64_t>(kernel, w, first_column, count, in, 0, in.rows, kernel.gemm_wide16,
                        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, const int64_t* sums) {
                          for (int64_t r = 0; r < rows; ++r)
                            std::copy_n(sums + r * kColumns, columns,
                                        products.data() + (row + r) * count + column);
                        });
  }
  const int64_t* ones = products.data() + (in.rows - 1) * count;
  for (int64_t r = 0; r < input.rows; ++r) {
    const int64_t sum = input.sums[static_cast<size_t>(r)];
    for (int64_t j = 0; j < count; ++j) {
      const auto output = static_cast<size_t>(first_column + j);
      int64_t product = 0;
      if (input.bytes_apart) {
        product = 256 * products[static_cast<size_t>(2 * r * count + j)] +
                  products[static_cast<size_t>((2 * r + 1) * count + j)] - 32768 * ones[j];
      } else {
        product = products[static_cast<size_t>(r * count + j)];
      }
      int64_t weights = ones[j];
      if (w.has_zero_points) {
        product -= w.zero_points[output] * sum;
        weights -= w.zero_points[output] * w.cols;
      }
      finish(r, j, product - first.zero_point * weights);
    }
  }
}

void to_bytes(const int16_t* codes, int64_t cols, uint8_t* bytes) {
  for (int64_t i = 0; i < cols; ++i) bytes[i] = static_cast<uint8_t>(codes[i]);
  for (int64_t i = cols; i < byte_stride(cols); ++i) bytes[i] = 0;
}

void row_sums(const int16_t* codes, int64_t rows, int64_t cols, int64_t* sums) {
  const IntegerKernels& kernel = integer_kernels();
  for (int64_t r = 0; r < rows; ++r) sums[r] = kernel.row_sum(codes + r * cols, cols);
}

}  // namespace qeval::quant
