#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace qeval::model {

class GgufFile;

enum class NormKind : uint8_t { rms, layer };
enum class Activation : uint8_t { silu, gelu_erf, gelu_tanh };

/// Frequency scaling of the rotary embedding (QUANTIZATION.md §2).
struct RopeScaling {
  enum class Kind : uint8_t { none, linear, llama3 } kind = Kind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_position_embeddings = 0;
};

/// Everything in which the supported architectures differ: the decoder is one, driven by this data.
struct ModelConfig {
  std::string architecture;  ///< "llama", "gemma", "stablelm" or "hfmodel"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  ///< divides num_heads
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  ///< first channels of a head that rotate: even, head_dim × partial_rotary_factor
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  /// RMSNorm in the blocks without eps, as √n·x/max(‖x‖₂, 1e-12)·w; the final norm keeps its eps
  /// (QUANTIZATION.md §2).
  bool l2norm_as_rmsnorm = false;
  /// Stored RMSNorm weights lack the 1 (Gemma on Hugging Face); loading adds it.
  bool norm_weight_plus_one = false;
  Activation activation = Activation::silu;
  bool scale_embedding = false;  ///< multiply embeddings by √hidden_size (Gemma)
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  std::optional<int32_t> bos_token_id, eos_token_id;
};

/// Reads `config.json` of a Hugging Face (`llama`, `gemma`, `stablelm`; old and new spellings) or unified
/// (`hfmodel`) folder. Unsupported architectures and fields (parallel residual, sliding window in use, q/k
/// norms, mixture of experts, an unknown activation or rope scaling …) are Errors that name field, value and
/// accepted set.
ModelConfig read_config(const std::filesystem::path& config_json);

/// The same from the metadata of a GGUF file of architecture `llama`, `gemma` or `stablelm`.
ModelConfig read_config(const GgufFile& file);

/// The unified layout's `config.json` for this model (QUANTIZATION.md §3), `torch_dtype` as given.
nlohmann::json unified_config(const ModelConfig& config, const std::string& torch_dtype);

}  // namespace qeval::model
