#include "eval/losses.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/parallel.h"
#include "eval/divergence/token_divergence.h"
#include "model/decoder.h"
#include "quant/arithmetic/ggml_arithmetic.h"

namespace qeval::eval {
namespace {

using model::Module;

constexpr int64_t kLogitRowsAtOnce = 64;  // whose logits are held

/// Where the embedding and the head are, behind the layers.
int64_t head_layer(const model::Model& model) {
  return std::ssize(model.layers);
}

/// What of the file is put into the base, and where.
struct Variant {
  std::function<bool(int64_t layer, Module module)> where;
  enum class Rest : uint8_t { base, embedding, all } rest = Rest::base;  ///< what else of the weights
  bool weights = false, inputs = false, kv = false;
  double* result = nullptr;
};

/// The two models of a message.
struct Pair {
  const model::Model &base, &file;
};

void require_same(const model::Matrix& base, const model::Matrix& file, const Pair& in) {
  if (base.rows == file.rows && base.cols == file.cols) return;
  fail("{}: {} is {} × {}, in the base {} {} × {}: losses are of one model in two types",
       in.file.path.string(), file.name, file.rows, file.cols, in.base.path.string(), base.rows, base.cols);
}

/// The base with the variant's weights of the file: views of both.
model::Model mixed(const LossInput& in, const Variant& variant) {
  if (variant.weights && variant.rest == Variant::Rest::all) return in.file;
  model::Model model = in.base;
  if (!variant.weights) return model;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const model::LayerWeights& own = in.file.layers[i];
    for (auto& [module, linear] : model.layers[i].linears) {
      if (variant.where(static_cast<int64_t>(i), module)) linear.weight = own.linear(module).weight;
    }
    for (auto& [module, experts] : model.layers[i].experts) {
      if (!variant.where(static_cast<int64_t>(i), module)) continue;
      for (size_t e = 0; e < experts.size(); ++e) experts[e].weight = own.experts.at(module)[e].weight;
    }
  }
  if (variant.where(head_layer(model), Module::head)) model.head.weight = in.file.head.weight;
  if (variant.rest != Variant::Rest::embedding) return model;
  model.embedding = in.file.embedding;
  model.positions = in.file.positions;
  model.layer_embedding = in.file.layer_embedding;
  model.layer_projection.weight = in.file.layer_projection.weight;
  return model;
}

/// A model's forward pass over one sample.
class Pass {
 public:
  Pass(const model::Model& model, const model::Arithmetic& arithmetic, const std::vector<int32_t>& tokens)
      : kv_(arithmetic, std::ssize(tokens) - 1, 1), decoder_(model, arithmetic) {
    model::Batch batch;
    batch.tokens.assign(tokens.begin(), tokens.end() - 1);
    batch.positions.resize(batch.tokens.size());
    std::iota(batch.positions.begin(), batch.positions.end(), 0);
    const int64_t length = std::ssize(batch.tokens);
    if (model.config.depends_on_length())
      batch.lengths.assign(batch.tokens.size(), static_cast<int32_t>(length));
    batch.segments.push_back({.length = length, .kv = &kv_});
    decoder_.forward(batch);
  }
  std::vector<float> logits(std::span<const int64_t> rows) { return decoder_.logits(rows); }

