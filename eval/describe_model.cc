#include "eval/describe_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/sample_file.h"
#include "quant/arithmetic/checkpoint_arithmetic.h"
#include "quant/arithmetic/ggml_arithmetic.h"
#include "quant/checkpoint/checkpoint.h"

namespace qeval::eval {
namespace {

using model::Module;
using quant::Slot;

constexpr int64_t kScaleBytes = 4, kBiasBytes = 4, kFloat16Bytes = 2;

/// Bytes and codes of the weights as a number format stores them.
struct Size {
  int64_t parameters = 0, bytes = 0;
  int64_t projection_elements = 0;
  double projection_bits = 0;  ///< sum over the elements
};

int64_t elements(const model::Matrix& matrix) {
  return matrix.rows * matrix.cols;
}

/// Bytes of n codes.
int64_t code_bytes(int64_t n, int bits) {
  return (n * bits + 7) / 8;
}

int64_t grids(const quant::QuantSpec& spec, const model::Matrix& matrix) {
  if (spec.group_size > 0) return matrix.rows * (matrix.cols / spec.group_size);
  return spec.per_channel ? matrix.rows : 1;
}

/// A matrix under `spec`; unquantized, it takes what it takes in the checkpoint.
int64_t matrix_bytes(const quant::QuantSpec* spec, const model::Matrix& matrix) {
  if (spec == nullptr || !spec->enabled()) return matrix.byte_count();
  const int64_t per_grid = spec->symmetric ? kScaleBytes : 2 * kScaleBytes;
  return code_bytes(elements(matrix), spec->bits) + grids(*spec, matrix) * per_grid;
}

class SizeCounter {
 public:
  explicit SizeCounter(const std::optional<quant::Quantization>& quantization)
      : quantization_(quantization) {}

  void projection(int64_t layer, Module module, const model::LinearWeights& linear) {
    const quant::QuantSpec* spec = this->spec({layer, module, Slot::weight});
    const int64_t count = elements(linear.weight);
    size_.parameters += count + std::ssize(linear.bias);
    size_.bytes += matrix_bytes(spec, linear.weight) + std::ssize(linear.bias) * kBiasBytes;
    size_.projection_elements += count;
    size_.projection_bits += spec != nullptr && spec->enabled()
                                 ? static_cast<double>(spec->bits) * static_cast<double>(count)
                                 : 8.0 * static_cast<double>(linear.weight.byte_count());
  }
  void norm(int64_t layer, Module module, const model::NormWeights& norm) {
    const quant::QuantSpec* spec = this->spec({layer, module, Slot::weight});
    const int64_t count = std::ssize(norm.weight);
    size_.parameters += count + std::ssize(norm.bias);
    size_.bytes += spec != nullptr && spec->enabled() ? code_bytes(count, spec->bits) + 2 * kScaleBytes
                                                      : count * kBiasBytes;
    size_.bytes += std::ssize(norm.bias) * kBiasBytes;
  }
  /// Embedding and head: a quantized model's float16 unless its configuration quantizes the head.
  void table(const model::Matrix& matrix, const quant::QuantSpec* spec) {
    size_.parameters += elements(matrix);
    if (spec != nullptr && !spec->enabled()) spec = nullptr;
    const bool float16 = quantization_ && spec == nullptr;
    size_.bytes += float16 ? elements(matrix) * kFloat16Bytes : matrix_bytes(spec, matrix);
  }
  const quant::QuantSpec* spec(const quant::Point& point) const {
    return quantization_ ? &quantization_->qcfg[point] : nullptr;
  }
  const Size& size() const { return size_; }

