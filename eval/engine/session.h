#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights.h"
#include "quant/arithmetic/fake_arithmetic.h"

namespace qeval::eval {

/// How a model is to be run.
struct SessionOptions {
  std::filesystem::path model;
  /// "float", "fake", "integer", "ggml"; empty: fake where the folder has act_dict.json and
  /// default_qcfg.json or its weights' format rounds activations, else float.
  std::string arithmetic;
  /// "f32"; "bf16": float arithmetic by bfloat16 dot products; "auto": the faster of both by a measurement at
  /// the start. The arithmetic's name says which it is.
  std::string precision = "f32";
  /// Instead of the folder's default_qcfg.json and act_dict.json.
  std::optional<std::filesystem::path> qcfg{}, act_ranges{};
  /// How a GPTQ checkpoint's zero points are stored (model::load_model).
  std::string gptq_zeros{};
  std::optional<int64_t> max_length;  ///< tokens of input; default min(2048, max_position_embeddings)
  /// Requests are scored as they are, not cut into windows: where the rotary embedding is stretched beyond
  /// max_position_embeddings, so is the default.
  bool whole_requests = false;
};

/// Longest input in tokens: `given` where there is one, else 2048 or max_position_embeddings if shorter (with
/// `whole_requests`, ModelConfig::context()). Throws Error outside 1 … context.
int64_t choose_max_length(std::optional<int64_t> given, const model::ModelConfig& config,
                          bool whole_requests = false);

/// A checkpoint, mapped and checked once, for the sessions of any number of arithmetics. Its hash and its
/// tokenizer are made when somebody first asks. Not thread-safe.
class LoadedModel {
 public:
  /// `gptq_zeros` as SessionOptions has it.
  explicit LoadedModel(const std::filesystem::path& path, const std::string& gptq_zeros = "")
      : model_(model::load_model(path, gptq_zeros)) {}
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  const model::Model& model() const { return model_; }
  const std::string& weight_hash();
  /// The model's own tokenizer. One with more tokens than the model has embeddings refuses texts that hold
  /// them.
  const model::Tokenizer& tokenizer();

 private:
  model::Model model_;
  std::string weight_hash_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
};

/// A model ready to score: weights, arithmetic and decoder, and the tokenizer once somebody asks for it.
class Session {
 public:
  /// Loads the model. Throws Error where it cannot be loaded, where the arithmetic is unknown or impossible
  /// for this model, or where max_length exceeds the model's context.
  explicit Session(const SessionOptions& options);
  /// The same for a checkpoint that is loaded: that of options.model, as options.gptq_zeros says.
  Session(const SessionOptions& options, std::shared_ptr<LoadedModel> loaded);

  const model::Model& model() const { return loaded_->model(); }
  const model::Arithmetic& arithmetic() const { return *arithmetic_; }
  model::Decoder& decoder() { return *decoder_; }
  int64_t max_length() const { return max_length_; }
  /// How the model is quantized, nothing in float arithmetic.
  const std::optional<quant::Quantization>& quantization() const { return quantization_; }

  /// The token that every sequence must begin with, whose keys and values the checkpoint holds.
  std::optional<int32_t> prefix_token() const {
    return quantization_ && quantization_->prefix ? std::optional(quantization_->prefix->token)
                                                  : std::nullopt;
  }

  /// What to know before the scores are believed: tensors that their grids hold badly (quant::grid_warnings),
  /// a line each.
  const std::vector<std::string>& warnings() const { return warnings_; }

  const model::Tokenizer& tokenizer() { return loaded_->tokenizer(); }
  /// model().weight_hash(), computed once for all sessions of the checkpoint.
  const std::string& weight_hash() { return loaded_->weight_hash(); }

 private:
  std::shared_ptr<LoadedModel> loaded_;
  int64_t max_length_;
  std::optional<quant::Quantization> quantization_;
  std::vector<std::string> warnings_;
  std::unique_ptr<model::Arithmetic> arithmetic_;
  std::unique_ptr<model::Decoder> decoder_;
};

}  // namespace qeval::eval
