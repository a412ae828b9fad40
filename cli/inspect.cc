#include <algorithm>
#include <iostream>
#include <map>

#include <fmt/ranges.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/inspect_quantization.h"
#include "cli/model_options.h"
#include "cli/supported.h"
#include "model/kernels/cpu.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights.h"
#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::cli {
namespace {

po::options_description inspect_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_weight_options(options);
  options.add_options()("tensors", "list every tensor with type and shape")(
      "supported",
      "print only a table of all architectures and the arithmetics that support them; needs no model");
  add_inspect_quantization_options(options);
  return options;
}

std::string_view text(model::Activation activation) {
  switch (activation) {
    case model::Activation::silu:
      return "SiLU";
    case model::Activation::gelu_erf:
      return "GELU (erf)";
    case model::Activation::gelu_tanh:
      return "GELU (tanh)";
    case model::Activation::relu:
      return "ReLU";
    case model::Activation::relu2:
      return "ReLU²";
    case model::Activation::xielu:
      return "xIELU";
  }
  return "?";
}

std::string text(const model::RopeScaling& scaling) {
  switch (scaling.kind) {
    case model::RopeScaling::Kind::none:
      return "none";
    case model::RopeScaling::Kind::linear:
      return fmt::format("linear, factor {}", scaling.factor);
    case model::RopeScaling::Kind::llama3:
      return fmt::format("llama3, factor {}", scaling.factor);
    case model::RopeScaling::Kind::dynamic:
      return fmt::format("dynamic, factor {}", scaling.factor);
    case model::RopeScaling::Kind::yarn:
      return fmt::format("yarn, factor {}", scaling.factor);
    case model::RopeScaling::Kind::longrope:
      return fmt::format("longrope, from {} tokens on", scaling.original_max_position_embeddings);
  }
  return "?";
}

/// Which rotations, and which operations they add.
std::string text(const model::Rotation& rotation) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (rotation.residual) add("residual stream (R1)");
  if (rotation.values) add("values (R2)");
  if (rotation.query_key_block != 0)
    add(fmt::format("queries and keys online, in blocks of {} (R3)", rotation.query_key_block));
  if (rotation.down_block != 0)
    add(fmt::format("in front of the down projection online, in blocks of {} (R4)", rotation.down_block));
  return text + fmt::format("; seed {}", rotation.seed);
}

void row(std::string_view name, const std::string& value) {
  std::cout << fmt::format("{:<22} {}\n", name, value);
}

/// The number formats of one class of matrices, with the bits that a weight takes in each.
void print_formats(std::string_view name, const std::vector<const model::Matrix*>& matrices) {
  struct Total {
    int64_t count = 0, elements = 0, bytes = 0;
  };
  std::map<std::string, Total> formats;
  for (const model::Matrix* matrix : matrices) {
    Total& total = formats[matrix->stored.format()];
    ++total.count;
    total.elements += matrix->rows * matrix->cols;
    total.bytes += matrix->byte_count();
  }
  std::string text;
  for (const auto& [format, total] : formats) {
    text += fmt::format("{}{}{}, {:.2f} bits a weight", text.empty() ? "" : "; ",
                        matrices.size() > 1 ? fmt::format("{} in ", total.count) : "", format,
                        8.0 * static_cast<double>(total.bytes) / static_cast<double>(total.elements));
  }
  if (!text.empty()) row(name, text);
}

std::string text(const model::ActivationRounding& rounding) {
  using Rounding = model::ActivationRounding;
  std::string type = rounding.type == Rounding::Type::integer ? fmt::format("int{}", rounding.bits)
                     : rounding.type == Rounding::Type::e4m3  ? "FP8"
                                                              : "FP4";
  switch (rounding.source) {
    case Rounding::Scale::fixed:
      return type + " static";
    case Rounding::Scale::token:
      return type + " per token";
    case Rounding::Scale::group:
    case Rounding::Scale::two_level:
      return fmt::format("{} per {} channels", type, rounding.group);
    case Rounding::Scale::power_of_two:
      return fmt::format("{} per {} channels, powers of two", type, rounding.group);
  }
  return type;
}

