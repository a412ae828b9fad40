#include "quant/arithmetic/integer/integer_arithmetic.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>

#include "base/error.h"
#include "model/float_arithmetic.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/integer/run/experts.h"

namespace qeval::quant {

struct IntegerSeam {
  const model::Model& model;
  ModelGrids grids;
  std::optional<ModelGrids> first_grids;
  std::vector<std::unique_ptr<AngleTables>> angles;
  double logit_scale = 0;
  std::unique_ptr<model::FloatArithmetic> look_up;  ///< of layers' inputs, where there are any
  QuantSpec logit_spec;  ///< of the head's output, where the configuration names it
  Grid logit_grid;
};

IntegerArithmetic::IntegerArithmetic(const model::Model& model, const QuantConfig& qcfg,
                                     const ActRanges& ranges, int64_t max_positions, int32_t guard_bits,
                                     const std::optional<FirstToken>& first) {
  PreparedModel prepared = prepare_model(model, qcfg, ranges, max_positions, guard_bits, first);
  model_ = std::move(prepared.integers);
  const Point logits{0, Module::head, Slot::output};
  seam_ = std::make_unique<IntegerSeam>(IntegerSeam{model,
                                                    std::move(prepared.grids),
                                                    std::move(prepared.first_grids),
                                                    std::move(prepared.angles),
                                                    prepared.logit_scale,
                                                    nullptr,
                                                    qcfg[logits],
                                                    {}});
  if (model.config.layer_inputs) seam_->look_up = std::make_unique<model::FloatArithmetic>(model, 1);
  if (needs_range(qcfg, logits)) seam_->logit_grid = make_grid(qcfg[logits], ranges[logits].value());
}

IntegerArithmetic::~IntegerArithmetic() = default;

void IntegerArithmetic::split_latent(int64_t, const model::SplitLatentOp&, const model::Tensor&,
                                     const model::Tensor&, model::Tensor&, model::Tensor&) const {
  assert(!"refused when the model was prepared");
}

void IntegerArithmetic::rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
                               model::Tensor& heads) const {
  const IntegerRotary& rotary = layer_at(layer).rotations.at(op.value);
  const AngleTables& tables = *seam_->angles[rotary.angles];
  // A table per length of the batch, where there is more than one.
  std::map<int32_t, std::shared_ptr<const AngleTable>> by_length;
  for (const int32_t length : rows.lengths) {
    auto& table = by_length[length];
    if (!table) table = tables.at(length);
  }
  const std::shared_ptr<const AngleTable> usual = tables.at(0);
  std::vector<const int32_t*> angles(static_cast<size_t>(heads.rows));
  for (size_t r = 0; r < angles.size(); ++r) {
    const AngleTable& table = rows.lengths.empty() ? *usual : *by_length.at(rows.lengths[r]);
    assert(rows.positions[r] < table.positions);
    angles[r] = table.row(rows.positions[r]);
  }
  rotate_rows(layer, op, usual->half, angles, heads);
}

void IntegerArithmetic::route(int64_t layer, const model::RouteOp& op, const model::Tensor& logits,
                              model::Routing& routing) const {
  const IntegerRouter& router = layer_at(layer).router;
  routing.rows = logits.rows;
  routing.used = op.used;
  routing.experts.resize(static_cast<size_t>(logits.rows * op.used));
  routing.codes.resize(routing.experts.size());
  parallel_ranges(logits.rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      choose_experts(router, logits.row<int16_t>(r), routing.experts.data() + r * op.used,
                     routing.codes.data() + r * op.used);
    }
  });
  routing.sort(op.experts);
}

