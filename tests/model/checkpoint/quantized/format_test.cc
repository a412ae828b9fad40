// Readers of quantized folders, on the goldens of tests/goldens/quantized: that every decoded weight has the
// bits which the format's own library gives.

#include "model/checkpoint/quantized/format.h"

#include <algorithm>
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
#include "model/checkpoint/quantized/name_pattern.h"
#include "model/weights.h"
#include "tests/model/quantized_golden.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using nlohmann::json;
using testing::HasSubstr;

/// A module's matrix by its name in a Llama's, Qwen's or Gemma's file.
const Matrix& matrix_of(const Model& model, const std::string& module) {
  if (module.ends_with("embed_tokens")) return model.embedding;
  if (module == "lm_head") return model.head.weight;
  static const std::map<std::string, Module> kModules{
      {"q_proj", Module::q},       {"k_proj", Module::k},
      {"v_proj", Module::v},       {"o_proj", Module::o},
      {"gate_proj", Module::gate}, {"up_proj", Module::up},
      {"down_proj", Module::down}, {"per_layer_input_gate", Module::layer_input_gate}};
  const std::string layers = "layers.";
  const size_t at = module.find(layers) + layers.size();
  const int layer = std::stoi(module.substr(at));
  return model.layers.at(static_cast<size_t>(layer))
      .linear(kModules.at(module.substr(module.rfind('.') + 1)))
      .weight;
}

/// gpt-oss' experts as transformers has them in one tensor [experts, inputs, outputs], outputs of gate and up
/// in turn.
std::vector<float> experts_of(const Model& model, const std::string& module) {
  const int layer = std::stoi(module.substr(module.find("layers.") + std::string("layers.").size()));
  const auto& experts = model.layers.at(static_cast<size_t>(layer)).experts;
  const std::vector<Module> parts = module.ends_with("gate_up_proj")
                                        ? std::vector{Module::expert_gate, Module::expert_up}
                                        : std::vector{Module::expert_down};
  std::vector<float> all;
  for (size_t e = 0; e < experts.at(parts[0]).size(); ++e) {
    const auto outputs = static_cast<int64_t>(parts.size()) * experts.at(parts[0])[e].weight.rows;
    const int64_t inputs = experts.at(parts[0])[e].weight.cols;
    std::vector<float> one(static_cast<size_t>(inputs * outputs)), row(static_cast<size_t>(inputs));
    for (int64_t r = 0; r < outputs; ++r) {
      const auto part = static_cast<size_t>(r) % parts.size();
      experts.at(parts[part])[e].weight.decode_rows(r / std::ssize(parts), 1, row.data());
      for (int64_t i = 0; i < inputs; ++i)
        one[static_cast<size_t>(i * outputs + r)] = row[static_cast<size_t>(i)];
    }
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

class QuantizedGolden : public testing::TestWithParam<std::string> {};

TEST_P(QuantizedGolden, DecodesToTheLibrarysBits) {
  const std::filesystem::path folder = golden(GetParam());
  const Model model = load_model(folder);
  const json expected = json::parse(read_file(folder / "expected.json"));
  ASSERT_GE(expected["weights"].size(), 2U);
  for (const auto& [module, hash] : expected["weights"].items()) {
    SCOPED_TRACE(module);
    if (module.find(".experts.") != std::string::npos) {
      const std::vector<float> values = experts_of(model, module);
      Sha256 sha;
      sha.update(std::as_bytes(std::span(values)));
      EXPECT_EQ(sha.hex(), hash.get<std::string>());
      continue;
    }
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

/// One −1 in compressed-tensors' order says that none of it is used.
TEST(QuantizedReaders, AnOrderWithMinusOneIsNone) {
  ChangedGolden changed("ct-w4a16-g32-actorder");
  const std::string module = "model.layers.0.mlp.down_proj";
  changed.set(module + ".weight_g_idx", 3, -1);
  const Model model = changed.load();
  EXPECT_EQ(matrix_of(model, module).stored.coded()->group_of, nullptr);
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
