// bitsandbytes. 4 bits: weight U8 [out·in/2, 1], the matrix row behind row, the first code of a byte in its
// high nibble; weight.quant_map F32 [16], what codes stand for; weight.absmax, one per block of `blocksize`
// codes, which may span two rows; weight.quant_state.bitsandbytes__nf4 (or __fp4) U8, a JSON with the block's
// size and the shape. W = quant_map[code] · absmax. Nested: absmax is U8,
// absmax = weight.nested_quant_map[u] · weight.nested_absmax[block of nested_blocksize] + nested_offset.
// int8: weight I8 [out, in], SCB F32 [out], W = (q · SCB) · (1/127). What the library does to activations
// there depends on the batch and is left out, as the library does when it trains on a CPU.

#include "base/error.h"
#include "base/strict_json.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

struct BitsAndBytesSettings {
  std::string where;
  bool four_bits = false;
  bool lists_skipped = false;
  SkippedNames skipped;
};

BitsAndBytesSettings read_bitsandbytes_settings(const QuantizationConfig& config) {
  config.refuse_unknown({"_load_in_4bit", "_load_in_8bit", "load_in_4bit", "load_in_8bit",
                         "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage", "bnb_4bit_quant_type",
                         "bnb_4bit_use_double_quant", "llm_int8_enable_fp32_cpu_offload",
                         "llm_int8_skip_modules", "llm_int8_threshold"});
  const JsonObject fields = config.object();
  BitsAndBytesSettings settings;
  settings.where = config.where;
  settings.four_bits = fields.boolean("load_in_4bit", fields.boolean("_load_in_4bit", false));
  const bool eight_bits = fields.boolean("load_in_8bit", fields.boolean("_load_in_8bit", false));
  if (settings.four_bits == eight_bits)
    fields.refuse("load_in_4bit", "true, or load_in_8bit true, and not both");
  settings.lists_skipped = fields.find("llm_int8_skip_modules") != nullptr;
  settings.skipped = skipped_names(fields, {"llm_int8_skip_modules"});
  return settings;
}

constexpr std::array kStates{"weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4"};

std::shared_ptr<CodedWeight> read_four_bits(ModuleTensors& tensors) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  const char* suffix = tensors.first_of({kStates[0], kStates[1]});
  const TensorView& state = tensors.take_any(suffix, {DType::u8});
  const std::string where = tensors.where(suffix);
  const nlohmann::json document =
      parse_strict_json({reinterpret_cast<const char*>(state.bytes.data()), state.bytes.size()}, where);
  const JsonObject fields(document, where);
  const std::string type = fields.string("quant_type");
  if (type != "nf4" && type != "fp4") fields.refuse("quant_type", "nf4, fp4");
  const int64_t block = fields.integer("blocksize");
  if (block < 1 || block > (int64_t{1} << 30)) fields.refuse("blocksize", "at least 1");
  const std::vector<double> shape = fields.numbers("shape");
  if (shape != std::vector<double>{static_cast<double>(rows), static_cast<double>(cols)})
    fields.refuse("shape", shape_text(std::vector<int64_t>{rows, cols}));
  // Stored as another type, the bytes are the same.
  const TensorView& codes =
      tensors.take_any("weight", {DType::u8, DType::i8, DType::bf16, DType::f16, DType::f32});
  if (std::ssize(codes.bytes) != divide_up(rows * cols, 2)) {
    fail("{} has {} bytes; the shape {} asks for {}", tensors.where("weight"), codes.bytes.size(),
         shape_text(std::vector<int64_t>{rows, cols}), divide_up(rows * cols, 2));
  }
  const TensorView& map = tensors.take("weight.quant_map", {16}, {DType::f32});
  const int64_t blocks = divide_up(rows * cols, block);
  const TensorView& absmax = tensors.take("weight.absmax", {blocks}, {DType::f32, DType::u8});
  StoredScales scales{.data = absmax.bytes.data(), .group_step = 1};
  if (absmax.dtype == DType::u8) {
    scales.type = StoredScales::Type::nested;
    scales.block = fields.integer("nested_blocksize");
    if (scales.block < 1 || scales.block > (int64_t{1} << 30))
      fields.refuse("nested_blocksize", "at least 1");
    scales.offset = static_cast<float>(fields.number("nested_offset"));
    const TensorView& nested = tensors.take("weight.nested_quant_map", {256}, {DType::f32});
    const TensorView& outer =
        tensors.take("weight.nested_absmax", {divide_up(blocks, scales.block)}, {DType::f32});
    scales.map = reinterpret_cast<const float*>(nested.bytes.data());
    scales.absmax = reinterpret_cast<const float*>(outer.bytes.data());
  }
  auto weight = make_coded(
      tensors, fmt::format("bitsandbytes {} g{}{}", type, block, absmax.dtype == DType::u8 ? " nested" : ""),
      block);
  weight->flat = true;
  weight->codes.layout = CodeLayout::rows_high_first;
  weight->codes.bits = 4;
  weight->codes.data = codes.bytes.data();
  weight->values = reinterpret_cast<const float*>(map.bytes.data());
  weight->value_count = 16;
  weight->scales = scales;
  return weight;
}

