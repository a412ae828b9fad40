// The operations of the block diagram that work on rows.

#include <algorithm>
#include <cstring>

#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/arithmetic/integer/run/inputs.h"
#include "quant/arithmetic/integer/run/kernels.h"
#include "quant/arithmetic/integer/run/linear.h"
#include "quant/arithmetic/integer/run/rowwise.h"

namespace qeval::quant {

using model::Tensor;

namespace {

template <typename Body>
void for_each_integer_row(int64_t rows, const Body& body) {
  for_each_row(rows, body, kIntegerRowGrain);
}

}  // namespace

void IntegerArithmetic::norm(int64_t layer, const model::NormOp& op, const Tensor& in, Tensor& out) const {
  const bool final = op.module == model::Module::final_norm;
  const IntegerNorm& main = final ? model_.final_norm : layer_at(layer).norms.at(op.module);
  const IntegerNorm* first = nullptr;
  if (model_.first) {
    first = final ? &model_.first->final_norm
                  : &model_.first->layers[static_cast<size_t>(layer)].norms.at(op.module);
  }
  if (&in != &out) out.resize(in.rows, in.cols, sizeof(int16_t));
  for_each_integer_row(in.rows, [&](int64_t r) {
    const IntegerNorm& norm = first != nullptr && in.is_first(r) ? *first : main;
    if (norm.source == NormSource::codes) {
      norm_row(norm, in.row<int16_t>(r), in.cols, out.row<int16_t>(r));
    } else {
      norm_row(norm, in.row<int32_t>(r), in.cols, out.row<int16_t>(r));
    }
  });
}

void IntegerArithmetic::linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  if (!model_.first || in.first_rows.empty()) {
    main_linear(layer, in, targets);
    return;
  }
  Tensor others;  // without the codes of other grids, which products and tables are not made for
  others.rows = in.rows;
  others.cols = in.cols;
  others.storage.resize(in.storage.size());
  std::memcpy(others.storage.data(), in.storage.data(), in.storage.size());
  const size_t row_bytes = in.storage.size() / static_cast<size_t>(in.rows);
  for (const int64_t r : in.first_rows)
    std::memset(others.storage.data() + static_cast<size_t>(r) * row_bytes, 0, row_bytes);
  main_linear(layer, others, targets);
  first_linear(layer, in, targets);
}

void IntegerArithmetic::first_linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  const auto rows = static_cast<int64_t>(in.first_rows.size());
  for (const Target& target : targets) {
    const IntegerMatrix& w = layer_at(layer).linears.at(target.op->module);
    const IntegerFirstLinear& first = model_.first->linears[static_cast<size_t>(layer)].at(target.op->module);
    Tensor codes, out;
    codes.resize(rows, in.cols, sizeof(int16_t));
    out.resize(rows, w.rows, sizeof(int16_t));
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t r = in.first_rows[static_cast<size_t>(i)];
      if (first.stream) {
        read_stream_row(*first.stream, in.row<int32_t>(r), in.cols, codes.row<int16_t>(i));
        continue;
      }
      std::memcpy(codes.row<int16_t>(i), in.row<int16_t>(r), static_cast<size_t>(in.cols) * sizeof(int16_t));
      apply_table(first.input_table, in.cols, codes.row<int16_t>(i));
    }
    const FirstInput input(w, codes);
    constexpr int64_t kTaskColumns = 64;
    parallel_tasks((w.rows + kTaskColumns - 1) / kTaskColumns, [&](int64_t t) {
      const int64_t column = t * kTaskColumns;
      first_linear_codes(w, first, column, std::min(kTaskColumns, w.rows - column), input,
                         out.row<int16_t>(0) + column, w.rows);
    });
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(target.out->row<int16_t>(in.first_rows[static_cast<size_t>(i)]), out.row<int16_t>(i),
                  static_cast<size_t>(w.rows) * sizeof(int16_t));
    }
  }
}

void IntegerArithmetic::main_linear(int64_t layer, const Tensor& in, std::span<const Target> targets) const {
  LinearInputs inputs(in);
  std::vector<LinearTask> tasks;
  for (const Target& target : targets) {
    const IntegerMatrix& map = layer_at(layer).linears.at(target.op->module);
    target.out->resize(in.rows, map.rows, sizeof(int16_t));
    add_tasks(map, inputs.read(map), 0, in.rows, *target.out, tasks);
  }
  run(tasks);
}

