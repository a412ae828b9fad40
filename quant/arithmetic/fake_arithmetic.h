#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/float_arithmetic.h"
#include "quant/grid/qcfg.h"
#include "quant/grid/quantized_matrix.h"

namespace qeval::quant {

/// Throws Error naming the first operation of the model whose points nothing defines
/// (docs/specification.md#points). Where a configuration rounds weights alone, any operation will do.
void require_points(const model::ModelConfig& config);

/// A point ready to be applied: its spec and, where static, its grid.
struct ActivationQuantizer {
  QuantSpec spec;
  Grid grid;

  bool enabled() const { return spec.enabled(); }
  /// Rounds x [n], one row as far as dynamic ranges go.
  void operator()(float* x, int64_t n) const { fake_quantize_row(spec, grid, x, n); }
};

/// The simulation that papers report: float32 throughout, every point of the configuration rounded to its
/// grid and back (docs/specification.md#points). Weights are kept as codes and decoded on their way into the
/// product. RMSNorm in the blocks has no eps; the paper's architectures compute GELU in its erf form where
/// the activation is quantized; residual adds and embedding stay in float, and so do the final norm and the
/// head unless the configuration names them. A dynamic point takes its range per row of the tensor: a token's
/// features, or for the operands and results of the two attention products a token's features of one head (of
/// the visible keys for scores and probabilities).
class FakeArithmetic : public model::FloatArithmetic {
 public:
  /// `ranges` has every range that `qcfg` needs (complete_ranges), and so has `first`, where position 0 has
  /// grids of its own. `model` must outlive the arithmetic. Where activations are rounded, see
  /// require_points().
  FakeArithmetic(const model::Model& model, const QuantConfig& qcfg, const ActRanges& ranges,
                 int64_t max_positions, const std::optional<FirstToken>& first = std::nullopt);

  std::string name() const override { return "fake"; }
  void norm(int64_t layer, const model::NormOp& op, const model::Tensor& in,
            model::Tensor& out) const override;
  void linear(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const override;
  void rotate(int64_t layer, const model::RotateOp& op, const model::RowPositions& rows,
              model::Tensor& heads) const override;
  void softmax(const model::AttentionTile& tile) const override;
  void mix(const model::AttentionTile& tile, model::Tensor& out) const override;
  void activate(int64_t layer, const model::ActivateOp& op, model::Tensor& gate) const override;
  void multiply(int64_t layer, const model::MultiplyOp& op, const model::Tensor& up,
                model::Tensor& gate) const override;
  void hadamard(int64_t layer, const model::HadamardOp& op, model::Tensor& value) const override;
  void route(int64_t layer, const model::RouteOp& op, const model::Tensor& logits,
             model::Routing& routing) const override;
  void expert_linear(int64_t layer, const model::Tensor& in, const model::Routing& routing,
                     std::span<const Target> targets) const override;
  void mix_experts(int64_t layer, const model::MixExpertsOp& op, const ExpertResults& results,
                   const model::Routing& routing, model::Tensor& out) const override;
  void finish(const model::Tensor& residual, model::Tensor& out) const override;
  void logits(const model::Tensor& normed, int64_t first, int64_t count, float* logits) const override;

 private:
  /// What a tensor meets before another operation sees it: its own point, then, where it is an operand of the
  /// attention, the attention's.
  struct OutputQuantizers {
    ActivationQuantizer first, second;
  };

  /// How the activations of a class of positions are rounded.
  struct Points {
    PointMap<ActivationQuantizer> points;
    std::vector<std::map<Module, OutputQuantizers>> linears;  ///< outputs, by layer

    const ActivationQuantizer& at(int64_t layer, Module module, Slot slot) const {
      return points[{layer, module, slot}];
    }
    OutputQuantizers outputs(int64_t layer, Module module, model::Operand operand) const;
  };
  static Points make_points(const model::ModelConfig& config, const QuantConfig& qcfg,
                            const ActRanges& ranges);
  /// Those of a row of a tensor, or of a position.
  const Points& of_row(const model::Tensor& tensor, int64_t r) const {
    return first_ && tensor.is_first(r) ? *first_ : points_;
  }
  const Points& of_position(int64_t position) const { return first_ && position == 0 ? *first_ : points_; }
  void linear(const Points& points, int64_t layer, const model::Tensor& in,
              std::span<const Target> targets) const;
  /// The rows at position 0 again, on grids of their own.
  void linear_first(int64_t layer, const model::Tensor& in, std::span<const Target> targets) const;
  model::WeightView weight_view(int64_t layer, const model::LinearOp& op) const;
  /// The epilogue of a product, where its output points are static.
  model::Epilogue epilogue(const OutputQuantizers& quantizers) const;
  /// `head_dim`: channels that a dynamic range is taken over.
  static void quantize_heads(const ActivationQuantizer& quantizer, int64_t head_dim, float* heads,
                             int64_t count);
  /// Rounds every row of a tensor at a point, dynamic ranges over `width` channels each.
  void quantize_rows(const Point& point, int64_t width, model::Tensor& tensor) const;
  void quantize_weights(const QuantConfig& qcfg);

  /// One block's weights as the simulation has them.
  struct Block {
    std::map<Module, QuantizedMatrix> linears;  ///< those that are left in float are missing
    std::map<Module, std::vector<QuantizedMatrix>> experts;
    std::map<Module, std::vector<float>> norms;  ///< dequantized
  };
  const Block& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }

  Points points_;
  std::optional<Points> first_;
  std::vector<Block> blocks_;
  std::vector<float> final_norm_;
  QuantizedMatrix head_;
  bool erf_gelu_ = false;  ///< whatever form the configuration names
};

/// Everything that decides how a quantized model computes, besides its weights.
struct Quantization {
  QuantConfig qcfg;
  ActRanges ranges;  ///< of every point that needs one; the others' are left out
  /// All that act_dict.json holds: the integer residual takes its last range from the final norm's input.
  ActRanges known_ranges;
  std::optional<FirstToken> first{};
  std::optional<Prefix> prefix{};  ///< `first` then has the grids of its keys and values (prefix.h)
  std::string hash;                ///< quantization_hash: the identity of the settings in results
};

/// Whether a model folder holds act_dict.json and default_qcfg.json.
bool is_quantized_checkpoint(const std::filesystem::path& path);

/// Reads the settings of a model: `qcfg` and `act_ranges` where given, else the folder's own files. A missing
/// file or range is an Error that names it.
Quantization load_quantization(const model::Model& model, const std::optional<std::filesystem::path>& qcfg,
                               const std::optional<std::filesystem::path>& act_ranges);

/// SHA-256 over the configuration and those of the known ranges (all that act_dict.json holds or will hold)
/// that an arithmetic computes with: the points' that need one (complete_ranges, whose errors it has), and
/// the final norm's input, which the integers' residual stream ends on.
std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config,
                              const std::optional<FirstToken>& first = std::nullopt);
/// The same with a prefix, which decides its own grids.
std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config, const Prefix& prefix);

}  // namespace qeval::quant
