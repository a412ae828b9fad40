#include "quant/grid/points.h"

#include <array>
#include <cassert>
#include <charconv>

#include <fmt/format.h>

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, kSlots> kSlotNames{"input", "input2", "weight", "output"};
constexpr std::string_view kBlockPrefix = "model.layers.";

}  // namespace

std::string module_name(int64_t layer, Module module) {
  const std::string_view name = model::module_name(module);
  if (is_after_blocks(module)) return std::string(name);
  return fmt::format("{}{}.{}", kBlockPrefix, layer, name);
}

std::string_view slot_name(Slot slot) {
  return kSlotNames[static_cast<size_t>(slot)];
}

std::string point_name(const Point& point) {
  return fmt::format("{}.{}", module_name(point.layer, point.module), slot_name(point.slot));
}

std::optional<ModuleId> find_module(std::string_view name, int64_t num_layers) {
  int64_t layer = 0;
  int64_t first = kBlockModules;
  if (name.starts_with(kBlockPrefix)) {
    const char* begin = name.data() + kBlockPrefix.size();
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(begin, end, layer);
    const bool one_spelling = rest == begin + 1 || *begin != '0';  // no "007"
    if (error != std::errc() || layer < 0 || layer >= num_layers || !one_spelling) return std::nullopt;
    if (rest == end || *rest != '.') return std::nullopt;
    name = std::string_view(rest + 1, static_cast<size_t>(end - rest - 1));
    first = 0;
  }
  const int64_t last = first == 0 ? kBlockModules : kBlockModules + kModelModules;
  for (int64_t i = first; i < last; ++i) {
    if (model::module_name(static_cast<Module>(i)) == name) return ModuleId{layer, static_cast<Module>(i)};
  }
  return std::nullopt;
}

bool is_norm(Module module) {
  switch (module) {
    case Module::input_norm:
    case Module::q_latent_norm:
    case Module::kv_latent_norm:
    case Module::q_norm:
    case Module::k_norm:
    case Module::post_self_attn_norm:
    case Module::post_attention_norm:
    case Module::pre_feedforward_norm:
    case Module::post_feedforward_norm:
    case Module::post_mlp_norm:
    case Module::v_norm:
    case Module::router_norm:
    case Module::pre_experts_norm:
    case Module::post_dense_norm:
    case Module::post_experts_norm:
    case Module::mixer_norm:
    case Module::layer_input_norm:
    case Module::laurel_norm:
    case Module::final_norm:
      return true;
    default:
      return false;
  }
}

bool is_activation(Module module) {
  return module == Module::activation || module == Module::expert_activation ||
         module == Module::shared_activation || module == Module::layer_input_activation;
}

bool is_router(Module module) {
  return module == Module::router || module == Module::shared_expert_gate;
}

bool is_linear(Module module) {
  switch (module) {
    case Module::qk_product:
    case Module::softcap:
    case Module::pv_product:
    case Module::expert_mix:
    case Module::mixer_q_conv:
    case Module::mixer_k_conv:
    case Module::mixer_v_conv:
    case Module::mixer_state:
    case Module::layer_scalar:
    case Module::altup:
    case Module::output_scale:
      return false;
    default:
      return !is_norm(module) && !is_activation(module);
  }
}

