#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint/checkpoint.h"
#include "model/config.h"

namespace qeval::model {

/// A weight matrix [rows, cols] = [output features, input features], left in its stored type: a view into the
/// checkpoint. Rows are independent; row(r) is where logical row r starts.
struct Matrix {
  std::string name;  ///< unified module name, such as "model.layers.0.mlp.w2", without ".weight"
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  int64_t row_bytes = 0;
  /// GGUF stores Llama's q and k for interleaved rotary pairs: where non-zero, the head size by which logical
  /// row r is found (within a head of d rows, logical row i + j·d/2 is stored at 2i + j).
  int64_t interleaved_head_dim = 0;

  const std::byte* row(int64_t r) const;
  /// Decodes logical rows [first, first + count) to float32, `destination` being [count, cols].
  void decode_rows(int64_t first, int64_t count, float* destination) const;
  int64_t byte_count() const { return rows * row_bytes; }
};

struct LinearWeights {
  Matrix weight;            ///< [output features, input features]
  std::vector<float> bias;  ///< [output features], or empty
};

struct NormWeights {
  std::string name;           ///< unified module name
  std::vector<float> weight;  ///< [hidden_size], Gemma's +1 included
  std::vector<float> bias;    ///< [hidden_size] for LayerNorm, or empty
};

struct LayerWeights {
  NormWeights input_norm, post_attention_norm;
  LinearWeights q, k, v, o, gate, up, down;  ///< unified names q_proj … w1 (gate), w3 (up), w2 (down)
};

/// A loaded model: configuration and views of the weights, which `checkpoint` keeps alive.
struct Model {
  std::string name;            ///< last part of the path, for reports
  std::filesystem::path path;  ///< as given by the user
  std::string format;          ///< "gguf", "safetensors" or "pytorch"
  ModelConfig config;
  Matrix embedding;  ///< [vocab_size, hidden_size]
  std::vector<LayerWeights> layers;
  NormWeights final_norm;
  LinearWeights head;  ///< [vocab_size, hidden_size]; the embedding where tied
  std::shared_ptr<const Checkpoint> checkpoint;

  /// SHA-256 over configuration and the tensors used (names, types, shapes, bytes): the identity of the
  /// weights in results. Reads every weight once.
  std::string weight_hash() const;
  /// Bytes of the weights as kept in memory (tied ones once).
  int64_t weight_bytes() const;
};

/// Loads a Hugging Face folder, a unified/MobileQuant folder or a `.gguf` file. Every tensor's name, type and
/// shape is checked against the configuration; tensors of the file that no part of the model uses are Errors
/// that name them (known left-overs such as `rotary_emb.inv_freq` are ignored).
Model load_model(const std::filesystem::path& path);

}  // namespace qeval::model