 private:
  model::KvSpan kv_;
  model::Decoder decoder_;
};

/// Adds up KL(base ‖ other) over a sample's last `scored` predictions.
double divergence(Pass& base, Pass& other, const std::vector<int32_t>& tokens, int64_t scored,
                  size_t vocabulary) {
  const int64_t count = std::ssize(tokens) - 1;
  double sum = 0;
  for (int64_t first = count - scored; first < count; first += kLogitRowsAtOnce) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(kLogitRowsAtOnce, count - first)));
    std::iota(rows.begin(), rows.end(), first);
    const std::vector<float> p = base.logits(rows), q = other.logits(rows);
    std::vector<double> kl(rows.size());
    parallel_tasks(std::ssize(rows), [&](int64_t i) {
      thread_local std::vector<float> scratch;
      scratch.resize(2 * vocabulary);
      const auto row = [&](const std::vector<float>& logits, size_t half) {
        return read_row({logits.data() + static_cast<size_t>(i) * vocabulary, vocabulary},
                        std::span(scratch).subspan(half * vocabulary, vocabulary));
      };
      const auto at = static_cast<size_t>(first + i);
      kl[static_cast<size_t>(i)] = token_divergence(row(p, 0), row(q, 1), tokens[at + 1]).kl;
    });
    sum = std::accumulate(kl.begin(), kl.end(), sum);
  }
  return sum;
}

class LossMeasurement {
 public:
  explicit LossMeasurement(const LossInput& input) : in_(input), layers_(head_layer(input.base)) {}

  FileLosses run() {
    plan();
    int64_t longest = 1;
    for (const auto& sample : in_.samples) longest = std::max(longest, std::ssize(sample));
    const model::FloatArithmetic base_arithmetic(in_.base, longest);
    const int64_t total = std::ssize(in_.samples) * std::ssize(variants_);
    int64_t done = 0;
    for (size_t i = 0; i < in_.samples.size(); ++i) {
      const auto& sample = in_.samples[i];
      const int64_t scored = in_.scored.empty() ? std::ssize(sample) - 1 : in_.scored[i];
      out_.tokens += scored;
      Pass base(in_.base, base_arithmetic, sample);
      for (const Variant& variant : variants_) {
        if (in_.progress) in_.progress(done++, total);
        const model::Model model = mixed(in_, variant);
        const quant::GgmlArithmetic arithmetic(
            model, longest,
            {.file = in_.file,
             .rounds_input = [&](int64_t layer,
                                 Module module) { return variant.inputs && variant.where(layer, module); },
             .rounds_kv =
                 [&](int64_t layer) { return variant.kv && variant.where(layer, Module::qk_product); },
             .kv_type = in_.kv_type});
        Pass other(model, arithmetic, sample);
        *variant.result +=
            divergence(base, other, sample, scored, static_cast<size_t>(in_.base.config.vocab_size));
      }
    }
    for (const Variant& variant : variants_) *variant.result /= static_cast<double>(out_.tokens);
    return std::move(out_);
  }

 private:
  using Where = std::function<bool(int64_t, Module)>;

  void plan() {
    const Where everywhere = [](int64_t, Module) { return true; };
    std::set<Module> modules;
    if (!in_.details) {
      add_whole();
      return;
    }
    for (const model::LayerWeights& layer : in_.file.layers)
      layer.visit_linears([&](Module module, const model::LinearWeights&) { modules.insert(module); });
    // Results are written through pointers: no row moves any more.
    out_.layers.resize(static_cast<size_t>(layers_) + 2);
    out_.classes.resize(modules.size() + 3);
    add_whole();
    for (int64_t i = 0; i < layers_; ++i) {
      NamedLosses& row = out_.layers[static_cast<size_t>(i)];
      row.name = "layer " + std::to_string(i);
      row.has_kv = in_.base.config.graph.block(i).find<model::AttentionOp>() != nullptr;
      add_parts(
          row.losses, [i](int64_t layer, Module) { return layer == i; }, Variant::Rest::base, true,
          row.has_kv);
    }
    size_t at = 0;
    for (const Module module : modules) {
      NamedLosses& row = out_.classes[at++];
      row.name = model::module_name(module);
      add_parts(
          row.losses, [module](int64_t, Module own) { return own == module; }, Variant::Rest::base, true,
          false);
    }
    NamedLosses& kv = out_.classes[at++];
    kv.name = "keys and values";
    kv.has_weights = kv.has_inputs = false;
    kv.has_kv = true;
    variants_.push_back({everywhere, Variant::Rest::base, false, false, true, &kv.losses.kv});
    for (std::vector<NamedLosses>* rows : {&out_.layers, &out_.classes}) {
      NamedLosses &embedding = *(rows->end() - 2), &head = rows->back();
      embedding.name = "embedding";
      embedding.has_inputs = false;
      variants_.push_back({[](int64_t, Module) { return false; }, Variant::Rest::embedding, true, false,
                           false, &embedding.losses.weights});
      head.name = model::module_name(Module::head);
      add_parts(
          head.losses, [](int64_t, Module module) { return module == Module::head; }, Variant::Rest::base,
          true, false);
    }
  }

