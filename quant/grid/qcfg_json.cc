// default_qcfg.json and act_dict.json (docs/specification.md#unified-layout): read from strangers, written
// for the paper's code.

#include <array>
#include <charconv>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "quant/grid/qcfg.h"

namespace qeval::quant {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// The part of a module's entry that holds at position 0.
constexpr const char* kFirstToken = "first_token";

/// Remembers the last key of the outermost object, so that text that is no JSON (Python writes NaN as it is)
/// can be blamed on a module.
class LastModule : public nlohmann::json_sax<json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return ++depth_ < 32; }
  bool end_object() override { return --depth_ >= 0; }
  bool start_array(std::size_t) override { return ++depth_ < 32; }
  bool end_array() override { return --depth_ >= 0; }
  bool key(string_t& name) override {
    if (depth_ == 1) module_ = name;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }
  const std::string& module() const { return module_; }

 private:
  int depth_ = 0;
  std::string module_;
};

json parse_modules(std::string_view text, const std::string& where) {
  json document;
  try {
    document = parse_strict_json(text, where);
  } catch (const Error& error) {
    LastModule last;
    json::sax_parse(text, &last);
    if (last.module().empty()) throw;
    fail("{} (at module {})", error.what(), printable(last.module()));
  }
  if (!document.is_object()) fail("{}: accepted: an object of modules", where);
  return document;
}

ModuleId require_module(const std::string& name, const model::ModelConfig& config, const std::string& where) {
  const std::optional<ModuleId> id = find_module(name, config.num_layers);
  if (!id || !has_point(config, {id->layer, id->module, Slot::output})) {
    fail("{}: {} is no module of this model of {} layers; accepted: names such as {}", where, printable(name),
         config.num_layers, module_name(0, Module::q));
  }
  return *id;
}

std::optional<Slot> find_slot(std::string_view name) {
  for (int64_t s = 0; s < kSlots; ++s) {
    if (slot_name(static_cast<Slot>(s)) == name) return static_cast<Slot>(s);
  }
  return std::nullopt;
}

/// One point's entry in default_qcfg.json.
class SpecReader {
 public:
  SpecReader(const json& entry, std::string where) : entry_(entry), where_(std::move(where)) {
    if (!entry.is_object()) fail("{}: accepted: an object with bitwidth, is_symmetric, …", where_);
  }

  QuantSpec read(QuantSpec spec) const {
    for (const auto& [key, value] : entry_.items()) {
      if (key == "bitwidth") {
        spec.bits = static_cast<int>(integer(key, value, 2, 32));
      } else if (key == "group_size") {
        spec.group_size = integer(key, value, -1, int64_t{1} << 20);
      } else if (key == "is_symmetric") {
        spec.symmetric = boolean(key, value);
      } else if (key == "is_per_channel") {
        spec.per_channel = boolean(key, value);
      } else if (key == "is_dynamic") {
        spec.dynamic = boolean(key, value);
      } else {
        fail("{}: unknown field {}; accepted: bitwidth, group_size, is_symmetric, is_per_channel, is_dynamic",
             where_, printable(key));
      }
    }
    return spec;
  }

 private:
  [[noreturn]] void refuse(const std::string& key, const json& value, const std::string& accepted) const {
    fail("{}: {} is {}; accepted: {}", where_, key,
         printable(value.dump(-1, ' ', false, json::error_handler_t::replace)), accepted);
  }

  int64_t integer(const std::string& key, const json& value, int64_t lowest, int64_t highest) const {
    int64_t number = lowest - 1;
    if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size()) number = lowest - 1;
    } else if (value.is_number_unsigned()) {
      const auto stored = value.get<uint64_t>();
      number = stored <= static_cast<uint64_t>(highest) ? static_cast<int64_t>(stored) : lowest - 1;
    } else if (value.is_number_integer()) {
      number = value.get<int64_t>();
    }
    if (number < lowest || number > highest) refuse(key, value, fmt::format("{} to {}", lowest, highest));
    return number;
  }

  bool boolean(const std::string& key, const json& value) const {
    if (value.is_boolean()) return value.get<bool>();
    if (value == "True" || value == "true") return true;
    if (value == "False" || value == "false") return false;
    refuse(key, value, "\"True\", \"False\"");
  }

  const json& entry_;
  std::string where_;
};

