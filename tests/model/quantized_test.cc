// Readers of quantized folders, on the goldens of tests/goldens/quantized: that every decoded weight has the
// bits which the format's own library gives, and that what does not fit is refused.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "fixtures.h"
#include "model/checkpoint/quantized/format.h"
#include "model/checkpoint/quantized/name_pattern.h"
#include "model/weights.h"
#include "tests/reference_data.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using nlohmann::json;
using testing::HasSubstr;

std::filesystem::path golden(const std::string& name) {
  return test::goldens() / "quantized" / name;
}

/// A module's matrix by its name in a Llama's, Qwen's or Gemma's file.
const Matrix& matrix_of(const Model& model, const std::string& module) {
  if (module.ends_with("embed_tokens")) return model.embedding;
  if (module == "lm_head") return model.head.weight;
  static const std::map<std::string, Module> kModules{
      {"q_proj", Module::q},       {"k_proj", Module::k},   {"v_proj", Module::v},      {"o_proj", Module::o},
      {"gate_proj", Module::gate}, {"up_proj", Module::up}, {"down_proj", Module::down}};
  const std::string layers = "layers.";
  const size_t at = module.find(layers) + layers.size();
  const int layer = std::stoi(module.substr(at));
  return model.layers.at(static_cast<size_t>(layer))
      .linear(kModules.at(module.substr(module.rfind('.') + 1)))
      .weight;
}

class QuantizedGolden : public testing::TestWithParam<std::string> {};

TEST_P(QuantizedGolden, DecodesToTheLibrarysBits) {
  const std::filesystem::path folder = golden(GetParam());
  const Model model = load_model(folder);
  const json expected = json::parse(read_file(folder / "expected.json"));
  ASSERT_GE(expected["weights"].size(), 2U);
  for (const auto& [module, hash] : expected["weights"].items()) {
    SCOPED_TRACE(module);
    const Matrix& matrix = matrix_of(model, module);
    std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
    matrix.decode_rows(0, matrix.rows, values.data());
    Sha256 sha;
    sha.update(std::as_bytes(std::span(values)));
    EXPECT_EQ(sha.hex(), hash.get<std::string>());
    // Tiles of any rows, and columns from a block's beginning on.
    for (int64_t row = 0; row < matrix.rows; row += 13) {
      const int64_t rows = std::min<int64_t>(13, matrix.rows - row);
      for (int64_t col = 0; col < matrix.cols; col += 96) {
        const int64_t cols = std::min<int64_t>(col % 64 == 0 ? 33 : 96, matrix.cols - col);
        std::vector<float> tile(static_cast<size_t>(rows * 100), 7.0F);
        matrix.decode(row, rows, col, cols, tile.data(), 100);
        for (int64_t r = 0; r < rows; ++r) {
          ASSERT_EQ(std::memcmp(tile.data() + r * 100, values.data() + (row + r) * matrix.cols + col,
                                static_cast<size_t>(cols) * sizeof(float)),
                    0)
              << row + r << " " << col;
          ASSERT_EQ(tile[static_cast<size_t>(r * 100 + cols)], 7.0F);
        }
      }
    }
  }
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::goldens() / "quantized")) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("gguf")) names.push_back(name);  // block_formats_test.cc has those
  }
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedGolden, testing::ValuesIn(golden_names()), [](const auto& of) {
  std::string name = of.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

/// A golden's folder, to be changed.
class ChangedGolden {
 public:
  explicit ChangedGolden(const std::string& name) {
    config_ = json::parse(read_file(golden(name) / "config.json"));
    const auto checkpoint = open_safetensors(golden(name) / "model.safetensors");
    for (const TensorView& view : checkpoint->tensors()) {
      tensors_.push_back({view.name, view.dtype, view.shape,
                          std::string(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size())});
    }
  }
  json& config() { return config_; }
  json& quantization() { return config_["quantization_config"]; }
  fixtures::Tensor& tensor(const std::string& name) {
    const auto found = std::ranges::find(tensors_, name, &fixtures::Tensor::name);
    EXPECT_NE(found, tensors_.end()) << name;
    return *found;
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&](const fixtures::Tensor& t) { return t.name == name; });
  }
  void add(fixtures::Tensor tensor) { tensors_.push_back(std::move(tensor)); }
  /// Element i of an I32 tensor.
  void set(const std::string& name, size_t i, int32_t value) {
    std::memcpy(tensor(name).bytes.data() + 4 * i, &value, sizeof value);
  }

  Model load(const std::string& gptq_zeros = "") const {
    fixtures::write(folder_ / "config.json", config_.dump());
    fixtures::write(folder_ / "model.safetensors", fixtures::safetensors(tensors_));
    return load_model(folder_.path(), gptq_zeros);
  }
  std::string refusal(const std::string& gptq_zeros = "") const {
    return error_of([&] { load(gptq_zeros); });
  }

 private:
  fixtures::TemporaryFolder folder_;
  json config_;
  std::vector<fixtures::Tensor> tensors_;
};

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
      {"ct-mixed", R"({"config_groups": {"group_1": {"weights": {"symmetric": true}}}})", "weight_zero_point holds"},
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

