// What says that a folder is quantized, and which reader it goes to.

#include <array>

#include "base/error.h"
#include "base/file.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

struct Method {
  std::string_view name;
  Quantization (*open)(const QuantizationConfig& config);
};

constexpr std::array kMethods{
    Method{"gptq", open_gptq},
    Method{"awq", open_awq},
    Method{"auto-round", open_auto_round},
    Method{"intel/auto-round", open_auto_round},
    Method{"compressed-tensors", open_compressed_tensors},
    Method{"fp8", open_fp8},
    Method{"fbgemm_fp8", open_fbgemm_fp8},
    Method{"modelopt", open_modelopt},
    Method{"modelopt_fp4", open_modelopt},
    Method{"bitsandbytes", open_bitsandbytes},
    Method{"gemma", open_gemma},
    Method{"torchao", open_torchao},
    Method{"mxfp4", open_mxfp4},
};

std::string known_methods() {
  std::string names;
  for (const Method& method : kMethods) names += (names.empty() ? "" : ", ") + std::string(method.name);
  return names;
}

/// The config at `key` of a file, or the file itself where key is empty.
std::optional<QuantizationConfig> read_quantization_config(const std::filesystem::path& file,
                                                           std::initializer_list<const char*> keys) {
  std::error_code code;
  if (!std::filesystem::exists(file, code)) return std::nullopt;
  const std::string text = read_file(file);
  nlohmann::json fields = parse_strict_json(text, file.string());
  nlohmann::ordered_json ordered = parse_ordered_json(text, file.string());
  if (keys.size() == 0) return QuantizationConfig{file.string(), {}, fields, ordered, ""};
  if (!fields.is_object()) return std::nullopt;
  for (const char* key : keys) {
    for (const char* nested : {"", "text_config"}) {
      const auto* own = &fields;
      const auto* own_ordered = &ordered;
      if (*nested != '\0') {
        if (!fields.contains(nested) || !fields[nested].is_object()) continue;
        own = &fields[nested];
        own_ordered = &ordered[nested];
      }
      if (!own->contains(key) || (*own)[key].is_null()) continue;
      return QuantizationConfig{
          fmt::format("{}: {}", file.string(), key), {}, (*own)[key], (*own_ordered)[key], ""};
    }
  }
  return std::nullopt;
}

std::optional<QuantizationConfig> find_config(const std::filesystem::path& folder) {
  if (auto config = read_quantization_config(folder / "config.json",
                                             {"quantization_config", "compression_config", kWeightCodes})) {
    const bool old = config->where.ends_with("compression_config");
    if (old && config->fields.is_object() && !config->fields.contains("quant_method"))
      config->fields["quant_method"] = "compressed-tensors";
    return config;
  }
  if (auto config = read_quantization_config(folder / "quantize_config.json", {})) {
    if (config->fields.is_object() && !config->fields.contains("quant_method"))
      config->fields["quant_method"] = "gptq";  // AutoGPTQ, which wrote such files, knew no other
    return config;
  }
  if (auto config = read_quantization_config(folder / "hf_quant_config.json", {"quantization"})) {
    if (config->fields.is_object() && !config->fields.contains("quant_method"))
      config->fields["quant_method"] = "modelopt";
    return config;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Quantization> find_quantization(const std::filesystem::path& folder,
                                              const Checkpoint& checkpoint, const std::string& gptq_zeros) {
  std::optional<QuantizationConfig> config = find_config(folder);
  if (!config) {
    if (!gptq_zeros.empty()) {
      fail("{} {}: {} has no quantization_config; accepted with GPTQ checkpoints", setting("gptq-zeros"),
           gptq_zeros, folder.string());
    }
    return std::nullopt;
  }
  config->gptq_zeros = gptq_zeros;
  config->folder = folder;
  const JsonObject fields = config->object();
  const std::string name = fields.string("quant_method");
  if (!gptq_zeros.empty() && name != "gptq")
    fail("{} {}: not used by quant_method {}; accepted with gptq", setting("gptq-zeros"), gptq_zeros,
         printable(name));
  if (checkpoint.format() != "safetensors") {
    fail("{}: quant_method {} with weights as {}; accepted: safetensors", config->where, printable(name),
         checkpoint.format());
  }
  for (const Method& method : kMethods) {
    if (method.name != name) continue;
    Quantization result = method.open(*config);
    result.method = name;
    return result;
  }
  fields.refuse("quant_method", known_methods());
}

}  // namespace qeval::model