/// What is quantized, what is left in float, and what the checkpoint asks of activations.
void print_weight_classes(const model::Model& model) {
  std::map<std::string, std::vector<const model::Matrix*>> classes;
  std::map<std::string, int64_t> roundings;
  const auto count = [&](const std::optional<model::ActivationRounding>& rounding, std::string_view what) {
    if (rounding) ++roundings[fmt::format("{} {}", what, text(*rounding))];
  };
  const auto linear = [&](std::string_view name, const model::LinearWeights& weights) {
    classes[std::string(name)].push_back(&weights.weight);
    count(weights.input, "inputs");
    count(weights.output, "outputs");
  };
  for (const model::LayerWeights& layer : model.layers) {
    layer.visit_linears([&](model::Module module, const model::LinearWeights& weights) {
      const std::string_view name = module_name(module);
      linear(name.starts_with("mlp.experts.") ? "expert weights"
             : name.starts_with("mlp.")       ? "feed-forward weights"
             : name.starts_with("mixer.")     ? "recurrent mixers' weights"
                                              : "attention weights",
             weights);
    });
    count(layer.key, "keys");
    count(layer.value, "values");
  }
  if (!model.quant_method.empty()) row("quantization", model.quant_method);
  for (const auto& [name, matrices] : classes) print_formats(name, matrices);
  print_formats("embedding", {&model.embedding});
  if (!model.config.tie_word_embeddings) {
    print_formats("head", {&model.head.weight});
    count(model.head.input, "inputs");
    count(model.head.output, "outputs");
  }
  std::string text;
  for (const auto& [rounding, number] : roundings)
    text += fmt::format("{}{} × {}", text.empty() ? "" : ", ", number, rounding);
  if (!text.empty()) row("activations", text + " (--arithmetic fake)");
}

void print_model(const model::Model& model) {
  const model::ModelConfig& c = model.config;
  row("model", model.path.string());
  row("format", model.format);
  row("architecture", c.architecture);
  row("layers", fmt::format("{}", c.num_layers));
  row("hidden size", fmt::format("{} (feed-forward {})", c.hidden_size, c.intermediate_size));
  row("heads", fmt::format("{} queries, {} keys and values, {} channels each", c.num_heads, c.num_kv_heads,
                           c.head_dim));
  if (c.experts) {
    const model::Experts& e = *c.experts;
    const auto sparse = std::ranges::count_if(c.layers, &model::LayerSettings::sparse);
    row("experts",
        fmt::format("{} of {} per token, {} channels each{}, in {} layers", e.route.used, e.route.experts,
                    e.inner, e.shared_inner == 0 ? "" : fmt::format(", a shared one of {}", e.shared_inner),
                    sparse));
  }
  if (c.recurrence) {
    using Kind = model::Recurrence::Kind;
    const Kind kind = c.recurrence->kind;
    const auto attends =
        std::ranges::count(c.layers, model::LayerSettings::Mixer::attention, &model::LayerSettings::mixer);
    row("mixers", fmt::format("{} in {} layers",
                              kind == Kind::convolution  ? "short convolution"
                              : kind == Kind::delta_rule ? "gated delta rule"
                                                         : "Mamba-2",
                              c.num_layers - attends));
  }
  row("rotary",
      fmt::format("{} channels, theta {}, scaling {}", c.rotary.dim, c.rotary.theta, text(c.rotary.scaling)));
  row("norm", fmt::format("{}, eps {}{}", c.norm == model::NormKind::rms ? "RMSNorm" : "LayerNorm",
                          c.norm_eps, c.l2norm_as_rmsnorm ? " (none in the blocks: L2 form)" : ""));
  row("activation", std::string(text(c.activation)));
  row("vocabulary",
      fmt::format("{}{}", c.vocab_size, c.tie_word_embeddings ? ", head tied to the embedding" : ""));
  if (c.rotation) row("rotation", text(*c.rotation));
  row("context", fmt::format("{} tokens", c.max_position_embeddings));
  print_weight_classes(model);
  std::map<std::string_view, std::pair<int64_t, int64_t>> types;  // count and parameters per type
  int64_t stored_elements = 0;
  for (const model::TensorView& tensor : model.checkpoint->tensors()) {
    auto& [count, elements] = types[model::info(tensor.dtype).name];
    ++count;
    elements += tensor.element_count();
    stored_elements += tensor.element_count();
  }
  std::string summary;
  for (const auto& [type, total] : types) {
    summary += fmt::format("{}{} {} tensors ({:.1f} M)", summary.empty() ? "" : ", ", total.first, type,
                           static_cast<double>(total.second) / 1e6);
  }
  row(model.quant_method.empty() ? "parameters" : "stored numbers",
      fmt::format("{:.1f} M: {}", static_cast<double>(stored_elements) / 1e6, summary));
  row("weights",
      fmt::format("{:.1f} MiB as kept in memory", static_cast<double>(model.weight_bytes()) / (1 << 20)));
  row("weight hash", model.weight_hash());
}

