#include "quant/integer/integer_arithmetic.h"

#include <cmath>

#include "quant/integer/prepare.h"

namespace qeval::quant {

struct IntegerSeam {
  const model::Model& model;
  PointGrid embedding;
  double logit_scale = 0;
  QuantSpec logit_spec;  ///< of the head's output, where the configuration names it
  Grid logit_grid;
};

IntegerArithmetic::IntegerArithmetic(const model::Model& model, const QuantConfig& qcfg,
                                     const ActRanges& ranges, int64_t max_positions) {
  PreparedModel prepared = prepare_model(model, qcfg, ranges, max_positions);
  model_ = std::move(prepared.integers);
  const Point logits{0, Module::head, Slot::output};
  seam_ = std::make_unique<IntegerSeam>(
      IntegerSeam{model, prepared.embedding, prepared.logit_scale, qcfg[logits], {}});
  if (needs_range(qcfg, logits)) seam_->logit_grid = make_grid(qcfg[logits], ranges[logits].value());
}

IntegerArithmetic::~IntegerArithmetic() = default;

void IntegerArithmetic::embed(std::span<const int32_t> tokens, model::Tensor& residual) const {
  const model::ModelConfig& config = seam_->model.config;
  const int64_t width = config.hidden_size;
  residual.resize(static_cast<int64_t>(tokens.size()), width, sizeof(int16_t));
  // As in the float arithmetic: Gemma's factor in float32.
  const float scale = config.scale_embedding ? std::sqrt(static_cast<float>(width)) : 1.0F;
  parallel_ranges(residual.rows, 16, [&](int64_t first, int64_t last) {
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t r = first; r < last; ++r) {
      seam_->model.embedding.decode_rows(tokens[static_cast<size_t>(r)], 1, row.data());
      for (float& x : row) x *= scale;
      quant_kernels().quantize_i16(row.data(), width, seam_->embedding.grid, seam_->embedding.offset,
                                   residual.row<int16_t>(r));
    }
  });
}

void IntegerArithmetic::logits(const model::Tensor& normed, int64_t first, int64_t count,
                               float* logits) const {
  thread_local std::vector<int32_t> integers;
  integers.resize(static_cast<size_t>(normed.rows * count));
  integer_logits(normed, first, count, integers.data());
  for (size_t i = 0; i < integers.size(); ++i) {
    logits[i] = static_cast<float>(static_cast<double>(integers[i]) * seam_->logit_scale);
  }
  fake_quantize_row(seam_->logit_spec, seam_->logit_grid, logits, normed.rows * count);
}

}  // namespace qeval::quant
