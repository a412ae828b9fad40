// AWQ, version GEMM. Of a module with `in` inputs and `out` outputs, G = ⌈in / group_size⌉: qweight I32
// [in, out/8], qzeros I32 [G, out/8], nibbles packed along out in AWQ's order (code_layout.h); scales
// [G, out]. W[o, i] = (q − z) · scales.

#include "base/error.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

/// The value at the one of two spellings that is there.
int64_t either(const JsonObject& fields, const char* key, const char* other,
               std::optional<int64_t> fallback) {
  return fields.integer(fields.find(key) == nullptr && fields.find(other) != nullptr ? other : key, fallback);
}

}  // namespace

std::shared_ptr<CodedWeight> read_awq_layout(ModuleTensors& tensors, const std::string& name,
                                             int64_t group_size) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  if (rows % 8 != 0)
    fail("{}: {} rows do not fill whole words; accepted: multiples of 8", tensors.where("qweight"), rows);
  const int64_t group = group_size == -1 ? cols : std::min(group_size, cols);
  const int64_t groups = divide_up(cols, group);
  const TensorView& codes = tensors.take("qweight", {cols, rows / 8}, {DType::i32});
  const TensorView& zeros = tensors.take("qzeros", {groups, rows / 8}, {DType::i32});
  const StoredScales scales = tensors.scales("scales", {groups, rows}, 1, rows);
  auto weight = make_coded(tensors, fmt::format("{} 4-bit {}", name, group_text(group_size)), group);
  weight->codes.layout = CodeLayout::awq;
  weight->codes.bits = 4;
  weight->codes.data = codes.bytes.data();
  weight->codes.stride = rows / 8;
  weight->scales = scales;
  weight->zeros.layout = StoredZeros::Layout::awq;
  weight->zeros.data = zeros.bytes.data();
  weight->zeros.bits = 4;
  weight->zeros.stride = rows / 8;
  return weight;
}

Quantization open_awq(const QuantizationConfig& config) {
  config.refuse_unknown({"bits",
                         "w_bit",
                         "group_size",
                         "q_group_size",
                         "zero_point",
                         "version",
                         "modules_to_not_convert",
                         "backend",
                         "do_fuse",
                         "fuse_max_seq_len",
                         "modules_to_fuse",
                         "exllama_config",
                         "meta",
                         "checkpoint_format",
                         "format",
                         "pack_dtype",
                         "lm_head",
                         "sym",
                         "desc_act",
                         "quantizer",
                         "act_group_aware",
                         "true_sequential",
                         "damp_percent"});
  const JsonObject fields = config.object();
  if (either(fields, "bits", "w_bit", 4) != 4)
    fields.refuse(fields.find("bits") != nullptr ? "bits" : "w_bit", "4");
  const int64_t group_size = either(fields, "group_size", "q_group_size", 128);
  if (group_size != -1 && group_size < 1) fields.refuse("group_size", "-1 or at least 1");
  for (const char* key : {"version", "checkpoint_format", "format"}) {
    std::string version = fields.string(key, "gemm");
    for (char& c : version) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    if (version != "gemm") fields.refuse(key, "gemm");
  }
  if (fields.string("pack_dtype", "int32") != "int32") fields.refuse("pack_dtype", "int32");
  if (!fields.boolean("zero_point", true)) fields.refuse("zero_point", "true");
  const bool head = fields.boolean("lm_head", false);
  const SkippedNames skipped = skipped_names(fields, {"modules_to_not_convert"});
  const std::string where = config.where;
  Quantization result;
  result.read = [=](ModuleTensors& tensors) -> std::optional<QuantizedModule> {
    const ModuleRequest& request = tensors.request();
    const bool usual =
        request.kind == ModuleRequest::Kind::linear || (request.kind == ModuleRequest::Kind::head && head);
    const bool packed = tensors.has("qweight");
    // AutoAWQ and transformers differ in what an entry means: what either would do is believed.
    if (!check_agreement(tensors, "qweight", packed, usual && !skipped.surely(request.name),
                         !usual || skipped.possibly(request.name), where + ": modules_to_not_convert"))
      return std::nullopt;
    return QuantizedModule{read_awq_layout(tensors, "AWQ", group_size), {}, {}};
  };
  return result;
}

}  // namespace qeval::model