std::string leading_text(const model::Tokenizer& tokenizer) {
  const auto ids = tokenizer.leading_ids();
  if (ids.empty()) return "";
  if (ids.size() == 1 && tokenizer.bos_id() == ids[0]) return ", BOS before every text";
  return fmt::format(", {} before every text", fmt::join(ids, " "));
}

void print_tokenizer(const std::filesystem::path& path) {
  try {
    const auto tokenizer = model::load_tokenizer(path);
    const auto id = [](std::optional<int32_t> token) { return token ? fmt::format("{}", *token) : "none"; };
    row("tokenizer",
        fmt::format("{}, {} tokens, BOS {}, EOS {}{}", tokenizer->kind(), tokenizer->vocab_size(),
                    id(tokenizer->bos_id()), id(tokenizer->eos_id()), leading_text(*tokenizer)));
    row("tokenizer hash", tokenizer->hash());
    for (const std::string& warning : tokenizer->warnings()) row("", "warning: " + warning);
  } catch (const Error& error) {  // a model without a tokenizer can be inspected all the same
    row("tokenizer", fmt::format("none usable: {}", error.what()));
  }
}

void print_tensors(const model::Model& model) {
  for (const model::TensorView& tensor : model.checkpoint->tensors()) {
    std::string shape;
    for (const int64_t extent : tensor.shape) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", extent);
    std::cout << fmt::format("{:<48} {:<7} [{}]\n", printable(tensor.name), model::info(tensor.dtype).name,
                             shape);
  }
}

int run_inspect(const po::variables_map& arguments) {
  if (arguments.count("supported") != 0) {
    std::cout << supported_table();
    return 0;
  }
  const ThreadLimit limit(arguments);
  const model::Model model = load_model(arguments);
  print_model(model);
  print_tokenizer(model.path);
  row("this CPU", fmt::format("{} ({})", model::cpu_name(), quant::kernels_in_force()));
  if (arguments.count("tensors") != 0) print_tensors(model);
  inspect_quantization(arguments, model);
  return 0;
}

}  // namespace

const Command inspect_command{
    .name = "inspect",
    .summary = "What a model is: architecture, types, sizes, tokenizer, hashes",
    .usage =
        "--supported | -m MODEL [--tensors] [--points [PATTERN]] [--errors | --sensitivity | --compare "
        "fake,integer | --losses --base MODEL --calibration FILE]",
    .example = "qeval inspect -m model.gguf",
    .options = inspect_options,
    .run = run_inspect,
};

}  // namespace qeval::cli
