#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_object.h"
#include "model/config.h"

namespace qeval::model {

class Checkpoint;
class GgufFile;
class GgufSettings;

/// Where a checkpoint keeps the weights of a module.
struct TensorPlace {
  /// In the file, behind TensorNames::root and before ".weight"; "{}" is the layer, a second one the head of
  /// a norm that is stored head by head.
  std::string name;
  int64_t first_row = 0;  ///< of a fused tensor
  int64_t rows = 0;       ///< of a fused tensor in all; 0: the module's own
  /// Where not 0: the module's rows lie in blocks of `block_rows`, `block_stride` rows apart.
  int64_t block_rows = 0, block_stride = 0;
  bool transposed = false;  ///< stored as [input, output]
  bool per_head = false;    ///< a norm's weights, head by head
  bool stacked = false;     ///< all experts' in one tensor [experts, rows, cols]
  bool bare = false;        ///< named without ".weight"; its bias ends in "_bias"
  float factor = 1;         ///< of a norm's weights
};

/// What a checkpoint calls its tensors, and how they differ from what the graph wants.
struct TensorNames {
  std::string root = "model.";       ///< in front of all names but the head's
  std::string layer = "layers.{}.";  ///< behind it, in front of a block's modules
  std::string embedding = "embed_tokens", positions, head = "lm_head";
  std::string layer_embedding = "embed_tokens_per_layer", layer_projection = "per_layer_model_projection",
              layer_projection_norm = "per_layer_projection_norm";
  std::map<Module, TensorPlace> modules;
  /// Rows of q and k are stored for rotary pairs (2i, 2i+1) instead of (i, i + dim/2).
  bool interleaved = false;
  bool norm_plus_one = false;    ///< norms lack their 1 …
  std::set<Module> whole_norms;  ///< … but these
  /// Whole names, behind the root, of LayerWeights::vectors and biases.
  std::map<Module, std::string> vectors, biases;
  /// Of LayerWeights::state: A_log (or, where `decay_is_stored`, −e^A), the step's bias and the skip.
  std::string state_decay, state_step, state_skip;
  bool decay_is_stored = false;
  /// Ends of names of tensors that the program computes itself.
  std::vector<std::string> ignored_suffixes;
  /// Beginnings of names of tensors that are no part of the text model.
  std::vector<std::string> ignored_prefixes;
  /// Beginnings, behind the root, of names of the text model's tensors that nothing reads.
  std::vector<std::string> ignored_parts;
  /// xIELU's alpha_p, alpha_n, beta and eps of every layer, where a file's metadata hold them.
  std::vector<std::array<float, 4>> xielu;
};

/// One architecture: how its configuration is read and what its tensors are called in Hugging Face folders,
/// and how both are got from a GGUF file.
struct Architecture {
  std::string_view model_type;
  /// From config.json; everything but `architecture`, `source` and `graph` is filled in.
  ModelConfig (*read)(const JsonObject& fields);
  /// Changes hugging_face_names() to this family's; may be null.
  void (*rename)(const ModelConfig& config, TensorNames& names) = nullptr;
  /// general.architecture of its GGUF files; empty where llama.cpp has no such model, or where another
  /// architecture's translation says when a file is of this one.
  std::string_view gguf_name = {};
  /// config.json from a file's settings, `model_type` included.
  nlohmann::json (*translate)(const GgufSettings& settings) = nullptr;
  /// Changes gguf_names() to this family's; may be null.
  void (*rename_gguf)(const GgufFile& file, const ModelConfig& config, TensorNames& names) = nullptr;
  /// general.architecture of its GGUF files where that is another architecture's, too: whose translation says
  /// when a file is of this one.
  std::string_view gguf_within = {};
};

/// All of them, in the order of their names.
std::span<const Architecture> architectures();
/// The one that config.json's model_type names; nullptr where there is none.
const Architecture* find_architecture(std::string_view model_type);

/// The names of the unified layout, and Hugging Face's usual ones (Llama's).
TensorNames unified_names();
TensorNames hugging_face_names(const ModelConfig& config);

// What the families' readers share.

/// What fields stand for where they are absent: the defaults of the configuration class in transformers.
struct ConfigDefaults {
  int64_t context = 0;   ///< 0: max_position_embeddings must be there
  int64_t kv_heads = 0;  ///< 0: as many as heads
  int64_t head_dim = 0;  ///< 0: hidden_size / heads
  double theta = 10000.0;
  std::optional<double> rotary_factor{};  ///< none: the family rotates whole heads
  const char* eps_key = "rms_norm_eps";
  double eps = 1e-6;
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
  bool tied = false;
  bool windows = false;        ///< whether the family reads sliding_window and layer_types
  bool ropes_by_type = false;  ///< whether it reads rope settings by the type of a layer
  /// Of the switches that change a block and that read_common refuses (kBlockSwitches), those it reads.
  std::vector<std::string_view> reads{};
};
inline constexpr std::array kBlockSwitches{"parallel_residual", "use_parallel_residual", "qk_layernorm",
                                           "use_qk_norm"};

/// Sizes, rotary embedding, eps, activation, tying and token ids, which most families spell alike. Refuses
/// settings that change the computation and that no family reads: bidirectional attention.
ModelConfig read_common(const JsonObject& fields, const ConfigDefaults& defaults);

/// As read_common does, for families that spell the sizes their own way: from head_dim and
/// max_position_embeddings, rope settings in any spelling. Per-layer-type settings become rotary and
/// local_rotary.
void read_rope(const JsonObject& fields, const ConfigDefaults& defaults, ModelConfig& config);
/// partial_rotary_factor by which `rotating` of a head's channels rotate: read_rotary truncates.
double rotary_share(int64_t rotating, int64_t head_dim);
/// One set of rotary settings: those in `rope` where given, and those of `top`.
Rotary read_rotary(const JsonObject& top, const JsonObject* rope, const ConfigDefaults& defaults,
                   const ModelConfig& config);

Activation read_activation(const JsonObject& fields, const char* key, const char* fallback);
/// A token id, or the first one of a list; -1 is how some say that there is none.
std::optional<int32_t> read_token(const JsonObject& fields, const char* key);

/// The window of the layers that have one: `fallback` where sliding_window is absent, nothing where it is
/// null.
std::optional<int64_t> read_window(const JsonObject& fields, std::optional<int64_t> fallback);
/// Which layers slide: layer_types where given, else `slides(layer)`.
template <typename Rule>
std::vector<bool> sliding_layers(const JsonObject& fields, int64_t layers, const Rule& slides);
std::optional<std::vector<bool>> read_layer_types(const JsonObject& fields, int64_t layers);
/// Gives the sliding layers the window.
void set_windows(const std::vector<bool>& sliding, int64_t window, ModelConfig& config);

template <typename Rule>
std::vector<bool> sliding_layers(const JsonObject& fields, int64_t layers, const Rule& slides) {
  if (const auto given = read_layer_types(fields, layers)) return *given;
  std::vector<bool> sliding;
  for (int64_t i = 0; i < layers; ++i) sliding.push_back(slides(i));
  return sliding;
}

/// Biases of q, k, v and o under one switch, which is also Hugging Face's most usual one.
void read_attention_bias(const JsonObject& fields, ModelConfig& config, bool fallback = false);

/// q, k and v are rows of one tensor, one behind the other.
void fuse_qkv(const ModelConfig& config, const std::string& name, TensorNames& names,
              bool transposed = false);
/// gate and up are rows of one tensor.
void fuse_gate_up(const ModelConfig& config, const std::string& name, TensorNames& names);
/// Names of experts in Hugging Face folders: `block` (such as "mlp") in front of the router's name and of
/// "experts.J."; the three products of an expert by name.
struct ExpertNames {
  std::string block = "mlp", router = "gate", gate = "gate_proj", up = "up_proj", down = "down_proj";
};
void name_experts(TensorNames& names, const ExpertNames& own);
/// All experts' gate and up as rows of one tensor [experts, 2 · inner, hidden], `alternating` or one behind
/// the other, and down as [experts, hidden, inner]; `transposed`: [experts, hidden, 2 · inner] and so on.
struct StackedExperts {
  std::string gate_up, down;
  bool bare = false, alternating = false, transposed = false;
};
void stack_experts(const ModelConfig& config, const StackedExperts& own, TensorNames& names);
/// An unchanging setting of all layers but those that `sparse` says.
template <typename Rule>
void set_sparse(ModelConfig& config, const Rule& sparse) {
  config.layers.resize(static_cast<size_t>(config.num_layers));
  for (size_t i = 0; i < config.layers.size(); ++i) config.layers[i].sparse = sparse(static_cast<int64_t>(i));
}
/// A mixture's sizes: number of experts and of those per token under any of their usual keys, inner size
/// under `inner_key`.
struct ExpertDefaults {
  int64_t count = 0, used = 0;
  const char* inner_key = "moe_intermediate_size";
  int64_t inner = 0;
};
Experts read_experts(const JsonObject& fields, const ExpertDefaults& defaults);
/// Which layers are recurrent, by a list of types at `key`: those of these names, or full_attention and
/// attention.
void set_mixers(const JsonObject& fields, const char* key, std::initializer_list<std::string_view> recurrent,
                ModelConfig& config);
/// mamba_expand: the mixer's channels per channel of the model.
int64_t read_expansion(const JsonObject& fields);
/// Mamba-2's sizes, `inner` channels in all, without norm and factors.
Recurrence read_mamba(const JsonObject& fields, int64_t inner);
/// Names of its tensors, behind TensorNames::layer: Hugging Face's by default.
struct MambaNames {
  std::string in = "mamba.in_proj", conv = "mamba.conv1d", norm = "mamba.norm", out = "mamba.out_proj";
  std::string decay = "mamba.A_log", step = "mamba.dt_bias", skip = "mamba.D";
};
void name_mamba(const ModelConfig& config, const MambaNames& own, TensorNames& names);
/// The integer at the first of these keys that is there.
int64_t first_integer(const JsonObject& fields, std::initializer_list<const char*> keys,
                      std::optional<int64_t> fallback);

/// Another name for a module of the blocks: `name` behind TensorNames::layer.
void rename_module(TensorNames& names, Module module, const std::string& name);

}  // namespace qeval::model
