// default_qcfg.json and act_dict.json (QUANTIZATION.md §3): read from strangers, written for the paper's
// code.

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

QuantConfig parse_qcfg(std::string_view text, const model::ModelConfig& config, const std::string& where) {
  QuantConfig qcfg = make_qcfg(config, Scheme{});
  const json document = parse_modules(text, where);
  for (const auto& [name, slots] : document.items()) {
    const ModuleId id = require_module(name, config, where);
    if (!slots.is_object()) fail("{}: {}: accepted: an object with input, weight, output …", where, name);
    for (const auto& [slot_text, entry] : slots.items()) {
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
  return qcfg;
}

QuantConfig read_qcfg(const std::filesystem::path& path, const model::ModelConfig& config) {
  return parse_qcfg(read_file(path), config, path.string());
}

ordered_json qcfg_json(const QuantConfig& qcfg, const model::ModelConfig& config) {
  const QuantConfig defaults = make_qcfg(config, Scheme{});
  ordered_json document = ordered_json::object();
  for (const Point& point : all_points(config)) {
    const QuantSpec& spec = qcfg[point];
    if (!spec.enabled() && !defaults[point].enabled()) continue;
    document[module_name(point.layer, point.module)][std::string(slot_name(point.slot))] = spec_json(spec);
  }
  return document;
}

ActRanges parse_act_ranges(std::string_view text, const model::ModelConfig& config,
                           const std::string& where) {
  ActRanges ranges(config.num_layers);
  const json document = parse_modules(text, where);
  for (const auto& [name, slots] : document.items()) {
    const ModuleId id = require_module(name, config, where);
    if (!slots.is_object()) fail("{}: {}: accepted: an object with input, output …", where, name);
    for (const auto& [slot_text, value] : slots.items()) {
      const std::optional<Slot> slot = find_slot(slot_text);
      if (!slot || *slot == Slot::weight) {
        fail("{}: {}: {} has no range; accepted: input, input2, output", where, name, printable(slot_text));
      }
      const Range range = read_range(value, fmt::format("{}: {}: {}", where, name, slot_text));
      if (has_point(config, {id.layer, id.module, *slot})) ranges[{id.layer, id.module, *slot}] = range;
    }
  }
  return ranges;
}

ActRanges read_act_ranges(const std::filesystem::path& path, const model::ModelConfig& config) {
  return parse_act_ranges(read_file(path), config, path.string());
}

ordered_json act_ranges_json(const ActRanges& ranges, const model::ModelConfig& config) {
  ordered_json document = ordered_json::object();
  for (const Point& point : all_points(config)) {
    const std::optional<Range>& range = ranges[point];
    if (!range) continue;
    document[module_name(point.layer, point.module)][std::string(slot_name(point.slot))] = {
        shortest(range->lo), shortest(range->hi)};
  }
  return document;
}

}  // namespace qeval::quant
