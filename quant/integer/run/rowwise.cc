#include "quant/integer/run/rowwise.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "quant/integer/run/kernels.h"

namespace qeval::quant {

void apply_table(const CodeTable& table, int64_t n, int16_t* codes) {
  if (table.identity()) return;
  const int16_t* values = table.values.data() - table.lo;
  for (int64_t i = 0; i < n; ++i) codes[i] = values[codes[i]];
}

UnitScale unit_scale(const IntegerNorm& norm, int64_t squares) {
  if (squares <= 0) return {};
  // With squares · 2^even between 2^60 and 2^62, its root has 31 bits.
  const auto width = static_cast<int32_t>(std::bit_width(static_cast<uint64_t>(squares)));
  const int32_t even = (62 - width) / 2 * 2;
  const uint64_t root = integer_sqrt(static_cast<uint64_t>(squares) << even);
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): 31 bits are no zero
  return {.reciprocal = static_cast<int32_t>(std::min<uint64_t>(norm.root_n / root, INT32_MAX)),
          .shift = norm.root_n_bits - kUnitBits - even / 2};
}

void norm_row(const IntegerNorm& norm, const int32_t* stream, int64_t n, int16_t* out) {
  thread_local std::vector<int32_t> row;
  row.resize(static_cast<size_t>(n));
  int32_t* e = row.data();
  const IntegerKernels& kernel = integer_kernels();
  kernel.read_stream(norm.stream, n, stream, e);
  if (!norm.input_table.identity()) {
    for (int64_t i = 0; i < n; ++i) {
      const auto code = static_cast<int16_t>(e[i] + norm.stream.codes.zero_point);
      e[i] = norm.input_table(code) - norm.zero_point;
    }
  }
  if (norm.subtract_mean) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += e[i];
    const int64_t numerator = (sum << norm.extra_bits) + n / 2;
    const auto mean = static_cast<int32_t>(numerator / n - static_cast<int64_t>(numerator % n < 0));
    for (int64_t i = 0; i < n; ++i) e[i] = (e[i] << norm.extra_bits) - mean;
  }
  const int64_t squares = norm.eps + kernel.sum_of_squares(e, n);
  const UnitScale unit = unit_scale(norm, squares);
  kernel.scale_norm(norm, e, n, unit.reciprocal, unit.shift, out);
  apply_table(norm.output_table, n, out);
}

int64_t softmax_row(const IntegerAttention& attention, int64_t n, int16_t* row) {
  thread_local std::vector<uint32_t> powers;
  powers.resize(static_cast<size_t>(n));
  const IntegerKernels& kernel = integer_kernels();
  const uint64_t sum = kernel.exponentials(attention.exp, n, row, powers.data());
  // The largest score contributes 2^31, so the sum has at least 32 bits.
  const int32_t excess = static_cast<int32_t>(std::bit_width(sum)) - 32;
  // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult, clang-analyzer-core.DivideZero)
  uint64_t reciprocal = attention.inverse_step / (sum >> excess);
  int32_t shift = attention.inverse_bits + excess;
  if (shift > 62) {
    reciprocal >>= std::min(shift - 62, 63);
    shift = 62;
  }
  return kernel.shares(powers.data(), n, static_cast<uint32_t>(reciprocal), shift,
                       attention.probability_codes, row);
}

}  // namespace qeval::quant
