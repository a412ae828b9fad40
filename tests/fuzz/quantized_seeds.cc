#include "tests/fuzz/quantized_seeds.h"

#include <functional>

#include "tests/model/fixtures.h"

namespace qeval::fuzz {
namespace {

namespace fixtures = model::fixtures;
using fixtures::Tensor;
using model::DType;
using Shape = std::vector<int64_t>;

/// Bytes that differ from one another; of floats, numbers around 1.
Tensor tensor(const std::string& name, DType type, const Shape& shape) {
  int64_t bytes = model::info(type).block_bytes;
  for (const int64_t extent : shape) bytes *= extent;
  std::string data(static_cast<size_t>(bytes), '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37 + 11);
  const std::string_view one = type == DType::f32    ? std::string_view("\0\0\x80\x3F", 4)
                               : type == DType::f16  ? std::string_view("\0\x3C", 2)
                               : type == DType::bf16 ? std::string_view("\x80\x3F", 2)
                                                     : std::string_view();
  for (size_t i = 0; !one.empty() && i < data.size(); i += one.size()) data.replace(i, one.size(), one);
  return {name, type, shape, data};
}

/// The tensors that stand for a weight [out, in] of module `name`.
using Pack = std::function<std::vector<Tensor>(const std::string& name, int64_t out, int64_t in)>;

QuantizedSeed seed(const std::string& name, const std::string& quantization, const Pack& pack) {
  std::vector<Tensor> tensors;
  for (const Tensor& plain : fixtures::tiny_model()) {
    const std::string suffix = "_proj.weight";
    if (!plain.name.ends_with(suffix)) {
      tensors.push_back(plain);
      continue;
    }
    const std::string module = plain.name.substr(0, plain.name.rfind('.'));
    for (Tensor& own : pack(module, plain.shape[0], plain.shape[1])) tensors.push_back(std::move(own));
  }
  return {name, fixtures::tiny_config("\"quantization_config\": " + quantization + ","),
          fixtures::safetensors(tensors)};
}

std::vector<Tensor> gptq(const std::string& name, int64_t out, int64_t in, int bits) {
  std::vector<Tensor> tensors{tensor(name + ".qweight", DType::i32, {in * bits / 32, out}),
                              tensor(name + ".qzeros", DType::i32, {in / 16, out * bits / 32}),
                              tensor(name + ".scales", DType::f16, {in / 16, out}),
                              tensor(name + ".g_idx", DType::i32, {in})};
  std::string& order = tensors.back().bytes;
  order.clear();
  for (int64_t i = 0; i < in; ++i) order += fixtures::raw(static_cast<int32_t>((in - 1 - i) / 16));
  return tensors;
}

std::string groups(const std::string& format, const std::string& weights, const std::string& input) {
  return R"({"quant_method": "compressed-tensors", "format": ")" + format +
         R"(", "ignore": ["lm_head"], "version": "0.20.0", "config_groups": {"group_0": {"targets": ["Linear"],
         "weights": )" +
         weights + R"(, "input_activations": )" + input + "}}}";
}

}  // namespace

std::vector<QuantizedSeed> quantized_seeds() {
  std::vector<QuantizedSeed> seeds;
  seeds.push_back(seed("gptq", R"({"quant_method": "gptq", "bits": 4, "group_size": 16, "sym": false})",
                       [](const auto& name, int64_t out, int64_t in) { return gptq(name, out, in, 4); }));
  seeds.push_back(
      seed("gptq_v2", R"({"quant_method": "gptq", "bits": 2, "group_size": 16, "checkpoint_format": "gptq_v2",
      "dynamic": {"+:.*down": {"sym": true}}})",
           [](const auto& name, int64_t out, int64_t in) { return gptq(name, out, in, 2); }));
  seeds.push_back(seed("auto_round", R"({"quant_method": "auto-round", "bits": 8, "group_size": 16,
      "packing_format": "auto_round:auto_gptq", "extra_config": {".*k_proj": {"sym": false}}})",
                       [](const auto& name, int64_t out, int64_t in) {
                         auto tensors = gptq(name, out, in, 8);
                         tensors.pop_back();
                         return tensors;
                       }));
  seeds.push_back(seed("awq", R"({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"})",
                       [](const auto& name, int64_t out, int64_t in) {
                         return std::vector{tensor(name + ".qweight", DType::i32, {in, out / 8}),
                                            tensor(name + ".qzeros", DType::i32, {in / 16, out / 8}),
                                            tensor(name + ".scales", DType::f16, {in / 16, out})};
                       }));
  seeds.push_back(seed("packed",
                       groups("pack-quantized", R"({"num_bits": 3, "symmetric": false, "group_size": 16,
      "strategy": "group"})",
                              "null"),
                       [](const auto& name, int64_t out, int64_t in) {
                         Tensor shape = tensor(name + ".weight_shape", DType::i64, {2});
                         shape.bytes = fixtures::raw(out) + fixtures::raw(in);
                         return std::vector{
                             tensor(name + ".weight_packed", DType::i32, {out, (in * 3 + 31) / 32}),
                             tensor(name + ".weight_zero_point", DType::i32, {(out * 3 + 31) / 32, in / 16}),
                             tensor(name + ".weight_scale", DType::bf16, {out, in / 16}), shape};
                       }));
  seeds.push_back(seed("int8",
                       groups("int-quantized", R"({"num_bits": 8, "strategy": "channel"})",
                              R"({"num_bits": 8, "strategy": "token", "dynamic": true})"),
                       [](const auto& name, int64_t out, int64_t in) {
                         return std::vector{tensor(name + ".weight", DType::i8, {out, in}),
                                            tensor(name + ".weight_scale", DType::bf16, {out, 1})};
                       }));
  seeds.push_back(seed("nvfp4",
                       groups("nvfp4-pack-quantized", R"({"num_bits": 4, "type": "float",
      "strategy": "tensor_group", "group_size": 16})",
                              "null"),
                       [](const auto& name, int64_t out, int64_t in) {
                         return std::vector{tensor(name + ".weight_packed", DType::u8, {out, in / 2}),
                                            tensor(name + ".weight_scale", DType::f8_e4m3, {out, in / 16}),
                                            tensor(name + ".weight_global_scale", DType::f32, {1})};
                       }));
  seeds.push_back(seed(
      "fp8", R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [24, 24]})",
      [](const auto& name, int64_t out, int64_t in) {
        return std::vector{tensor(name + ".weight", DType::f8_e4m3, {out, in}),
                           tensor(name + ".weight_scale_inv", DType::f32, {(out + 23) / 24, (in + 23) / 24})};
      }));
  seeds.push_back(seed("fbgemm", R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0})",
                       [](const auto& name, int64_t out, int64_t in) {
                         return std::vector{tensor(name + ".weight", DType::f8_e4m3, {out, in}),
                                            tensor(name + ".weight_scale", DType::f32, {out, 1})};
                       }));
  seeds.push_back(seed("modelopt",
                       R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_*"]})",
                       [](const auto& name, int64_t out, int64_t in) {
                         return std::vector{tensor(name + ".weight", DType::u8, {out, in / 2}),
                                            tensor(name + ".weight_scale", DType::f8_e4m3, {out, in / 16}),
                                            tensor(name + ".weight_scale_2", DType::f32, {}),
                                            tensor(name + ".input_scale", DType::f32, {})};
                       }));
  seeds.push_back(seed(
      "nf4", R"({"quant_method": "bitsandbytes", "load_in_4bit": true})",
      [](const auto& name, int64_t out, int64_t in) {
        Tensor state = tensor(name + ".weight.quant_state.bitsandbytes__nf4", DType::u8, {1});
        state.bytes = R"({"quant_type": "nf4", "blocksize": 48, "nested_blocksize": 8, "nested_offset": 0.5,
                           "shape": [)" +
                      std::to_string(out) + ", " + std::to_string(in) + "]}";
        state.shape = {static_cast<int64_t>(state.bytes.size())};
        const int64_t blocks = (out * in + 47) / 48;
        return std::vector{tensor(name + ".weight", DType::u8, {out * in / 2, 1}),
                           tensor(name + ".weight.absmax", DType::u8, {blocks}),
                           tensor(name + ".weight.nested_absmax", DType::f32, {(blocks + 7) / 8}),
                           tensor(name + ".weight.nested_quant_map", DType::f32, {256}),
                           tensor(name + ".weight.quant_map", DType::f32, {16}),
                           state};
      }));
  seeds.push_back(seed("gemma",
                       R"({"quant_method": "gemma", "num_bits": 4, "modules_to_not_convert": ["lm_head"],
      "module_quant_configs": {"mlp": {"num_bits": 2}}})",
                       [](const auto& name, int64_t out, int64_t in) {
                         const int bits = name.find("mlp") == std::string::npos ? 4 : 2;
                         return std::vector{tensor(name + ".weight", DType::u8, {out, in * bits / 8}),
                                            tensor(name + ".weight_scale", DType::f32, {out, 1}),
                                            tensor(name + ".input_activation_scale", DType::f32, {})};
                       }));
  return seeds;
}

}  // namespace qeval::fuzz
