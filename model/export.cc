#include "model/export.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"
#include "model/checkpoint/gguf.h"
#include "model/config_check.h"
#include "model/tokenizer/tokenizer_class.h"

namespace qeval::model {
namespace {

class Sources {
 public:
  Sources(const FolderLayout& layout,
          const std::function<void(const FolderMatrix&, std::vector<TensorSource>&)>& add)
      : layout_(layout), add_(add) {}

  void add(const std::string& name, const NormWeights& norm) {
    add_vector(name + ".weight", norm.weight, layout_.norm_plus_one ? 1.0F : 0.0F);
    if (!norm.bias.empty()) add_vector(name + ".bias", norm.bias);
  }
  void add(const FolderMatrix& matrix) { add_(matrix, tensors_); }
  void add(const std::string& name, int64_t layer, Module module, const LinearWeights& linear) {
    add({linear.weight, name, layer, module});
    add_bias(name, linear);
  }
  void add_bias(const std::string& name, const LinearWeights& linear) {
    if (!linear.bias.empty()) add_vector(name + ".bias", linear.bias);
  }
  void add(const std::string& name, const XieluWeights& xielu) {
    for (const auto& [part, value] : {std::pair{"alpha_p", &xielu.alpha_p},
                                      {"alpha_n", &xielu.alpha_n},
                                      {"beta", &xielu.beta},
                                      {"eps", &xielu.eps}}) {
      tensors_.push_back({fmt::format("{}.{}", name, part),
                          {1},
                          [value = value](int64_t, int64_t, float* out) { *out = *value; }});
    }
  }
  std::vector<TensorSource> take() { return std::move(tensors_); }
  void add_vector(std::string name, const std::vector<float>& values, float less = 0) {
    tensors_.push_back({std::move(name), {std::ssize(values)}, [&values, less](int64_t, int64_t, float* out) {
                          std::ranges::transform(
                              values, out, [less](float value) { return less == 0 ? value : value - less; });
                        }});
  }

