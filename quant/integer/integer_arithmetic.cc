#include "quant/integer/integer_arithmetic.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.h"
#include "quant/integer/prepare.h"

namespace qeval::quant {

struct IntegerSeam {
  const model::Model& model;
  ModelGrids grids;
  double logit_scale = 0;
  QuantSpec logit_spec;  ///< of the head's output, where the configuration names it
  Grid logit_grid;
};

IntegerArithmetic::IntegerArithmetic(const model::Model& model, const QuantConfig& qcfg,
                                     const ActRanges& ranges, int64_t max_positions, int32_t guard_bits) {
  PreparedModel prepared = prepare_model(model, qcfg, ranges, max_positions, guard_bits);
  model_ = std::move(prepared.integers);
  const Point logits{0, Module::head, Slot::output};
  seam_ = std::make_unique<IntegerSeam>(
      IntegerSeam{model, std::move(prepared.grids), prepared.logit_scale, qcfg[logits], {}});
  if (needs_range(qcfg, logits)) seam_->logit_grid = make_grid(qcfg[logits], ranges[logits].value());
}

IntegerArithmetic::~IntegerArithmetic() = default;

void IntegerArithmetic::split_latent(int64_t, const model::SplitLatentOp&, const model::Tensor&,
                                     const model::Tensor&, model::Tensor&, model::Tensor&) const {
  assert(!"refused when the model was prepared");
}

void IntegerArithmetic::embed(std::span<const int32_t> tokens, const model::RowPositions&,
                              model::Tensor& residual) const {
  const model::ModelConfig& config = seam_->model.config;
  const int64_t width = config.hidden_size;
  residual.resize(static_cast<int64_t>(tokens.size()), width, sizeof(int32_t));
  // As in the float arithmetic: Gemma's factor in float32.
  const float scale = config.scale_embedding ? std::sqrt(static_cast<float>(width)) : 1.0F;
  const StreamGrid& stream = seam_->grids.layers[0].stream;
  parallel_ranges(residual.rows, 16, [&](int64_t first, int64_t last) {
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t r = first; r < last; ++r) {
      const int32_t token = tokens[static_cast<size_t>(r)];
      seam_->model.embedding.decode_rows(token, 1, row.data());
      if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); })) {
        fail("tensor {}.weight: the row of token {} is not finite: integers cannot hold it",
             seam_->model.embedding.name, token);
      }
      auto* out = residual.row<int32_t>(r);
      for (int64_t i = 0; i < width; ++i) out[i] = stream.code(row[static_cast<size_t>(i)] * scale);
    }
  });
}

const ModelGrids& IntegerArithmetic::grids() const {
  return seam_->grids;
}

void IntegerArithmetic::logits(const model::Tensor& normed, int64_t first, int64_t count,
                               float* logits) const {
  constexpr int64_t kRows = 64;  // whose integers stay in the second-level cache until they are numbers
  thread_local std::vector<int32_t> integers;
  integers.resize(static_cast<size_t>(kRows * count));
  for (int64_t row = 0; row < normed.rows; row += kRows) {
    const int64_t rows = std::min(kRows, normed.rows - row);
    integer_logits(normed, row, rows, first, count, integers.data());
    float* out = logits + row * count;
    for (int64_t i = 0; i < rows * count; ++i) {
      out[i] = static_cast<float>(static_cast<double>(integers[static_cast<size_t>(i)]) * seam_->logit_scale);
    }
  }
  fake_quantize_row(seam_->logit_spec, seam_->logit_grid, logits, normed.rows * count);
}

}  // namespace qeval::quant
