#include "quant/arithmetic/integer/run/rowwise.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "quant/arithmetic/integer/run/kernels.h"

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

namespace {

int32_t stream_code(const StreamRead& read, int32_t number) {
  constexpr int64_t kHalf = INT64_C(1) << (kReadBits - 1);
  const int64_t fine = rescale(number, read.factor);
  const int64_t odd = fine >> kReadBits & 1;
  const int64_t code = (fine + kHalf - 1 + odd) >> kReadBits;  // half to even
  return static_cast<int32_t>(
      std::clamp<int64_t>(code + read.codes.zero_point, read.codes.lo, read.codes.hi));
}

/// out [n] ← norm of n channels, d = code − zero point of each, which is overwritten; weights from `first`
/// on.
void norm_group(const IntegerNorm& norm, int64_t first, int64_t n, int32_t* e, int16_t* out) {
  const IntegerKernels& kernel = integer_kernels();
  if (norm.subtract_mean) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += e[i];
    const int64_t numerator = (sum << norm.extra_bits) + n / 2;
    const auto mean = static_cast<int32_t>(numerator / n - static_cast<int64_t>(numerator % n < 0));
    for (int64_t i = 0; i < n; ++i) e[i] = (e[i] << norm.extra_bits) - mean;
  }
  const int64_t squares = norm.eps + kernel.sum_of_squares(e, n);
  const UnitScale unit = unit_scale(norm, squares);
  kernel.scale_norm(norm, first, e, n, unit.reciprocal, unit.shift, out);
}

/// The groups of a row one after the other.
void norm_groups(const IntegerNorm& norm, int64_t n, int32_t* e, int16_t* out) {
  for (int64_t first = 0; first < n; first += norm.group) {
    norm_group(norm, norm.own_weights ? first : 0, norm.group, e + first, out + first);
  }
  apply_table(norm.output_table, n, out);
}

int32_t* norm_scratch(int64_t n) {
  thread_local std::vector<int32_t> row;
  row.resize(static_cast<size_t>(n));
  return row.data();
}

}  // namespace

void norm_row(const IntegerNorm& norm, const int32_t* stream, int64_t n, int16_t* out) {
  int32_t* e = norm_scratch(n);
  if (norm.source == NormSource::other_stream) {
    for (int64_t i = 0; i < n; ++i) {
      e[i] = stream_code(norm.read, stream[i]) - norm.zero_point;
    }
  } else {
    integer_kernels().read_stream(norm.stream, n, stream, e);
    if (!norm.input_table.identity()) {
      for (int64_t i = 0; i < n; ++i) {
        const auto code = static_cast<int16_t>(e[i] + norm.stream.codes.zero_point);
        e[i] = norm.input_table(code) - norm.zero_point;
      }
    }
  }
  norm_groups(norm, n, e, out);
}

void norm_row(const IntegerNorm& norm, const int16_t* codes, int64_t n, int16_t* out) {
  int32_t* e = norm_scratch(n);
  for (int64_t i = 0; i < n; ++i) {
    e[i] = (norm.input_table.identity() ? codes[i] : norm.input_table(codes[i])) - norm.zero_point;
  }
  norm_groups(norm, n, e, out);
}

void read_stream_row(const StreamRead& read, const int32_t* stream, int64_t n, int16_t* codes) {
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int16_t>(stream_code(read, stream[i]));
}

int64_t softmax_row(const IntegerAttention& attention, int64_t n, int16_t* row) {
  apply_table(attention.cap, n, row);
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
