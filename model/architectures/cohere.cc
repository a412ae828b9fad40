#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

ModelConfig read_any(const JsonObject& fields, double theta, bool windows) {
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
  ModelConfig config = read_any(fields, 500000.0, false);
  if (fields.boolean("use_qk_norm", false)) {
    config.qk_norm = QkNorm::head_own;
    config.qk_norm_kind = NormKind::layer;
  }
  return config;
}

/// Full layers have no rotary embedding.
ModelConfig read_cohere2(const JsonObject& fields) {
  ModelConfig config = read_any(fields, 10000.0, true);
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

}  // namespace

std::vector<Architecture> cohere_family() {
  return {{"cohere", read_cohere, rename_cohere}, {"cohere2", read_cohere2, rename_cohere}};
}

}  // namespace qeval::model
