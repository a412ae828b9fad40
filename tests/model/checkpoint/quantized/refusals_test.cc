// What quantized folders are refused for, and that the message names it: goldens with one thing changed.

#include <bit>
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/quantized_golden.h"

namespace qeval::model {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// A scale that is no number once ended the program, and an infinite one made a matrix of zeros.
TEST(QuantizedRefusals, OfScalesThatAreNone) {
  for (const float value : {NAN, INFINITY, -1.0F, 0.0F}) {
    ChangedGolden changed("modelopt-nvfp4");
    fixtures::Tensor& scale = changed.tensor("model.layers.0.self_attn.q_proj.input_scale");
    ASSERT_EQ(scale.bytes.size(), sizeof value);
    std::memcpy(scale.bytes.data(), &value, sizeof value);
    EXPECT_THAT(changed.refusal(), HasSubstr("q_proj.input_scale is")) << value;
  }
}

TEST(QuantizedRefusals, OfCacheScalesThatAreNone) {
  for (const float value : {NAN, INFINITY, -1.0F, 0.0F}) {
    ChangedGolden changed("ct-kv-fp8");
    fixtures::Tensor& scale = changed.tensor("model.layers.0.self_attn.v_scale");
    ASSERT_EQ(scale.dtype, DType::bf16);
    const uint32_t bits = std::bit_cast<uint32_t>(value) >> 16U;
    std::memcpy(scale.bytes.data(), &bits, 2);
    EXPECT_THAT(changed.refusal(), HasSubstr("self_attn.v_scale is")) << value;
  }
}

/// What is missing is called by the names that the format has for it.
TEST(QuantizedRefusals, OfMissingTensors) {
  struct Case {
    const char *golden, *tensor, *said;
  };
  const std::string down = "model.layers.0.mlp.down_proj";
  for (const Case& c : std::vector<Case>{
           {"fp8-block-deepseek", ".weight_scale_inv",
            "is missing; accepted: weight_scale_inv, weight_scale"},
           {"fp8-tensor-static", ".activation_scale", "is missing; accepted: activation_scale, input_scale"},
           {"bnb-nf4-double", ".weight.quant_state.bitsandbytes__nf4",
            "bitsandbytes__nf4, weight.quant_state"},
           {"bnb-nf4-double", ".weight.absmax", "weight.absmax"},
           {"gptq-w3-g32-asym", ".qweight", ".qweight is missing; "},
           {"awq-w4-g32-qwen2", ".qweight", ".qweight is missing; "},
           {"ct-w6a16-g64-asym-new", ".weight_packed", ".weight_packed is missing; "},
           {"ct-w8a8-int-dynamic", ".weight", ".weight is missing; "},
           {"gemma-quant-gemma3", ".input_activation_scale", ".input_activation_scale is missing"},
       }) {
    SCOPED_TRACE(std::string(c.golden) + c.tensor);
    ChangedGolden changed(c.golden);
    changed.tensor(down + c.tensor);
    changed.remove(down + c.tensor);
    EXPECT_THAT(changed.refusal(), HasSubstr(c.said));
    EXPECT_THAT(changed.refusal(), HasSubstr(down));
  }
}

/// A zero point that is not 0 and a config that says symmetric: one of them is wrong.
TEST(QuantizedRefusals, OfZeroPointsThatASymmetricConfigHasNot) {
  for (const char* name : {"ct-w6a16-g64-asym-new", "ct-w8a8-int-dynamic"}) {
    SCOPED_TRACE(name);
    ChangedGolden changed(name);
    for (auto& group : changed.quantization()["config_groups"]) group["weights"]["symmetric"] = true;
    const std::string zeros = "model.layers.0.mlp.down_proj.weight_zero_point";
    if (std::string_view(name) == "ct-w8a8-int-dynamic") {
      changed.add({zeros, DType::i8, {128, 1}, std::string(128, '\0')});
      changed.load();
      changed.tensor(zeros).bytes[5] = 3;
    }
    EXPECT_THAT(changed.refusal(), HasSubstr("symmetric is true; accepted with it: 0"));
  }
}

struct RefusedConfig {
  const char* golden;
  const char* patch;  ///< of quantization_config, as JSON merge patch
  const char* said;
};

TEST(QuantizedRefusals, OfConfigs) {
  const std::vector<RefusedConfig> cases{
      {"gptq-w3-g32-asym", R"({"quant_method": "aqlm"})", "quant_method is \"aqlm\"; accepted: gptq, awq"},
      {"gptq-w3-g32-asym", R"({"quant_method": null})", "quant_method is missing"},
      {"gptq-w3-g32-asym", R"({"bits": 5})", "bits is 5"},
      {"gptq-w3-g32-asym", R"({"bits": 4})", "qweight has shape"},
      {"gptq-w3-g32-asym", R"({"group_size": 64})", "qzeros has shape"},
      {"gptq-w3-g32-asym", R"({"group_size": 0})", "group_size is 0"},
      {"gptq-w3-g32-asym", R"({"pack_dtype": "int16"})", "pack_dtype is \"int16\"; accepted: int32"},
      {"gptq-w3-g32-asym", R"({"is_marlin_format": true})", "is_marlin_format is true"},
      {"gptq-w3-g32-asym", R"({"checkpoint_format": "marlin"})", "checkpoint_format is \"marlin\""},
      {"gptq-w3-g32-asym", R"({"rotation": "hadamard"})", "rotation is \"hadamard\"; no such field is known"},
      {"gptq-w3-g32-asym", R"({"dynamic": {"-:.*k_proj": {}}})", "k_proj.qweight is quantized, but"},
      {"gptq-w3-g32-asym", R"({"dynamic": {"(": {}}})", "'(' is not a regular expression"},
      {"gptq-w3-g32-asym", R"({"dynamic": {".*": {"rotation": 1}}})", "rotation cannot be overridden"},
      {"gptq-w3-g32-asym", R"({"lm_head": true})", "lm_head.weight is not quantized, but"},
      {"gptq-w4-g32-lmhead", R"({"lm_head": false})", "lm_head.qweight is quantized, but"},
      {"gptq-dynamic", R"({"dynamic": null})", "weight is not quantized, but"},
      {"awq-w4-g32-qwen2", R"({"version": "gemv"})", "version is \"gemv\"; accepted: gemm"},
      {"awq-w4-g32-qwen2", R"({"bits": 8})", "bits is 8; accepted: 4"},
      {"awq-w4-g32-qwen2", R"({"modules_to_not_convert": null})", "weight is not quantized, but"},
      {"awq-w4-g32-qwen2", R"({"modules_to_not_convert": ["model.layers.0", "model.layers.1.self_attn"]})",
       "qweight is quantized, but"},
      {"autoround-gptq-w4-g128-sym", R"({"data_type": "mx_fp"})", "data_type is \"mx_fp\""},
      {"autoround-gptq-w4-g128-sym", R"({"act_bits": 8})", "act_bits is 8"},
      {"autoround-gptq-w4-g128-sym", R"({"packing_format": "auto_round:auto_gptq:marlin"})",
       "packing_format is"},
      {"autoround-awq-w4-g32-asym", R"({"bits": 8})", "bits is 8; accepted with auto_round:auto_awq: 4"},
      {"ct-mixed", R"({"format": "marlin-24", "config_groups": {"group_0": {"format": null}}})",
       "format is \"marlin-24\""},
      {"ct-mixed", R"({"transform_config": {"config_groups": {"u": {}}}})", "transform_config is"},
      {"ct-mixed", R"({"sparsity_config": {"format": "sparse-24-bitmask"}})", "sparse-24-bitmask"},
      {"ct-mixed", R"({"config_groups": {"group_1": {"weights": {"num_bits": 9}}}})", "num_bits is 9"},
      {"ct-mixed", R"({"config_groups": {"group_1": {"weights": {"zeros": 9}}}})",
       "zeros is 9; no such field"},
      {"ct-mixed", R"({"config_groups": {"group_1": {"weights": {"symmetric": true}}}})",
       "weight_zero_point holds"},
      {"ct-mixed", R"({"config_groups": {"group_1": {"targets": ["re:.*mlp\\.(gate|up)_proj$"]}}})",
       "model.layers.1.mlp.down_proj.weight_packed is quantized, but"},
      {"ct-mixed", R"({"ignore": []})", ""},
      {"ct-mixed", R"({"ignore": ["re:.*k_proj"]})", "k_proj.weight is quantized, but"},
      {"ct-mixed", R"({"ignore": ["re:("]})", "is not a regular expression"},
      {"ct-kv-fp8", R"({"kv_cache_scheme": {"dynamic": true}})", "kv_cache_scheme"},
      {"ct-w3a16-g32-old", R"({"config_groups": {"group_0": {"weights": {"actorder": "group"}}}})",
       "weight_g_idx is missing"},
      {"ct-w8a8-int-dynamic",
       R"({"config_groups": {"group_0": {"input_activations": {"strategy": "tensor"}}}})",
       "dynamic activations of this strategy"},
      {"ct-w8a8-int-dynamic", R"({"config_groups": {"group_0": {"input_activations": {"dynamic": false}}}})",
       "static activations of this strategy"},
      {"ct-w8a8-int-static", R"({"config_groups": {"group_0": {"input_activations": {"symmetric": false}}}})",
       "input_zero_point is missing"},
      {"fp8-block-deepseek", R"({"scale_fmt": "ue8m0"})", "scale_fmt is \"ue8m0\""},
      {"fp8-block-deepseek", R"({"fmt": "e5m2"})", "fmt is \"e5m2\""},
      {"fp8-block-deepseek", R"({"weight_block_size": [64, 128]})", "weight_scale_inv has shape"},
      {"fp8-block-deepseek", R"({"weight_block_size": [0, 128]})", "weight_block_size"},
      {"fp8-block-deepseek", R"({"activation_scheme": "static"})", "activation_scheme is \"static\""},
      {"fp8-tensor-static", R"({"activation_scheme": "dynamic"})", "activation_scale is there, but"},
      {"fp8-tensor-static", R"({"modules_to_not_convert": ["lm_head", "model.layers.0.mlp"]})",
       "weight is quantized, but"},
      {"fp8-fbgemm", R"({"activation_scale_ub": 0})", "activation_scale_ub is 0"},
      {"modelopt-nvfp4", R"({"quant_algo": "W4A8_AWQ"})", "quant_algo is \"W4A8_AWQ\"; accepted: FP8, NVFP4"},
      {"modelopt-nvfp4", R"({"kv_cache_quant_algo": "FP8"})", "kv_cache_quant_algo is \"FP8\""},
      {"modelopt-nvfp4", R"({"ignore": ["lm_head", "*o_proj"]})", "o_proj.weight is quantized, but"},
      {"bnb-int8",
       R"({"load_in_8bit": false, "_load_in_8bit": false, "load_in_4bit": true, "_load_in_4bit": true})",
       "SCB is there, but"},
      {"bnb-int8", R"({"llm_int8_skip_modules": ["model.layers.0.mlp"]})", "SCB is quantized, but"},
      {"gemma-quant-gemma3", R"({"num_bits": 3})", "num_bits is 3; accepted: 2, 4, 8"},
      {"gemma-quant-gemma3", R"({"quantize_embeddings": false})", "quantize_embeddings leaves"},
      {"gemma-quant-gemma3", R"({"modules_to_not_convert": []})", "o_proj.weight is not quantized, but"},
  };
  for (const RefusedConfig& c : cases) {
    SCOPED_TRACE(std::string(c.golden) + " " + c.patch);
    ChangedGolden changed(c.golden);
    changed.quantization().merge_patch(json::parse(c.patch));
    if (*c.said == '\0') {
      EXPECT_NO_THROW(changed.load());
    } else {
      EXPECT_THAT(changed.refusal(), HasSubstr(c.said));
    }
  }
}

TEST(QuantizedRefusals, OfColumnsWithoutAGroup) {
  for (const int32_t group : {-1, 8, INT32_MIN}) {
    ChangedGolden changed("gptq-w4-g32-descact");
    changed.set("model.layers.0.mlp.down_proj.g_idx", 7, group);
    EXPECT_THAT(changed.refusal(), HasSubstr("down_proj.g_idx holds " + std::to_string(group) + " at 7"));
  }
  ChangedGolden changed("gptq-w4-g32-descact");
  changed.remove("model.layers.0.mlp.down_proj.g_idx");
  EXPECT_THAT(changed.refusal(), HasSubstr("g_idx is missing, which desc_act: true asks for"));
  ChangedGolden ordered("ct-w4a16-g32-actorder");
  ordered.set("model.layers.0.mlp.down_proj.weight_g_idx", 3, 8);
  EXPECT_THAT(ordered.refusal(), HasSubstr("weight_g_idx holds 8 at 3; accepted: 0 to 7"));
}

TEST(QuantizedRefusals, OfTensorsOfAnotherShape) {
  struct Case {
    const char *golden, *tensor;
    std::vector<int64_t> shape;
  };
  for (const Case& c : std::vector<Case>{
           {"gptq-w3-g32-asym", "model.layers.0.mlp.down_proj.scales", {4, 256}},
           {"awq-w4-g32-qwen2", "model.layers.0.mlp.down_proj.qweight", {128, 32}},
           {"ct-w6a16-g64-asym-new", "model.layers.0.mlp.down_proj.weight_packed", {64, 96}},
           {"ct-w6a16-g64-asym-new", "model.layers.0.mlp.down_proj.weight_zero_point", {48, 2}},
           {"ct-nvfp4", "model.layers.0.mlp.down_proj.weight_scale", {64, 32}},
           {"fp8-block-deepseek", "model.layers.0.mlp.down_proj.weight_scale_inv", {4, 1}},
           {"bnb-nf4-double", "model.layers.0.mlp.down_proj.weight.nested_absmax", {1, 2}},
           {"bnb-int8", "model.layers.0.mlp.down_proj.SCB", {64, 2}},
           {"gemma-quant-gemma3", "model.embed_tokens.embedding_scale", {64, 2}},
       }) {
    SCOPED_TRACE(c.tensor);
    ChangedGolden changed(c.golden);
    changed.tensor(c.tensor).shape = c.shape;
    EXPECT_THAT(changed.refusal(), HasSubstr(std::string(c.tensor) + " has shape"));
  }
  ChangedGolden changed("ct-w6a16-g64-asym-new");
  fixtures::Tensor& shape = changed.tensor("model.layers.0.mlp.down_proj.weight_shape");
  shape.bytes = fixtures::raw(int64_t{128}) + fixtures::raw(int64_t{255});
  EXPECT_THAT(changed.refusal(),
              HasSubstr("weight_shape says [128, 255]; the configuration asks for [128, 256]"));
}

TEST(QuantizedRefusals, OfBitsandbytesStates) {
  ChangedGolden changed("bnb-nf4-double");
  const std::string name = "model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4";
  fixtures::Tensor& state = changed.tensor(name);
  const auto with = [&](const char* patch) {
    json fields =
        json::parse(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 256],
        "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25})");
    fields.merge_patch(json::parse(patch));
    state.bytes = fields.dump();
    state.shape = {static_cast<int64_t>(state.bytes.size())};
    return changed.refusal();
  };
  EXPECT_THAT(with(R"({"blocksize": 0})"), HasSubstr("blocksize is 0"));
  EXPECT_THAT(with(R"({"blocksize": 32})"), HasSubstr("weight.absmax has shape"));
  EXPECT_THAT(with(R"({"shape": [256, 128]})"), HasSubstr("shape is [256,128]; accepted: [128, 256]"));
  EXPECT_THAT(with(R"({"quant_type": "nf5"})"), HasSubstr("quant_type is \"nf5\""));
  EXPECT_THAT(with(R"({"nested_offset": null})"), HasSubstr("nested_offset is missing"));
  state.bytes = "{";
  state.shape = {1};
  EXPECT_THAT(changed.refusal(), HasSubstr(name));
}

}  // namespace
}  // namespace qeval::model
