// The targets that read what lies in a model's folder: fuzz_replay_models.
#include <array>

#include "tests/fuzz/targets.h"

namespace qeval::fuzz {

std::span<const Target> targets() {
  static constexpr std::array<Target, 8> kTargets{{
      {"config", config},
      {"safetensors", safetensors},
      {"quantized", quantized},
      {"gguf", gguf},
      {"pytorch", pytorch},
      {"tokenizer_json", tokenizer_json},
      {"sentencepiece", sentencepiece},
      {"chat_template", chat_template},
  }};
  return kTargets;
}

}  // namespace qeval::fuzz
