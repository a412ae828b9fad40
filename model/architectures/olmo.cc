#include "model/architectures/architecture.h"

namespace qeval::model {
namespace {

/// Norms of updates only, and of whole projected queries and keys.
ModelConfig read_any(const JsonObject& fields, const ConfigDefaults& defaults) {
  ModelConfig config = read_common(fields, defaults);
  read_attention_bias(fields, config);
  config.form = BlockForm::update_norms;
  config.qk_norm = QkNorm::full_width;
  return config;
}

ModelConfig read_olmo2(const JsonObject& fields) {
  return read_any(fields, {.context = 2048, .eps = 1e-5});
}

ModelConfig read_olmo3(const JsonObject& fields) {
  constexpr double kTheta = 500000.0;
  ModelConfig config = read_any(fields, {.context = 65536, .theta = kTheta, .eps = 1e-5, .windows = true});
  if (!config.local_rotary) {
    // The older spelling: scaling is of the full layers only, and transformers gives the others this base
    // whatever rope_theta says.
    config.local_rotary = Rotary{.theta = kTheta, .dim = config.rotary.dim, .scaling = {}};
  }
  const auto slides = [](int64_t i) { return (i + 1) % 4 != 0; };
  const std::vector<bool> sliding = sliding_layers(fields, config.num_layers, slides);
  set_windows(sliding, read_window(fields, 4096).value_or(0), config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].local_rotary = sliding[i];
  return config;
}

}  // namespace

std::vector<Architecture> olmo_family() {
  return {{"olmo2", read_olmo2}, {"olmo3", read_olmo3}};
}

}  // namespace qeval::model