 private:
  const FolderLayout& layout_;
  const std::function<void(const FolderMatrix&, std::vector<TensorSource>&)>& add_;
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

std::string FolderLayout::name(int64_t layer, Module module, int64_t expert) const {
  return fmt::format(fmt::runtime(modules.at(module)), layer, expert);
}

namespace {

FolderLayout layout_of(const TensorNames& names) {
  FolderLayout layout;
  layout.norm_plus_one = names.norm_plus_one;
  layout.embedding = names.root + names.embedding;
  layout.head = names.head;
  for (const auto& [module, place] : names.modules) layout.modules[module] = names.root + place.name;
  for (const auto& [module, name] : names.vectors) layout.vectors[module] = names.root + name;
  layout.state_decay = names.root + names.state_decay;
  layout.state_step = names.root + names.state_step;
  layout.state_skip = names.root + names.state_skip;
  layout.layer_embedding = names.root + names.layer_embedding;
  layout.layer_projection = names.root + names.layer_projection;
  layout.layer_projection_norm = names.root + names.layer_projection_norm;
  layout.root = names.root;
  layout.block = names.root + names.layer;
  return layout;
}

/// The settings as the architecture's own code reads them; nothing where the model came in the unified
/// layout.
std::optional<nlohmann::json> published_settings(const Model& model) {
  if (model.config.architecture == "hfmodel") return std::nullopt;
  // Other programs know neither the operations of a rotation nor norms that are another kind than the
  // family's.
  if (model.config.rotation) return std::nullopt;
  nlohmann::json document;
  if (!model.config.source.empty()) {
    document = nlohmann::json::parse(model.config.source);
  } else if (model.format == "gguf") {
    const GgufFile file(model.path);
    document = find_gguf_architecture(file.string("general.architecture"))->translate(GgufSettings(file));
  } else {
    std::error_code code;
    const auto file = model.path / kConfigFile;
    if (!std::filesystem::exists(file, code)) return std::nullopt;
    document = read_json_object(file);
    for (const char* key : {"quantization_config", "compression_config"}) document.erase(key);
  }
  if (document.contains(kWeightLayoutKey) || document.contains("text_config")) return std::nullopt;
  return document;
}

/// Norms of blocks have no eps here, and one eps for all norms in other programs: it becomes next to nothing,
/// which a final norm does not feel, and a row of zeros stays zero.
void write_without_eps(const ModelConfig& config, const Architecture& architecture,
                       nlohmann::json& document) {
  constexpr double kNone = 1e-24;
  nlohmann::json changed = document;
  changed["rms_norm_eps"] = kNone;
  if (architecture.read(JsonObject(changed, "config.json")).norm_eps != kNone) return;
  changed[kFinalNormEpsKey] = config.norm_eps;
  document = std::move(changed);
}

/// Whether every module of the graph has a tensor of its own, as it is computed with.
bool is_plain(const ModelConfig& config, const TensorNames& names) {
  if (names.interleaved || config.learned_positions || config.embedding_size != 0 || config.latent ||
      config.activation == Activation::xielu ||
      config.recurrence)  // which other programs hold in other forms
    return false;
  // A correction is a row of a matrix there, where the scores are a softmax (ERNIE).
  if (config.experts && config.experts->route.correction &&
      config.experts->route.scores == RouteOp::Scores::softmax)
    return false;
  const auto plain = [&](Module module) {
    const TensorPlace& place = names.modules.at(module);
    return place.rows == 0 && place.block_rows == 0 && !place.transposed && !place.per_head &&
           !place.stacked && !place.bare && place.factor == 1;
  };
  for (int64_t i = 0; i < config.num_layers; ++i) {
    for (const Operation& operation : config.graph.block(i).operations) {
      const auto* linear = std::get_if<LinearOp>(&operation);
      const auto* norm = std::get_if<NormOp>(&operation);
      if ((linear != nullptr && !plain(linear->module)) || (norm != nullptr && !plain(norm->module)))
        return false;
    }
  }
  return true;
}

/// Whether −1 and +1 lead back to every norm's weights.
bool keeps_norms(const Model& model) {
  const auto keeps = [](const NormWeights& norm) {
    return std::ranges::all_of(norm.weight, [](float w) { return (w - 1.0F) + 1.0F == w; });
  };
  return keeps(model.final_norm) && std::ranges::all_of(model.layers, [&](const LayerWeights& layer) {
           return std::ranges::all_of(layer.norms, [&](const auto& norm) { return keeps(norm.second); });
         });
}

}  // namespace

FolderLayout unified_layout(const ModelConfig& config, const std::string& torch_dtype) {
  FolderLayout layout = layout_of(unified_names());
  layout.config = unified_config(config, torch_dtype);
  return layout;
}

std::optional<FolderLayout> published_layout(const Model& model, const std::string& torch_dtype) {
  std::optional<nlohmann::json> settings = published_settings(model);
  if (!settings) return std::nullopt;
  nlohmann::json& document = *settings;
  const Architecture* architecture = find_architecture(model.config.architecture);
  const ModelConfig read = architecture->read(JsonObject(document, "config.json"));
  if (read.qkv_bias != model.config.qkv_bias || read.o_bias != model.config.o_bias ||
      read.mlp_bias != model.config.mlp_bias)
    return std::nullopt;
  ModelConfig own = model.config;
  own.norm_weight_plus_one = read.norm_weight_plus_one;
  TensorNames names = hugging_face_names(own);
  if (architecture->rename != nullptr) architecture->rename(own, names);
  if (!is_plain(own, names) || (names.norm_plus_one && !keeps_norms(model))) return std::nullopt;
  FolderLayout layout = layout_of(names);
  layout.published = true;
  document["tie_word_embeddings"] = own.tie_word_embeddings;
  document["l2norm_as_rmsnorm"] = own.l2norm_as_rmsnorm;
  if (own.l2norm_as_rmsnorm) write_without_eps(own, *architecture, document);
  document.erase("torch_dtype");
  document["dtype"] = torch_dtype;
  layout.config = std::move(document);
  return layout;
}

namespace {

/// What makes the inputs of layers and the streams beside the residual one.
void add_beside_blocks(const Model& model, const FolderLayout& layout, Sources& sources) {
  if (model.config.layer_inputs) {
    sources.add({model.layer_embedding, layout.layer_embedding});
    sources.add({.matrix = model.layer_projection.weight, .name = layout.layer_projection, .map = true});
    sources.add_vector(layout.layer_projection_norm + ".weight", model.layer_projection_norm.weight);
  }
  for (const auto& [kind, maps] : {std::pair{"altup_projections", &model.altup_projections},
                                   {"altup_unembed_projections", &model.altup_unembeddings}}) {
    for (size_t j = 0; j < maps->size(); ++j)
      sources.add(
          {.matrix = (*maps)[j].weight, .name = fmt::format("{}{}.{}", layout.root, kind, j), .map = true});
  }
}

/// A block's numbers besides matrices and norms.
void add_numbers(const LayerWeights& layer, int64_t i, const FolderLayout& layout, Sources& sources) {
  const auto in_layer = [i](const std::string& name) { return fmt::format(fmt::runtime(name), i); };
  for (const auto& [module, values] : layer.vectors) {
    const auto own = layout.vectors.find(module);
    sources.add_vector(
        own == layout.vectors.end() ? layout.name(i, module) + ".weight" : in_layer(own->second), values);
  }
  for (const auto& [module, values] : layer.biases)
    sources.add_vector(layout.name(i, module) + ".bias", values);
  for (const auto& [name, values] : {std::pair{&layout.state_decay, &layer.state.decay},
                                     {&layout.state_step, &layer.state.step_bias},
                                     {&layout.state_skip, &layer.state.skip}}) {
    if (!values->empty()) sources.add_vector(in_layer(*name), *values);
  }
  if (!layer.altup) return;
  for (const auto& [part, values] : {std::pair{"router_norm", &layer.altup->router_norm},
                                     {"modality_router", &layer.altup->router},
                                     {"prediction_coefs", &layer.altup->prediction},
                                     {"correction_coefs", &layer.altup->correction}}) {
    sources.add_vector(fmt::format("{}altup.{}.weight", in_layer(layout.block), part), *values);
  }
}

}  // namespace

std::vector<TensorSource> folder_tensors(
    const Model& model, const FolderLayout& layout,
    const std::function<void(const FolderMatrix& matrix, std::vector<TensorSource>& tensors)>& add) {
  Sources sources(layout, add);
  sources.add({model.embedding, layout.embedding});
  add_beside_blocks(model, layout, sources);
  if (model.positions.rows > 0) sources.add({model.positions, model.positions.name});
  for (const auto& [module, weights] : {std::pair{Module::embedding_in, &model.embedding_in},
                                        {Module::embedding_out, &model.embedding_out}}) {
    if (weights->weight.rows > 0) sources.add(layout.name(0, module), 0, module, *weights);
  }
  for (int64_t i = 0; i < model.config.num_layers; ++i) {
    const LayerWeights& layer = model.layers[static_cast<size_t>(i)];
    for (const Operation& operation : model.config.graph.block(i).operations) {
      if (const auto* op = std::get_if<NormOp>(&operation); op != nullptr && op->weighted)
        sources.add(layout.name(i, op->module), layer.norm(op->module));
      if (const auto* op = std::get_if<LinearOp>(&operation)) {
        // Values that are keys are stored once.
        if (op->module == Module::v && model.config.layer(i).keys_as_values) continue;
        int64_t expert = 0;
        for (const LinearWeights* linear : layer.all(op->module))
          sources.add(layout.name(i, op->module, expert++), i, op->module, *linear);
      }
      if (std::holds_alternative<ActivateOp>(operation) && layer.xielu)
        sources.add(layout.name(i, Module::activation), *layer.xielu);
    }
    add_numbers(layer, i, layout, sources);
  }
  if (model.config.final_norm) sources.add(layout.name(0, Module::final_norm), model.final_norm);
  if (model.config.tie_word_embeddings) {
    sources.add_bias(layout.head, model.head);
  } else {
    sources.add(layout.head, 0, Module::head, model.head);
  }
  return sources.take();
}

TensorSource number_source(const FolderMatrix& place) {
  const Matrix& matrix = place.matrix;
  return {place.name + ".weight",
          {matrix.rows, matrix.cols},
          [&matrix](int64_t first, int64_t count, float* out) { matrix.decode_rows(first, count, out); }};
}

void write_folder(const std::filesystem::path& folder, std::span<const TensorSource> tensors,
                  const nlohmann::json& config, DType dtype) {
  write_safetensors(folder / kWeightsFile, tensors, dtype);
  write_file_atomically(folder / kConfigFile, config.dump(2) + "\n");
}

void write_unified(const Model& model, const std::filesystem::path& folder, DType dtype) {
  const FolderLayout layout = unified_layout(model.config, torch_name(dtype));
  const auto tensors =
      folder_tensors(model, layout, [](const FolderMatrix& matrix, std::vector<TensorSource>& out) {
        out.push_back(number_source(matrix));
      });
  write_folder(folder, tensors, layout.config, dtype);
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