namespace {

/// Where what an operation writes is rounded; nothing where it has no point of its own.
std::optional<Point> output_point(int64_t layer, const model::Operation& operation) {
  if (const auto* op = std::get_if<model::NormOp>(&operation)) return Point{layer, op->module, Slot::output};
  if (const auto* op = std::get_if<model::LinearOp>(&operation))
    return Point{layer, op->module, Slot::output};
  if (const auto* op = std::get_if<model::RotateOp>(&operation)) return operand_point(layer, op->operand);
  if (std::holds_alternative<model::AttentionOp>(operation))
    return Point{layer, Module::pv_product, Slot::output};
  if (const auto* op = std::get_if<model::ActivateOp>(&operation))
    return Point{layer, op->module, Slot::output};
  if (const auto* op = std::get_if<model::MultiplyOp>(&operation))
    return Point{layer, op->module, Slot::input};
  if (const auto* op = std::get_if<model::HadamardOp>(&operation)) return hadamard_point(layer, *op);
  if (const auto* op = std::get_if<model::MixExpertsOp>(&operation))
    return Point{layer, op->module, Slot::output};
  return std::nullopt;
}

/// The operation that reads at this point, and which of its tensors.
struct Reader {
  size_t operation;
  model::Value value;
};
std::optional<Reader> find_reader(const model::BlockGraph& block, const Point& point) {
  for (size_t i = 0; i < block.operations.size(); ++i) {
    const model::Operation& operation = block.operations[i];
    if (std::holds_alternative<model::AttentionOp>(operation)) {
      if (point.module == Module::qk_product && point.slot == Slot::input) return Reader{i, model::Value::q};
      if (point.module == Module::qk_product && point.slot == Slot::input2) return Reader{i, model::Value::k};
      if (point.module == Module::pv_product && point.slot == Slot::input2) return Reader{i, model::Value::v};
    }
    if (point.slot != Slot::input) continue;
    if (const auto* op = std::get_if<model::NormOp>(&operation);
        op != nullptr && op->module == point.module) {
      return Reader{i, op->in};
    }
    if (const auto* op = std::get_if<model::LinearOp>(&operation);
        op != nullptr && op->module == point.module) {
      return Reader{i, op->in};
    }
    if (const auto* op = std::get_if<model::ActivateOp>(&operation);
        op != nullptr && op->module == point.module) {
      return Reader{i, model::Value::gate};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<Point> operand_point(int64_t layer, model::Operand operand) {
  switch (operand) {
    case model::Operand::query:
      return Point{layer, Module::qk_product, Slot::input};
    case model::Operand::key:
      return Point{layer, Module::qk_product, Slot::input2};
    case model::Operand::value:
      return Point{layer, Module::pv_product, Slot::input2};
    case model::Operand::none:
      break;
  }
  return std::nullopt;
}

Point hadamard_point(int64_t layer, const model::HadamardOp& op) {
  return operand_point(layer, op.operand).value_or(Point{layer, Module::down, Slot::input});
}

Point made_at(const model::ModelConfig& config, const Point& point) {
  if (point.module == Module::head && point.slot == Slot::input && config.final_norm) {
    return {0, Module::final_norm, Slot::output};
  }
  if (is_after_blocks(point.module)) return point;
  const model::BlockGraph& block = config.graph.block(point.layer);
  const std::optional<Reader> reader = find_reader(block, point);
  if (!reader) return point;
  model::Value value = reader->value;
  for (size_t i = reader->operation; i-- > 0;) {
    if (value == model::Value::residual) return point;
    if (accesses(block.operations[i]).writes != value) continue;
    if (const auto* dispatch = std::get_if<model::DispatchOp>(&block.operations[i])) {
      value = dispatch->in;  // the same rows, in another order
      continue;
    }
    return output_point(point.layer, block.operations[i]).value_or(point);
  }
  return point;
}

bool is_layer_factor(const model::ScaleOp& op) {
  return op.in == model::Value::residual && op.out == model::Value::residual && op.stored &&
         op.numbers == 1 && op.factor == 1;
}

std::string edge_name(const model::ScaleEdge& edge) {
  const auto word = [](Module module) -> std::string_view {
    if (is_norm(module)) return "norm";
    const std::string_view name = model::module_name(module);
    switch (module) {
      case Module::gate:
        return "gate";
      case Module::up:
        return "up";
      case Module::down:
        return "down";
      default:
        return name.substr(name.find('.') + 1, name.rfind("_proj") - name.find('.') - 1);
    }
  };
  std::string text = fmt::format("{} to ", word(edge.producer));
  for (size_t i = 0; i < edge.consumers.size(); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", word(edge.consumers[i]));
  }
  return text;
}

bool rounded_gelu_is_erf(const model::ModelConfig& config) {
  return config.architecture == "hfmodel" || config.architecture == "gemma";
}

bool has_point(const model::ModelConfig& config, const Point& point) {
  if (point.module == Module::final_norm) return config.graph.final_norm && point.slot != Slot::input2;
  if (point.module == Module::head) return point.slot != Slot::input2;
  if (is_after_blocks(point.module)) return false;
  const model::BlockGraph& block = config.graph.block(point.layer);
  const bool has_attention = block.find<model::AttentionOp>() != nullptr;
  switch (point.module) {
    case Module::qk_product:
    case Module::pv_product:
      // Keys and values of an earlier layer are rounded there.
      if (point.slot == Slot::input2) return has_attention && block.attention().kv_from == 0;
      return point.slot != Slot::weight && has_attention;
    case Module::layer_input_projection:
      return block.find<model::LinearOp>(point.module) != nullptr;
    case Module::softcap:
      return point.slot == Slot::output && has_attention && block.attention().softcap != 0;
    case Module::expert_mix:
      return (point.slot == Slot::input || point.slot == Slot::output) &&
             block.find<model::MixExpertsOp>() != nullptr;
    default:
      break;
  }
  if (is_activation(point.module)) {
    const auto* activate = block.find<model::ActivateOp>(point.module);
    const bool silu = activate != nullptr && activate->kind == model::Activation::silu;
    return activate != nullptr && point.slot != Slot::weight && (point.slot != Slot::input2 || silu);
  }
  if (point.slot == Slot::input2) return false;
  if (const auto* norm = block.find<model::NormOp>(point.module)) {
    return norm->weighted || point.slot != Slot::weight;
  }
  return block.find<model::LinearOp>(point.module) != nullptr;
}

std::vector<Point> all_points(const model::ModelConfig& config) {
  std::vector<Point> points;
  const auto add = [&](int64_t layer, int64_t module) {
    for (int64_t s = 0; s < kSlots; ++s) {
      const Point point{layer, static_cast<Module>(module), static_cast<Slot>(s)};
      if (has_point(config, point)) points.push_back(point);
    }
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int64_t module = 0; module < kBlockModules; ++module) add(layer, module);
  }
  for (int64_t module = kBlockModules; module < kBlockModules + kModelModules; ++module) add(0, module);
  return points;
}

}  // namespace qeval::quant
