#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "model/checkpoint/activation_rounding.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/stored_weight.h"
#include "model/config.h"

namespace qeval::model {

/// A weight matrix [rows, cols] = [output features, input features], left as it is stored: a view into the
/// checkpoint. Rows are independent; logical row r is stored_row(r) of `stored`.
struct Matrix {
  std::string name;  ///< unified module name, such as "model.layers.0.mlp.w2", without ".weight"
  int64_t rows = 0, cols = 0;
  StoredWeight stored;
  /// Rows stored for interleaved rotary pairs (GGUF's Llama; GLM, Cohere): where non-zero, the head size by
  /// which logical row r is found. Within a head, of the first d = interleaved_dim rows (0: all of them),
  /// logical row i + j·d/2 is stored at 2i + j.
  int64_t interleaved_head_dim = 0, interleaved_dim = 0;
  /// Where not 0: rows stand in blocks of `block_rows`, `block_stride` rows apart (GPT-NeoX's fused tensor).
  int64_t block_rows = 0, block_stride = 0;

  int64_t stored_row(int64_t r) const;
  /// Decodes logical rows [row, row + count) × columns [col, col + n) to float32, rows of `out` `stride`
  /// apart; `col` as in StoredWeight::decode.
  void decode(int64_t row, int64_t count, int64_t col, int64_t n, float* out, int64_t stride) const;
  /// Decodes logical rows [first, first + count) to float32, `destination` being [count, cols].
  void decode_rows(int64_t first, int64_t count, float* destination) const;
  int64_t byte_count() const { return stored.byte_count(rows); }
  /// Whether rows follow one another in memory in their logical order.
  bool is_contiguous() const { return interleaved_head_dim == 0 && block_rows == 0; }
};

/// Where a logical row of a head is stored for interleaved pairs (Matrix::interleaved_head_dim).
int64_t interleaved_row(int64_t row, int64_t head_dim, int64_t dim);

struct LinearWeights {
  Matrix weight;            ///< [output features, input features]
  std::vector<float> bias;  ///< [output features], or empty
  /// What the checkpoint asks of its input and, behind the bias, its output.
  std::optional<ActivationRounding> input{}, output{};
};

struct NormWeights {
  std::string name;           ///< unified module name
  std::vector<float> weight;  ///< NormOp::weights() of them, an architecture's +1 included
  std::vector<float> bias;    ///< as many, or empty
};

/// xIELU's numbers as they are stored: its slopes are softplus(alpha_p) and beta + softplus(alpha_n).
struct XieluWeights {
  float alpha_p = 0, alpha_n = 0, beta = 0, eps = 0;
};

/// Gemma 3n's streams in a block; all matrices [rows, cols] as float32.
struct AltupWeights {
  std::vector<float> router_norm, router;     ///< [hidden], [streams, hidden]
  std::vector<float> prediction, correction;  ///< [streams², streams], [streams, streams]
};

/// The weights of one block, by the modules of its graph.
struct LayerWeights {
  std::map<Module, LinearWeights> linears;
  std::map<Module, std::vector<LinearWeights>> experts;  ///< of LinearOps with experts
  std::map<Module, NormWeights> norms;
  /// Numbers of other modules: sinks [heads] (Module::qk_product), the router's correction
  /// (Module::router) and factors (Module::expert_mix) [experts], the taps of a convolution [width, taps],
  /// its bias under `biases`, and what ScaleOps multiply by.
  std::map<Module, std::vector<float>> vectors, biases;
  /// Of recurrent mixers, per head: −e^A, the bias of the step and the skip (none: empty).
  struct StateWeights {
    std::vector<float> decay, step_bias, skip;
  } state{};
  std::optional<AltupWeights> altup{};
  std::optional<XieluWeights> xielu{};
  /// What the checkpoint asks of keys, after the rotary embedding, and of values before they are read.
  std::optional<ActivationRounding> key{}, value{};

  const LinearWeights& linear(Module module) const { return linears.at(module); }
  const NormWeights& norm(Module module) const { return norms.at(module); }
  /// The linear maps of a module: one, or one for each expert.
  std::vector<const LinearWeights*> all(Module module) const {
    std::vector<const LinearWeights*> found;
    if (const auto own = linears.find(module); own != linears.end()) found.push_back(&own->second);
    if (const auto own = experts.find(module); own != experts.end()) {
      for (const LinearWeights& expert : own->second) found.push_back(&expert);
    }
    return found;
  }
  /// Calls visit(module, linear) for every linear map, those of experts one by one.
  template <typename Visit>
  void visit_linears(const Visit& visit) const {
    for (const auto& [module, own] : linears) visit(module, own);
    for (const auto& [module, all] : experts) {
      for (const LinearWeights& own : all) visit(module, own);
    }
  }
};

/// A loaded model: configuration and views of the weights, which `checkpoint` keeps alive.
struct Model {
  std::string name;            ///< last part of the path, for reports
  std::filesystem::path path;  ///< as given by the user
  std::string format;          ///< "gguf", "safetensors" or "pytorch"
  ModelConfig config;
  Matrix embedding;  ///< [vocab_size, hidden_size, or ModelConfig::embedding_size]
  Matrix positions;  ///< [positions, hidden_size] where they are learned, else no rows
  /// Inputs of all layers: their embedding [vocab_size, layers · size], what is made of the embedding and the
  /// norm over a layer's share.
  Matrix layer_embedding;
  LinearWeights layer_projection;
  NormWeights layer_projection_norm;
  /// Gemma 3n: what makes the other streams and what leads back from them, [hidden, hidden] each.
  std::vector<LinearWeights> altup_projections, altup_unembeddings;
  LinearWeights embedding_in, embedding_out;  ///< where the embedding's width is not the model's
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  LinearWeights head;  ///< [vocab_size, the embedding's width]; the embedding where tied
  std::shared_ptr<const Checkpoint> checkpoint;
  std::string quant_method;  ///< of a quantized folder's config; else empty
  /// Of tensors that are stored transposed: their rows in order.
  std::vector<std::shared_ptr<const AlignedBuffer>> transposed;

  /// A norm by its module; `layer` is ignored for the final one.
  const NormWeights& norm(int64_t layer, Module module) const {
    return module == Module::final_norm ? final_norm : layers[static_cast<size_t>(layer)].norm(module);
  }

  /// SHA-256 over configuration and the tensors used (names, types, shapes, bytes): the identity of the
  /// weights in results. Reads every weight once.
  std::string weight_hash() const;
  /// Whether the checkpoint asks for rounding of activations anywhere.
  bool rounds_activations() const;
  /// The number format of the blocks' matrices, for people: "BF16", "GPTQ 4-bit g128"; several are joined by
  /// " + ", the one of most elements first.
  std::string weight_format() const;
  /// Bytes of the weights as kept in memory (tied ones once).
  int64_t weight_bytes() const;
};

/// Loads a Hugging Face folder, a unified/MobileQuant folder or a `.gguf` file. Every tensor's name, type and
/// shape is checked against the configuration; tensors of the file that no part of the model uses are Errors
/// that name them (known left-overs such as `rotary_emb.inv_freq` are ignored).
/// `gptq_zeros` is how the zero points of a GPTQ checkpoint are stored, "v1" or "v2", whatever it says
/// itself; empty: as it says.
Model load_model(const std::filesystem::path& path, const std::string& gptq_zeros = "");

}  // namespace qeval::model
