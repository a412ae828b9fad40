#include "quant/integer/run/rowwise.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "quant/integer/run/kernels.h"

namespace qeval::quant {

void apply_table(const CodeTable& table, int64_t n, int16_t* codes) {
  if (table.identity()) return;
  for (int64_t i = 0; i < n; ++i) codes[i] = table(codes[i]);
}

void norm_row(const IntegerNorm& norm, const int16_t* residual, int64_t n, int16_t* out) {
  std::copy_n(residual, n, out);
  apply_table(norm.input_table, n, out);
  const int64_t zero_point = norm.zero_point;
  int64_t mean = 0;
  if (norm.subtract_mean) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += out[i] - zero_point;
    const int64_t numerator = (sum << norm.extra_bits) + n / 2;
    mean = numerator / n - static_cast<int64_t>(numerator % n < 0);
  }
  const auto centred = [&](int16_t code) { return ((code - zero_point) << norm.extra_bits) - mean; };
  int64_t squares = norm.eps;
  for (int64_t i = 0; i < n; ++i) squares += centred(out[i]) * centred(out[i]);

  // u = e · √n / √squares: with squares · 2^even between 2^60 and 2^62, its root has 31 bits.
  int64_t reciprocal = 0;
  int32_t shift = 1;
  if (squares > 0) {
    const auto width = static_cast<int32_t>(std::bit_width(static_cast<uint64_t>(squares)));
    const int32_t even = (62 - width) / 2 * 2;
    const uint64_t root = integer_sqrt(static_cast<uint64_t>(squares) << even);
    reciprocal = static_cast<int64_t>(norm.root_n / root);
    shift = norm.root_n_bits - kUnitBits - even / 2;
  }
  const bool has_bias = !norm.bias.empty();
  for (int64_t i = 0; i < n; ++i) {
    const auto column = static_cast<size_t>(i);
    const int64_t unit = shift_rounded(centred(out[i]) * reciprocal, shift);
    const int64_t scaled = unit * norm.weight[column] + (has_bias ? norm.bias[column] : 0);
    out[i] = requantize(scaled, norm.factor, norm.output);
  }
  apply_table(norm.output_table, n, out);
}

void rotate_head(const IntegerRotary& rotary, const int32_t* cosines, const int32_t* sines, int64_t half,
                 int64_t head_dim, int16_t* head) {
  for (int64_t i = 0; i < half; ++i) {
    const int64_t first = head[i] - rotary.zero_point;
    const int64_t second = head[i + half] - rotary.zero_point;
    head[i] = requantize(first * cosines[i] - second * sines[i], rotary.rotated, rotary.output);
    head[i + half] = requantize(second * cosines[i] + first * sines[i], rotary.rotated, rotary.output);
  }
  for (int64_t i = 2 * half; i < head_dim; ++i) {
    head[i] = requantize(head[i] - rotary.zero_point, rotary.passed, rotary.output);
  }
}

void add_row(const IntegerAdd& add, const int16_t* update, int64_t n, int16_t* residual) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t sum = rescale(residual[i] - add.residual_zero_point, add.keep) +
                        rescale(update[i] - add.update_zero_point, add.join);
    residual[i] = static_cast<int16_t>(std::clamp<int64_t>(
        shift_rounded(sum, kAddBits) + add.output.zero_point, add.output.lo, add.output.hi));
  }
}

void multiply_row(const IntegerProduct& product, const int16_t* up, int64_t n, int16_t* gate) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t exact =
        static_cast<int64_t>(gate[i] - product.gate_zero_point) * (up[i] - product.up_zero_point);
    gate[i] = requantize(exact, product.factor, product.output);
  }
}

void softmax_row(const IntegerAttention& attention, int64_t n, int16_t* row) {
  thread_local std::vector<uint32_t> powers;
  powers.resize(static_cast<size_t>(n));
  const IntegerKernels& kernel = integer_kernels();
  const uint64_t sum =
      kernel.exponentials(attention.coarse.data(), attention.fine.data(), n, row, powers.data());
  // The largest score contributes 2^31, so the sum has at least 32 bits.
  const int32_t excess = static_cast<int32_t>(std::bit_width(sum)) - 32;
  uint64_t reciprocal = attention.inverse_step / (sum >> excess);
  int32_t shift = attention.inverse_bits + excess;
  if (shift > 62) {
    reciprocal >>= std::min(shift - 62, 63);
    shift = 62;
  }
  kernel.shares(powers.data(), n, static_cast<uint32_t>(reciprocal), shift, attention.probability_codes, row);
}

}  // namespace qeval::quant
