#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "model/config.h"
#include "tests/model/fixtures.h"

/// Small config.json documents, for tests of what they come to.
namespace qeval::model::fixtures {

inline ModelConfig parse(const nlohmann::json& config) {
  const TemporaryFolder folder;
  write(folder / "config.json", config.dump());
  return read_config(folder / "config.json");
}

inline std::string refusal(const nlohmann::json& config) {
  return error_of([&] { parse(config); });
}

// Changes are JSON text: thousands of nested initialisers would take a sanitizer's compiler minutes.
inline nlohmann::json with(nlohmann::json config, std::string_view changes) {
  config.update(nlohmann::json::parse(changes));
  return config;
}

inline nlohmann::json without(nlohmann::json config, const char* key) {
  config.erase(key);
  return config;
}

inline nlohmann::json llama() {
  return nlohmann::json::parse(R"({
    "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
    "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2})");
}

}  // namespace qeval::model::fixtures
