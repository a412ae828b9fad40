// AutoRound: `packing_format` (older: `backend`) says whose tensors they are. auto_round:auto_gptq: GPTQ's
// with zero points less one, field by field; auto_round, auto_round:gptqmodel: GPTQ's with zero points as
// they are; auto_round:auto_awq: AWQ's. `extra_config`: module name, or regular expression found in it, →
// overrides of bits, group_size, sym; 16 bits and more: plain. 5 to 7 bits are dense streams.

#include <algorithm>

#include "base/error.h"
#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"

namespace qeval::model {
namespace {

struct Scheme {
  int64_t bits = 4, group_size = 128;
  bool symmetric = true;
};

struct AutoRoundSettings {
  std::string where, packing;
  Scheme usual;
  bool head = false;
  struct Override {
    std::string name;
    std::optional<NamePattern> pattern;  ///< of those that can be one
    Scheme scheme;
  };
  std::vector<Override> overrides;  ///< in the order of the file
  std::vector<std::string> blocks;  ///< beginnings of the names of what is quantized; empty: all blocks
};

/// Values that change what is stored, and the only ones that are understood.
void check_values(const JsonObject& fields) {
  if (fields.string("data_type", "int") != "int" && fields.string("data_type") != "float")
    fields.refuse("data_type", "int");
  if (fields.find("act_bits") != nullptr && fields.integer("act_bits") < 16)
    fields.refuse("act_bits", "16 or more (no rounding of activations)");
  for (const char* key : {"super_bits", "super_group_size", "rotation_config", "hadamard_config"}) {
    const nlohmann::json* value = fields.find(key);
    if (value != nullptr && !value->empty()) fields.refuse(key, "null");
  }
}

Scheme read_scheme(const JsonObject& fields, const Scheme& usual) {
  check_values(fields);
  Scheme scheme{fields.integer("bits", usual.bits), fields.integer("group_size", usual.group_size),
                fields.boolean("sym", usual.symmetric)};
  if (scheme.bits < 2 || (scheme.bits > 8 && scheme.bits < 16))
    fields.refuse("bits", "2 to 8, or 16 and more");
  if (scheme.group_size != -1 && scheme.group_size < 1) fields.refuse("group_size", "-1 or at least 1");
  return scheme;
}

AutoRoundSettings read_auto_round_settings(const QuantizationConfig& config) {
  const JsonObject fields = config.object();
  AutoRoundSettings settings;
  settings.where = config.where;
  fields.integer("bits");  // must be there
  if (fields.string("data_type", "int") != "int") fields.refuse("data_type", "int");
  settings.usual = read_scheme(fields, {});
  settings.head = fields.boolean("quant_lm_head", false);
  const char* key = fields.find("packing_format") != nullptr ? "packing_format" : "backend";
  settings.packing = fields.string(key, "auto_round:auto_gptq");
  constexpr std::array kKnown{"auto_round:auto_gptq", "auto_round", "auto_round:gptqmodel",
                              "auto_round:auto_awq"};
  if (std::ranges::find(kKnown, settings.packing) == kKnown.end())
    fields.refuse(key, "auto_round, auto_round:auto_gptq, auto_round:gptqmodel, auto_round:auto_awq");
  if (const auto extra = config.ordered.find("extra_config");
      extra != config.ordered.end() && !extra->is_null()) {
    if (!extra->is_object()) fields.refuse("extra_config", "an object of overrides by module");
    for (const auto& [name, value] : extra->items()) {
      const std::string where = fmt::format("{}: extra_config: {}", config.where, printable(name));
      const nlohmann::json values = nlohmann::json::parse(value.dump());
      const bool plain_name = name.find_first_of("*+?[](){}|^$\\") == std::string::npos;
      settings.overrides.push_back({name, plain_name ? std::nullopt : std::optional(NamePattern(name, where)),
                                    read_scheme(JsonObject(values, where), settings.usual)});
    }
  }
  const char* blocks =
      fields.find("block_name_to_quantize") != nullptr ? "block_name_to_quantize" : "to_quant_block_names";
  if (const nlohmann::json* value = fields.find(blocks); value != nullptr) {
    const auto add = [&](std::string names) {  // one name, or several behind commas
      for (size_t end = 0; end != std::string::npos;
           names = names.substr(end == std::string::npos ? 0 : end + 1)) {
        end = names.find(',');
        settings.blocks.push_back(names.substr(0, end));
      }
    };
    if (value->is_string()) {
      add(value->get<std::string>());
    } else {
      for (const std::string& name : fields.strings(blocks)) add(name);
    }
  }
  return settings;
}

std::optional<QuantizedModule> read_auto_round_module(const AutoRoundSettings& settings,
                                                      ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  using Kind = ModuleRequest::Kind;
  const auto begins = [&](const std::string& name) { return request.name.starts_with(name); };
  bool quantized = request.kind == Kind::linear &&
                   (settings.blocks.empty() || std::ranges::any_of(settings.blocks, begins));
  quantized = quantized || (request.kind == Kind::head && settings.head);
  std::string rule = settings.where;
  Scheme scheme = settings.usual;
  const auto exact = std::ranges::find(settings.overrides, request.name, &AutoRoundSettings::Override::name);
  const auto found =
      exact != settings.overrides.end()
          ? exact
          : std::ranges::find_if(settings.overrides, [&](const AutoRoundSettings::Override& own) {
              return own.pattern ? own.pattern->occurs_in(request.name)
                                 : request.name.find(own.name) != std::string::npos;
            });
  if (found != settings.overrides.end() && request.kind != Kind::embedding) {
    scheme = found->scheme;
    quantized = scheme.bits < 16;
    rule += ": extra_config";
  }
  if (!check_agreement(tensors, "qweight", tensors.has("qweight"), quantized, !quantized, rule)) return {};
  if (settings.packing == "auto_round:auto_awq") {
    if (scheme.bits != 4) fail("{}: bits is {}; accepted with auto_round:auto_awq: 4", rule, scheme.bits);
    return QuantizedModule{read_awq_layout(tensors, "AutoRound", scheme.group_size), {}, {}};
  }
  GptqLayout layout;
  layout.name = "AutoRound";
  layout.bits = static_cast<int>(scheme.bits);
  layout.group_size = scheme.group_size;
  layout.zeros =
      settings.packing == "auto_round:auto_gptq" ? GptqLayout::Zeros::v1_fields : GptqLayout::Zeros::v2;
  return QuantizedModule{read_gptq_layout(tensors, layout), {}, {}};
}

}  // namespace

Quantization open_auto_round(const QuantizationConfig& config) {
  auto settings = std::make_shared<const AutoRoundSettings>(read_auto_round_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_auto_round_module(*settings, tensors); };
  return result;
}

}  // namespace qeval::model
