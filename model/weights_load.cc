// From a checkpoint's tensors to the weights of the model, by tables of names: one per layout.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/setting.h"
#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"
#include "model/weights.h"

namespace qeval::model {
namespace {

/// Whether there are tensors of a module: its weight, or what a quantized one has instead.
bool has_module(const Checkpoint& checkpoint, const std::string& name) {
  if (checkpoint.find(name + ".weight") != nullptr) return true;
  return std::ranges::any_of(checkpoint.tensors(), [&](const TensorView& tensor) {
    return tensor.name.starts_with(name + ".") && tensor.name != name + ".bias";
  });
}

/// Where names of a text model begin in folders: as usual, inside a multimodal model, or saved alone without
/// its head. `names.root` and the head's name are changed to what this checkpoint has.
void find_root(const Checkpoint& checkpoint, TensorNames& names) {
  struct Place {
    std::string root, head;
  };
  const std::string usual = names.root, head = names.head;
  std::vector<Place> places{{usual, head}, {"language_model." + usual, "language_model." + head}};
  if (usual.starts_with("model.")) {
    places.push_back({"model.language_model." + usual.substr(6), head});
    places.push_back({usual.substr(6), head});
  } else {
    places.push_back({"", head});
  }
  for (const Place& place : places) {
    if (!has_module(checkpoint, place.root + names.embedding)) continue;
    names.root = place.root;
    names.head = place.head;
    return;
  }
}

/// Tensors that checkpoints carry beside the weights and that change nothing: tables that the program
/// computes itself, the head of a tied model, a remainder of MobileQuant's training, and the rest of a model
/// of which this one is the part for text.
bool is_left_over(std::string_view name, bool tied, const TensorNames& names) {
  if (name.ends_with(".rotary_emb.inv_freq") || name.ends_with("temp_weight")) return true;
  if (tied && (name == names.head + ".weight" || name == names.head + ".weight_scale")) return true;
  const auto ends = [&](const std::string& suffix) { return name.ends_with(suffix); };
  if (std::ranges::any_of(names.ignored_suffixes, ends)) return true;
  const bool inside_another = names.root.find("language_model.") != std::string::npos;
  return inside_another && !name.starts_with(names.root) && !name.starts_with(names.head);
}

class Loader {
 public:
  /// `quantization` may be null.
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& names,
         const Quantization* quantization)
      : checkpoint_(checkpoint), config_(config), names_(names), quantization_(quantization) {}

  void load(Model& model) {
    check_memory();
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.embedding_size != 0 ? config_.embedding_size : hidden;
    model_ = &model;
    model.embedding = weights({.name = names_.root + names_.embedding}, "model.embed_tokens",
                              ModuleRequest::Kind::embedding, config_.vocab_size, width)
                          .weight;
    if (config_.learned_positions) {
      const int64_t rows = config_.max_position_embeddings + config_.position_offset;
      model.positions =
          matrix({.name = names_.root + names_.positions}, "model.embed_positions", rows, hidden);
    }
    if (width != hidden) {
      model.embedding_in = linear({.module = Module::embedding_in, .rows = hidden, .cols = width}, 0);
      model.embedding_out = linear({.module = Module::embedding_out, .rows = width, .cols = hidden}, 0);
    }
    model.layers.reserve(static_cast<size_t>(config_.num_layers));
    for (int64_t i = 0; i < config_.num_layers; ++i) model.layers.push_back(layer(i));
    if (config_.graph.final_norm) model.final_norm = norm(*config_.graph.final_norm, 0);
    if (config_.tie_word_embeddings) {
      model.head.weight = model.embedding;
      model.head.weight.name = std::string(module_name(Module::head));
    } else {
      require_head();
      model.head = weights({.name = names_.head}, std::string(module_name(Module::head)),
                           ModuleRequest::Kind::head, config_.vocab_size, width);
    }
    if (config_.head_bias || checkpoint_.find(names_.head + ".bias") != nullptr) {
      model.head.bias = vector(names_.head + ".bias", {config_.vocab_size});
    }
    if (quantization_ != nullptr && quantization_->cache) {
      for (int64_t i = 0; i < config_.num_layers; ++i) cache_rounding(*quantization_->cache, i);
    }
  }

