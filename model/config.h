#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/graph.h"

namespace qeval::model {

class GgufFile;

/// Frequency scaling of the rotary embedding (docs/architectures.md#rotary).
struct RopeScaling {
  enum class Kind : uint8_t { none, linear, llama3, dynamic, yarn, longrope } kind = Kind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  /// The length a model was trained at before it was stretched; of `dynamic`, from which on it stretches.
  double original_max_position_embeddings = 0;
  double beta_fast = 32, beta_slow = 1;  ///< yarn
  bool truncate = true;                  ///< yarn: whole dimensions only
  double attention_factor = 1;           ///< yarn, longrope: of cosines and sines …
  double long_attention_factor = 0;      ///< … and where not 0, of sequences that take the long factors
  /// longrope: what each frequency is divided by, in sequences longer than the original length and in others.
  std::vector<double> long_factors, short_factors;
  bool operator==(const RopeScaling&) const = default;
};

/// One set of rotary frequencies.
struct Rotary {
  double theta = 10000.0;
  int64_t dim = 0;  ///< channels of a head that rotate: even
  /// Where not 0: of the dim/2 pairs only so many turn, by frequencies of all of them (Gemma 4).
  int64_t turning_pairs = 0;
  RopeScaling scaling;
  bool operator==(const Rotary&) const = default;

  /// Sequences whose lengths are of different classes have different tables, so that nothing computed for one
  /// can serve the other. 0 for all lengths where the scaling does not depend on it.
  int64_t length_class(int64_t tokens) const;
};

/// Where the norms of a block stand (docs/architectures.md#blocks).
enum class BlockForm : uint8_t {
  pre,                 ///< x += A(n x); x += M(n x)
  update_norms,        ///< x += n(A x); x += n(M x): OLMo 2
  sandwich,            ///< x += n(A(n x)); x += n(M(n x)): Gemma 2
  glm_sandwich,        ///< the same, the norms called otherwise
  parallel,            ///< y = n x; x += A y + M y: Cohere, Phi-2
  parallel_two_norms,  ///< x += A(n x) + M(n' x): GPT-NeoX
  after_add            ///< x = n(x + A x); x = n(x + M x): the smallest OPT
};

enum class QkNorm : uint8_t {
  none,
  head,       ///< over each head, one weight for all of them
  head_own,   ///< over each head, each with a weight of its own
  full_width  ///< over the whole projected vector
};

/// Latent attention's sizes (MiniCPM 3).
struct LatentAttention {
  int64_t q_rank = 0, kv_rank = 0, nope = 0, rope = 0, value_dim = 0;
  double eps = 1e-6;  ///< of the latent norms
};

/// What a rotation (quant/methods/rotate.h) has made of a model: which operations are more, and what the
/// weights behind folded norms look like, whatever the family's own settings say.
struct Rotation {
  bool residual = false;        ///< R1: the residual stream, in the weights; every norm of it is a plain RMS
  bool values = false;          ///< R2: the heads' values, in the weights
  int64_t down_block = 0;       ///< R4: HadamardOp in front of the down projection, in blocks; 0: none
  int64_t query_key_block = 0;  ///< R3: HadamardOp of queries and keys; 0: none
  uint64_t seed = 0;            ///< of the signs
  bool operator==(const Rotation&) const = default;
};

/// A mixture of experts (docs/architectures.md#experts).
struct Experts {
  RouteOp route;
  int64_t inner = 0;         ///< of each expert
  int64_t shared_inner = 0;  ///< of the shared one; 0: none
  bool shared_gate = false;
  bool router_bias = false, expert_bias = false, shared_bias = false;
  float limit = 0, slope = 1;  ///< ActivateOp's, and what `up` is clamped to, and
  float up_offset = 0;         ///< MultiplyOp's
};

/// Sizes of recurrent mixers.
struct Recurrence {
  enum class Kind : uint8_t { convolution, delta_rule, state_space } kind = Kind::convolution;
  int64_t taps = 0;
  bool conv_bias = false, in_bias = false, out_bias = false;
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;  ///< groups and state of Mamba-2
  bool tiled_heads = false;                                            ///< DeltaRuleOp::tiled
  float least_step = 0, most_step = 0;                                 ///< Mamba-2: of dt
  enum class Norm : uint8_t { none, before_gate, after_gate } norm = Norm::none;
  int64_t norm_group = 0;
  bool norm_own_weights = false;
  float in_factor = 1, out_factor = 1;
  /// Of what the projection makes: gate, v, k, q and step.
  std::array<float, 5> factors{1, 1, 1, 1, 1};
};

/// Inputs that every layer has besides the residual stream (Gemma 3n, 4).
struct LayerInputs {
  int64_t size = 0;        ///< channels per layer
  int64_t vocab_size = 0;  ///< tokens beyond it read row 0
};

/// Gemma 3n's streams and low-rank path.
struct Altup {
  int64_t streams = 0, active = 0, rank = 0;
  bool scales_output = false;
};

/// In what layers differ.
struct LayerSettings {
  int64_t window = 0;                                             ///< 0: none
  bool rotary = true;                                             ///< whether queries and keys are rotated
  bool local_rotary = false;                                      ///< by ModelConfig::local_rotary
  float attention_scale = 0;                                      ///< 0: the model's
  int64_t head_dim = 0, num_kv_heads = 0, intermediate_size = 0;  ///< 0: the model's
  enum class Mixer : uint8_t {
    attention,
    recurrent,
    both  ///< side by side
  } mixer = Mixer::attention;
  bool sparse = false;            ///< experts instead of the MLP
  bool keys_as_values = false;    ///< v is what k_proj makes
  int64_t kv_from = 0;            ///< AttentionOp
  bool kv_lent = false;           ///< AttentionOp
  float activation_sparsity = 0;  ///< ActivateOp
};

/// Everything in which the supported architectures differ: the decoder is one, driven by this data.
struct ModelConfig {
  std::string architecture;  ///< model_type of config.json, or that which a GGUF file was translated to
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  ///< divides num_heads
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  Rotary rotary;
  std::optional<Rotary> local_rotary;  ///< of the layers with a window, where they differ
  BlockForm form = BlockForm::pre;
  NormKind norm = NormKind::rms;
  bool norm_bias = true;  ///< of LayerNorms
  bool final_norm = true;
  double norm_eps = 1e-5;
  /// RMSNorm in the blocks without eps, as √n·x/max(‖x‖₂, 1e-12)·w; the final norm keeps its eps
  /// (docs/specification.md#points).
  bool l2norm_as_rmsnorm = false;
  /// Stored norm weights lack the 1 (Gemma on Hugging Face, Nemotron); loading adds it.
  bool norm_weight_plus_one = false;
  Activation activation = Activation::silu;
  bool gated_mlp = true;
  bool scale_embedding = false;  ///< multiply embeddings by √hidden_size (Gemma)
  float embedding_factor = 1;    ///< and by this
  float residual_factor = 1;     ///< of updates before they are added
  float logit_factor = 1;
  float logit_softcap = 0;         ///< 0: none
  bool learned_positions = false;  ///< Model::positions is added to the embedding
  int64_t position_offset = 0;     ///< position 0 has this row of it
  int64_t embedding_size = 0;      ///< width of the embedding where it is not hidden_size, else 0
  QkNorm qk_norm = QkNorm::none;
  NormKind qk_norm_kind = NormKind::rms;
  bool qk_norm_bias = false;
  bool qk_norm_after_rotary = false;
  float attention_scale = 0;                        ///< of scores; 0: 1/√head_dim
  float score_softcap = 0;                          ///< 0: none
  double position_beta = 0, position_original = 1;  ///< RotateOp
  std::optional<LatentAttention> latent;
  std::optional<Experts> experts;
  std::optional<Recurrence> recurrence;
  bool experts_beside_mlp = false;  ///< Gemma 4: layers with experts have the MLP, too
  bool attention_gate = false;      ///< of the attention's result
  bool attention_sinks = false;
  bool v_norm = false;
  float qkv_clip = 0;                         ///< 0: none
  float attention_in = 1, attention_out = 1;  ///< factors around the attention
  float key_factor = 1;
  float gate_factor = 1, mlp_factor = 1;  ///< of the MLP's gate and update
  bool layer_scalar = false;
  std::optional<LayerInputs> layer_inputs;
  std::optional<Altup> altup;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool head_bias = false;
  std::optional<Rotation> rotation;
  std::vector<LayerSettings> layers;  ///< one per layer, or empty: all alike, without window
  std::optional<int32_t> bos_token_id, eos_token_id;
  /// What was read and does not count, a line each: special tokens beyond the vocabulary.
  std::vector<std::string> warnings;
  /// The settings as a config.json has them (those of the text model of a nested one; translated, from GGUF
  /// metadata), as text: what folders are written with where the unified layout's own settings cannot say it.
  /// Empty for the paper's architectures.
  std::string source;

