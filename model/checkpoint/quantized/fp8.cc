// FP8: weight F8_E4M3 [out, in] with scales that multiply, whatever they are called.
// `fp8` of DeepSeek and Qwen: weight_scale_inv [⌈out/r⌉, ⌈in/c⌉] of weight_block_size [r, c]; activations per
// token and c inputs. Of Mistral: weight_scale_inv and activation_scale, one number each. AutoFP8: the same
// as weight_scale and input_scale. `fbgemm_fp8`: weight_scale [out, 1], activations per token.

#include "base/error.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

struct Fp8Settings {
  std::string where, skip_rule;
  std::optional<std::pair<int64_t, int64_t>> block;  ///< rows, columns
  bool fixed = false;                                ///< activation_scheme: static
  SkippedNames skipped;
};

bool is_fp8(const ModuleTensors& tensors) {
  const TensorView* weight = tensors.find("weight");
  return weight != nullptr && weight->dtype == DType::f8_e4m3;
}

Fp8Settings read_fp8_settings(const QuantizationConfig& config) {
  config.refuse_unknown({"activation_scheme", "weight_block_size", "fmt", "scale_fmt",
                         "modules_to_not_convert", "ignored_layers", "dequantize", "kv_cache_scheme",
                         "weight_per_tensor", "act_per_tensor"});
  const JsonObject fields = config.object();
  Fp8Settings settings;
  settings.where = config.where;
  if (fields.string("fmt", "e4m3") != "e4m3") fields.refuse("fmt", "e4m3");
  config.refuse({"scale_fmt"}, "scales that are powers of two are not read");
  config.refuse({"kv_cache_scheme"}, "not read with this method");
  const std::string scheme = fields.string("activation_scheme", "dynamic");
  if (scheme != "static" && scheme != "dynamic") fields.refuse("activation_scheme", "static, dynamic");
  settings.fixed = scheme == "static";
  if (fields.find("weight_block_size") != nullptr) {
    const std::vector<double> sizes = fields.numbers("weight_block_size");
    if (sizes.size() != 2 || !(sizes[0] >= 1) || !(sizes[1] >= 1) || sizes[0] > 1e6 || sizes[1] > 1e6)
      fields.refuse("weight_block_size", "two sizes of at least 1");
    settings.block = {static_cast<int64_t>(sizes[0]), static_cast<int64_t>(sizes[1])};
    if (settings.fixed) fields.refuse("activation_scheme", "dynamic, with weight_block_size");
  }
  settings.skip_rule = config.where + (fields.find("ignored_layers") != nullptr ? ": ignored_layers"
                                                                                : ": modules_to_not_convert");
  settings.skipped = skipped_names(fields, {"modules_to_not_convert", "ignored_layers"});
  return settings;
}

std::optional<QuantizedModule> read_fp8_module(const Fp8Settings& settings, ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const auto [rows, cols] = std::pair(request.rows, request.cols);
  const bool usual = request.kind == ModuleRequest::Kind::linear;
  if (!check_agreement(tensors, "weight", is_fp8(tensors), usual && !settings.skipped.surely(request.name),
                       !usual || settings.skipped.possibly(request.name), settings.skip_rule))
    return std::nullopt;
  QuantizedModule result;
  const char* scale = tensors.first_of({"weight_scale_inv", "weight_scale"});
  result.input = {.type = ActivationRounding::Type::e4m3, .source = ActivationRounding::Scale::token};
  if (settings.block) {
    const auto [r, c] = *settings.block;
    StoredScales scales =
        tensors.scales(scale, {divide_up(rows, r), divide_up(cols, c)}, divide_up(cols, c), 1);
    scales.rows_per_scale = r;
    result.weight = read_fp8(tensors, fmt::format("FP8 {}x{}", r, c), scales, c);
    result.input->source = ActivationRounding::Scale::group;
    result.input->group = c;
    return result;
  }
  const float value = tensors.scalar(scale);
  if (settings.fixed) {
    result.input->source = ActivationRounding::Scale::fixed;
    result.input->scale = tensors.scalar(tensors.first_of({"activation_scale", "input_scale"}));
  } else {
    for (const char* input : {"activation_scale", "input_scale"}) {
      if (tensors.has(input))
        fail("{} is there, but {}: activation_scheme is dynamic; accepted: static with it",
             tensors.where(input), settings.where);
    }
  }
  result.weight =
      read_fp8(tensors, "FP8 per tensor", {.type = StoredScales::Type::one, .global = value}, cols);
  return result;
}

}  // namespace

std::shared_ptr<CodedWeight> read_fp8(ModuleTensors& tensors, const std::string& name, StoredScales scales,
                                      int64_t group) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  const TensorView& codes = tensors.take("weight", {rows, cols}, {DType::f8_e4m3});
  auto weight = make_coded(tensors, name, group);
  weight->codes.data = codes.bytes.data();
  weight->codes.stride = cols;
  weight->values = e4m3_values();
  weight->value_count = 256;
  weight->scales = scales;
  return weight;
}

Quantization open_fp8(const QuantizationConfig& config) {
  auto settings = std::make_shared<const Fp8Settings>(read_fp8_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_fp8_module(*settings, tensors); };
  return result;
}

Quantization open_fbgemm_fp8(const QuantizationConfig& config) {
  config.refuse_unknown({"activation_scale_ub", "modules_to_not_convert"});
  const JsonObject fields = config.object();
  const auto bound = static_cast<float>(fields.number("activation_scale_ub", 1200.0));
  if (!(bound > 0)) fields.refuse("activation_scale_ub", "a number above 0");
  const SkippedNames skipped = skipped_names(fields, {"modules_to_not_convert"});
  const std::string rule = config.where + ": modules_to_not_convert";
  Quantization result;
  result.read = [=](ModuleTensors& tensors) -> std::optional<QuantizedModule> {
    const ModuleRequest& request = tensors.request();
    const bool usual = request.kind == ModuleRequest::Kind::linear;
    if (!check_agreement(tensors, "weight", is_fp8(tensors), usual && !skipped.surely(request.name),
                         !usual || skipped.possibly(request.name), rule))
      return std::nullopt;
    QuantizedModule module;
    const StoredScales scales = tensors.scales("weight_scale", {request.rows, 1}, 1, 0);
    module.weight = read_fp8(tensors, "FP8 per channel", scales, request.cols);
    module.input = {.type = ActivationRounding::Type::e4m3,
                    .source = ActivationRounding::Scale::token,
                    .upper_bound = bound};
    return module;
  };
  return result;
}

}  // namespace qeval::model
