#include <nlohmann/json.hpp>

#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"

namespace qeval::model {
namespace {

/// Norms of updates only. Where some layers have a window, only those rotate.
ModelConfig read_exaone4(const JsonObject& fields) {
  ModelConfig config = read_common(fields, {.context = 2048, .kv_heads = 32, .eps = 1e-5, .windows = true});
  config.form = BlockForm::update_norms;
  config.qk_norm = QkNorm::head;
  const auto window = read_window(fields, 4096);
  if (!window) return config;
  const nlohmann::json* given = fields.find("sliding_window_pattern");
  // A pattern in letters ("LLLG") has layer_types beside it.
  const int64_t pattern = given != nullptr && given->is_string() && fields.find("layer_types") != nullptr
                              ? 4
                              : fields.integer("sliding_window_pattern", 4);
  if (pattern < 1 && fields.find("layer_types") == nullptr)
    fields.refuse("sliding_window_pattern", "1 or more");
  const auto slides = [&](int64_t i) { return (i + 1) % pattern != 0; };
  const std::vector<bool> sliding = sliding_layers(fields, config.num_layers, slides);
  set_windows(sliding, *window, config);
  for (size_t i = 0; i < sliding.size(); ++i) config.layers[i].rotary = sliding[i];
  return config;
}

/// llama.cpp knows the model with windows by its layers; without them, all layers rotate.
nlohmann::json translate_exaone4(const GgufSettings& settings) {
  const GgufForm form{.whole_head = true, .windows = GgufForm::Windows::known};
  nlohmann::json document = translate_common(settings, "exaone4", form);
  document["sliding_window"] = nullptr;
  if (settings.integer("block_count") == 64) translate_windows(settings, 4096, 4, document);
  return document;
}

}  // namespace

std::vector<Architecture> exaone_family() {
  return {{"exaone4", read_exaone4, nullptr, "exaone4", translate_exaone4}};
}

}  // namespace qeval::model