void IntegerArithmetic::embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
                              model::Tensor& residual) const {
  const model::ModelConfig& config = seam_->model.config;
  const int64_t width = config.hidden_size;
  residual.resize(static_cast<int64_t>(tokens.size()), width, sizeof(int32_t));
  // As in the float arithmetic: factors in float32.
  const float scale =
      (config.scale_embedding ? std::sqrt(static_cast<float>(width)) : 1.0F) * config.embedding_factor;
  const auto require_finite = [](const std::vector<float>& row, const std::string& tensor,
                                 std::string_view of, int64_t number) {
    if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); })) {
      fail("tensor {}.weight: the row of {} {} is not finite: integers cannot hold it", tensor, of, number);
    }
  };
  parallel_ranges(residual.rows, 16, [&](int64_t first, int64_t last) {
    std::vector<float> row(static_cast<size_t>(width));
    std::vector<float> learned(config.learned_positions ? row.size() : 0);
    for (int64_t r = first; r < last; ++r) {
      const int32_t token = tokens[static_cast<size_t>(r)];
      seam_->model.embedding.decode_rows(token, 1, row.data());
      require_finite(row, seam_->model.embedding.name, "token", token);
      for (float& x : row) x *= scale;
      if (config.learned_positions) {
        const int32_t position = rows.positions[static_cast<size_t>(r)];
        seam_->model.positions.decode_rows(position + config.position_offset, 1, learned.data());
        require_finite(learned, seam_->model.positions.name, "position", position);
        for (size_t i = 0; i < row.size(); ++i) row[i] += learned[i];
      }
      const bool first_row = seam_->first_grids && residual.is_first(r);
      const StreamGrid& stream = first_row ? seam_->first_grids->embedded : seam_->grids.embedded;
      auto* out = residual.row<int32_t>(r);
      for (int64_t i = 0; i < width; ++i) out[i] = stream.code(row[static_cast<size_t>(i)]);
    }
  });
}

void IntegerArithmetic::embed_layers(std::span<const int32_t> tokens, const model::Tensor&,
                                     model::Tensor& out) const {
  const std::vector<int32_t> positions(tokens.size(), 0);
  model::Tensor embedded, values;
  seam_->look_up->embed(tokens, {positions}, embedded);
  seam_->look_up->embed_layers(tokens, embedded, values);
  out.resize(values.rows, values.cols, sizeof(int16_t));
  const int64_t n = values.cols / layers();
  for (int64_t layer = 0; layer < layers(); ++layer) {
    const PointGrid& grid =
        grids().layers[static_cast<size_t>(layer)].products.at(model::Module::layer_input_projection).up;
    parallel_ranges(values.rows, 16, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        for (int64_t i = layer * n; i < (layer + 1) * n; ++i)
          out.row<int16_t>(r)[i] = grid.code(values.row<float>(r)[i]);
      }
    });
  }
}

const ModelGrids& IntegerArithmetic::grids() const {
  return seam_->grids;
}

const ModelGrids& IntegerArithmetic::first_grids() const {
  return seam_->first_grids.value();
}

int64_t IntegerMatrix::byte_count() const {
  const size_t words = overflow_inputs.size() + zero_points.size() + fast.multiplier.size() +
                       fast.shift.size() + fast_constant.size() + group_multipliers.size();
  int64_t parts = 0;
  for (const IntegerMatrix& part : groups) parts += part.byte_count();
  return parts + static_cast<int64_t>(panels.size() + overflow.size() + words * sizeof(int32_t) +
                                      (overflow_first.size() + constant.size()) * sizeof(int64_t) +
                                      factors.size() * sizeof(Rescale));
}

int64_t IntegerModel::byte_count() const {
  int64_t bytes = head.byte_count();
  for (const IntegerLayer& layer : layers) {
    for (const auto& [module, matrix] : layer.linears) bytes += matrix.byte_count();
    for (const auto& [module, experts] : layer.experts) {
      for (const IntegerMatrix& matrix : experts) bytes += matrix.byte_count();
    }
  }
  if (!first) return bytes;
  for (const auto& linears : first->linears) {
    for (const auto& [module, linear] : linears)
      bytes += static_cast<int64_t>(linear.factors.size() * sizeof(Rescale) +
                                    linear.bias.size() * sizeof(int64_t));
  }
  return bytes;
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
  model::finish_logits(seam_->model.config, logits, normed.rows * count);
}

}  // namespace qeval::quant