std::shared_ptr<CodedWeight> read_eight_bits(ModuleTensors& tensors) {
  const auto [rows, cols] = std::pair(tensors.request().rows, tensors.request().cols);
  const TensorView& codes = tensors.take("weight", {rows, cols}, {DType::i8});
  const TensorView& scale = tensors.take("SCB", {rows}, {DType::f32});
  if (tensors.has("weight_format")) {
    const TensorView& format = tensors.take_any("weight_format", {DType::u8, DType::i32, DType::i64});
    for (const std::byte byte : format.bytes) {
      if (byte != std::byte{0})
        fail("{} is not 0; accepted: 0, rows as they are", tensors.where("weight_format"));
    }
  }
  auto weight = make_coded(tensors, "bitsandbytes int8", cols);
  weight->scales = {.data = scale.bytes.data(), .row_step = 1};
  weight->factor = 1.0F / 127.0F;
  use_signed_bytes(*weight, codes, nullptr);
  return weight;
}

std::optional<QuantizedModule> read_bitsandbytes_module(const BitsAndBytesSettings& settings,
                                                        ModuleTensors& tensors) {
  const ModuleRequest& request = tensors.request();
  const bool four = tensors.has("weight.absmax"), eight = tensors.has("SCB");
  if ((four && !settings.four_bits) || (eight && settings.four_bits)) {
    fail("{} is there, but {}: load_in_{}bit is true", tensors.where(four ? "weight.absmax" : "SCB"),
         settings.where, settings.four_bits ? 4 : 8);
  }
  // Without a list, the library leaves the head alone; with one, whatever is not in it is converted.
  const bool usual = request.kind == ModuleRequest::Kind::linear;
  const bool may = request.kind != ModuleRequest::Kind::embedding && !request.transposed &&
                   (request.kind != ModuleRequest::Kind::head || settings.lists_skipped);
  if (!check_agreement(tensors, settings.four_bits ? "weight.absmax" : "SCB", four || eight,
                       may && !settings.skipped.surely(request.name),
                       !usual || settings.skipped.possibly(request.name),
                       settings.where + ": llm_int8_skip_modules"))
    return std::nullopt;
  return QuantizedModule{four ? read_four_bits(tensors) : read_eight_bits(tensors), {}, {}};
}

}  // namespace

Quantization open_bitsandbytes(const QuantizationConfig& config) {
  auto settings = std::make_shared<const BitsAndBytesSettings>(read_bitsandbytes_settings(config));
  Quantization result;
  result.read = [settings](ModuleTensors& tensors) { return read_bitsandbytes_module(*settings, tensors); };
  return result;
}

}  // namespace qeval::model