void IntegerArithmetic::rotate_rows(int64_t layer, const model::RotateOp& op, int64_t half,
                                    std::span<const int32_t* const> angles, Tensor& heads) const {
  for_each_integer_row(heads.rows, [&](int64_t r) {
    const IntegerRotary& rotary = layer_of(layer, heads, r).rotations.at(op.value);
    const int32_t* cosines = angles[static_cast<size_t>(r)];
    for (int64_t h = 0; h < heads.cols; h += op.head_dim) {
      integer_kernels().rotate_head(rotary, cosines, cosines + half, half, op.head_dim,
                                    heads.row<int16_t>(r) + h);
    }
  });
}

void IntegerArithmetic::add(int64_t layer, const model::AddOp& op, const Tensor& update,
                            Tensor& residual) const {
  if (op.to != model::Value::residual) {
    const IntegerSum& sum = layer_at(layer).sums.at(op.module);
    for_each_integer_row(residual.rows, [&](int64_t r) {
      auto* to = residual.row<int16_t>(r);
      const auto* in = update.row<int16_t>(r);
      for (int64_t i = 0; i < residual.cols; ++i) {
        const int64_t both =
            rescale(to[i] - sum.to_zero_point, sum.to) + rescale(in[i] - sum.in_zero_point, sum.in);
        to[i] = static_cast<int16_t>(std::clamp<int64_t>(
            shift_rounded(both, sum.bits) + sum.output.zero_point, sum.output.lo, sum.output.hi));
      }
    });
    return;
  }
  for_each_integer_row(residual.rows, [&](int64_t r) {
    const IntegerAdd& add = layer_of(layer, residual, r).adds.at(op.module);
    integer_kernels().add_row(add, update.row<int16_t>(r), residual.cols, residual.row<int32_t>(r));
  });
}

void IntegerArithmetic::scale(int64_t layer, const model::ScaleOp&, const Tensor&, Tensor& out) const {
  if (!layer_at(layer).negates) return;
  for_each_integer_row(out.rows, [&](int64_t r) {
    auto* stream = out.row<int32_t>(r);
    for (int64_t i = 0; i < out.cols; ++i) stream[i] = -stream[i];
  });
}

void IntegerArithmetic::activate(int64_t layer, const model::ActivateOp& op, Tensor& gate) const {
  for_each_integer_row(gate.rows, [&](int64_t r) {
    apply_table(layer_of(layer, gate, r).activations.at(op.module), gate.cols, gate.row<int16_t>(r));
  });
}

void IntegerArithmetic::multiply(int64_t layer, const model::MultiplyOp& op, const Tensor& up,
                                 Tensor& gate) const {
  if (!layer_at(layer).products.at(op.module).exact) {
    for_each_integer_row(gate.rows, [&](int64_t r) {
      const IntegerProduct& product = layer_of(layer, gate, r).products.at(op.module);
      integer_kernels().multiply_row(product, up.row<int16_t>(r) + op.first, gate.cols, gate.row<int16_t>(r));
    });
    return;
  }
  Tensor products;
  products.resize(gate.rows, gate.cols, sizeof(int64_t));
  products.first_rows = gate.first_rows;
  for_each_integer_row(gate.rows, [&](int64_t r) {
    const IntegerProduct& product = layer_of(layer, gate, r).products.at(op.module);
    const auto* a = gate.row<int16_t>(r);
    const auto* b = up.row<int16_t>(r);
    auto* out = products.row<int64_t>(r);
    if (!product.wide) {
      integer_kernels().exact_products(product, b, gate.cols, a, reinterpret_cast<int32_t*>(out));
      return;
    }
    for (int64_t i = 0; i < gate.cols; ++i)
      out[i] = int64_t{a[i] - product.gate_zero_point} * (b[i] - product.up_zero_point);
  });
  gate = std::move(products);
}

