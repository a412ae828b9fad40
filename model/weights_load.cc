// From a checkpoint's tensors to the weights of the model, by tables of names: one per layout.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/setting.h"
#include "model/architectures/architecture.h"
#include "model/architectures/gguf.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"
#include "model/named_tensors.h"

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

/// Newer folders hold all experts of a layer in two tensors, whatever the family.
void find_stacked_experts(const Checkpoint& checkpoint, const ModelConfig& config, TensorNames& names) {
  if (!config.experts || names.modules.at(Module::expert_gate).stacked) return;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = names.root + fmt::format(fmt::runtime(names.layer), i);
    if (checkpoint.find(layer + "mlp.experts.gate_up_proj") == nullptr) continue;
    stack_experts(config,
                  {.gate_up = "mlp.experts.gate_up_proj", .down = "mlp.experts.down_proj", .bare = true},
                  names);
    for (const char* router : {"mlp.gate", "mlp.router"}) {
      if (checkpoint.find(layer + router + ".weight") != nullptr)
        rename_module(names, Module::router, router);
    }
    return;
  }
}

class Loader : public NamedTensors {
 public:
  using NamedTensors::NamedTensors;

  void load() {
    Model& model = model_;
    check_memory();
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.embedding_size != 0 ? config_.embedding_size : hidden;
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
    if (config_.layer_inputs) load_layer_inputs(model);
    if (config_.altup) {
      for (int64_t j = 0; j < config_.altup->streams - 1; ++j) {
        const auto map = [&](const char* kind) {
          LinearWeights weights;
          const std::string name = fmt::format("{}.{}", kind, j);
          weights.weight = matrix({.name = names_.root + name}, "model." + name, hidden, hidden);
          return weights;
        };
        model.altup_projections.push_back(map("altup_projections"));
        model.altup_unembeddings.push_back(map("altup_unembed_projections"));
      }
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
    LayerWeights& weights = model_.layers[static_cast<size_t>(layer)];
    weights.key = read(cache.key_suffix);
    weights.value = read(cache.value_suffix);
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
    const bool as_keys = op.module == Module::v && config_.layer(layer).keys_as_values;
    const Module stored_as = as_keys ? Module::k : op.module;
    TensorPlace place = this->place(stored_as);
    const std::string name = name_in_file(stored_as, layer);
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
      // As the unified layout and Mamba's norms have it.
      const bool flat = view != nullptr && view->shape.size() == 1;
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
    if (!op.weighted) {
      result.weight.assign(static_cast<size_t>(op.weights()), 1.0F);
      return result;
    }
    const TensorPlace& place = this->place(op.module);
    result.weight = norm_values(op, layer, place.bare ? "" : ".weight");
    if (place.factor != 1) {
      for (float& weight : result.weight) weight *= place.factor;
    }
    if (names_.norm_plus_one && !names_.whole_norms.contains(op.module)) {
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
      if (const auto* op = std::get_if<LinearOp>(&operation)) {
        if (op->experts != 0) {
          weights.experts[op->module] = experts(*op, i);
        } else {
          weights.linears[op->module] = linear(*op, i);
        }
      }
      if (const auto* op = std::get_if<NormOp>(&operation)) weights.norms[op->module] = norm(*op, i);
      const auto* activate = std::get_if<ActivateOp>(&operation);
      if (activate != nullptr && activate->kind == Activation::xielu) weights.xielu = xielu(i);
      load_numbers(operation, i, weights);
    }
    return weights;
  }

  std::string vector_name(Module module, int64_t layer) const {
    return names_.root + fmt::format(fmt::runtime(names_.vectors.at(module)), layer);
  }

  /// What an operation has besides matrices and norms.
  void load_numbers(const Operation& operation, int64_t layer, LayerWeights& weights) {
    const auto load = [&](Module module, int64_t count) {
      weights.vectors[module] = numbers(vector_name(module, layer), count);
    };
    if (const auto* op = std::get_if<AttentionOp>(&operation); op != nullptr && op->sinks) {
      load(Module::qk_product, op->heads);
    }
    if (const auto* op = std::get_if<RouteOp>(&operation)) {
      if (op->correction) load(Module::router, op->experts);
      if (op->expert_scale) load(Module::expert_mix, op->experts);
    }
    if (const auto* op = std::get_if<ScaleOp>(&operation); op != nullptr && op->stored) {
      load(op->module, op->numbers);
    }
    if (const auto* op = std::get_if<ConvolveOp>(&operation)) {
      weights.vectors[op->module] = taps(*op, layer, ".weight", op->taps);
      if (op->bias) weights.biases[op->module] = taps(*op, layer, ".bias", 1);
    }
    const auto* delta = std::get_if<DeltaRuleOp>(&operation);
    const auto* space = std::get_if<StateSpaceOp>(&operation);
    if (delta != nullptr) load_state(layer, delta->value_heads, false, weights.state);
    if (space != nullptr) load_state(layer, space->heads, true, weights.state);
    if (const auto* op = std::get_if<AltupOp>(&operation); op != nullptr && !weights.altup) {
      const auto part = [&](const char* name, int64_t count) {
        return numbers(
            names_.root + fmt::format(fmt::runtime(names_.layer), layer) + "altup." + name + ".weight",
            count);
      };
      weights.altup = {part("router_norm", op->width), part("modality_router", op->streams * op->width),
                       part("prediction_coefs", op->streams * op->streams * op->streams),
                       part("correction_coefs", op->streams * op->streams)};
    }
  }

  /// A convolution's channels, `each` numbers of every one, of a tensor that may hold others', too.
  std::vector<float> taps(const ConvolveOp& op, int64_t layer, const char* kind, int64_t each) {
    const TensorPlace& place = this->place(op.module);
    const int64_t rows = place.rows != 0 ? place.rows : op.width;
    const std::vector<float> all = numbers(name_in_file(op.module, layer) + kind, rows * each);
    const auto first = all.begin() + place.first_row * each;
    return {first, first + op.width * each};
  }

  void load_state(int64_t layer, int64_t heads, bool skips, LayerWeights::StateWeights& state) {
    const auto load = [&](const std::string& name) {
      return numbers(names_.root + fmt::format(fmt::runtime(name), layer), heads);
    };
    state.decay = load(names_.state_decay);
    if (!names_.decay_is_stored) {
      for (float& value : state.decay) value = -std::exp(value);
    }
    state.step_bias = load(names_.state_step);
    if (skips) state.skip = load(names_.state_skip);
  }

  void load_layer_inputs(Model& model) {
    const LayerInputs& inputs = *config_.layer_inputs;
    const int64_t width = config_.num_layers * inputs.size;
    model.layer_embedding =
        weights({.name = names_.root + names_.layer_embedding}, "model.embed_tokens_per_layer",
                ModuleRequest::Kind::embedding, inputs.vocab_size, width)
            .weight;
    model.layer_projection =
        weights({.name = names_.root + names_.layer_projection}, "model.per_layer_model_projection",
                ModuleRequest::Kind::outside, width, config_.hidden_size);
    model.layer_projection_norm.name = "model.per_layer_projection_norm";
    model.layer_projection_norm.weight =
        vector(names_.root + names_.layer_projection_norm + ".weight", {inputs.size});
  }
};

Model load_gguf_model(const std::filesystem::path& path) {
  Model model;
  const auto file = std::make_shared<GgufFile>(path);
  model.checkpoint = file;
  model.config = read_config(*file);
  TensorNames names = gguf_names(*file, model.config);
  const Architecture& architecture = *find_gguf_architecture(file->string("general.architecture"));
  if (architecture.rename_gguf != nullptr) architecture.rename_gguf(*file, model.config, names);
  Loader loader(*file, model.config, names, nullptr, model);
  loader.load();
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
  find_stacked_experts(*model.checkpoint, model.config, names);
  const std::optional<Quantization> quantization = find_quantization(path, *model.checkpoint, gptq_zeros);
  Loader loader(*model.checkpoint, model.config, names, quantization ? &*quantization : nullptr, model);
  loader.load();
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
  Model model = directory ? load_directory(path, gptq_zeros) : load_gguf_model(path);
  model.path = path;
  // A trailing slash leaves an empty last part.
  const auto normal = std::filesystem::absolute(path).lexically_normal();
  const auto name = (normal.has_filename() ? normal : normal.parent_path()).filename();
  model.name = printable(name.string(), name.native().size() * 4);  // it goes into files, which are UTF-8
  model.format = model.checkpoint->format();
  return model;
}

}  // namespace qeval::model