/// One −1 in compressed-tensors' order says that none of it is used.
TEST(QuantizedReaders, AnOrderWithMinusOneIsNone) {
  ChangedGolden changed("ct-w4a16-g32-actorder");
  const std::string module = "model.layers.0.mlp.down_proj";
  changed.set(module + ".weight_g_idx", 3, -1);
  const Model model = changed.load();
  EXPECT_EQ(matrix_of(model, module).stored.coded()->group_of, nullptr);
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

/// Symmetric files hold one zero point, so that a wrong label shows.
TEST(GptqZeros, TheOtherVersionsAreRefusedUnlessTold) {
  ChangedGolden changed("gptq-w4-gm1-sym-old");
  changed.quantization() = json::parse(read_file(golden("gptq-w4-gm1-sym-old") / "quantize_config.json"));
  changed.quantization()["quant_method"] = "gptq";
  EXPECT_NO_THROW(changed.load());
  const Model as_labelled = load_model(golden("gptq-w4-gm1-sym-old"));
  for (const char* module : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    std::string& zeros = changed.tensor(std::string("model.layers.0.") + module + ".qzeros").bytes;
    std::ranges::fill(zeros, static_cast<char>(0x88));
  }
  EXPECT_THAT(changed.refusal(), HasSubstr("accepted: gptq_zeros v1 or v2"));
  EXPECT_THAT(changed.refusal(), HasSubstr("qzeros"));
  const Model told = changed.load("v2");
  for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"}) {
    const Matrix &a = matrix_of(as_labelled, module), &b = matrix_of(told, module);
    std::vector<float> x(static_cast<size_t>(a.rows * a.cols)), y = x;
    a.decode_rows(0, a.rows, x.data());
    b.decode_rows(0, b.rows, y.data());
    EXPECT_EQ(x, y) << module;
  }
  EXPECT_NO_THROW(changed.load("v1"));
  EXPECT_THAT(error_of([] { load_model(golden("bnb-int8"), "v1"); }), HasSubstr("not used by quant_method"));
}

TEST(QuantizedReaders, BiasesThatTheArchitectureLacks) {
  ChangedGolden changed("gptq-w3-g32-asym");
  fixtures::Tensor bias =
      fixtures::f32_tensor("model.layers.0.mlp.down_proj.bias", {128}, std::vector<float>(128));
  changed.add(bias);
  EXPECT_NO_THROW(changed.load());
  changed.remove(bias.name);
  std::vector<float> some(128);
  some[5] = 0.5F;
  changed.add(fixtures::f32_tensor(bias.name, {128}, some));
  EXPECT_THAT(changed.refusal(), HasSubstr("down_proj.bias is not zero"));
}

TEST(QuantizedReaders, SayWhatTheyFound) {
  const Model gptq = load_model(golden("gptq-w4-g32-lmhead"));
  EXPECT_EQ(gptq.weight_format(), "GPTQ 4-bit g32");
  EXPECT_EQ(gptq.quant_method, "gptq");
  EXPECT_FALSE(gptq.rounds_activations());
  // 4 bits, 16 and 4 of a scale and a zero point per 32.
  const Matrix& down = gptq.layers[0].linear(Module::down).weight;
  EXPECT_EQ(down.byte_count(), down.rows * down.cols * 37 / 64 + 4 * down.cols);
  EXPECT_LT(gptq.weight_bytes(), 700'000);
  EXPECT_TRUE(load_model(golden("ct-nvfp4")).rounds_activations());
  EXPECT_TRUE(load_model(golden("ct-kv-fp8")).rounds_activations());
  EXPECT_EQ(load_model(golden("fp8-block-deepseek")).weight_format(), "FP8 128x128");
  EXPECT_THAT(load_model(golden("gemma-quant-gemma3")).config.warnings.front(), HasSubstr("k_cache_scale"));
}

/// The identity of the weights covers codes, scales, zero points and what activations do.
TEST(QuantizedReaders, HashesCoverEveryTensor) {
  const std::string hash = load_model(golden("ct-w8a8-int-static")).weight_hash();
  for (const char* tensor :
       {"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight_scale",
        "model.layers.0.mlp.down_proj.input_scale"}) {
    ChangedGolden changed("ct-w8a8-int-static");
    EXPECT_EQ(changed.load().weight_hash(), hash);
    changed.tensor(tensor).bytes[0] ^= 1;
    EXPECT_NE(changed.load().weight_hash(), hash) << tensor;
  }
  const std::string gptq = load_model(golden("gptq-w3-g32-asym")).weight_hash();
  ChangedGolden changed("gptq-w3-g32-asym");
  changed.tensor("model.layers.0.self_attn.q_proj.qzeros").bytes[0] ^= 1;
  EXPECT_NE(changed.load().weight_hash(), gptq);
}

TEST(QuantizedReaders, ExpertsOfOneTensorAreMatrices) {
  constexpr int64_t kExperts = 2, kRows = 3, kCols = 64;
  std::string blocks(static_cast<size_t>(kExperts * kRows * kCols / 2), '\0'), scales;
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<char>(i * 29 + 3);
  for (int i = 0; i < 12; ++i) scales += static_cast<char>(127 + i - 6);
  const fixtures::TemporaryFolder folder;
  fixtures::write(folder / "x.safetensors",
                  fixtures::safetensors({{"e_blocks", DType::u8, {kExperts, kRows, 2, 16}, blocks},
                                         {"e_scales", DType::u8, {kExperts, kRows, 2}, scales}}));
  const auto checkpoint = open_safetensors(folder / "x.safetensors");
  const auto experts = read_mxfp4_experts(*checkpoint, "e", kExperts, kRows, kCols);
  ASSERT_EQ(experts.size(), 2U);
  for (int64_t e = 0; e < kExperts; ++e) {
    std::vector<float> values(kRows * kCols);
    StoredWeight(experts[static_cast<size_t>(e)], 0).decode(0, kRows, 0, kCols, values.data(), kCols);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const int64_t row = e * kRows + r;
        const auto byte = static_cast<uint8_t>(blocks[static_cast<size_t>(row * kCols / 2 + c / 2)]);
        const float value = e2m1_values()[c % 2 == 0 ? byte & 15 : byte >> 4];
        ASSERT_EQ(values[static_cast<size_t>(r * kCols + c)],
                  std::ldexp(value, static_cast<int>(row * 2 + c / 32) - 6));
      }
    }
  }
  EXPECT_EQ(experts[0]->byte_count(), (blocks.size() + scales.size()) / 2);
  EXPECT_THAT(error_of([&] { read_mxfp4_experts(*checkpoint, "e", 3, 2, kCols); }),
              HasSubstr("e_blocks is U8 [2, 3, 2, 16]; the configuration asks for U8 [3, 2, 2, 16]"));
}