  /// What nothing reads is a model that we do not understand.
  void check_unused() const {
    for (const TensorView& tensor : checkpoint_.tensors()) {
      if (used_.contains(tensor.name) || is_left_over(tensor.name, config_.tie_word_embeddings, names_))
        continue;
      const auto ends = [&](const std::string& suffix) { return tensor.name.ends_with(suffix); };
      if (quantization_ != nullptr && std::ranges::any_of(quantization_->ignored_suffixes, ends)) {
        model_->config.warnings.push_back(fmt::format("{}: tensor {}: {}", checkpoint_.path().string(),
                                                      printable(tensor.name), quantization_->ignored_note));
        continue;
      }
      fail("{}: tensor {} {} belongs to no part of a {} model of {} layers with this configuration",
           checkpoint_.path().string(), printable(tensor.name), shape_text(tensor.shape),
           config_.architecture, config_.num_layers);
    }
    for (const auto& [name, file] : checkpoint_.listed_only()) {
      if (!is_left_over(name, config_.tie_word_embeddings, names_))
        fail("{}: tensor {} is missing; the index lists it", file.string(), printable(name));
    }
  }

 private:
  void require_head() const {
    if (!names_.root.empty() || checkpoint_.format() == "gguf" || has_module(checkpoint_, names_.head)) {
      return;
    }
    fail(
        "{}: holds a base model saved without its head, and the configuration does not tie the head to the "
        "embedding; accepted: the causal model (AutoModelForCausalLM saves it)",
        checkpoint_.path().string());
  }

  /// The weights stay mapped, so that more of them than memory would be read from the disk again in every
  /// batch.
  void check_memory() const {
    int64_t bytes = 0;
    for (const TensorView& tensor : checkpoint_.tensors()) bytes += std::ssize(tensor.bytes);
    require_memory(bytes, checkpoint_.path().string());
  }

  const TensorView& tensor(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView& view = checkpoint_.require(name);
    if (view.shape != shape) {
      fail("{}: tensor {} has shape {}; the configuration asks for {}", checkpoint_.path().string(), name,
           shape_text(view.shape), shape_text(shape));
    }
    if (!info(view.dtype).is_float) {
      fail("{}: tensor {} is of type {}; accepted: a floating-point type", checkpoint_.path().string(), name,
           info(view.dtype).name);
    }
    used_.insert(name);
    return view;
  }

  const TensorPlace& place(Module module) const { return names_.modules.at(module); }

  std::string name_in_file(Module module, int64_t layer, int64_t head = 0) const {
    return names_.root + fmt::format(fmt::runtime(place(module).name), layer, head);
  }
  std::string unified_name(Module module, int64_t layer) const {
    const std::string_view name = module_name(module);
    return is_after_blocks(module) ? std::string(name) : fmt::format("model.layers.{}.{}", layer, name);
  }

  /// The matrix of a module, quantized or not, and what is asked of its input and output.
  LinearWeights weights(const TensorPlace& place, const std::string& unified, ModuleRequest::Kind kind,
                        int64_t rows, int64_t cols) {
    LinearWeights result;
    if (quantization_ != nullptr) {
      const ModuleRequest request{.name = place.name,
                                  .rows = place.rows != 0 ? place.rows : rows,
                                  .cols = cols,
                                  .kind = kind,
                                  .transposed = place.transposed};
      ModuleTensors tensors(checkpoint_, request);
      std::optional<QuantizedModule> module = quantization_->read(tensors);
      for (const TensorView& tensor : tensors.taken()) used_.insert(tensor.name);
      if (module) {
        result.input = module->input;
        result.output = module->output;
      }
      if (module && module->weight) {
        result.weight.name = unified;
        result.weight.rows = rows;
        result.weight.cols = cols;
        result.weight.stored = StoredWeight(module->weight, place.first_row);
        result.weight.block_rows = place.block_rows;
        result.weight.block_stride = place.block_stride;
        return result;
      }
    }
    result.weight = matrix(place, unified, rows, cols);
    return result;
  }

