#include "quant/points.h"

#include <array>
#include <cassert>
#include <charconv>

#include <fmt/format.h>

namespace qeval::quant {
namespace {

constexpr std::array<std::string_view, kBlockModules + kModelModules> kModuleNames{
    "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.qk_bmm", "self_attn.pv_bmm", "self_attn.o_proj", "post_attention_layernorm",
    "mlp.w1",           "mlp.act_fn",       "mlp.w3",           "mlp.w2",
    "model.norm",       "lm_head"};
constexpr std::array<std::string_view, kSlots> kSlotNames{"input", "input2", "weight", "output"};
constexpr std::string_view kBlockPrefix = "model.layers.";

}  // namespace

std::string module_name(int64_t layer, Module module) {
  const std::string_view name = kModuleNames[static_cast<size_t>(module)];
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
    if (kModuleNames[static_cast<size_t>(i)] == name) return ModuleId{layer, static_cast<Module>(i)};
  }
  return std::nullopt;
}

bool is_norm(Module module) {
  return module == Module::input_norm || module == Module::post_attention_norm ||
         module == Module::final_norm;
}

bool is_linear(Module module) {
  return !is_norm(module) && module != Module::qk_product && module != Module::pv_product &&
         module != Module::activation;
}

bool is_after_blocks(Module module) {
  return static_cast<int64_t>(module) >= kBlockModules;
}

model::Projection projection(Module module) {
  switch (module) {
    case Module::q:
      return model::Projection::q;
    case Module::k:
      return model::Projection::k;
    case Module::v:
      return model::Projection::v;
    case Module::o:
      return model::Projection::o;
    case Module::gate:
      return model::Projection::gate;
    case Module::up:
      return model::Projection::up;
    default:
      assert(module == Module::down);
      return model::Projection::down;
  }
}

Module linear_module(model::Projection projection) {
  switch (projection) {
    case model::Projection::q:
      return Module::q;
    case model::Projection::k:
      return Module::k;
    case model::Projection::v:
      return Module::v;
    case model::Projection::o:
      return Module::o;
    case model::Projection::gate:
      return Module::gate;
    case model::Projection::up:
      return Module::up;
    case model::Projection::down:
      break;
  }
  return Module::down;
}

Module norm_module(model::NormPoint point) {
  switch (point) {
    case model::NormPoint::input:
      return Module::input_norm;
    case model::NormPoint::post_attention:
      return Module::post_attention_norm;
    case model::NormPoint::final:
      break;
  }
  return Module::final_norm;
}

bool has_slot(const model::ModelConfig& config, Module module, Slot slot) {
  switch (slot) {
    case Slot::weight:
      return is_norm(module) || is_linear(module);
    case Slot::input2:
      return module == Module::qk_product || module == Module::pv_product ||
             (module == Module::activation && config.activation == model::Activation::silu);
    case Slot::input:
    case Slot::output:
      break;
  }
  return true;
}

std::vector<Point> all_points(const model::ModelConfig& config) {
  std::vector<Point> points;
  const auto add = [&](int64_t layer, int64_t module) {
    for (int64_t s = 0; s < kSlots; ++s) {
      const Point point{layer, static_cast<Module>(module), static_cast<Slot>(s)};
      if (has_slot(config, point.module, point.slot)) points.push_back(point);
    }
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int64_t module = 0; module < kBlockModules; ++module) add(layer, module);
  }
  for (int64_t module = kBlockModules; module < kBlockModules + kModelModules; ++module) add(0, module);
  return points;
}

}  // namespace qeval::quant
