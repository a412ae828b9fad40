#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "base/error.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {

std::string ModuleTensors::name(std::string_view suffix) const {
  return fmt::format("{}.{}", request_.name, suffix);
}

std::string ModuleTensors::where(std::string_view suffix) const {
  return fmt::format("{}: tensor {}", checkpoint_.path().string(), printable(name(suffix)));
}

const TensorView* ModuleTensors::find(std::string_view suffix) const {
  return checkpoint_.find(name(suffix));
}

const char* ModuleTensors::first_of(std::initializer_list<const char*> suffixes) const {
  for (const char* suffix : suffixes) {
    if (has(suffix)) return suffix;
  }
  fail("{}: one tensor of {} is missing; accepted: {}", checkpoint_.path().string(), printable(request_.name),
       fmt::join(suffixes, ", "));
}

const TensorView& ModuleTensors::take_any(std::string_view suffix, std::initializer_list<DType> types) {
  const TensorView& tensor = checkpoint_.require(name(suffix));
  if (std::ranges::find(types, tensor.dtype) == types.end()) {
    std::string accepted;
    for (const DType type : types)
      accepted += fmt::format("{}{}", accepted.empty() ? "" : ", ", info(type).name);
    fail("{} is of type {}; accepted: {}", where(suffix), info(tensor.dtype).name, accepted);
  }
  taken_.push_back(tensor);
  return tensor;
}

const TensorView& ModuleTensors::take(std::string_view suffix, const std::vector<int64_t>& shape,
                                      std::initializer_list<DType> types) {
  const TensorView& tensor = take_any(suffix, types);
  if (tensor.shape != shape) {
    fail("{} has shape {}; the configuration asks for {}", where(suffix), shape_text(tensor.shape),
         shape_text(shape));
  }
  return tensor;
}

float ModuleTensors::scalar(std::string_view suffix, bool may_be_zero) {
  const TensorView& tensor = take_any(suffix, kFloats);
  if (tensor.element_count() != 1 || tensor.shape.size() > 2) {
    fail("{} has shape {}; the configuration asks for one number, [] or [1]", where(suffix),
         shape_text(tensor.shape));
  }
  float value = 0;
  decode(tensor.dtype, tensor.bytes.data(), 1, &value);
  if (!std::isfinite(value) || value < 0 || (value == 0 && !may_be_zero))
    fail("{} is {}; accepted: a finite scale above 0", where(suffix), value);
  return value;
}

StoredScales ModuleTensors::scales(std::string_view suffix, const std::vector<int64_t>& shape,
                                   int64_t row_step, int64_t group_step) {
  const TensorView& tensor = take(suffix, shape, kFloats);
  const auto type = tensor.dtype == DType::f32   ? StoredScales::Type::f32
                    : tensor.dtype == DType::f16 ? StoredScales::Type::f16
                                                 : StoredScales::Type::bf16;
  return {.type = type, .data = tensor.bytes.data(), .row_step = row_step, .group_step = group_step};
}

void QuantizationConfig::refuse_unknown(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : fields.items()) {
    const bool nothing = value.is_null() || value == false || (value.is_structured() && value.empty()) ||
                         (value.is_string() && value.get_ref<const std::string&>().empty());
    if (nothing || key == "quant_method" || std::ranges::find(known, std::string_view(key)) != known.end())
      continue;
    fail("{}: {} is {}; no such field is known here; accepted: null", where, printable(key),
         printable(value.dump(), 60));
  }
}

void QuantizationConfig::refuse(std::initializer_list<const char*> keys, std::string_view why) const {
  for (const char* key : keys) {
    const auto found = fields.find(key);
    if (found == fields.end() || found->is_null() || *found == false ||
        (found->is_structured() && found->empty()))
      continue;
    fail("{}: {} is {}: {}; accepted: null", where, key, printable(found->dump(), 60), why);
  }
}

bool check_agreement(const ModuleTensors& tensors, std::string_view packed_suffix, bool packed,
                     bool may_be_packed, bool may_be_plain, const std::string& rule) {
  if (packed && !may_be_packed) {
    fail("{} is quantized, but {} leaves {} in float", tensors.where(packed_suffix), rule,
         printable(tensors.request().name));
  }
  if (!packed && !may_be_plain && tensors.has("weight")) {
    fail("{} is not quantized, but {} quantizes {}; expected: {}", tensors.where("weight"), rule,
         printable(tensors.request().name), packed_suffix);
  }
  if (!packed && !may_be_plain)
    fail("{} is missing; {} quantizes the module", tensors.where(packed_suffix), rule);
  return packed;
}

bool SkippedNames::surely(std::string_view module) const {
  return std::ranges::any_of(names, [&](const std::string& name) {
    return module == name || (module.starts_with(name) && module.substr(name.size()).starts_with('.'));
  });
}

bool SkippedNames::possibly(std::string_view module) const {
  return std::ranges::any_of(
      names, [&](const std::string& name) { return module.find(name) != std::string_view::npos; });
}

SkippedNames skipped_names(const JsonObject& fields, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (fields.find(key) != nullptr) return {fields.strings(key)};
  }
  return {};
}

std::string group_text(int64_t group) {
  return group < 1 ? "per channel" : fmt::format("g{}", group);
}

std::shared_ptr<CodedWeight> make_coded(const ModuleTensors& tensors, std::string format, int64_t group) {
  auto weight = std::make_shared<CodedWeight>();
  weight->format = std::move(format);
  weight->rows = tensors.request().rows;
  weight->cols = tensors.request().cols;
  weight->group = group;
  weight->codes.cols = weight->cols;
  weight->tensors = tensors.taken();
  return weight;
}

void use_signed_bytes(CodedWeight& weight, const TensorView& codes, const TensorView* zeros) {
  weight.codes.data = codes.bytes.data();
  weight.codes.stride = weight.cols;
  weight.codes.is_signed = true;
  weight.zeros.constant = 128;  // what unpacking adds to the codes
  if (zeros == nullptr) return;
  weight.zeros.layout = StoredZeros::Layout::int8;
  weight.zeros.data = zeros->bytes.data();
  weight.zeros.row_step = weight.scales.row_step;
  weight.zeros.group_step = weight.scales.group_step;
}

}  // namespace qeval::model
