// From a checkpoint's tensors to the weights of the model, by tables of names: one per layout.

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "base/memory.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/layout.h"
#include "model/weights.h"

namespace qeval::model {
namespace {

/// What a layout calls the modules; "{}" is the number of the layer. Folders have the names of the whole
/// causal model, which stored ones may differ from (see Stored).
struct NameMap {
  std::string_view embedding, final_norm, head;
  std::string_view input_norm, post_attention_norm;
  std::string_view q, k, v, o, gate, up, down;
};

constexpr NameMap kUnifiedNames{"model.embed_tokens",
                                "model.norm",
                                "lm_head",
                                "model.layers.{}.input_layernorm",
                                "model.layers.{}.post_attention_layernorm",
                                "model.layers.{}.self_attn.q_proj",
                                "model.layers.{}.self_attn.k_proj",
                                "model.layers.{}.self_attn.v_proj",
                                "model.layers.{}.self_attn.o_proj",
                                "model.layers.{}.mlp.w1",
                                "model.layers.{}.mlp.w3",
                                "model.layers.{}.mlp.w2"};

constexpr NameMap hugging_face_names() {
  NameMap names = kUnifiedNames;
  names.gate = "model.layers.{}.mlp.gate_proj";
  names.up = "model.layers.{}.mlp.up_proj";
  names.down = "model.layers.{}.mlp.down_proj";
  return names;
}

constexpr NameMap kHuggingFaceNames = hugging_face_names();

constexpr NameMap kGgufNames{"token_embd",         "output_norm",     "output",        "blk.{}.attn_norm",
                             "blk.{}.ffn_norm",    "blk.{}.attn_q",   "blk.{}.attn_k", "blk.{}.attn_v",
                             "blk.{}.attn_output", "blk.{}.ffn_gate", "blk.{}.ffn_up", "blk.{}.ffn_down"};

/// What stands in a file's names where the causal model by itself has "model." and "lm_head".
struct Stored {
  std::string_view body, head;

  std::string name(std::string name) const {
    constexpr std::string_view kBody =
        kUnifiedNames.embedding.substr(0, kUnifiedNames.embedding.find('.') + 1);
    if (name.starts_with(kBody)) return std::string(body) + name.substr(kBody.size());
    if (name == kUnifiedNames.head) return std::string(head);
    return name;
  }
};

constexpr std::array<Stored, 4> kStored{{
    {"model.", "lm_head"},
    {"", "lm_head"},                                      // the base model was saved, without its head
    {"language_model.model.", "language_model.lm_head"},  // within a model that sees pictures, old and new
    {"model.language_model.", "lm_head"},
}};

/// By where the embedding is; the plain one where there is none.
const Stored& find_stored(const Checkpoint& checkpoint) {
  const auto holds = [&](const Stored& stored) {
    return checkpoint.find(stored.name(std::string(kUnifiedNames.embedding)) + ".weight") != nullptr;
  };
  const auto found = std::find_if(kStored.begin(), kStored.end(), holds);
  return found == kStored.end() ? kStored.front() : *found;
}

bool is_inside_another(const Stored& stored) {
  return stored.body.find("language_model.") != std::string_view::npos;
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, const NameMap& names, bool interleaved)
      : checkpoint_(checkpoint),
        config_(config),
        names_(names),
        stored_(find_stored(checkpoint)),
        interleaved_(interleaved) {}

  void load(Model& model) {
    check_memory();
    const int64_t hidden = config_.hidden_size;
    model.embedding = matrix(&NameMap::embedding, 0, config_.vocab_size, hidden);
    model.layers.reserve(static_cast<size_t>(config_.num_layers));
    for (int64_t i = 0; i < config_.num_layers; ++i) model.layers.push_back(layer(i));
    model.final_norm = norm(&NameMap::final_norm, 0);
    if (config_.tie_word_embeddings) {
      model.head.weight = model.embedding;
      model.head.weight.name = kUnifiedNames.head;
    } else {
      require_head();
      model.head = linear(&NameMap::head, 0, config_.vocab_size, hidden, false);
    }
  }

  void mark_used(std::string_view name) { used_.insert(std::string(name)); }

  /// What nothing reads is a model that we do not understand.
  void check_unused() const {
    for (const TensorView& tensor : checkpoint_.tensors()) {
      if (used_.contains(tensor.name) || is_left_over(tensor.name)) continue;
      fail("{}: tensor {} {} belongs to no part of a {} model of {} layers with this configuration",
           checkpoint_.path().string(), printable(tensor.name), shape_text(tensor.shape),
           config_.architecture, config_.num_layers);
    }
    for (const auto& [name, file] : checkpoint_.listed_only()) {
      if (!is_left_over(name))
        fail("{}: tensor {} is missing; the index lists it", file.string(), printable(name));
    }
  }