  void add_whole() {
    const Where everywhere = [](int64_t, Module) { return true; };
    add_parts(out_.parts, everywhere, Variant::Rest::all, true, true);
    variants_.push_back({everywhere, Variant::Rest::all, true, true, true, &out_.together});
  }

  void add_parts(PartLosses& losses, const Where& where, Variant::Rest rest, bool inputs, bool kv) {
    variants_.push_back({where, rest, true, false, false, &losses.weights});
    if (inputs) variants_.push_back({where, Variant::Rest::base, false, true, false, &losses.inputs});
    if (kv) variants_.push_back({where, Variant::Rest::base, false, false, true, &losses.kv});
  }

  const LossInput& in_;
  const int64_t layers_;
  FileLosses out_;
  std::vector<Variant> variants_;
};

}  // namespace

PartLosses interaction(const PartLosses& whole, std::span<const NamedLosses> rows) {
  PartLosses left = whole;
  for (const NamedLosses& row : rows) {
    left.weights -= row.losses.weights;
    left.inputs -= row.losses.inputs;
    left.kv -= row.losses.kv;
  }
  return left;
}

void require_comparable(const model::Model& original, const model::Model& file_model) {
  const Pair in{original, file_model};
  const model::ModelConfig &base = in.base.config, &file = in.file.config;
  if (base.architecture != file.architecture || base.num_layers != file.num_layers ||
      base.vocab_size != file.vocab_size) {
    fail(
        "{}: {} of {} layers, {} tokens; the base {}: {} of {} layers, {} tokens: losses are of one model in "
        "two types",
        in.file.path.string(), file.architecture, file.num_layers, file.vocab_size, in.base.path.string(),
        base.architecture, base.num_layers, base.vocab_size);
  }
  require_same(in.base.embedding, in.file.embedding, in);
  require_same(in.base.head.weight, in.file.head.weight, in);
  for (size_t i = 0; i < in.base.layers.size(); ++i) {
    std::vector<std::pair<Module, const model::Matrix*>> own, other;
    in.base.layers[i].visit_linears(
        [&](Module module, const model::LinearWeights& w) { own.emplace_back(module, &w.weight); });
    in.file.layers[i].visit_linears(
        [&](Module module, const model::LinearWeights& w) { other.emplace_back(module, &w.weight); });
    if (own.size() != other.size()) {
      fail("{}: layer {} has {} matrices, in the base {} {}: losses are of one model in two types",
           in.file.path.string(), i, other.size(), in.base.path.string(), own.size());
    }
    for (size_t m = 0; m < own.size(); ++m) {
      if (own[m].first != other[m].first) {
        fail("{}: has {}, the base {} {}: losses are of one model in two types", in.file.path.string(),
             other[m].second->name, in.base.path.string(), own[m].second->name);
      }
      require_same(*own[m].second, *other[m].second, in);
    }
  }
}

FileLosses file_losses(const LossInput& input) {
  require_comparable(input.base, input.file);
  for (const auto& sample : input.samples) {
    if (sample.size() < 2)
      fail("a sample of {} token{} has none to predict; at least 2 are needed", sample.size(),
           sample.size() == 1 ? "" : "s");
  }
  return LossMeasurement(input).run();
}

}  // namespace qeval::eval