/// 20 codes of 3 bits are two words in either packing: other tensors tell, else the version.
TEST(QuantizedReaders, PackingsOfOneWidthAreToldApart) {
  const auto layout = [](const json& version, int64_t other_words) {
    const fixtures::TemporaryFolder folder;
    const auto module = [](const std::string& name, int64_t cols, int64_t words) {
      return std::vector<fixtures::Tensor>{
          {name + ".weight_packed",
           DType::i32,
           {8, words},
           std::string(static_cast<size_t>(32 * words), 'a')},
          {name + ".weight_scale", DType::bf16, {8, 1}, std::string(16, 'b')},
          {name + ".weight_shape", DType::i64, {2}, fixtures::raw(int64_t{8}) + fixtures::raw(cols)}};
    };
    std::vector<fixtures::Tensor> tensors = module("m", 20, 2);
    if (other_words != 0) {
      for (auto& tensor : module("n", 64, other_words)) tensors.push_back(tensor);
    }
    fixtures::write(folder / "model.safetensors", fixtures::safetensors(tensors));
    const auto checkpoint = open_safetensors(folder / "model.safetensors");
    QuantizationConfig config;
    config.where = "config";
    config.fields = json::parse(R"({"format": "pack-quantized", "config_groups": {"g": {"targets": ["Linear"],
        "weights": {"num_bits": 3, "strategy": "channel"}}}})");
    config.fields["version"] = version;
    config.ordered = nlohmann::ordered_json::parse(config.fields.dump());
    const ModuleRequest request{.name = "m", .rows = 8, .cols = 20};
    ModuleTensors found(*checkpoint, request);
    return open_compressed_tensors(config).read(found)->weight->codes.layout;
  };
  EXPECT_EQ(layout("0.18.0", 0), CodeLayout::rows_stream);
  EXPECT_EQ(layout("0.17.1", 0), CodeLayout::rows_words);
  EXPECT_EQ(layout("0.17.1", 6), CodeLayout::rows_stream);
  EXPECT_EQ(layout(nullptr, 7), CodeLayout::rows_words);
  EXPECT_THAT(error_of([&] { layout(nullptr, 0); }), HasSubstr("can be packed in two ways"));
}

TEST(NamePatterns, MatchAsPythonsDo) {
  EXPECT_TRUE(NamePattern("model.*q_proj", "here").matches_start("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(NamePattern("layers", "here").matches_start("model.layers.0"));
  EXPECT_TRUE(NamePattern("layers\\.\\d+\\.", "here").occurs_in("model.layers.0.mlp"));
  EXPECT_THAT(error_of([] { NamePattern("(a+)+$", "here").occurs_in(std::string(60, 'a') + "b"); }),
              HasSubstr("backtracking"));
  EXPECT_TRUE(matches_wildcard("*o_proj", "model.layers.0.self_attn.o_proj"));
  EXPECT_TRUE(matches_wildcard("model*attn*", "model.layers.0.self_attn.o_proj"));
  EXPECT_FALSE(matches_wildcard("model*attn", "model.layers.0.self_attn.o_proj"));
  EXPECT_FALSE(matches_wildcard("", "x"));
  EXPECT_TRUE(matches_wildcard("", ""));
}

}  // namespace
}  // namespace qeval::model