void check_spec(const QuantSpec& spec, const Point& point, const model::ModelConfig& config,
                const std::string& where) {
  if (!spec.enabled()) return;
  const bool projection_weight = point.slot == Slot::weight && is_linear(point.module);
  if (!projection_weight && (spec.group_size != -1 || spec.per_channel)) {
    fail("{}: {}: group_size {} and is_per_channel {}; accepted here: -1 and False", where, point_name(point),
         spec.group_size, spec.per_channel ? "True" : "False");
  }
  if (point == Point{0, Module::head, Slot::output} && spec.dynamic) {
    fail("{}: {}: is_dynamic is True; accepted: False (the logits are computed in tiles)", where,
         point_name(point));
  }
  check_group_size(spec, point, config, where);
}

Range read_range(const json& value, const std::string& where) {
  if (!value.is_array() || value.size() != 2 || !value[0].is_number() || !value[1].is_number()) {
    fail("{} is {}; accepted: [min, max], two finite numbers", where,
         printable(value.dump(-1, ' ', false, json::error_handler_t::replace)));
  }
  const Range range{value[0].get<float>(), value[1].get<float>()};
  if (!std::isfinite(range.lo) || !std::isfinite(range.hi)) {
    fail("{} is {}; accepted: two finite numbers", where, value.dump());
  }
  if (range.lo > range.hi) fail("{} is {}; accepted: min ≤ max", where, value.dump());
  return range;
}

/// The shortest decimal that reads back as the same float32, as the double that JSON prints so.
double shortest(float value) {
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = 0;
  std::from_chars(text.data(), end, result);
  return error == std::errc() ? result : static_cast<double>(value);
}

ordered_json spec_json(const QuantSpec& spec) {
  const auto text = [](bool value) { return value ? "True" : "False"; };
  return {{"bitwidth", std::to_string(spec.bits)},
          {"group_size", std::to_string(spec.group_size)},
          {"is_symmetric", text(spec.symmetric)},
          {"is_per_channel", text(spec.per_channel)},
          {"is_dynamic", text(spec.dynamic)}};
}

}  // namespace

namespace {

/// The entries of one module, or of its part for position 0.
void read_specs(const json& slots, const ModuleId& id, const model::ModelConfig& config,
                const std::string& where, const std::string& name, QuantConfig& qcfg) {
  if (!slots.is_object()) fail("{}: {}: accepted: an object with input, weight, output …", where, name);
  for (const auto& [slot_text, entry] : slots.items()) {
    if (slot_text == kFirstToken) continue;
    const std::optional<Slot> slot = find_slot(slot_text);
    if (!slot || !has_point(config, {id.layer, id.module, *slot})) {
      fail(
          "{}: {} has no {}; accepted: input, output, weight of norms and linears, input2 of products and "
          "of SiLU",
          where, name, printable(slot_text));
    }
    const Point point{id.layer, id.module, *slot};
    qcfg[point] = SpecReader(entry, fmt::format("{}: {}", where, point_name(point))).read(qcfg[point]);
    check_spec(qcfg[point], point, config, where);
  }
}

}  // namespace

QuantConfig parse_qcfg(std::string_view text, const model::ModelConfig& config, const std::string& where) {
  QuantConfig qcfg = make_qcfg(config, Scheme{});
  const json document = parse_modules(text, where);
  for (const auto& [name, slots] : document.items())
    read_specs(slots, require_module(name, config, where), config, where, name, qcfg);
  return qcfg;
}