 private:
  const std::optional<quant::Quantization>& quantization_;
  Size size_;
};

Size count_size(const Session& session) {
  const model::Model& model = session.model();
  SizeCounter counter(session.quantization());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    model.layers[i].visit_linears([&](Module module, const model::LinearWeights& linear) {
      counter.projection(layer, module, linear);
    });
    for (const auto& [module, norm] : model.layers[i].norms) counter.norm(layer, module, norm);
  }
  if (model.config.final_norm) counter.norm(0, Module::final_norm, model.final_norm);
  if (model.positions.rows > 0) counter.table(model.positions, nullptr);
  counter.table(model.embedding, nullptr);
  if (!model.head.weight.stored.is_same(model.embedding.stored))
    counter.table(model.head.weight, counter.spec({0, Module::head, Slot::weight}));
  return counter.size();
}

/// At most most_losses of the log's steps, evenly spaced, the last one included.
std::vector<TrainingLoss> read_losses(const std::filesystem::path& path) {
  std::vector<TrainingLoss> all;
  const MappedFile file(path);
  for_each_line(file.text(), path.string(), Tail::drop, [&](const TextLine& line) {
    const auto json = parse_ordered_json(line.text, line.where);
    const OrderedJsonObject fields(json, line.where);
    all.push_back({fields.count("step"), fields.any_number("loss")});
  });
  if (all.size() <= ModelDetails::most_losses) return all;
  std::vector<TrainingLoss> some;
  for (size_t i = 0; i < ModelDetails::most_losses; ++i)
    some.push_back(all[i * (all.size() - 1) / (ModelDetails::most_losses - 1)]);
  return some;
}

void read_record(const std::filesystem::path& folder, ModelDetails& details) {
  std::error_code code;
  const std::filesystem::path record = folder / quant::kRecordFile;
  if (std::filesystem::exists(record, code)) {
    const auto json = parse_ordered_json(read_file(record), record.string());
    const OrderedJsonObject fields(json, record.string());
    details.quantize = fields.value();
    if (fields.has("settings")) {
      const OrderedJsonObject settings = fields.object("settings");
      if (settings.has("scheme")) details.scheme = settings.string("scheme");
    }
    if (fields.has("layer_errors")) {  // in the form of ours, and once
      ModelInfo info;
      info.details["layer_errors"] = fields.at("layer_errors");
      details.layer_errors = model_details(info, record.string()).layer_errors;
      details.quantize.erase("layer_errors");
    }
  }
  const std::filesystem::path training = folder / quant::kTrainingFile;
  if (std::filesystem::exists(training, code)) details.training_loss = read_losses(training);
}

}  // namespace

namespace {

/// The fewest bits that the checkpoint rounds the input of a linear map to.
int rounded_bits(const model::Model& model) {
  int bits = 32;
  const auto add = [&](const std::optional<model::ActivationRounding>& rounding) {
    if (!rounding) return;
    const bool four = rounding->type == model::ActivationRounding::Type::e2m1;
    bits = std::min(bits, four ? 4 : rounding->bits);
  };
  add(model.head.input);
  for (const model::LayerWeights& layer : model.layers) {
    layer.visit_linears([&](Module, const model::LinearWeights& linear) { add(linear.input); });
  }
  return bits;
}

}  // namespace

ModelDetails describe_model(const Session& session) {
  const Size size = count_size(session);
  ModelDetails details;
  details.parameters = size.parameters;
  details.size_bytes = session.quantization() ? size.bytes : session.model().weight_bytes();
  details.weight_bits =
      size.projection_elements > 0 ? size.projection_bits / static_cast<double>(size.projection_elements) : 0;
  details.format = session.model().weight_format();
  if (!session.quantization()) {
    const bool rounds = session.arithmetic().name() == "fake" || session.arithmetic().name() == "integer";
    details.scheme = rounds ? session.model().quant_method : "float";
    if (rounds) details.activation_bits = rounded_bits(session.model());
    if (const auto* ggml = dynamic_cast<const quant::GgmlArithmetic*>(&session.arithmetic())) {
      details.scheme = ggml->name();
      details.activation_bits = ggml->input_bits();
    }
    if (const auto* integers = dynamic_cast<const quant::CheckpointIntegerArithmetic*>(&session.arithmetic()))
      details.integer_linears = fmt::format("{} of {}", integers->integer_linears(), integers->linears());
    return details;
  }
  // Schemes vary the output of the projections.
  const quant::QuantSpec& activation = session.quantization()->qcfg[{0, Module::q, Slot::output}];
  details.activation_bits = activation.enabled() ? activation.bits : 32;
  if (std::error_code code; std::filesystem::is_directory(session.model().path, code))
    read_record(session.model().path, details);
  return details;
}

std::string run_label(const Session& session) {
  const std::string arithmetic = session.arithmetic().name();
  if (!session.quantization()) {
    const std::string format = session.model().weight_format();
    return arithmetic == "float" ? format : format + " " + arithmetic;
  }
  const ModelDetails details = describe_model(session);
  std::string label = details.method();
  for (const std::string& part : {details.scheme, std::string(arithmetic == "fake" ? "" : arithmetic)}) {
    if (!part.empty()) label += (label.empty() ? "" : " ") + part;
  }
  return label.empty() ? session.model().weight_format() + " fake" : label;
}

std::vector<std::string> distinct_labels(std::vector<std::string> labels,
                                         const std::vector<std::string>& names) {
  const std::vector<std::string> first = labels;
  for (size_t i = 0; i < labels.size(); ++i) {
    // A name helps where it tells two of one label apart.
    bool helps = false;
    for (size_t j = 0; j < labels.size(); ++j)
      helps = helps || (first[j] == first[i] && names[j] != names[i]);
    if (helps) labels[i] += fmt::format(" ({})", names[i]);
  }
  const std::vector<std::string> second = labels;
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto before =
        std::count(second.begin(), second.begin() + static_cast<std::ptrdiff_t>(i), second[i]);
    if (before > 0) labels[i] += fmt::format(" #{}", before + 1);
  }
  return labels;
}

}  // namespace qeval::eval
