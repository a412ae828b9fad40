// NVIDIA's ModelOpt. FP8: weight F8_E4M3 [out, in], weight_scale and input_scale one number each. NVFP4:
// weight U8 [out, in/2], E2M1, the low nibble first; weight_scale F8_E4M3 [out, in/16]; weight_scale_2 F32;
// W = v · (scale · scale_2); inputs of 16: s8 = FP8(max|x| / 6 / input_scale), s = s8 · input_scale.

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/strict_json.h"
#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"

namespace qeval::model {
namespace {

constexpr int64_t kNvfp4Group = 16;

struct ModelOptSettings {
  std::string where, key;
  bool fp4 = false;
  std::vector<std::string> skipped;  ///< names with wildcards
};

/// What the two files may both say, and only one of them does.
void refuse_cache(const nlohmann::json& fields, const std::string& where) {
  for (const char* key : {"kv_cache_quant_algo", "kv_cache_scheme"}) {
    const auto found = fields.find(key);
    if (found != fields.end() && !found->is_null())
      fail("{}: {} is {}; accepted: null", where, key, printable(found->dump(), 60));
  }
}

ModelOptSettings read_modelopt_settings(const QuantizationConfig& config) {
  config.refuse_unknown({"ignore", "exclude_modules", "quant_algo", "producer", "config_groups", "group_size",
                         "kv_cache_quant_algo", "kv_cache_scheme", "quantization", "has_zero_point",
                         "pre_quant_scale"});
  nlohmann::json values = config.fields;
  std::string where = config.where;
  if (const auto nested = values.find("quantization"); nested != values.end() && nested->is_object()) {
    values = nlohmann::json(*nested);
    where += ": quantization";
  }
  refuse_cache(values, where);
  const std::filesystem::path other = config.folder / "hf_quant_config.json";
  if (std::error_code code; std::filesystem::exists(other, code)) {
    const nlohmann::json document = parse_strict_json(read_file(other), other.string());
    const auto nested = document.find("quantization");
    if (nested != document.end() && nested->is_object())
      refuse_cache(*nested, other.string() + ": quantization");
  }
  const JsonObject fields(values, where);
  ModelOptSettings settings;
  settings.where = where;
  const std::string algorithm = fields.string("quant_algo");
  if (algorithm != "FP8" && algorithm != "NVFP4") fields.refuse("quant_algo", "FP8, NVFP4");
  settings.fp4 = algorithm == "NVFP4";
  if (settings.fp4 && fields.integer("group_size", kNvfp4Group) != kNvfp4Group)
    fields.refuse("group_size", "16");
  for (const char* key : {"has_zero_point", "pre_quant_scale"}) {
    if (fields.boolean(key, false)) fields.refuse(key, "false");
  }
  settings.key = fields.find("exclude_modules") != nullptr ? "exclude_modules" : "ignore";
  if (fields.find(settings.key.c_str()) != nullptr) settings.skipped = fields.strings(settings.key.c_str());
  return settings;
}

std::optional<QuantizedModule> read_modelopt_module(const ModelOptSettings& settings,
                                                    ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const auto [rows, cols] = std::pair(request.rows, request.cols);
  const TensorView* codes = tensors.find("weight");
  const bool packed = codes != nullptr && (codes->dtype == DType::u8 || codes->dtype == DType::f8_e4m3);
  const bool skipped = std::ranges::any_of(settings.skipped, [&](const std::string& pattern) {
    return matches_wildcard(pattern, request.name) || matches_wildcard(pattern + ".*", request.name);
  });
  const bool usual = request.kind != ModuleRequest::Kind::embedding;
  const bool must = request.kind == ModuleRequest::Kind::linear && !skipped;
  if (!check_agreement(tensors, "weight", packed, usual && !skipped, !must,
                       fmt::format("{}: {}", settings.where, settings.key)))
    return std::nullopt;
  QuantizedModule result;
  if (!settings.fp4) {
    const float scale = tensors.scalar("weight_scale"), input = tensors.scalar("input_scale");
    result.weight = read_fp8(tensors, "ModelOpt FP8 per tensor",
                             {.type = StoredScales::Type::one, .global = scale}, cols);
    result.input = {.type = ActivationRounding::Type::e4m3, .scale = input};
    return result;
  }
  const TensorView& scale =
      tensors.take("weight_scale", {rows, divide_up(cols, kNvfp4Group)}, {DType::f8_e4m3});
  const float global = tensors.scalar("weight_scale_2"), input = tensors.scalar("input_scale");
  result.weight = read_e2m1(tensors, "weight", "ModelOpt NVFP4",
                            {.type = StoredScales::Type::f8_e4m3,
                             .data = scale.bytes.data(),
                             .row_step = divide_up(cols, kNvfp4Group),
                             .group_step = 1,
                             .global = global},
                            kNvfp4Group);
  result.input = {.type = ActivationRounding::Type::e2m1,
                  .source = ActivationRounding::Scale::two_level,
                  .group = kNvfp4Group,
                  .global = input};
  return result;
}

}  // namespace

std::shared_ptr<CodedWeight> read_e2m1(ModuleTensors& tensors, std::string_view suffix,
                                       const std::string& name, StoredScales scales, int64_t group) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  if (cols % 2 != 0) fail("{}: {} columns; accepted: an even number", tensors.where(suffix), cols);
  const TensorView& codes = tensors.take(suffix, {rows, cols / 2}, {DType::u8});
  auto weight = make_coded(tensors, name, group);
  weight->codes.bits = 4;
  weight->codes.data = codes.bytes.data();
  weight->codes.stride = cols / 2;
  weight->values = e2m1_values();
  weight->value_count = 16;
  weight->scales = scales;
  return weight;
}

Quantization open_modelopt(const QuantizationConfig& config) {
  auto settings = std::make_shared<const ModelOptSettings>(read_modelopt_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_modelopt_module(*settings, tensors); };
  return result;
}

}  // namespace qeval::model
