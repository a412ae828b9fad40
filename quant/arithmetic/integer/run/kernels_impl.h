#pragma once

// Compiled once per CPU path; no floating point.

#include "quant/arithmetic/integer/run/gemm_impl.h"
#include "quant/arithmetic/integer/run/quads_impl.h"
#include "quant/arithmetic/integer/run/requantize_impl.h"
#include "quant/arithmetic/integer/run/rowwise_impl.h"
#include "quant/arithmetic/integer/run/softmax_impl.h"

namespace qeval::quant {
namespace {

constexpr IntegerKernels make_integer_kernels(IntegerCpu cpu) {
  return {.cpu = cpu,
          .gemm_narrow = gemm_narrow,
          .gemm_modular = gemm_modular,
          .gemm_wide = gemm_wide,
          .gemm_wide16 = gemm_wide16,
          .gemm_quads = gemm_quads,
          .quad_layout = kQuadLayout,
          .requantize = requantize_columns,
          .rescale = rescale_columns,
          .requantize_uniform = requantize_uniform,
          .exponentials = exponentials,
          .shares = shares,
          .read_stream = read_stream,
          .sum_of_squares = sum_of_squares,
          .scale_norm = scale_norm,
          .add_row = add_row,
          .multiply_row = multiply_row,
          .exact_products = exact_products,
          .replace_value = replace_value,
          .rotate_head = rotate_head,
          .hadamard = hadamard,
          .row_sum = row_sum};
}

}  // namespace
}  // namespace qeval::quant
