#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

ModelConfig read_any_cohere(const JsonObject& fields, double theta, bool windows) {
  const ConfigDefaults defaults{.context = 8192,
                                .theta = theta,
                                .eps_key = "layer_norm_eps",
                                .eps = 1e-5,
                                .tied = true,
                                .windows = windows,
                                .reads = {"use_qk_norm"}};
  ModelConfig config = read_common(fields, defaults);
  read_attention_bias(fields, config);
  config.form = BlockForm::parallel;
  config.norm = NormKind::layer;
  config.norm_bias = false;
  config.logit_factor = static_cast<float>(fields.number("logit_scale", 0.0625));
  return config;
}

ModelConfig read_cohere(const JsonObject& fields) {
  ModelConfig config = read_any_cohere(fields, 500000.0, false);
  if (fields.boolean("use_qk_norm", false)) {
    config.qk_norm = QkNorm::head_own;
    config.qk_norm_kind = NormKind::layer;
  }
  return config;
}

/// Full layers have no rotary embedding.
ModelConfig read_cohere2(const JsonObject& fields) {
  ModelConfig config = read_any_cohere(fields, 10000.0, true);
  const int64_t pattern =
      fields.integer("sliding_window_pattern", fields.integer("_sliding_window_pattern", 4));
  if (pattern < 1) fields.refuse("sliding_window_pattern", "1 or more");
  const auto slides = [&](int64_t i) { return (i + 1) % pattern != 0; };
  const std::vector<bool> sliding = sliding_layers(fields, config.num_layers, slides);
  set_windows(sliding, read_window(fields, 4096).value_or(0), config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].rotary = sliding[i];
  return config;
}

void rename_cohere(const ModelConfig&, TensorNames& names) {
  names.interleaved = true;
}

nlohmann::json translate_any_cohere(const GgufSettings& settings, const char* model_type) {
  const GgufForm form{.eps_key = "layer_norm_eps",
                      .layer_norm = true,
                      .whole_head = true,
                      .windows = GgufForm::Windows::known};
  nlohmann::json document = translate_common(settings, model_type, form);
  const double scale = settings.number("logit_scale", 0.0);
  document["logit_scale"] = scale == 0 ? 1.0 : scale;  // as llama.cpp reads 0
  return document;
}

nlohmann::json translate_command_r(const GgufSettings& settings) {
  const int64_t window = settings.integer("attention.sliding_window", 0);
  if (window > 0) settings.refuse("attention.sliding_window", window, "0");
  nlohmann::json document = translate_any_cohere(settings, "cohere");
  document["use_qk_norm"] = settings.has_tensor("blk.0.attn_q_norm.weight");
  return document;
}

nlohmann::json translate_cohere2(const GgufSettings& settings) {
  nlohmann::json document = translate_any_cohere(settings, "cohere2");
  translate_windows(settings, settings.integer("attention.sliding_window"), 4, document);
  return document;
}

}  // namespace

std::vector<Architecture> cohere_family() {
  return {{"cohere", read_cohere, rename_cohere, "command-r", translate_command_r, pair_rotary_rows},
          {"cohere2", read_cohere2, rename_cohere, "cohere2", translate_cohere2, pair_rotary_rows}};
}

}  // namespace qeval::model
