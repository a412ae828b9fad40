#include "quant/grid/qcfg.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace qeval::quant {
namespace {

/// Bits of a norm's, linear's or product's activation where the scheme's activation bits are 8
/// (docs/specification.md#points: operands of products have 8, what a norm, a softmax or the residual stream
/// reads has 16); nothing where the tensor is rounded where it is made.
std::optional<int> default_activation_bits(const model::ModelConfig& config, const Point& point) {
  const Slot slot = point.slot;
  switch (point.module) {
    case Module::qk_product:
      return slot == Slot::output ? 16 : 8;
    case Module::softcap:
      return 16;
    case Module::pv_product:
      return slot == Slot::input ? 16 : 8;
    case Module::expert_mix:
      return 16;
    default:
      break;
  }
  if (is_activation(point.module)) return slot != Slot::input ? std::optional(8) : std::nullopt;
  if (is_after_blocks(point.module)) return std::nullopt;
  const model::BlockGraph& block = config.graph.block(point.layer);
  if (const auto* norm = block.find<model::NormOp>(point.module)) {
    return slot == Slot::input || norm->is_of_update() ? 16 : 8;
  }
  const auto& linear = *block.find<model::LinearOp>(point.module);
  if (slot == Slot::input2) return 8;  // an operand of the product that the map reads
  if (slot == Slot::input) {
    return block.reads_product(linear.module) || linear.in == model::Value::residual ? std::optional(8)
                                                                                     : std::nullopt;
  }
  const bool normed = (linear.module == Module::v && block.find<model::NormOp>(Module::v_norm) != nullptr) ||
                      (linear.module == Module::q && block.find<model::NormOp>(Module::q_norm) != nullptr) ||
                      (linear.module == Module::k && block.find<model::NormOp>(Module::k_norm) != nullptr);
  const bool added = linear.out == model::Value::update || linear.out == model::Value::mlp_update;
  const bool summed = linear.out == model::Value::expert_out || linear.out == model::Value::shared;
  return normed || added || summed || is_router(linear.module) ? 16 : 8;
}

QuantSpec default_spec(const model::ModelConfig& config, const Scheme& scheme, const Point& point) {
  const bool activations = scheme.activation_bits <= 16;
  if (point.slot == Slot::weight) {
    if (is_after_blocks(point.module)) return {};
    if (is_norm(point.module)) return activations ? QuantSpec{.bits = 16} : QuantSpec{};
    if (is_router(point.module)) return activations ? QuantSpec{.bits = 8, .per_channel = true} : QuantSpec{};
    QuantSpec spec = scheme.weight;
    const bool last = point.module == Module::down || point.module == Module::expert_down ||
                      point.module == Module::shared_down;
    if (last) spec.per_channel = true;
    return spec;
  }
  const std::optional<int> bits = default_activation_bits(config, point);
  if (!bits || !activations) return {};
  return {.bits = *bits == 8 ? scheme.activation_bits : *bits, .dynamic = scheme.dynamic_activations};
}

}  // namespace

namespace {

constexpr std::string_view kGroups = "-g";
constexpr int64_t kMostInputs = int64_t{1} << 20;

/// N of "NAME-gN"; nothing where the name does not end so.
std::optional<int64_t> group_of(std::string_view name) {
  const size_t at = name.rfind(kGroups);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view digits = name.substr(at + kGroups.size());
  int64_t group = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), group);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  if (!whole || group < 1 || group > kMostInputs || digits.front() == '0') return std::nullopt;
  return group;
}

