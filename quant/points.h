#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/arithmetic.h"
#include "model/config.h"

namespace qeval::quant {

/// The operations that have quantization points (QUANTIZATION.md §2): those of a block in the order they run,
/// then the two after the last block.
enum class Module : uint8_t {
  input_norm,
  q,
  k,
  v,
  qk_product,  ///< scores q·kᵀ
  pv_product,  ///< mix p·v
  o,
  post_attention_norm,
  gate,
  activation,
  up,
  down,
  final_norm,
  head
};
inline constexpr int64_t kBlockModules = 12;
inline constexpr int64_t kModelModules = 2;

/// A tensor of an operation. `input2` is k of the scores, v of the mix, the sigmoid of SiLU.
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
bool is_after_blocks(Module module);
/// The projection of a block's linear module (not the head's), and back.
model::Projection projection(Module module);
Module linear_module(model::Projection projection);
/// The module of a norm.
Module norm_module(model::NormPoint point);

/// Whether a module of this model has the slot: `weight` for linears and norms, `input2` for the products and
/// for SiLU, `input` and `output` for all.
bool has_slot(const model::ModelConfig& config, Module module, Slot slot);

/// All points of a model, layer by layer in the order of Module and Slot.
std::vector<Point> all_points(const model::ModelConfig& config);

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
