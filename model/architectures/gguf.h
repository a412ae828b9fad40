#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architectures/architecture.h"
#include "model/checkpoint/gguf.h"

namespace qeval::model {

/// A GGUF file's settings under the prefix of its architecture ("llama.block_count"), for the translations of
/// the families. What llama.cpp computes from the file is what counts, be it less than the settings ask for.
class GgufSettings {
 public:
  explicit GgufSettings(const GgufFile& file);

  const GgufFile& file() const { return file_; }
  std::string where() const { return file_.path().string(); }
  bool has(const std::string& key) const { return file_.find_value(prefix_ + key) != nullptr; }
  bool has_tensor(std::string_view name) const { return file_.find(name) != nullptr; }

  int64_t integer(const std::string& key) const { return file_.integer(prefix_ + key); }
  int64_t integer(const std::string& key, int64_t fallback) const {
    return file_.integer_or(prefix_ + key, fallback);
  }
  /// A list of an integer per layer, or the one for all.
  std::vector<int64_t> by_layer(const std::string& key, int64_t layers) const;
  /// The largest of a list of integers, or the one there is.
  int64_t largest(const std::string& key, int64_t fallback) const;
  /// Where several converters wrote an integer as float or the other way round, either is read.
  double number(const std::string& key, std::optional<double> fallback = std::nullopt) const;
  bool boolean(const std::string& key, bool fallback) const {
    return file_.boolean_or(prefix_ + key, fallback);
  }
  std::string string(const std::string& key, std::string_view fallback) const {
    return file_.string_or(prefix_ + key, fallback);
  }
  /// attention.sliding_window_pattern: whether each layer slides, or, as a number n, all layers but every
  /// n-th.
  std::vector<bool> sliding_pattern(int64_t layers, int64_t fallback) const;

  template <typename Value>
  [[noreturn]] void refuse(const std::string& key, const Value& value, std::string_view accepted) const {
    fail_setting(key, fmt::format("{}", value), accepted);
  }

 private:
  [[noreturn]] void fail_setting(const std::string& key, const std::string& value,
                                 std::string_view accepted) const;

  const GgufFile& file_;
  std::string prefix_;
};

/// In what the metadata of families differ.
struct GgufForm {
  const char* eps_key = "rms_norm_eps";  ///< what the family's config.json calls it
  bool layer_norm = false;               ///< its eps is attention.layer_norm_epsilon
  bool whole_head = false;               ///< all channels of a head must rotate
  /// attention.sliding_window is refused where llama.cpp would not hear of it and no converter writes it, and
  /// known where the family reads it, or where llama.cpp ignores what converters write.
  enum class Windows : uint8_t { refused, known } windows = Windows::refused;
  bool yarn_settings = false;  ///< llama.cpp reads YaRN's betas and multiplier; else they are 32, 1 and none
  bool parallel = false;       ///< use_parallel_residual is the family's to read
  /// attention.head_count_kv and feed_forward_length may be lists; the former 0 where a layer has no
  /// attention.
  bool by_layer = false;
  bool experts = false;  ///< the family reads expert_count
  bool latent = false;   ///< values have a size of their own, and some channels of a head never rotate
};

/// config.json of `model_type` from the usual settings: sizes, eps, rope, tying, token ids, attention_bias.
nlohmann::json translate_common(const GgufSettings& settings, const char* model_type,
                                const GgufForm& form = {});

/// num_experts, num_experts_per_tok, moe_intermediate_size, and where the file has them
/// shared_expert_intermediate_size and mlp_only_layers, the layers without experts.
void translate_experts(const GgufSettings& settings, nlohmann::json& document);

/// Mamba-2's sizes, and the names of its tensors.
void translate_mamba(const GgufSettings& settings, nlohmann::json& document);
void name_gguf_mamba(const ModelConfig& config, TensorNames& names);

/// layer_types and sliding_window from attention.sliding_window and its pattern. False where there is none.
bool translate_windows(const GgufSettings& settings, int64_t default_window, int64_t default_pattern,
                       nlohmann::json& document);

/// Names in GGUF files of what a graph of this form has, with q, k and v fused where the file has them so.
TensorNames gguf_names(const GgufFile& file, const ModelConfig& config);

/// gate and up are halves of ffn_up.
void fuse_gguf_gate_up(const GgufFile& file, const ModelConfig& config, TensorNames& names);
/// The norm between attention and MLP, whose usual name is ffn_norm, is called post_attention_norm.
void rename_gguf_post_attention_norm(const GgufFile& file, const ModelConfig& config, TensorNames& names);
/// Rows of q and k lie in pairs (2i, 2i + 1): those that the converter has permuted, and those that were so
/// before.
void pair_rotary_rows(const GgufFile& file, const ModelConfig& config, TensorNames& names);

/// The architectures of GGUF files that some family reads, for messages.
std::string known_gguf_architectures();
const Architecture* find_gguf_architecture(std::string_view name);

}  // namespace qeval::model