/// Of a scheme's name without groups.
std::optional<Scheme> plain_scheme(std::string_view name) {
  Scheme scheme;
  if (name == "w8a8") return scheme;
  if (name == kStoredScheme) {
    scheme.stored = true;
    return scheme;
  }
  if (name == "w8a16") {
    scheme.activation_bits = 16;
    return scheme;
  }
  scheme.weight = {.bits = 4, .per_channel = true};
  constexpr std::string_view kSymmetric = "-sym";
  if (name.ends_with(kSymmetric)) {
    scheme.weight.symmetric = true;
    name.remove_suffix(kSymmetric.size());
  }
  if (name == "w4a8") return scheme;
  scheme.activation_bits = 32;
  if (name == "w4a16") return scheme;
  if (name == "w3a16") {
    scheme.weight.bits = 3;
    return scheme;
  }
  if (name == "w8a16" && scheme.weight.symmetric) {
    scheme.weight.bits = 8;
    return scheme;
  }
  return std::nullopt;
}

}  // namespace

std::string_view scheme_stem(std::string_view name) {
  return group_of(name) ? name.substr(0, name.rfind(kGroups)) : name;
}

Scheme parse_scheme(std::string_view name) {
  std::optional<Scheme> scheme = plain_scheme(scheme_stem(name));
  if (!scheme) fail("{}: unknown scheme; accepted: {}; {}", printable(name), kSchemeNames, kGroupsNote);
  if (const auto group = group_of(name)) {
    if (scheme->stored)
      fail("{}: unknown scheme; accepted: {}; groups are as stored", printable(name), kStoredScheme);
    scheme->weight.group_size = *group;
    scheme->weight.per_channel = true;
  }
  return *scheme;
}

QuantConfig make_qcfg(const model::ModelConfig& config, const Scheme& scheme) {
  QuantConfig qcfg(config.num_layers);
  for (const Point& point : all_points(config)) {
    qcfg[point] = default_spec(config, scheme, point);
    check_group_size(qcfg[point], point, config, "quantization scheme");
  }
  return qcfg;
}

QuantConfig make_first_qcfg(const QuantConfig& qcfg, const model::ModelConfig& config) {
  constexpr int kBits = 16;
  QuantConfig first = qcfg;
  for (const Point& point : all_points(config)) {
    if (point.slot == Slot::weight || !qcfg[point].enabled() || is_after_blocks(point.module)) continue;
    // Keys and values are kept with those of the other positions; one tensor may have two points.
    const Point made = made_at(config, point);
    const bool kept = made == made_at(config, {point.layer, Module::qk_product, Slot::input2}) ||
                      made == made_at(config, {point.layer, Module::pv_product, Slot::input2});
    if (!kept) first[point].bits = std::max(qcfg[point].bits, kBits);
  }
  return first;
}

void check_group_size(const QuantSpec& spec, const Point& point, const model::ModelConfig& config,
                      const std::string& where) {
  if (spec.group_size < 0) return;
  int64_t inputs = config.hidden_size;  // of the head
  if (point.module != Module::head) {
    const auto* linear = config.graph.block(point.layer).find<model::LinearOp>(point.module);
    if (linear == nullptr) return;
    inputs = linear->cols;
  }
  if (spec.group_size == 0 || inputs % spec.group_size != 0) {
    fail("{}: {}: group_size is {}; accepted: -1 (none) or a divisor of its {} inputs", where,
         point_name(point), spec.group_size, inputs);
  }
}

bool needs_range(const QuantConfig& qcfg, const Point& point) {
  const QuantSpec& spec = qcfg[point];
  return point.slot != Slot::weight && spec.enabled() && !spec.dynamic;
}

ActRanges complete_ranges(const QuantConfig& qcfg, const ActRanges& ranges, const model::ModelConfig& config,
                          const std::string& where) {
  ActRanges complete(config.num_layers);
  for (const Point& point : all_points(config)) {
    if (!needs_range(qcfg, point)) continue;
    complete[point] = ranges[point];
    if (complete[point]) continue;
    if (is_activation(point.module) && point.slot == Slot::input2) {
      complete[point] = kSigmoidRange;
      continue;
    }
    fail(
        "{}: {} is quantized to {} bits but has no range there; accepted: a range, is_dynamic, or more than "
        "16 bits",
        where, point_name(point), qcfg[point].bits);
  }
  return complete;
}

}  // namespace qeval::quant
