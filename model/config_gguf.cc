// Model configuration from GGUF metadata: the family translates them to the config.json that they stand for
// (architectures/), which is read as any other.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architectures/gguf.h"
#include "model/config_check.h"

namespace qeval::model {
namespace {

/// Which projections have a bias shows in the file; config.json may know one switch for several of them.
ModelConfig with_biases(const GgufSettings& settings, ModelConfig config) {
  config.qkv_bias = settings.has_tensor("blk.0.attn_q.bias") || settings.has_tensor("blk.0.attn_qkv.bias");
  config.o_bias = settings.has_tensor("blk.0.attn_output.bias");
  config.mlp_bias = settings.has_tensor("blk.0.ffn_down.bias");
  return config;
}

}  // namespace

ModelConfig read_config(const GgufFile& file) {
  const std::string where = file.path().string();
  const std::string& name = file.string("general.architecture");
  const Architecture* translator = find_gguf_architecture(name);
  if (translator == nullptr) {
    fail("{}: general.architecture is {}; accepted: {}", where, printable(name), known_gguf_architectures());
  }
  const GgufSettings settings(file);
  const nlohmann::json document = translator->translate(settings);
  const JsonObject fields(document, where);
  const std::string type = fields.string("model_type");
  ModelConfig config = find_architecture(type)->read(fields);
  config.architecture = type;
  config.norm_weight_plus_one = false;  // the converter has added it
  // The unified layout's own settings have a switch for each bias; a source has the family's.
  if (const ModelConfig seen = with_biases(settings, config); is_papers_block(seen)) {
    config = seen;
  } else {
    config.source = document.dump();
  }
  check_config(config, where);
  config.graph = make_graph(config);
  return config;
}

}  // namespace qeval::model