 private:
  /// Tensors that checkpoints carry beside the weights and that change nothing: tables that the program
  /// computes itself, the head of a tied model, a remainder of MobileQuant's training, and the rest of a
  /// model of which this one is the part for text.
  bool is_left_over(std::string_view name) const {
    const std::string head = stored_.name(std::string(kUnifiedNames.head));
    return name.ends_with(".rotary_emb.inv_freq") || name.ends_with("temp_weight") ||
           (config_.tie_word_embeddings && name == head + ".weight") ||
           (is_inside_another(stored_) && !name.starts_with(stored_.body) && !name.starts_with(head));
  }

  void require_head() const {
    if (!stored_.body.empty() || checkpoint_.find(std::string(stored_.head) + ".weight") != nullptr) return;
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

  using Module = std::string_view NameMap::*;

  static std::string name_in(const NameMap& names, Module module, int64_t layer) {
    return fmt::format(fmt::runtime(names.*module), layer);
  }
  std::string stored_name(Module module, int64_t layer) const {
    return stored_.name(name_in(names_, module, layer));
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
    mark_used(name);
    return view;
  }

  Matrix matrix(Module module, int64_t layer, int64_t rows, int64_t cols) {
    const TensorView& view = tensor(stored_name(module, layer) + ".weight", {rows, cols});
    Matrix result;
    result.name = name_in(kUnifiedNames, module, layer);
    result.dtype = view.dtype;
    result.rows = rows;
    result.cols = cols;
    result.data = view.bytes.data();
    result.row_bytes = cols / info(view.dtype).block_size * info(view.dtype).block_bytes;
    return result;
  }

  std::vector<float> vector(const std::string& name, int64_t size) {
    const TensorView& view = tensor(name, {size});
    std::vector<float> values(static_cast<size_t>(size));
    decode(view.dtype, view.bytes.data(), size, values.data());
    return values;
  }

  LinearWeights linear(Module module, int64_t layer, int64_t rows, int64_t cols, bool bias) {
    LinearWeights result;
    result.weight = matrix(module, layer, rows, cols);
    if (bias) result.bias = vector(stored_name(module, layer) + ".bias", rows);
    return result;
  }

  /// q or k: GGUF's Llama files store the rows of each head for interleaved rotary pairs, biases too.
  LinearWeights rotated(Module module, int64_t layer, int64_t rows, int64_t cols, bool bias) {
    LinearWeights result = linear(module, layer, rows, cols, bias);
    if (!interleaved_) return result;
    const int64_t d = config_.head_dim;
    result.weight.interleaved_head_dim = d;
    const std::vector<float> stored = result.bias;
    for (size_t r = 0; r < stored.size(); ++r) {
      const auto head = static_cast<int64_t>(r) / d, within = static_cast<int64_t>(r) % d;
      result.bias[r] = stored[static_cast<size_t>(head * d + 2 * (within % (d / 2)) + within / (d / 2))];
    }
    return result;
  }

  NormWeights norm(Module module, int64_t layer) {
    const std::string name = stored_name(module, layer);
    NormWeights result;
    result.name = name_in(kUnifiedNames, module, layer);
    result.weight = vector(name + ".weight", config_.hidden_size);
    if (config_.norm_weight_plus_one) {
      for (float& weight : result.weight) weight += 1.0F;
    }
    if (config_.norm == NormKind::layer) result.bias = vector(name + ".bias", config_.hidden_size);
    return result;
  }

  LayerWeights layer(int64_t i) {
    const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t q_size = config_.num_heads * config_.head_dim,
                  kv_size = config_.num_kv_heads * config_.head_dim;
    LayerWeights weights;
    weights.input_norm = norm(&NameMap::input_norm, i);
    weights.post_attention_norm = norm(&NameMap::post_attention_norm, i);
    weights.q = rotated(&NameMap::q, i, q_size, hidden, config_.qkv_bias);
    weights.k = rotated(&NameMap::k, i, kv_size, hidden, config_.qkv_bias);
    weights.v = linear(&NameMap::v, i, kv_size, hidden, config_.qkv_bias);
    weights.o = linear(&NameMap::o, i, hidden, q_size, config_.o_bias);
    weights.gate = linear(&NameMap::gate, i, inner, hidden, config_.mlp_bias);
    weights.up = linear(&NameMap::up, i, inner, hidden, config_.mlp_bias);
    weights.down = linear(&NameMap::down, i, hidden, inner, config_.mlp_bias);
    return weights;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const NameMap& names_;
  const Stored& stored_;
  bool interleaved_;
  std::unordered_set<std::string> used_;
};

/// GGUF files of Llama 3.1 and later hold, instead of the scaling's parameters, what each inverse frequency
/// is divided by: 1, `factor`, or between them. The parameters are recovered and must reproduce every factor.
RopeScaling scaling_from_factors(const GgufFile& file, const TensorView& tensor, const ModelConfig& config) {
  const std::string where = fmt::format("{}: tensor {}", file.path().string(), tensor.name);
  const auto pairs = static_cast<size_t>(config.rotary_dim / 2);
  if (tensor.shape != std::vector<int64_t>{config.rotary_dim / 2} || tensor.dtype != DType::f32) {
    fail("{}: {} {}; accepted: F32 [{}]", where, info(tensor.dtype).name, shape_text(tensor.shape), pairs);
  }
  std::vector<float> factors(pairs);
  decode(tensor.dtype, tensor.bytes.data(), config.rotary_dim / 2, factors.data());
  const double largest = *std::max_element(factors.begin(), factors.end());
  RopeScaling scaling;
  if (std::all_of(factors.begin(), factors.end(), [](float factor) { return factor == 1.0F; }))
    return scaling;
  scaling.kind = RopeScaling::Kind::llama3;
  scaling.factor = largest;
  scaling.low_freq_factor = 1.0;
  scaling.high_freq_factor = 4.0;
  scaling.original_max_position_embeddings = 8192;
  for (size_t i = 0; i < pairs; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.rotary_dim);
    const double wavelength = 2.0 * M_PI * std::pow(config.rope_theta, exponent);
    const double position = scaling.original_max_position_embeddings / wavelength;  // L/λ
    const double mix = std::clamp(
        (position - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0,
        1.0);
    const double expected = 1.0 / ((1.0 - mix) / scaling.factor + mix);
    if (!(std::abs(factors[i] - expected) <= 1e-4 * expected)) {
      fail(
          "{}: factor {} at frequency {}; accepted: those of llama3 scaling with original length 8192, low "
          "and high "
          "frequency factors 1 and 4 (here {})",
          where, factors[i], i, expected);
    }
  }
  return scaling;
}

Model load_gguf(const std::filesystem::path& path) {
  Model model;
  const auto file = std::make_shared<GgufFile>(path);
  model.checkpoint = file;
  model.config = read_config(*file);
  // Only Llama's files are stored for interleaved rotary pairs; Gemma's norms have their +1 already.
  Loader loader(*file, model.config, kGgufNames, model.config.architecture == "llama");
  if (const TensorView* factors = file->find("rope_freqs.weight"); factors != nullptr) {
    if (model.config.rope_scaling.kind != RopeScaling::Kind::none) {
      fail("{}: tensor {} beside linear rope scaling; accepted: one of them", path.string(), factors->name);
    }
    model.config.rope_scaling = scaling_from_factors(*file, *factors, model.config);
    loader.mark_used(factors->name);
  }
  loader.load(model);
  loader.check_unused();
  return model;
}

Model load_directory(const std::filesystem::path& path) {
  Model model;
  std::error_code code;
  if (!std::filesystem::exists(path / "config.json", code))
    fail("{}: holds no config.json; accepted: a folder with config.json and weights, or a .gguf file",
         path.string());
  model.config = read_config(path / "config.json");
  model.checkpoint = open_directory(path);
  const NameMap& names = model.config.architecture == "hfmodel" ? kUnifiedNames : kHuggingFaceNames;
  Loader loader(*model.checkpoint, model.config, names, false);
  loader.load(model);
  loader.check_unused();
  return model;
}

}  // namespace

Model load_model(const std::filesystem::path& path) {
  std::error_code code;
  const bool directory = std::filesystem::is_directory(path, code);
  if (!directory && !std::filesystem::exists(path, code)) fail("{}: no such file or folder", path.string());
  if (!directory && path.extension() != ".gguf") {
    fail("{}: accepted: a folder with config.json and weights, or a .gguf file", path.string());
  }
  Model model = directory ? load_directory(path) : load_gguf(path);
  model.path = path;
  // A trailing slash leaves an empty last part.
  const auto normal = std::filesystem::absolute(path).lexically_normal();
  const auto name = (normal.has_filename() ? normal : normal.parent_path()).filename();
  model.name = printable(name.string(), name.native().size() * 4);  // it goes into files, which are UTF-8
  model.format = model.checkpoint->format();
  return model;
}

}  // namespace qeval::model
