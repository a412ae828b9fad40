#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/config.h"

namespace qeval::quant {

using model::is_after_blocks;
using model::kBlockModules;
using model::kModelModules;
using model::Module;

/// A tensor of an operation. `input2` is k of the scores, v of the mix, the sigmoid of SiLU, and what a
/// layer's gate is multiplied by in front of its projection (Gemma 4).
enum class Slot : uint8_t { input, input2, weight, output };
inline constexpr int64_t kSlots = 4;

/// A place where a tensor may be quantized. `layer` is 0 for the modules after the last block.
struct Point {
  int64_t layer = 0;
  Module module = Module::input_norm;
  Slot slot = Slot::input;
  bool operator==(const Point&) const = default;
};

/// "model.layers.3.mlp.w2", "model.norm", …: the module names of default_qcfg.json and act_dict.json.
std::string module_name(int64_t layer, Module module);
/// "input", "input2", "weight", "output".
std::string_view slot_name(Slot slot);
/// module_name, a point, slot_name: "model.layers.3.mlp.w2.input".
std::string point_name(const Point& point);
/// The inverse of module_name for a model of this many layers; nothing where no module has that name.
struct ModuleId {
  int64_t layer;
  Module module;
};
std::optional<ModuleId> find_module(std::string_view name, int64_t num_layers);

bool is_linear(Module module);
bool is_norm(Module module);
/// What activates the MLP, the experts or the shared expert.
bool is_activation(Module module);
/// A linear map behind which scores of experts stand: of 8 bits per channel whatever the scheme.
bool is_router(Module module);

/// Whether a model has this point: `weight` for linears and norms, `input2` for the products and for SiLU,
/// `input` and `output` for all modules that its graph has; of a soft cap, the output only.
bool has_point(const model::ModelConfig& config, const Point& point);

/// All points of a model, layer by layer in the order of Module and Slot.
std::vector<Point> all_points(const model::ModelConfig& config);

/// Whether an operation multiplies the residual stream by a stored number (Gemma 4): no point has the result.
bool is_layer_factor(const model::ScaleOp& op);

/// The point where what this point reads is made: several points see the same tensor (the norm's output is
/// the input of q, k and v; v is the mix's input2). Itself where it is made here, or read from the residual
/// stream.
Point made_at(const model::ModelConfig& config, const Point& point);

/// The attention's point of an operand.
std::optional<Point> operand_point(int64_t layer, model::Operand operand);

/// Where the result of a rotation is rounded: where the attention or the down projection reads it. What it
/// reads of a product or a rotary embedding has no point.
Point hadamard_point(int64_t layer, const model::HadamardOp& op);

/// "norm to q, k, v", "up to down": an edge in words.
std::string edge_name(const model::ScaleEdge& edge);

/// Whether GELU is the erf form where it is rounded, whatever the configuration says: the paper's code has no
/// other.
bool rounded_gelu_is_erf(const model::ModelConfig& config);

/// Refuses a model with an operation that `accepts` does not take, naming it and `what` lacks it.
template <typename Accepts>
void require_operations(const model::ModelConfig& config, std::string_view what, const Accepts& accepts) {
  for (const model::BlockGraph& block : config.graph.blocks) {
    for (const model::Operation& operation : block.operations) {
      if (!accepts(operation)) {
        fail("{} model: {} has no {}; accepted: float arithmetic", config.architecture, what,
             operation_name(operation));
      }
    }
  }
}

/// A value per point of a model with `num_layers` layers, addressed by the point.
template <typename T>
class PointMap {
 public:
  PointMap() = default;
  explicit PointMap(int64_t num_layers, const T& value = T())
      : num_layers_(num_layers),
        values_(static_cast<size_t>((num_layers * kBlockModules + kModelModules) * kSlots), value) {}

  T& operator[](const Point& point) { return values_[index(point)]; }
  const T& operator[](const Point& point) const { return values_[index(point)]; }
  int64_t num_layers() const { return num_layers_; }
  bool operator==(const PointMap&) const = default;

 private:
  size_t index(const Point& point) const {
    const int64_t module = is_after_blocks(point.module)
                               ? (num_layers_ - 1) * kBlockModules + static_cast<int64_t>(point.module)
                               : point.layer * kBlockModules + static_cast<int64_t>(point.module);
    return static_cast<size_t>(module * kSlots + static_cast<int64_t>(point.slot));
  }

  int64_t num_layers_ = 0;
  std::vector<T> values_;
};

}  // namespace qeval::quant
