#include "model/export.h"

#include <array>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/safetensors_writer.h"
#include "model/tokenizer/tokenizer_class.h"

namespace qeval::model {
namespace {

TensorSource source(const Matrix& matrix) {
  return {matrix.name + ".weight",
          {matrix.rows, matrix.cols},
          [&matrix](int64_t first, int64_t count, float* out) { matrix.decode_rows(first, count, out); }};
}

TensorSource source(std::string name, const std::vector<float>& values) {
  return {std::move(name), {std::ssize(values)}, [&values](int64_t, int64_t, float* out) {
            std::copy(values.begin(), values.end(), out);
          }};
}

class Sources {
 public:
  void add(const NormWeights& norm) {
    tensors_.push_back(source(norm.name + ".weight", norm.weight));
    if (!norm.bias.empty()) tensors_.push_back(source(norm.name + ".bias", norm.bias));
  }
  void add(const LinearWeights& linear) {
    tensors_.push_back(source(linear.weight));
    if (!linear.bias.empty()) tensors_.push_back(source(linear.weight.name + ".bias", linear.bias));
  }
  void add(const Matrix& matrix) { tensors_.push_back(source(matrix)); }
  void add(int64_t layer, const XieluWeights& xielu) {
    for (const auto& [part, value] : {std::pair{"alpha_p", &xielu.alpha_p},
                                      {"alpha_n", &xielu.alpha_n},
                                      {"beta", &xielu.beta},
                                      {"eps", &xielu.eps}}) {
      tensors_.push_back({fmt::format("model.layers.{}.{}.{}", layer, module_name(Module::activation), part),
                          {1},
                          [value = value](int64_t, int64_t, float* out) { *out = *value; }});
    }
  }
  const std::vector<TensorSource>& tensors() const { return tensors_; }

 private:
  std::vector<TensorSource> tensors_;
};

const char* torch_name(DType dtype) {
  return dtype == DType::f16 ? "float16" : dtype == DType::bf16 ? "bfloat16" : "float32";
}

constexpr const char* kConfigFile = "config.json";
constexpr const char* kWeightsFile = "model.safetensors";

/// What Hugging Face folders keep beside the weights and that tokenizers, ours and others', read.
constexpr std::array kTokenizerFiles{
    "tokenizer.model",         "tokenizer.json",    "tokenizer.gguf", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json",     "merges.txt",
    "generation_config.json"};

}  // namespace

void write_unified(const Model& model, const std::filesystem::path& folder, DType dtype) {
  Sources sources;
  sources.add(model.embedding);
  if (model.positions.rows > 0) sources.add(model.positions);
  for (const LinearWeights* weights : {&model.embedding_in, &model.embedding_out}) {
    if (weights->weight.rows > 0) sources.add(*weights);
  }
  for (int64_t i = 0; i < model.config.num_layers; ++i) {
    const LayerWeights& layer = model.layers[static_cast<size_t>(i)];
    for (const Operation& operation : model.config.graph.block(i).operations) {
      if (const auto* op = std::get_if<NormOp>(&operation)) sources.add(layer.norm(op->module));
      if (const auto* op = std::get_if<LinearOp>(&operation)) sources.add(layer.linear(op->module));
      if (std::holds_alternative<ActivateOp>(operation) && layer.xielu) sources.add(i, *layer.xielu);
    }
  }
  if (model.config.final_norm) sources.add(model.final_norm);
  if (!model.config.tie_word_embeddings) sources.add(model.head);
  write_safetensors(folder / kWeightsFile, sources.tensors(), dtype);
  write_file_atomically(folder / kConfigFile, unified_config(model.config, torch_name(dtype)).dump(2) + "\n");
}

void read_tokenizer_files(const Model& model) {
  if (model.format == "gguf") return;
  for (const char* name : kTokenizerFiles) {
    std::error_code code;
    if (std::filesystem::exists(model.path / name, code)) read_file(model.path / name);
  }
  deciding_model_type(model.path);
  tokenizer_class_name(model.path);
}

bool copy_tokenizer(const Model& model, const std::filesystem::path& folder) {
  if (model.format == "gguf") {
    const GgufFile file(model.path);
    if (file.find_value("tokenizer.ggml.model") == nullptr) return false;
    write_file_atomically(folder / "tokenizer.gguf", file.without_tensors());
    return true;
  }
  bool copied = false;
  for (const char* name : kTokenizerFiles) {
    const std::filesystem::path file = model.path / name;
    std::error_code code;
    if (!std::filesystem::exists(file, code)) continue;
    write_file_atomically(folder / name, read_file(file));
    copied = copied || std::string_view(name).starts_with("tokenizer.");
  }
  // The new config.json no longer tells how the tokenizer is to be read.
  const std::string type = deciding_model_type(model.path);
  const std::string name = tokenizer_class_name(model.path);
  if (copied && !(type.empty() && name.empty())) {
    const auto file = folder / "tokenizer_config.json";
    nlohmann::ordered_json config = nlohmann::ordered_json::object();
    if (std::filesystem::exists(file)) config = nlohmann::ordered_json::parse(read_file(file));
    if (!type.empty()) config[std::string(kSourceModelType)] = type;
    if (!name.empty() && !config.contains("tokenizer_class")) config["tokenizer_class"] = name;
    write_file_atomically(file, config.dump(2) + "\n");
  }
  return copied;
}

std::vector<const char*> exported_files() {
  std::vector<const char*> names{kConfigFile, kWeightsFile};
  names.insert(names.end(), kTokenizerFiles.begin(), kTokenizerFiles.end());
  return names;
}

}  // namespace qeval::model
