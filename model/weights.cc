#include "model/weights.h"

#include <algorithm>
#include <array>
#include <functional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "model/checkpoint/gguf.h"

namespace qeval::model {
namespace {

/// What a GGUF file calls its mixture of types ("Q4_K_M"), by llama.cpp's numbers (general.file_type); empty
/// for other files and numbers.
std::string gguf_mixture(const Checkpoint& checkpoint) {
  constexpr std::array<std::string_view, 42> kNames{
      "",      "",        "Q4_0",   "Q4_1",   "",       "",        "",       "Q8_0",   "Q5_0",
      "Q5_1",  "Q2_K",    "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S",  "Q4_K_M", "Q5_K_S", "Q5_K_M",
      "Q6_K",  "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",  "IQ4_NL", "IQ3_S",
      "IQ3_M", "IQ2_S",   "IQ2_M",  "IQ4_XS", "IQ1_M",  "",        "",       "",       "",
      "TQ1_0", "TQ2_0",   "MXFP4",  "NVFP4",  "Q1_0",   "Q2_0"};
  const auto* file = dynamic_cast<const GgufFile*>(&checkpoint);
  if (file == nullptr) return {};
  const int64_t number = file->integer_or("general.file_type", 0);
  return number < 0 || number >= std::ssize(kNames) ? "" : std::string(kNames[static_cast<size_t>(number)]);
}

/// Calls `visit(Matrix)`, `visit(name, vector)` for everything the model computes with, tied weights once.
template <typename Visitor>
void visit_weights(const Model& model, const Visitor& visit) {
  const auto norm = [&](const NormWeights& weights) {
    visit(weights.name + ".weight", weights.weight);
    visit(weights.name + ".bias", weights.bias);
  };
  const auto rounding = [&](const std::string& name, const std::optional<ActivationRounding>& r) {
    if (r) visit(name, *r);
  };
  const auto linear = [&](const LinearWeights& weights) {
    visit(weights.weight);
    visit(weights.weight.name + ".bias", weights.bias);
    rounding(weights.weight.name + ".input", weights.input);
    rounding(weights.weight.name + ".output", weights.output);
  };
  visit(model.embedding);
  if (model.positions.rows > 0) visit(model.positions);
  for (const LinearWeights* weights : {&model.embedding_in, &model.embedding_out}) {
    if (weights->weight.rows > 0) linear(*weights);
  }
  if (model.layer_embedding.rows > 0) {
    visit(model.layer_embedding);
    linear(model.layer_projection);
    norm(model.layer_projection_norm);
  }
  for (const auto* maps : {&model.altup_projections, &model.altup_unembeddings}) {
    for (const LinearWeights& map : *maps) linear(map);
  }
  for (const LayerWeights& layer : model.layers) {
    for (const auto& [module, weights] : layer.norms) norm(weights);
    layer.visit_linears([&](Module, const LinearWeights& weights) { linear(weights); });
    for (const auto& [module, values] : layer.vectors) visit(std::string(module_name(module)), values);
    for (const auto& [module, values] : layer.biases)
      visit(std::string(module_name(module)) + ".bias", values);
    for (const auto* values : {&layer.state.decay, &layer.state.step_bias, &layer.state.skip}) {
      if (!values->empty()) visit("state", *values);
    }
    if (layer.altup) {
      for (const auto* values : {&layer.altup->router_norm, &layer.altup->router, &layer.altup->prediction,
                                 &layer.altup->correction}) {
        visit("altup", *values);
      }
    }
    rounding("key", layer.key);
    rounding("value", layer.value);
    if (layer.xielu) {
      const XieluWeights& x = *layer.xielu;
      visit("xielu", std::vector<float>{x.alpha_p, x.alpha_n, x.beta, x.eps});
    }
  }
  if (model.config.final_norm) norm(model.final_norm);
  if (!model.head.weight.stored.is_same(model.embedding.stored)) linear(model.head);
}

struct Hasher {
  Sha256& sha;
  const Checkpoint* checkpoint;
  void operator()(const Matrix& matrix) const {
    sha.update(fmt::format("{} {} {}x{} {}\n", matrix.name, matrix.stored.format(), matrix.rows, matrix.cols,
                           matrix.interleaved_head_dim));
    const auto add = [&](std::span<const std::byte> bytes) { sha.update(bytes); };
    if (matrix.block_rows == 0) {
      matrix.stored.visit_bytes(0, matrix.rows, add);
    } else {
      for (int64_t r = 0; r < matrix.rows; ++r) matrix.stored.visit_bytes(matrix.stored_row(r), 1, add);
    }
    // What an arithmetic keeps in another form need not stay in memory for having been hashed.
    if (checkpoint != nullptr) checkpoint->release_pages();
  }
  void operator()(const std::string& name, const ActivationRounding& r) const {
    sha.update(fmt::format("{} {} {} {} {} {} {} {} {} {} {}\n", name, static_cast<int>(r.type), r.bits,
                           static_cast<int>(r.source), r.symmetric, r.scale, r.zero_point, r.group,
                           r.upper_bound, r.global, r.global_divides));
  }
  void operator()(const std::string& name, const std::vector<float>& values) const {
    sha.update(fmt::format("{} {}\n", name, values.size()));
    sha.update(std::as_bytes(std::span(values)));
  }
};

struct ByteCounter {
  void operator()(const std::string&, const ActivationRounding&) const {}
  int64_t& total;
  void operator()(const Matrix& matrix) const { total += matrix.byte_count(); }
  void operator()(const std::string&, const std::vector<float>& values) const {
    total += static_cast<int64_t>(values.size() * sizeof(float));
  }
};

}  // namespace

int64_t interleaved_row(int64_t row, int64_t head_dim, int64_t dim) {
  const int64_t within = row % head_dim;
  if (within >= dim) return row;
  const int64_t half = dim / 2;
  return row + 2 * (within % half) + within / half - within;
}

int64_t Matrix::stored_row(int64_t r) const {
  if (interleaved_head_dim != 0) {
    r = interleaved_row(r, interleaved_head_dim,
                        interleaved_dim != 0 ? interleaved_dim : interleaved_head_dim);
  }
  if (block_rows != 0) r += r / block_rows * (block_stride - block_rows);
  return r;
}

void Matrix::decode(int64_t row, int64_t count, int64_t col, int64_t n, float* out, int64_t stride) const {
  if (is_contiguous()) {
    stored.decode(row, count, col, n, out, stride);
    return;
  }
  for (int64_t r = 0; r < count; ++r) stored.decode(stored_row(row + r), 1, col, n, out + r * stride, stride);
}

void Matrix::decode_rows(int64_t first, int64_t count, float* destination) const {
  decode(first, count, 0, cols, destination, cols);
}

std::string Model::weight_hash() const {
  Sha256 sha;
  sha.update(unified_config(config, "").dump());
  visit_weights(*this, Hasher{sha, checkpoint.get()});
  return sha.hex();
}

bool Model::rounds_activations() const {
  const auto rounds = [](const LinearWeights& linear) { return linear.input || linear.output; };
  return rounds(head) || std::ranges::any_of(layers, [&](const LayerWeights& layer) {
           bool any = layer.key || layer.value;
           layer.visit_linears([&](Module, const LinearWeights& own) { any = any || rounds(own); });
           return any;
         });
}

std::string Model::weight_format() const {
  std::map<std::string, int64_t> elements;
  for (const LayerWeights& layer : layers) {
    layer.visit_linears([&](Module, const LinearWeights& linear) {
      elements[linear.weight.stored.format()] += linear.weight.rows * linear.weight.cols;
    });
  }
  std::vector<std::pair<std::string, int64_t>> formats(elements.begin(), elements.end());
  std::ranges::stable_sort(formats, std::greater{}, &std::pair<std::string, int64_t>::second);
  if (formats.size() > 1) {
    const std::string mixture = gguf_mixture(*checkpoint);
    const bool fits = std::ranges::any_of(formats, [&](const auto& own) {
      return !mixture.empty() &&
             own.first.substr(0, own.first.find('_')) == mixture.substr(0, mixture.find('_'));
    });
    if (fits) return mixture;
  }
  std::string text;
  for (const auto& [own, count] : formats) text += (text.empty() ? "" : " + ") + own;
  return text;
}

int64_t Model::weight_bytes() const {
  int64_t total = 0;
  visit_weights(*this, ByteCounter{total});
  return total;
}

}  // namespace qeval::model
