// gpt-oss: the matrices of a layer's experts in one tensor. NAME_blocks U8 [experts, rows, cols/32, 16],
// E2M1, the low nibble first; NAME_scales U8 [experts, rows, cols/32], powers of two. Everything else is
// plain.

#include "base/error.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quantized/format.h"

namespace qeval::model {
namespace {

constexpr int64_t kMxfp4Group = 32;

const TensorView& require(const Checkpoint& checkpoint, const std::string& name,
                          const std::vector<int64_t>& shape) {
  const TensorView& tensor = checkpoint.require(name);
  if (tensor.dtype != DType::u8 || tensor.shape != shape) {
    fail("{}: tensor {} is {} {}; the configuration asks for U8 {}", checkpoint.path().string(),
         printable(name), info(tensor.dtype).name, shape_text(tensor.shape), shape_text(shape));
  }
  return tensor;
}

/// The i-th of `count` equal parts of a tensor's bytes.
TensorView part(const TensorView& tensor, int64_t i, int64_t count) {
  TensorView own = tensor;
  own.shape.erase(own.shape.begin());
  const size_t size = tensor.bytes.size() / static_cast<size_t>(count);
  own.bytes = tensor.bytes.subspan(static_cast<size_t>(i) * size, size);
  return own;
}

}  // namespace

std::vector<std::shared_ptr<CodedWeight>> read_mxfp4_experts(const Checkpoint& checkpoint,
                                                             const std::string& name, int64_t experts,
                                                             int64_t rows, int64_t cols) {
  if (cols % kMxfp4Group != 0) {
    fail("{}: tensor {}_blocks: {} columns; accepted: a multiple of {}", checkpoint.path().string(),
         printable(name), cols, kMxfp4Group);
  }
  const int64_t groups = cols / kMxfp4Group;
  const TensorView& blocks = require(checkpoint, name + "_blocks", {experts, rows, groups, kMxfp4Group / 2});
  const TensorView& scales = require(checkpoint, name + "_scales", {experts, rows, groups});
  std::vector<std::shared_ptr<CodedWeight>> result;
  for (int64_t e = 0; e < experts; ++e) {
    auto weight = std::make_shared<CodedWeight>();
    weight->format = "MXFP4";
    weight->rows = rows;
    weight->cols = cols;
    weight->group = kMxfp4Group;
    weight->tensors = {part(blocks, e, experts), part(scales, e, experts)};
    weight->codes = {.bits = 4, .data = weight->tensors[0].bytes.data(), .cols = cols, .stride = cols / 2};
    weight->values = e2m1_values();
    weight->value_count = 16;
    weight->scales = {.type = StoredScales::Type::e8m0,
                      .data = weight->tensors[1].bytes.data(),
                      .row_step = groups,
                      .group_step = 1};
    result.push_back(std::move(weight));
  }
  return result;
}

Quantization open_mxfp4(const QuantizationConfig& config) {
  config.refuse_unknown({"modules_to_not_convert", "dequantize"});
  Quantization result;
  result.read = [](ModuleTensors&) { return std::nullopt; };  // experts are asked for by themselves
  return result;
}

}  // namespace qeval::model