  void cache_rounding(const Quantization::CacheRounding& cache, int64_t layer) {
    const std::string k = name_in_file(Module::k, layer);
    const std::string attention = k.substr(0, k.rfind('.') + 1);
    const auto read = [&](const std::string& suffix) {
      ActivationRounding rounding = cache.rounding;
      rounding.scale = vector(attention + suffix, {1}).at(0);
      if (!std::isfinite(rounding.scale) || rounding.scale <= 0) {
        fail("{}: tensor {} is {}; accepted: a finite scale above 0", checkpoint_.path().string(),
             printable(attention + suffix), rounding.scale);
      }
      return rounding;
    };
    LayerWeights& weights = model_->layers[static_cast<size_t>(layer)];
    weights.key = read(cache.key_suffix);
    weights.value = read(cache.value_suffix);
  }

  /// A bias that the architecture lacks and that a quantizer wrote all the same: zeros mean nothing.
  void skip_zero_bias(const std::string& name) {
    const TensorView* bias = quantization_ != nullptr ? checkpoint_.find(name + ".bias") : nullptr;
    if (bias == nullptr) return;
    for (const float value : vector(name + ".bias", bias->shape)) {
      if (value == 0) continue;
      fail("{}: tensor {}.bias is not zero, and {} has no bias there", checkpoint_.path().string(),
           printable(name), config_.architecture);
    }
  }

  /// A matrix as `place` says it lies in the file.
  Matrix matrix(const TensorPlace& place, const std::string& unified, int64_t rows, int64_t cols) {
    const std::string name = place.name + ".weight";
    const int64_t stored_rows = place.rows != 0 ? place.rows : rows;
    Matrix result;
    result.name = unified;
    result.rows = rows;
    result.cols = cols;
    if (place.transposed) {
      transpose(tensor(name, {cols, stored_rows}), place.first_row, result);
      return result;
    }
    const TensorView& view = tensor(name, {stored_rows, cols});
    const DTypeInfo& type = info(view.dtype);
    const int64_t row_bytes = cols / type.block_size * type.block_bytes;
    result.stored = StoredWeight(view.dtype, cols, view.bytes.data() + place.first_row * row_bytes);
    result.block_rows = place.block_rows;
    result.block_stride = place.block_stride;
    return result;
  }

  /// Rows of `result` ← columns from `first` on of the stored [cols, …].
  void transpose(const TensorView& view, int64_t first, Matrix& result) {
    const DTypeInfo& type = info(view.dtype);
    if (type.block_size != 1) {
      fail("{}: tensor {} is of type {} and stored transposed; accepted: a type of single elements",
           checkpoint_.path().string(), view.name, type.name);
    }
    const int64_t size = type.block_bytes, stored = view.shape[1];
    auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(result.rows * result.cols * size));
    for (int64_t r = 0; r < result.rows; ++r) {
      std::byte* row = buffer->data() + r * result.cols * size;
      for (int64_t c = 0; c < result.cols; ++c) {
        std::memcpy(row + c * size, view.bytes.data() + (c * stored + first + r) * size,
                    static_cast<size_t>(size));
      }
    }
    result.stored = StoredWeight(view.dtype, result.cols, buffer->data());
    model_->transposed.push_back(std::move(buffer));
  }

  std::vector<float> vector(const std::string& name, const std::vector<int64_t>& shape) {
    const TensorView& view = tensor(name, shape);
    std::vector<float> values(static_cast<size_t>(view.element_count()));
    decode(view.dtype, view.bytes.data(), view.element_count(), values.data());
    return values;
  }

  bool interleaved(Module module) const {
    return names_.interleaved && (module == Module::q || module == Module::k || module == Module::q_norm ||
                                  module == Module::k_norm);
  }

