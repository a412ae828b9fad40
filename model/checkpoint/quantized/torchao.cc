// torchao's tensor subclasses in safetensors: NAME._weight_qdata, _weight_scale, _weight_zero_point; the
// header's metadata has a JSON for each NAME.weight: `_type`, `_tensor_data_names`, and `_data` with the
// `block_size` [rows, columns] that shares a scale. W = (q − z) · s. `Tensor` is plain.

#include <algorithm>

#include "base/error.h"
#include "base/strict_json.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

std::optional<QuantizedModule> read_torchao_module(ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const auto [rows, cols] = std::pair(request.rows, request.cols);
  const auto& metadata = tensors.checkpoint().metadata();
  const auto entry = metadata.find(request.name + ".weight");
  const bool packed = tensors.has("_weight_qdata");
  if (entry == metadata.end()) {
    if (packed) {
      fail("{}: the header's metadata say nothing of {}.weight, which torchao would have them do",
           tensors.where("_weight_qdata"), printable(request.name));
    }
    return std::nullopt;
  }
  const std::string where = fmt::format("{}: metadata of {}.weight (torchao)",
                                        tensors.checkpoint().path().string(), printable(request.name));
  const nlohmann::json document = parse_strict_json(entry->second, where);
  const JsonObject fields(document, where);
  const std::string type = fields.string("_type");
  if (!check_agreement(tensors, "_weight_qdata", packed, type != "Tensor", type == "Tensor", where))
    return std::nullopt;
  const bool float8 = type == "Float8Tensor";
  if (!float8 && type != "Int8Tensor" && type != "IntxUnpackedToInt8Tensor")
    fields.refuse("_type", "Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, Float8Tensor");
  const JsonObject data = fields.object("_data");
  for (const char* key : {"act_quant_kwargs", "activation_quantization"}) {
    if (data.find(key) != nullptr) data.refuse(key, "null (no rounding of activations)");
  }
  const std::vector<std::string> names = fields.strings("_tensor_data_names");
  for (const std::string& name : names) {
    if (name != "qdata" && name != "scale" && (float8 || name != "zero_point"))
      fail("{}: _tensor_data_names has {}; accepted: qdata, scale, zero_point", where, printable(name));
  }
  const std::vector<double> sizes = data.numbers("block_size");
  const bool whole = sizes.size() == 2 && sizes[0] >= 1 && sizes[1] >= 1 &&
                     sizes[0] <= static_cast<double>(rows) && sizes[1] <= static_cast<double>(cols);
  if (!whole) data.refuse("block_size", fmt::format("two sizes up to [{}, {}]", rows, cols));
  const auto r = static_cast<int64_t>(sizes[0]), c = static_cast<int64_t>(sizes[1]);
  if (rows % r != 0 || cols % c != 0)
    data.refuse("block_size", fmt::format("divisors of [{}, {}]", rows, cols));
  const TensorView& codes =
      tensors.take("_weight_qdata", {rows, cols}, {float8 ? DType::f8_e4m3 : DType::i8});
  const std::vector<int64_t> grid{rows / r, cols / c};
  StoredScales scales = tensors.scales("_weight_scale", grid, cols / c, 1);
  scales.rows_per_scale = r;
  const TensorView* zeros = nullptr;
  if (std::ranges::find(names, "zero_point") != names.end()) {
    if (r != 1) data.refuse("block_size", "one row, where there are zero points");
    zeros = &tensors.take("_weight_zero_point", grid, {DType::i8});
  }
  QuantizedModule result;
  std::string kind = float8 ? "FP8" : "int8";
  if (type == "IntxUnpackedToInt8Tensor") kind = data.object("target_dtype").string("_data");
  result.weight = make_coded(
      tensors, fmt::format("torchao {} {}", printable(kind, 20), group_text(c == cols ? -1 : c)), c);
  result.weight->scales = scales;
  if (float8) {
    result.weight->codes.data = codes.bytes.data();
    result.weight->codes.stride = cols;
    result.weight->values = e4m3_values();
    result.weight->value_count = 256;
  } else {
    use_signed_bytes(*result.weight, codes, zeros);
  }
  return result;
}

}  // namespace

/// The config says how torchao was asked to quantize; the tensors' own metadata say what came of it.
Quantization open_torchao(const QuantizationConfig&) {
  Quantization result;
  result.read = read_torchao_module;
  return result;
}

}  // namespace qeval::model
