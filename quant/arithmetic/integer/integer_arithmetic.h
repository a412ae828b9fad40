#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/arithmetic.h"
#include "quant/arithmetic/integer/integer_model.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {

/// The floating-point side of the seam: the embedding rows on their way in, the logits on their way out, and
/// the cosines and sines of lengths that have not been seen before.
struct IntegerSeam;
struct ModelGrids;

/// What an NPU executes (docs/specification.md#integer-only): no floating point between the embedding look-up
/// and the logits. The operations between the two are compiled in translation units of their own (run/),
/// whose objects a test disassembles. Every tensor holds int16_t codes, whatever the point's bits; the
/// residual stream int32_t (StreamFormat).
///
/// A KvBlock holds, per key/value head: the keys as panels of kPanel tokens, the sums of the keys' codes, and
/// the values as panels of kPanel channels; one byte a code up to 8 bits, two above.
class IntegerArithmetic final : public model::Arithmetic {
 public:
  /// `ranges` as read from act_dict.json: besides those that `qcfg` needs, the final norm's input is used
  /// where there is one. Throws Error, naming the point, for a setting that integers cannot do: a dynamic
  /// range, a point or weight left in float, weights in groups, a range too far from 0 for its width, the
  /// residual stream's nearer than others. `model` must outlive the arithmetic. `guard_bits`: 0 … 12, of the
  /// residual stream. `first`: grids of position 0, whose keys and values must be as wide as the others' and
  /// whose head's input the others'. A model with an operation that has no integer form is refused by that
  /// operation's name.
  IntegerArithmetic(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                    int64_t max_positions, int32_t guard_bits = kStreamGuardBits,
                    const std::optional<FirstToken>& first = std::nullopt);
  ~IntegerArithmetic() override;

  std::string name() const override { return "integer"; }
  /// A row with a value that is not finite is an Error that names the token.
  void embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
             model::Tensor& residual) const override;
  void norm(int64_t layer, const model::NormOp& op, const model::Tensor& in,
            model::Tensor& out) const override;
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
              model::Tensor& heads) const override;
  void split_latent(int64_t layer, const model::SplitLatentOp& op, const model::Tensor& latent,
                    const model::Tensor& heads, model::Tensor& k, model::Tensor& v) const override;
  void route(int64_t layer, const model::RouteOp& op, const model::Tensor& logits,
             model::Routing& routing) const override;
  void dispatch(int64_t layer, const model::DispatchOp& op, const model::Tensor& in,
                const model::Routing& routing, model::Tensor& out) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void mix_experts(int64_t layer, const model::MixExpertsOp& op, const ExpertResults& results,
                   const model::Routing& routing, model::Tensor& out) const override;
  int64_t layers() const override { return static_cast<int64_t>(model_.layers.size()); }
  void scale(int64_t layer, const model::ScaleOp& op, const model::Tensor& in,
             model::Tensor& out) const override;
  /// What depends on a token alone is looked up, and made in float like the embedding.
  void embed_layers(std::span<const int32_t> tokens, const model::Tensor& embedded,
                    model::Tensor& out) const override;
  bool lends_kv(int64_t layer) const override { return layer_at(layer).attention.lends; }
  int64_t kv_bytes(int64_t layer, int64_t tokens) const override;
  void store_kv(int64_t layer, const model::Tensor& k, const model::Tensor& v, int64_t first_row,
                int64_t count, const model::KvBlock& block, int64_t at) const override;
  void scores(const model::AttentionTile& tile, const model::Tensor& q) const override;
  void softmax(const model::AttentionTile& tile) const override;
  void mix(const model::AttentionTile& tile, model::Tensor& out) const override;
  void shape_mixed(const model::AttentionOp& op, int64_t rows, model::Tensor& out) const override;
  void add(int64_t layer, const model::AddOp& op, const model::Tensor& update,
           model::Tensor& residual) const override;
  void activate(int64_t layer, const model::ActivateOp& op, model::Tensor& gate) const override;
  void multiply(int64_t layer, const model::MultiplyOp& op, const model::Tensor& up,
                model::Tensor& gate) const override;
  void hadamard(int64_t layer, const model::HadamardOp& op, model::Tensor& value) const override;
  void gather(const model::Tensor& residual, std::span<const int64_t> rows,
              model::Tensor& out) const override;
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

  /// The sums of each row's probability codes over the tile's keys, [query_count · group], which softmax()
  /// leaves behind the codes for mix(): whoever changes the codes in between must change them, too.
  int64_t* probability_sums(const model::AttentionTile& tile) const;

  /// The prepared integers, for tests and reports of memory.
  const IntegerModel& prepared() const { return model_; }
  /// What the codes of each tensor stand for.
  const ModelGrids& grids() const;
  /// The same of rows at position 0, where they have grids of their own.
  const ModelGrids& first_grids() const;

 private:
  const IntegerLayer& layer_at(int64_t layer) const { return model_.layers[static_cast<size_t>(layer)]; }
  /// What a row of a tensor computes with.
  const IntegerLayer& layer_of(int64_t layer, const model::Tensor& tensor, int64_t r) const {
    return model_.first && tensor.is_first(r) ? model_.first->layers[static_cast<size_t>(layer)]
                                              : layer_at(layer);
  }
  void main_linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const;
  /// The rows at position 0 again, on grids of their own.
  void first_linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const;
  /// The attention of the key at position 0, on a grid of its own, where a tile sees it.
  void score_first_key(const model::AttentionTile& tile, const int16_t* queries) const;
  void mix_first_value(const model::AttentionTile& tile, bool fast, std::byte* products) const;
  /// Turns every row by its angles: cosines [half], then sines [half].
  void rotate_rows(int64_t layer, const model::RotateOp& op, int64_t half,
                   std::span<const int32_t* const> angles, model::Tensor& heads) const;
  void integer_logits(const model::Tensor& normed, int64_t first_row, int64_t rows, int64_t first,
                      int64_t count, int32_t* logits) const;

  IntegerModel model_;
  std::unique_ptr<IntegerSeam> seam_;
};

}  // namespace qeval::quant
