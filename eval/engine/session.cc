#include "eval/engine/session.h"

#include <algorithm>

#include "base/error.h"
#include "base/setting.h"
#include "model/float_arithmetic.h"
#include "model/kernels/cpu.h"
#include "quant/arithmetic/checkpoint_arithmetic.h"
#include "quant/arithmetic/ggml_arithmetic.h"
#include "quant/arithmetic/integer/prepare.h"
#include "quant/arithmetic/prefix.h"
#include "quant/methods/warnings.h"

namespace qeval::eval {
namespace {

/// Whether the checkpoint says how activations are rounded, and nothing else is to hold instead.
bool rounds_by_itself(const SessionOptions& options, const model::Model& model) {
  return model.rounds_activations() && !options.qcfg && !options.act_ranges &&
         !quant::is_quantized_checkpoint(options.model);
}

std::string choose_arithmetic(const SessionOptions& options, const model::Model& model) {
  if (!options.arithmetic.empty()) return options.arithmetic;
  const bool quantized = options.qcfg || options.act_ranges ||
                         quant::is_quantized_checkpoint(options.model) || model.rounds_activations();
  return quantized ? "fake" : "float";
}

/// The largest matrix of the first block.
const model::Matrix* largest_matrix(const model::Model& model) {
  const model::Matrix* largest = nullptr;
  model.layers.front().visit_linears([&](model::Module, const model::LinearWeights& w) {
    if (largest == nullptr || w.weight.rows * w.weight.cols > largest->rows * largest->cols)
      largest = &w.weight;
  });
  return largest;
}

std::unique_ptr<model::Arithmetic> float_arithmetic(const model::Model& model, int64_t max_length,
                                                    const std::string& precision) {
  if (precision == "f32") return model::make_float_arithmetic(model, max_length);
  if (precision != "bf16" && precision != "auto")
    fail("{} {}: unknown; accepted: f32, bf16, auto", setting("precision"), printable(precision));
  const model::Bf16Kernel kernel = model::bf16_kernel();
  if (precision == "auto") {
    const model::Matrix* matrix = largest_matrix(model);
    if (kernel == nullptr || matrix == nullptr || !model::bf16_is_faster(kernel, view(*matrix)))
      return model::make_float_arithmetic(model, max_length);
  }
  if (kernel == nullptr) {
    fail("{} bf16: this CPU ({}, path {}) has no bfloat16 products; accepted here: f32",
         setting("precision"), model::cpu_name(), name(model::cpu_path()));
  }
  return std::make_unique<model::Bf16Arithmetic>(model, max_length, kernel);
}

std::vector<std::string> grid_warning_lines(const model::Model& model, const quant::QuantConfig& qcfg,
                                            const quant::ActRanges& ranges) {
  std::vector<std::string> lines;
  for (const quant::Warning& warning : quant::grid_warnings(model, qcfg, ranges))
    lines.push_back(quant::one_line(warning));
  return lines;
}

}  // namespace

int64_t choose_max_length(std::optional<int64_t> given, const model::ModelConfig& config,
                          bool whole_requests) {
  constexpr int64_t kDefault = 2048;
  const int64_t context = config.context();
  if (!given) return std::min(kDefault, whole_requests ? context : config.max_position_embeddings);
  if (*given < 1 || *given > context) {
    throw UsageError(
        fmt::format("{} {}: accepted: 1 to {}, the model's context", setting("max-length"), *given, context));
  }
  return *given;
}

const std::string& LoadedModel::weight_hash() {
  if (weight_hash_.empty()) weight_hash_ = model_.weight_hash();
  return weight_hash_;
}

const model::Tokenizer& LoadedModel::tokenizer() {
  if (!tokenizer_) tokenizer_ = model::load_tokenizer(model_.path, model_.config.vocab_size);
  return *tokenizer_;
}

Session::Session(const SessionOptions& options)
    : Session(options, std::make_shared<LoadedModel>(options.model, options.gptq_zeros)) {}

Session::Session(const SessionOptions& options, std::shared_ptr<LoadedModel> loaded)
    : loaded_(std::move(loaded)),
      max_length_(choose_max_length(options.max_length, model().config, options.whole_requests)) {
  const auto add_warnings = [&](const std::vector<std::string>& lines) {
    warnings_.insert(warnings_.end(), lines.begin(), lines.end());
  };
  add_warnings(model().config.warnings);
  const std::string arithmetic = choose_arithmetic(options, model());
  if (arithmetic != "float" && options.precision != "f32") {
    throw UsageError(fmt::format("{} {}: not used by {} arithmetic; accepted with {} float",
                                 setting("precision"), printable(options.precision), printable(arithmetic),
                                 setting("arithmetic")));
  }
  if (arithmetic == "float") {
    const char* unused = options.qcfg ? "qcfg" : options.act_ranges ? "act-ranges" : nullptr;
    if (unused != nullptr) {
      throw UsageError(fmt::format("{}: not used by float arithmetic; accepted with {} fake or integer",
                                   setting(unused), setting("arithmetic")));
    }
    arithmetic_ = float_arithmetic(model(), max_length_, options.precision);
  } else if (arithmetic == "fake" && rounds_by_itself(options, model())) {
    arithmetic_ = std::make_unique<quant::CheckpointArithmetic>(model(), max_length_);
  } else if (arithmetic == "integer" && rounds_by_itself(options, model())) {
    arithmetic_ = std::make_unique<quant::CheckpointIntegerArithmetic>(model(), max_length_);
  } else if (arithmetic == "fake") {
    quantization_ = quant::load_quantization(model(), options.qcfg, options.act_ranges);
    add_warnings(grid_warning_lines(model(), quantization_->qcfg, quantization_->ranges));
    arithmetic_ = quant::make_fake_arithmetic(model(), *quantization_, max_length_);
  } else if (arithmetic == "integer") {
    quantization_ = quant::load_quantization(model(), options.qcfg, options.act_ranges);
    add_warnings(
        grid_warning_lines(model(), quant::integer_config(quantization_->qcfg), quantization_->ranges));
    arithmetic_ = quant::make_integer_arithmetic(model(), *quantization_, max_length_);
  } else if (const auto kv_type = quant::parse_ggml_arithmetic(arithmetic)) {
    arithmetic_ = std::make_unique<quant::GgmlArithmetic>(model(), max_length_, *kv_type, arithmetic);
  } else {
    fail("{} {}: unknown; accepted: float, fake, integer, ggml", setting("arithmetic"),
         printable(arithmetic));
  }
  if (quantization_ && model().rounds_activations()) {
    warnings_.push_back(
        fmt::format("{}: activations are rounded by the given configuration, not as quant_method {} says",
                    model().path.string(), model().quant_method));
  }
  decoder_ = std::make_unique<model::Decoder>(model(), *arithmetic_);
}

}  // namespace qeval::eval