  /// Follows from all of the above: make_graph, called by whoever has filled it in.
  Graph graph;

  LayerSettings layer(int64_t i) const {
    return layers.empty() ? LayerSettings{} : layers[static_cast<size_t>(i)];
  }
  /// Tokens that the model can be given: max_position_embeddings, or as many as there is memory for where the
  /// rotary embedding is stretched by the length of what it is given (dynamic, yarn, longrope).
  int64_t context() const;
  /// A sequence's class for sharing (Rotary::length_class).
  int64_t length_class(int64_t tokens) const;
  /// Whether any two lengths are of different classes.
  bool depends_on_length() const { return length_class(INT64_MAX) != 0; }
};

/// Whether the paper's code knows such a block (its layout's settings can say it): pre-norm, gated, without
/// any of what came later.
bool is_papers_block(const ModelConfig& config);

/// The key of a config.json whose weights have the unified layout's names and form although its settings are
/// another family's.
inline constexpr const char* kWeightLayoutKey = "qeval_weight_layout";

/// What a rotation of the residual stream leaves of a family's settings: norms that are RMS norms without a
/// bias, whose biases are those of the linear maps behind them. The graph is to be made anew.
void apply_rotation(ModelConfig& config);

/// The key of a config.json for ModelConfig::rotation.
inline constexpr const char* kRotationKey = "qeval_rotation";

/// Reads `config.json` of a Hugging Face folder of a known architecture (old and new spellings) or a unified
/// one
/// (`hfmodel`). Unsupported architectures and settings are Errors that name field, value and accepted set.
ModelConfig read_config(const std::filesystem::path& config_json);

/// The same from the metadata of a GGUF file.
ModelConfig read_config(const GgufFile& file);

/// The model's `config.json` in the unified layout (docs/specification.md#unified-layout), torch_dtype given.
nlohmann::json unified_config(const ModelConfig& config, const std::string& torch_dtype);

}  // namespace qeval::model