namespace {

/// One row of sums to codes.
void requantize_sums(const IntegerHadamard& h, const int64_t* sums, int64_t n, int16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = requantize(sums[i], h.factor, h.output);
}
void requantize_sums(const IntegerHadamard& h, const int32_t* sums, int64_t n, int16_t* out) {
  if (h.factor.fast()) {
    thread_local std::vector<int32_t> zeros;
    if (std::ssize(zeros) < n) zeros.resize(static_cast<size_t>(n), 0);
    integer_kernels().requantize_uniform({.rows = 1,
                                          .n = n,
                                          .sums = sums,
                                          .ld = n,
                                          .constant = zeros.data(),
                                          .factor = h.factor,
                                          .output = h.output},
                                         out, n);
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = requantize(sums[i], h.factor, h.output);
}

/// x [n] of one row, rotated block by block, to codes.
template <typename T>
void rotate_sums(const IntegerHadamard& h, T* x, int64_t n, int16_t* out) {
  thread_local std::vector<T> scratch;
  scratch.resize(static_cast<size_t>(h.matrix.padded_order()));
  for (int64_t c = 0; c < n; c += h.matrix.order) {
    if constexpr (sizeof(T) == sizeof(int32_t)) {
      integer_kernels().hadamard(h.matrix, x + c, scratch.data());
    } else {
      model::multiply_hadamard(h.matrix, x + c, scratch.data());
    }
  }
  requantize_sums(h, x, n, out);
}

/// The same of codes, in place.
template <typename T>
void rotate_codes(const IntegerHadamard& h, int16_t* codes, int64_t n) {
  thread_local std::vector<T> x;
  x.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(i)] = codes[i] - h.zero_point;
  rotate_sums(h, x.data(), n, codes);
}

}  // namespace

void IntegerArithmetic::hadamard(int64_t layer, const model::HadamardOp& op, Tensor& value) const {
  const auto of_row = [&](int64_t r) -> const IntegerHadamard& {
    return layer_of(layer, value, r).hadamards.at(op.value);
  };
  if (layer_at(layer).hadamards.at(op.value).source == RotationSource::codes) {
    for_each_integer_row(value.rows, [&](int64_t r) {
      const IntegerHadamard& h = of_row(r);
      auto* codes = value.row<int16_t>(r);
      if (h.wide) {
        rotate_codes<int64_t>(h, codes, value.cols);
      } else {
        rotate_codes<int32_t>(h, codes, value.cols);
      }
    });
    return;
  }
  Tensor codes;
  codes.resize(value.rows, value.cols, sizeof(int16_t));
  codes.first_rows = value.first_rows;
  for_each_integer_row(value.rows, [&](int64_t r) {
    const IntegerHadamard& h = of_row(r);
    auto* products = value.row<int64_t>(r);
    if (h.wide) {
      rotate_sums(h, products, value.cols, codes.row<int16_t>(r));
    } else {
      rotate_sums(h, reinterpret_cast<int32_t*>(products), value.cols, codes.row<int16_t>(r));
    }
  });
  value = std::move(codes);
}

void IntegerArithmetic::gather(const Tensor& residual, std::span<const int64_t> rows, Tensor& out) const {
  // Of the stream (32 bits) or of the final norm's output (16).
  const auto elements = static_cast<size_t>(std::max<int64_t>(1, residual.rows * residual.cols));
  const size_t element_size = residual.storage.size() / elements;
  const size_t row_bytes = static_cast<size_t>(residual.cols) * element_size;
  out.resize(static_cast<int64_t>(rows.size()), residual.cols, element_size);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.storage.data() + i * row_bytes,
                residual.storage.data() + static_cast<size_t>(rows[i]) * row_bytes, row_bytes);
  }
}

void IntegerArithmetic::finish(const Tensor& residual, Tensor& out) const {
  norm(0, {.module = model::Module::final_norm}, residual, out);
}

void IntegerArithmetic::integer_logits(const Tensor& normed, int64_t first_row, int64_t rows, int64_t first,
                                       int64_t count, int32_t* logits) const {
  thread_local std::vector<int64_t> sums;
  thread_local AlignedBuffer bytes;
  LinearInput in{rows, normed.cols, normed.row<int16_t>(first_row)};
  if (model_.head.has_zero_points) {
    sums.resize(static_cast<size_t>(rows));
    row_sums(in.codes, rows, normed.cols, sums.data());
    in.sums = sums.data();
  }
  if (model_.head.layout != PanelLayout::pairs) {
    const int64_t stride = byte_stride(normed.cols);
    bytes.resize(static_cast<size_t>(rows * stride));
    for (int64_t r = 0; r < rows; ++r) {
      to_bytes(in.codes + r * normed.cols, normed.cols, bytes.as<uint8_t>() + r * stride);
    }
    in.bytes = bytes.as<uint8_t>();
  }
  linear_wide(model_.head, first, count, in, logits, count);
}

}  // namespace qeval::quant
