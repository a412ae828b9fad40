// Gemma's checkpoints for phones (`quant_method: gemma`). Linear maps: weight U8 [out, in·bits/8] of 2 or 4
// bits, low bits first, value = code − 2^(bits − 1), or I8 [out, in]; weight_scale F32 [out, 1].
// embedding_quantized and embedding_scale [rows, n] of embeddings, a scale for each n-th part of the columns.
// input_activation_scale and output_activation_scale F32, one number each: inputs and outputs through
// clamp(round(x / s), −128, 127) · s; 0 stands for none. Bits: the first regular expression of
// `module_quant_configs` that is found in the module's name, else `num_bits`.

#include <algorithm>

#include "base/error.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"

namespace qeval::model {
namespace {

struct GemmaQuantSettings {
  std::string where;
  int64_t bits = 0;
  bool embeddings = false;
  std::vector<std::string> skipped;
  struct Rule {
    NamePattern pattern;
    int64_t bits;
  };
  std::vector<Rule> rules;
};

int64_t read_bits(const JsonObject& fields) {
  const int64_t bits = fields.integer("num_bits");
  if (bits != 2 && bits != 4 && bits != 8) fields.refuse("num_bits", "2, 4, 8");
  return bits;
}

GemmaQuantSettings read_gemma_quant_settings(const QuantizationConfig& config) {
  config.refuse_unknown(
      {"num_bits", "quantize_embeddings", "modules_to_not_convert", "module_quant_configs"});
  const JsonObject fields = config.object();
  GemmaQuantSettings settings;
  settings.where = config.where;
  settings.bits = read_bits(fields);
  settings.embeddings = fields.boolean("quantize_embeddings", false);
  settings.skipped = skipped_names(fields, {"modules_to_not_convert"}).names;
  const auto rules = config.ordered.find("module_quant_configs");
  if (rules == config.ordered.end() || rules->is_null()) return settings;
  if (!rules->is_object()) fields.refuse("module_quant_configs", "an object of regular expressions");
  for (const auto& [pattern, value] : rules->items()) {
    const std::string where = fmt::format("{}: module_quant_configs: {}", config.where, printable(pattern));
    const nlohmann::json values = nlohmann::json::parse(value.dump());
    const JsonObject own(values, where);
    for (const auto& [key, unused] : values.items()) {
      if (key != "num_bits") fail("{}: {} is not known here; accepted: num_bits", where, printable(key));
    }
    settings.rules.push_back({NamePattern(pattern, where), read_bits(own)});
  }
  return settings;
}

std::optional<ActivationRounding> read_gemma_rounding(ModuleTensors& tensors, std::string_view suffix) {
  const float scale = tensors.scalar(suffix, true);
  if (scale == 0) return std::nullopt;
  return ActivationRounding{.scale = scale};
}

std::optional<QuantizedModule> read_gemma_quant_module(const GemmaQuantSettings& settings,
                                                       ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const auto [rows, cols] = std::pair(request.rows, request.cols);
  const bool embedding = request.kind == ModuleRequest::Kind::embedding;
  const char* suffix = embedding ? "embedding_quantized" : "weight";
  const TensorView* codes = tensors.find(suffix);
  const bool packed = codes != nullptr && (codes->dtype == DType::u8 || codes->dtype == DType::i8);
  const bool skipped = std::ranges::any_of(settings.skipped, [&](const std::string& name) {
    return request.name.starts_with(name) || request.name.ends_with(name);
  });
  const bool quantized = !skipped && (!embedding || settings.embeddings);
  if (!check_agreement(tensors, suffix, packed, quantized, !quantized,
                       settings.where + (embedding && !settings.embeddings ? ": quantize_embeddings"
                                                                           : ": modules_to_not_convert")))
    return std::nullopt;
  int64_t bits = settings.bits;
  for (const GemmaQuantSettings::Rule& rule : settings.rules) {
    if (!rule.pattern.occurs_in(request.name)) continue;
    bits = rule.bits;
    break;
  }
  if (cols * bits % 8 != 0) {
    fail("{}: {} columns of {} bits are not whole bytes; accepted: multiples of {}", tensors.where(suffix),
         cols, bits, 8 / bits);
  }
  const TensorView& stored =
      tensors.take(suffix, {rows, cols * bits / 8}, {bits == 8 ? DType::i8 : DType::u8});
  const char* scale_suffix = embedding ? "embedding_scale" : "weight_scale";
  const TensorView* scale = tensors.find(scale_suffix);
  const int64_t parts = embedding && scale != nullptr && scale->shape.size() == 2 ? scale->shape[1] : 1;
  if (parts < 1 || cols % parts != 0)
    fail("{} has shape {}; accepted: [{}, a divisor of {}]", tensors.where(scale_suffix),
         shape_text(scale->shape), rows, cols);
  const StoredScales scales = tensors.scales(scale_suffix, {rows, parts}, parts, 1);
  QuantizedModule result;
  if (!embedding) {
    result.input = read_gemma_rounding(tensors, "input_activation_scale");
    result.output = read_gemma_rounding(tensors, "output_activation_scale");
  }
  result.weight = make_coded(
      tensors, fmt::format("Gemma QAT {}-bit {}", bits, group_text(parts == 1 ? -1 : cols / parts)),
      cols / parts);
  result.weight->scales = scales;
  if (bits == 8) {
    use_signed_bytes(*result.weight, stored, nullptr);
    return result;
  }
  result.weight->codes.bits = static_cast<int>(bits);
  result.weight->codes.data = stored.bytes.data();
  result.weight->codes.stride = cols * bits / 8;
  result.weight->zeros.constant = 1 << (bits - 1);
  return result;
}

}  // namespace

Quantization open_gemma(const QuantizationConfig& config) {
  auto settings = std::make_shared<const GemmaQuantSettings>(read_gemma_quant_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_gemma_quant_module(*settings, tensors); };
  result.ignored_suffixes = {".self_attn.k_cache_scale", ".self_attn.v_cache_scale"};
  result.ignored_note = "scales of the key and value cache are not used, as transformers does not";
  return result;
}

}  // namespace qeval::model