  /// Per-channel values of a projection as its rows are ordered.
  std::vector<float> in_row_order(Module module, const std::vector<float>& stored) const {
    if (!interleaved(module)) return stored;
    std::vector<float> values(stored.size());
    for (size_t r = 0; r < stored.size(); ++r) {
      values[r] = stored[static_cast<size_t>(
          interleaved_row(static_cast<int64_t>(r), config_.head_dim, config_.rotary.dim))];
    }
    return values;
  }

  LinearWeights linear(const LinearOp& op, int64_t layer) {
    LinearWeights result;
    TensorPlace place = this->place(op.module);
    const std::string name = name_in_file(op.module, layer);
    place.name = name;
    result = weights(place, unified_name(op.module, layer),
                     is_after_blocks(op.module) ? ModuleRequest::Kind::outside : ModuleRequest::Kind::linear,
                     op.rows, op.cols);
    if (interleaved(op.module)) {
      result.weight.interleaved_head_dim = config_.head_dim;
      if (config_.rotary.dim != config_.head_dim) result.weight.interleaved_dim = config_.rotary.dim;
    }
    if (!op.bias) {
      skip_zero_bias(name);
      return result;
    }
    const std::vector<float> stored = vector(name + ".bias", {place.rows != 0 ? place.rows : op.rows});
    for (int64_t r = 0; r < op.rows; ++r) {
      const int64_t block =
          place.block_rows != 0 ? r / place.block_rows * (place.block_stride - place.block_rows) : 0;
      result.bias.push_back(stored[static_cast<size_t>(place.first_row + r + block)]);
    }
    result.bias = in_row_order(op.module, result.bias);
    return result;
  }

  /// Weights or biases of a norm.
  std::vector<float> norm_values(const NormOp& op, int64_t layer, const char* kind) {
    if (!op.own_weights) return vector(name_in_file(op.module, layer) + kind, {op.weights()});
    const int64_t heads = op.width / op.group;
    if (!place(op.module).per_head) {
      const std::string name = name_in_file(op.module, layer) + kind;
      const TensorView* view = checkpoint_.find(name);
      const bool flat = view != nullptr && view->shape.size() == 1;  // as the unified layout has it
      return in_row_order(op.module,
                          vector(name, flat ? std::vector{op.width} : std::vector{heads, op.group}));
    }
    std::vector<float> values;
    for (int64_t head = 0; head < heads; ++head) {
      const std::vector<float> part = vector(name_in_file(op.module, layer, head) + kind, {op.group});
      values.insert(values.end(), part.begin(), part.end());
    }
    return in_row_order(op.module, values);
  }

  NormWeights norm(const NormOp& op, int64_t layer) {
    NormWeights result;
    result.name = unified_name(op.module, layer);
    result.weight = norm_values(op, layer, ".weight");
    if (names_.norm_plus_one) {
      for (float& weight : result.weight) weight += 1.0F;
    }
    if (op.bias) result.bias = norm_values(op, layer, ".bias");
    return result;
  }

  /// xIELU's numbers, each a tensor of one element or of no dimension.
  XieluWeights xielu(int64_t layer) {
    if (!names_.xielu.empty()) {
      const auto& [alpha_p, alpha_n, beta, eps] = names_.xielu[static_cast<size_t>(layer)];
      return {alpha_p, alpha_n, beta, eps};
    }
    const std::string name = name_in_file(Module::activation, layer);
    const auto scalar = [&](const char* part, float fallback) {
      const TensorView* view = checkpoint_.find(name + part);
      if (view == nullptr && !std::isnan(fallback)) return fallback;
      const bool single = view != nullptr && view->shape.empty();
      return vector(name + part, single ? std::vector<int64_t>{} : std::vector<int64_t>{1}).at(0);
    };
    const float required = std::numeric_limits<float>::quiet_NaN();
    return {scalar(".alpha_p", required), scalar(".alpha_n", required), scalar(".beta", 0.5F),
            scalar(".eps", -1e-6F)};
  }

