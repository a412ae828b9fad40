// The config of compressed-tensors: who is hit by which group, and what the group says. Absent fields are
// null.

#include <algorithm>

#include "base/error.h"
#include "model/checkpoint/quantized/compressed_tensors.h"

namespace qeval::model {
namespace {

CtTarget read_target(const std::string& text, const std::string& where) {
  if (text.starts_with("re:")) return {text, NamePattern(std::string_view(text).substr(3), where)};
  return {text, std::nullopt};
}

void read_block(const JsonObject& fields, CtArguments& arguments) {
  const char* key = "block_structure";
  const nlohmann::json* value = fields.find(key);
  if (value != nullptr && value->is_array()) {
    const std::vector<double> sizes = fields.numbers(key);
    if (sizes.size() == 2 && sizes[0] >= 1 && sizes[1] >= 1 && sizes[0] <= 1e6 && sizes[1] <= 1e6) {
      arguments.block_rows = static_cast<int64_t>(sizes[0]);
      arguments.block_cols = static_cast<int64_t>(sizes[1]);
      return;
    }
  } else if (value != nullptr && value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    int rows = 0, cols = 0, end = 0;
    if (std::sscanf(text.c_str(), "%7dx%7d%n", &rows, &cols, &end) == 2 &&
        static_cast<size_t>(end) == text.size() && rows >= 1 && cols >= 1) {
      arguments.block_rows = rows;
      arguments.block_cols = cols;
      return;
    }
  }
  fields.refuse(key, "[rows, columns] or \"128x128\"");
}

void read_strategy(const JsonObject& fields, CtArguments& arguments) {
  arguments.group_size = fields.integer("group_size", 0);
  // As the library fills it in: from the group's size.
  const char* usual = arguments.group_size > 0 ? "group" : arguments.group_size == -1 ? "channel" : "tensor";
  const std::string name = fields.string("strategy", usual);
  if (name == "tensor") {
    arguments.strategy = CtStrategy::tensor;
  } else if (name == "channel") {
    arguments.strategy = CtStrategy::channel;
  } else if (name == "token") {
    arguments.strategy = CtStrategy::token;
  } else if (name == "block") {
    arguments.strategy = CtStrategy::block;
    read_block(fields, arguments);
  } else if (name == "group" || name == "tensor_group") {
    arguments.strategy = CtStrategy::group;
    arguments.tensor_group = name == "tensor_group";
    if (arguments.group_size == -1 && !arguments.tensor_group)
      arguments.strategy = CtStrategy::channel;
    else if (arguments.group_size < 1)
      fields.refuse("group_size", "at least 1");
  } else {
    fields.refuse("strategy", "tensor, channel, group, tensor_group, block, token");
  }
}

CtArguments read_arguments(const JsonObject& fields) {
  constexpr std::array<std::string_view, 15> kKnown{
      "num_bits",        "type",     "symmetric", "strategy",      "group_size",
      "block_structure", "actorder", "dynamic",   "observer",      "observer_kwargs",
      "scale_dtype",     "zp_dtype", "is_mx",     "observer_name", "min_max_percentile"};
  for (const auto& [key, value] : fields.value().items()) {
    if (!value.is_null() && std::ranges::find(kKnown, std::string_view(key)) == kKnown.end())
      fail("{}: {} is {}; no such field is known here", fields.where(), printable(key),
           printable(value.dump(), 60));
  }
  CtArguments arguments;
  arguments.bits = static_cast<int>(fields.integer("num_bits", 8));
  const std::string type = fields.string("type", "int");
  if (type != "int" && type != "float") fields.refuse("type", "int, float");
  arguments.is_float = type == "float";
  const bool known = arguments.is_float ? arguments.bits == 4 || arguments.bits == 8
                                        : arguments.bits >= 1 && arguments.bits <= 8;
  if (!known) fields.refuse("num_bits", arguments.is_float ? "4, 8" : "1 to 8");
  arguments.symmetric = fields.boolean("symmetric", true);
  const nlohmann::json* dynamic = fields.find("dynamic");
  arguments.dynamic = dynamic != nullptr && (*dynamic == true || *dynamic == "local");
  if (dynamic != nullptr && !arguments.dynamic && *dynamic != false)
    fields.refuse("dynamic", "true, false, \"local\"");
  const nlohmann::json* order = fields.find("actorder");
  arguments.ordered = order != nullptr && (*order == "group" || *order == "dynamic" || *order == true);
  if (order != nullptr && !arguments.ordered && *order != "weight" && *order != "static" && *order != false)
    fields.refuse("actorder", "group, dynamic, weight, static, null");
  arguments.power_of_two = fields.string("scale_dtype", "") == "torch.uint8";
  read_strategy(fields, arguments);
  return arguments;
}

CtFormat read_format(const JsonObject& group, const JsonObject& top,
                     const std::optional<CtArguments>& weights) {
  const bool own = group.find("format") != nullptr;
  const JsonObject& from = own ? group : top;
  const std::string name = from.string("format");
  if (name == "pack-quantized") return CtFormat::packed;
  if (name == "int-quantized") return CtFormat::integers;
  if (name == "float-quantized") return CtFormat::floats;
  if (name == "naive-quantized") return weights && weights->is_float ? CtFormat::floats : CtFormat::integers;
  if (name == "nvfp4-pack-quantized") return CtFormat::nvfp4;
  if (name == "mxfp4-pack-quantized") return CtFormat::mxfp4;
  if (name == "mxfp8-quantized") return CtFormat::mxfp8;
  from.refuse("format",
              "pack-quantized, int-quantized, naive-quantized, float-quantized, nvfp4-pack-quantized, "
              "mxfp4-pack-quantized, mxfp8-quantized; mixed-precision where each group has its own");
}

/// What a format's tensors cannot say.
void check_group(const JsonObject& fields, const CtGroup& group) {
  if (!group.weights) return;
  const CtArguments& w = *group.weights;
  const JsonObject weights = fields.object("weights");
  if (w.dynamic) weights.refuse("dynamic", "false");
  if (w.strategy == CtStrategy::token) weights.refuse("strategy", "tensor, channel, group, block");
  const bool floats = group.format != CtFormat::packed && group.format != CtFormat::integers;
  if (w.is_float != floats) weights.refuse("type", floats ? "float" : "int");
  const int wanted = group.format == CtFormat::nvfp4 || group.format == CtFormat::mxfp4 ? 4 : 8;
  if (floats && w.bits != wanted) weights.refuse("num_bits", fmt::format("{}", wanted));
  if (floats && !w.symmetric) weights.refuse("symmetric", "true");
  const bool grouped =
      group.format == CtFormat::nvfp4 || group.format == CtFormat::mxfp4 || group.format == CtFormat::mxfp8;
  if (grouped && w.strategy != CtStrategy::group) weights.refuse("strategy", "group, tensor_group");
  if (w.ordered && (w.strategy != CtStrategy::group || group.format != CtFormat::packed))
    weights.refuse("actorder", "null, weight, static");
}

/// "0.18.0": whether it is 0.18 or later.
std::optional<bool> read_version(const JsonObject& fields) {
  if (fields.find("version") == nullptr) return std::nullopt;
  int major = 0, minor = 0;
  if (std::sscanf(fields.string("version").c_str(), "%4d.%4d", &major, &minor) != 2) return std::nullopt;
  return major > 0 || minor >= 18;
}

std::optional<Quantization::CacheRounding> read_cache(const JsonObject& fields) {
  if (fields.find("kv_cache_scheme") == nullptr) return std::nullopt;
  const JsonObject scheme = fields.object("kv_cache_scheme");
  const CtArguments arguments = read_arguments(scheme);
  if (arguments.bits != 8 || arguments.dynamic || !arguments.symmetric ||
      arguments.strategy != CtStrategy::tensor)
    fields.refuse("kv_cache_scheme", "8 bits, static, symmetric, one scale per tensor");
  Quantization::CacheRounding cache{"k_scale", "v_scale", {}};
  cache.rounding.type =
      arguments.is_float ? ActivationRounding::Type::e4m3 : ActivationRounding::Type::integer;
  return cache;
}

}  // namespace

bool CtTarget::hits(const ModuleRequest& request) const {
  if (pattern) return pattern->matches_start(request.name);
  if (text == request.name) return true;
  return text == (request.kind == ModuleRequest::Kind::embedding ? "Embedding" : "Linear") &&
         !request.transposed;
}

const CtGroup* CtConfig::find(const ModuleRequest& request,
                              const std::function<void(std::string)>& note) const {
  if (std::ranges::any_of(ignored, [&](const CtTarget& target) { return target.hits(request); }))
    return nullptr;
  const std::pair<CtTarget, size_t>*name = nullptr, *first = nullptr, *least = nullptr, *of_class = nullptr;
  for (const auto& target : targets) {
    if (!target.first.hits(request)) continue;
    if (target.first.pattern) {
      if (first == nullptr) first = &target;
      if (least == nullptr || target.first.text < least->first.text) least = &target;
    } else if (target.first.text == request.name) {
      name = &target;
    } else {
      of_class = &target;
    }
  }
  if (name == nullptr && first != nullptr && first->second != least->second) {
    note(fmt::format(
        "{}: {} and {} hit {}: the first by their letters is taken, as the library does; vLLM takes the "
        "first "
        "in the file",
        where, printable(least->first.text), printable(first->first.text), printable(request.name)));
  }
  const auto* found = name != nullptr ? name : least != nullptr ? least : of_class;
  return found == nullptr ? nullptr : &groups[found->second];
}

CtConfig read_compressed_tensors_config(const QuantizationConfig& config) {
  config.refuse_unknown({"config_groups", "format", "global_compression_ratio", "ignore", "kv_cache_scheme",
                         "quantization_status", "sparsity_config", "transform_config", "version",
                         "run_compressed"});
  config.refuse({"transform_config"}, "transforms of weights and activations are not read");
  const JsonObject fields = config.object();
  CtConfig result;
  result.where = config.where;
  result.beside_floats = config.where.ends_with(kWeightCodes);
  if (fields.find("sparsity_config") != nullptr) {
    const JsonObject sparsity = fields.object("sparsity_config");
    if (sparsity.string("format", "dense") != "dense") sparsity.refuse("format", "dense");
  }
  const std::string status = fields.string("quantization_status", "compressed");
  if (status != "compressed" && status != "frozen")
    fields.refuse("quantization_status", "compressed, frozen");
  if (fields.find("config_groups") == nullptr) fields.refuse("config_groups", "an object of groups");
  const auto& ordered = config.ordered.at("config_groups");
  if (!ordered.is_object()) fields.refuse("config_groups", "an object of groups");
  for (const auto& [name, unused] : ordered.items()) {
    const JsonObject group(fields.value().at("config_groups").at(name),
                           fmt::format("{}: config_groups: {}", config.where, printable(name)));
    for (const auto& [key, value] : group.value().items()) {
      constexpr std::array kKnown{"targets", "weights", "input_activations", "output_activations", "format"};
      if (!value.is_null() && std::ranges::find(kKnown, key) == kKnown.end())
        fail("{}: {} is {}; no such field is known here", group.where(), printable(key),
             printable(value.dump(), 60));
    }
    CtGroup own;
    own.where = group.where();
    const auto arguments = [&](const char* key) -> std::optional<CtArguments> {
      if (group.find(key) == nullptr) return std::nullopt;
      return read_arguments(group.object(key));
    };
    own.weights = arguments("weights");
    own.input = arguments("input_activations");
    own.output = arguments("output_activations");
    own.format = read_format(group, fields, own.weights);
    check_group(group, own);
    for (const std::string& target : group.strings("targets"))
      result.targets.emplace_back(read_target(target, group.where() + ": targets"), result.groups.size());
    result.groups.push_back(std::move(own));
  }
  if (fields.find("ignore") != nullptr) {
    for (const std::string& target : fields.strings("ignore"))
      result.ignored.push_back(read_target(target, config.where + ": ignore"));
  }
  result.dense = read_version(fields);
  result.cache = read_cache(fields);
  return result;
}

}  // namespace qeval::model