std::optional<QuantConfig> read_first_qcfg(const std::filesystem::path& path, const QuantConfig& qcfg,
                                           const model::ModelConfig& config) {
  const std::string where = path.string();
  const json document = parse_modules(read_file(path), where);
  std::optional<QuantConfig> first;
  for (const auto& [name, slots] : document.items()) {
    const auto own = slots.find(kFirstToken);
    if (own == slots.end()) continue;
    if (!first) first = qcfg;
    const std::string part = fmt::format("{}: {}", name, kFirstToken);
    const ModuleId id = require_module(name, config, where);
    if (own->is_object() && own->contains("weight"))
      fail("{}: {} has no weight; accepted: input, input2, output", where, part);
    read_specs(*own, id, config, where, part, *first);
  }
  if (!first) return first;
  for (const Point& point : all_points(config)) {
    if (needs_range(*first, point) == needs_range(qcfg, point)) continue;
    fail(
        "{}: {}: is rounded by a static range at position 0 or elsewhere, and not in both; accepted: both or "
        "neither",
        where, point_name(point));
  }
  return first;
}

QuantConfig read_qcfg(const std::filesystem::path& path, const model::ModelConfig& config) {
  return parse_qcfg(read_file(path), config, path.string());
}

ordered_json qcfg_json(const QuantConfig& qcfg, const model::ModelConfig& config, const QuantConfig* first) {
  const QuantConfig defaults = make_qcfg(config, Scheme{});
  ordered_json document = ordered_json::object();
  for (const Point& point : all_points(config)) {
    const QuantSpec& spec = qcfg[point];
    const std::string slot(slot_name(point.slot));
    if (!spec.enabled() && !defaults[point].enabled()) continue;
    ordered_json& module = document[module_name(point.layer, point.module)];
    module[slot] = spec_json(spec);
    if (first != nullptr && point.slot != Slot::weight && (*first)[point].enabled())
      module[kFirstToken][slot] = spec_json((*first)[point]);
  }
  return document;
}

namespace {

/// The ranges of one module, or of its part for position 0.
void read_ranges(const json& slots, const ModuleId& id, const model::ModelConfig& config,
                 const std::string& where, const std::string& name, ActRanges& ranges) {
  if (!slots.is_object()) fail("{}: {}: accepted: an object with input, output …", where, name);
  for (const auto& [slot_text, value] : slots.items()) {
    if (slot_text == kFirstToken) continue;
    const std::optional<Slot> slot = find_slot(slot_text);
    if (!slot || *slot == Slot::weight) {
      fail("{}: {}: {} has no range; accepted: input, input2, output", where, name, printable(slot_text));
    }
    const Range range = read_range(value, fmt::format("{}: {}: {}", where, name, slot_text));
    if (has_point(config, {id.layer, id.module, *slot})) ranges[{id.layer, id.module, *slot}] = range;
  }
}

}  // namespace

ActRanges parse_act_ranges(std::string_view text, const model::ModelConfig& config,
                           const std::string& where) {
  ActRanges ranges(config.num_layers);
  const json document = parse_modules(text, where);
  for (const auto& [name, slots] : document.items())
    read_ranges(slots, require_module(name, config, where), config, where, name, ranges);
  return ranges;
}

ActRanges read_first_ranges(const std::filesystem::path& path, const model::ModelConfig& config) {
  const std::string where = path.string();
  ActRanges ranges(config.num_layers);
  const json document = parse_modules(read_file(path), where);
  for (const auto& [name, slots] : document.items()) {
    const auto own = slots.find(kFirstToken);
    if (own == slots.end()) continue;
    read_ranges(*own, require_module(name, config, where), config, where,
                fmt::format("{}: {}", name, kFirstToken), ranges);
  }
  return ranges;
}

ActRanges read_act_ranges(const std::filesystem::path& path, const model::ModelConfig& config) {
  return parse_act_ranges(read_file(path), config, path.string());
}

ordered_json act_ranges_json(const ActRanges& ranges, const model::ModelConfig& config,
                             const ActRanges* first) {
  ordered_json document = ordered_json::object();
  for (const Point& point : all_points(config)) {
    const std::string slot(slot_name(point.slot));
    const auto add = [&](const std::optional<Range>& range, ordered_json& to) {
      if (range) to[slot] = {shortest(range->lo), shortest(range->hi)};
    };
    const bool own = first != nullptr && (*first)[point];
    if (!ranges[point] && !own) continue;
    ordered_json& module = document[module_name(point.layer, point.module)];
    add(ranges[point], module);
    if (own) add((*first)[point], module[kFirstToken]);
  }
  return document;
}

}  // namespace qeval::quant