  LayerWeights layer(int64_t i) {
    LayerWeights weights;
    for (const Operation& operation : config_.graph.block(i).operations) {
      if (const auto* op = std::get_if<LinearOp>(&operation)) weights.linears[op->module] = linear(*op, i);
      if (const auto* op = std::get_if<NormOp>(&operation)) weights.norms[op->module] = norm(*op, i);
      const auto* activate = std::get_if<ActivateOp>(&operation);
      if (activate != nullptr && activate->kind == Activation::xielu) weights.xielu = xielu(i);
    }
    return weights;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames& names_;
  const Quantization* quantization_;
  Model* model_ = nullptr;
  std::unordered_set<std::string> used_;
};

Model load_gguf(const std::filesystem::path& path) {
  Model model;
  const auto file = std::make_shared<GgufFile>(path);
  model.checkpoint = file;
  model.config = read_config(*file);
  TensorNames names = gguf_names(*file, model.config);
  const Architecture& architecture = *find_gguf_architecture(file->string("general.architecture"));
  if (architecture.rename_gguf != nullptr) architecture.rename_gguf(*file, model.config, names);
  Loader loader(*file, model.config, names, nullptr);
  loader.load(model);
  loader.check_unused();
  return model;
}

/// A clone that lacks one of these lacks more; none is read for its own sake where a text is scored.
void refuse_lfs_pointers_beside(const std::filesystem::path& folder) {
  for (const char* name :
       {"generation_config.json", "chat_template.jinja", "chat_template.json", "quantize.json"}) {
    std::ifstream file(folder / name, std::ios::binary);
    std::string head(1024, '\0');
    file.read(head.data(), static_cast<std::streamsize>(head.size()));
    head.resize(static_cast<size_t>(file.gcount()));
    refuse_lfs_pointer(head, folder / name);
  }
}

Model load_directory(const std::filesystem::path& path, const std::string& gptq_zeros) {
  Model model;
  std::error_code code;
  if (!std::filesystem::exists(path / "config.json", code))
    fail("{}: holds no config.json; accepted: a folder with config.json and weights, or a .gguf file",
         path.string());
  refuse_lfs_pointers_beside(path);
  model.config = read_config(path / "config.json");
  model.checkpoint = open_directory(path);
  const Architecture& architecture = *find_architecture(model.config.architecture);
  const bool unified = model.config.architecture == "hfmodel" ||
                       model.config.source.find(kWeightLayoutKey) != std::string::npos;
  TensorNames names = unified ? unified_names() : hugging_face_names(model.config);
  if (!unified) {
    if (architecture.rename != nullptr) architecture.rename(model.config, names);
  }
  find_root(*model.checkpoint, names);
  const std::optional<Quantization> quantization = find_quantization(path, *model.checkpoint, gptq_zeros);
  Loader loader(*model.checkpoint, model.config, names, quantization ? &*quantization : nullptr);
  loader.load(model);
  loader.check_unused();
  if (quantization) {
    model.quant_method = quantization->method;
    if (quantization->notes)
      model.config.warnings.insert(model.config.warnings.end(), quantization->notes->begin(),
                                   quantization->notes->end());
  }
  return model;
}

}  // namespace

Model load_model(const std::filesystem::path& path, const std::string& gptq_zeros) {
  std::error_code code;
  const bool directory = std::filesystem::is_directory(path, code);
  if (!directory && !std::filesystem::exists(path, code)) fail("{}: no such file or folder", path.string());
  if (!directory && path.extension() != ".gguf") {
    fail("{}: accepted: a folder with config.json and weights, or a .gguf file", path.string());
  }
  if (!directory && !gptq_zeros.empty())
    fail("{} {}: {} is a GGUF file; accepted with GPTQ folders", setting("gptq-zeros"), gptq_zeros,
         path.string());
  Model model = directory ? load_directory(path, gptq_zeros) : load_gguf(path);
  model.path = path;
  // A trailing slash leaves an empty last part.
  const auto normal = std::filesystem::absolute(path).lexically_normal();
  const auto name = (normal.has_filename() ? normal : normal.parent_path()).filename();
  model.name = printable(name.string(), name.native().size() * 4);  // it goes into files, which are UTF-8
  model.format = model.checkpoint->format();
  return model;
}

}  // namespace qeval::model
