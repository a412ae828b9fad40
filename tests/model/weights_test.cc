#include "model/weights.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/fixtures.h"
#include "tests/reference_data.h"

namespace qeval::model {
namespace {

using fixtures::error_of;
using testing::HasSubstr;

std::vector<float> rows_of(const Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  matrix.decode_rows(0, matrix.rows, values.data());
  return values;
}

class Weights : public testing::Test {
 protected:
  /// A Hugging Face folder of the tiny model.
  Model load(const std::vector<fixtures::Tensor>& tensors, const std::string& config) {
    fixtures::write(folder_ / "config.json", config);
    fixtures::write(folder_ / "model.safetensors", fixtures::safetensors(tensors));
    return load_model(folder_.path());
  }
  Model load(const fixtures::TinyModel& options, const std::string& config_extra) {
    return load(fixtures::tiny_model(options), fixtures::tiny_config(config_extra));
  }
  Model load_gguf(const fixtures::GgufParts& parts) {
    fixtures::write(folder_ / "tiny.gguf", fixtures::gguf(parts));
    return load_model(folder_ / "tiny.gguf");
  }
  fixtures::TemporaryFolder folder_;
};

std::vector<float> stored(const std::vector<fixtures::Tensor>& tensors, const std::string& name) {
  for (const auto& tensor : tensors) {
    if (tensor.name != name) continue;
    std::vector<float> values(tensor.bytes.size() / 4);
    decode(tensor.dtype, reinterpret_cast<const std::byte*>(tensor.bytes.data()),
           static_cast<int64_t>(values.size()), values.data());
    return values;
  }
  ADD_FAILURE() << name;
  return {};
}

TEST_F(Weights, EveryNameReachesItsPlace) {
  const fixtures::TinyModel options{.qkv_bias = true, .o_bias = true, .mlp_bias = true};
  const auto tensors = fixtures::tiny_model(options);
  const Model model = load(options, R"("attention_bias": true, "mlp_bias": true,)");
  EXPECT_EQ(model.name, folder_.path().filename());
  EXPECT_EQ(model.format, "safetensors");
  EXPECT_EQ(model.path, folder_.path());
  EXPECT_EQ(rows_of(model.embedding), stored(tensors, "model.embed_tokens.weight"));
  EXPECT_EQ(rows_of(model.head.weight), stored(tensors, "lm_head.weight"));
  EXPECT_EQ(model.final_norm.weight, stored(tensors, "model.norm.weight"));
  EXPECT_EQ(model.final_norm.name, "model.norm");
  ASSERT_EQ(model.layers.size(), 2U);
  const LayerWeights& layer = model.layers[1];
  EXPECT_EQ(layer.norm(Module::input_norm).weight, stored(tensors, "model.layers.1.input_layernorm.weight"));
  EXPECT_EQ(layer.norm(Module::post_attention_norm).weight,
            stored(tensors, "model.layers.1.post_attention_layernorm.weight"));
  const std::vector<std::tuple<const LinearWeights*, std::string, std::string>> linears{
      {&layer.linear(Module::q), "self_attn.q_proj", "self_attn.q_proj"},
      {&layer.linear(Module::k), "self_attn.k_proj", "self_attn.k_proj"},
      {&layer.linear(Module::v), "self_attn.v_proj", "self_attn.v_proj"},
      {&layer.linear(Module::o), "self_attn.o_proj", "self_attn.o_proj"},
      {&layer.linear(Module::gate), "mlp.gate_proj", "mlp.w1"},
      {&layer.linear(Module::up), "mlp.up_proj", "mlp.w3"},
      {&layer.linear(Module::down), "mlp.down_proj", "mlp.w2"}};
  for (const auto& [linear, name, unified] : linears) {
    EXPECT_EQ(linear->weight.name, "model.layers.1." + unified);
    EXPECT_EQ(rows_of(linear->weight), stored(tensors, "model.layers.1." + name + ".weight")) << name;
    EXPECT_EQ(linear->bias, stored(tensors, "model.layers.1." + name + ".bias")) << name;
  }
}

TEST_F(Weights, GgufIsTheSameModelAsItsSource) {
  const fixtures::TinyModel options{.qkv_bias = true, .o_bias = true, .mlp_bias = true};
  const Model source = load(options, R"("attention_bias": true, "mlp_bias": true,)");
  const Model converted = load_gguf(fixtures::tiny_gguf(options));
  EXPECT_EQ(converted.format, "gguf");
  EXPECT_EQ(converted.name, "tiny.gguf");
  EXPECT_EQ(rows_of(converted.embedding), rows_of(source.embedding));
  EXPECT_EQ(rows_of(converted.head.weight), rows_of(source.head.weight));
  for (size_t i = 0; i < 2; ++i) {
    const LayerWeights &a = converted.layers[i], &b = source.layers[i];
    ASSERT_EQ(a.norms.size(), 2U);
    ASSERT_EQ(a.linears.size(), 7U);
    for (const auto& [module, norm] : a.norms) EXPECT_EQ(norm.weight, b.norm(module).weight);
    for (const auto& [module, linear] : a.linears) {
      const LinearWeights& other = b.linear(module);
      EXPECT_EQ(rows_of(linear.weight), rows_of(other.weight)) << linear.weight.name;
      EXPECT_EQ(linear.weight.name, other.weight.name);
      EXPECT_EQ(linear.bias, other.bias) << linear.weight.name;
    }
  }
}

TEST_F(Weights, RowsAreFoundOneByOne) {
  const Model model = load_gguf(fixtures::tiny_gguf());
  const Matrix& q = model.layers[0].linear(Module::q).weight;
  ASSERT_EQ(q.interleaved_head_dim, fixtures::kTinyHeadDim);
  const std::vector<float> all = rows_of(q);
  std::vector<float> two(static_cast<size_t>(2 * q.cols)), row(static_cast<size_t>(q.cols));
  for (int64_t r = 0; r + 1 < q.rows; ++r) {
    q.decode_rows(r, 2, two.data());
    EXPECT_TRUE(std::equal(two.begin(), two.end(), all.begin() + r * q.cols)) << r;
    decode(*q.stored.plain_type(), q.stored.row(q.stored_row(r)), q.cols, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), all.begin() + r * q.cols)) << r;
  }
}

TEST_F(Weights, GemmaGetsItsOneOnHuggingFaceOnly) {
  const auto tensors = fixtures::tiny_model({.head = false});
  const Model model = load(tensors, fixtures::tiny_config(R"("head_dim": 8,)", "gemma"));
  const std::vector<float> norm = stored(tensors, "model.layers.0.input_layernorm.weight");
  for (size_t i = 0; i < norm.size(); ++i)
    EXPECT_EQ(model.layers[0].norm(Module::input_norm).weight[i], norm[i] + 1.0F);
  EXPECT_EQ(model.final_norm.weight[3], stored(tensors, "model.norm.weight")[3] + 1.0F);
}

TEST_F(Weights, LayerNormHasABias) {
  const auto tensors = fixtures::tiny_model({.norm_bias = true});
  const Model model = load(tensors, fixtures::tiny_config(R"("partial_rotary_factor": 0.5,)", "stablelm"));
  EXPECT_EQ(model.layers[1].norm(Module::post_attention_norm).bias,
            stored(tensors, "model.layers.1.post_attention_layernorm.bias"));
  EXPECT_EQ(model.final_norm.bias, stored(tensors, "model.norm.bias"));
}

TEST_F(Weights, TiedHeadIsTheEmbedding) {
  const Model tied = load(fixtures::TinyModel{.head = false}, R"("tie_word_embeddings": true,)");
  EXPECT_TRUE(tied.head.weight.stored.is_same(tied.embedding.stored));
  EXPECT_EQ(tied.head.weight.name, "lm_head");
  const Model untied = load(fixtures::TinyModel{}, "");
  const int64_t head_bytes = fixtures::kTinyVocab * fixtures::kTinyHidden * 4;
  EXPECT_EQ(untied.weight_bytes() - tied.weight_bytes(), head_bytes);
  int64_t stored_bytes = 0;
  for (const TensorView& tensor : untied.checkpoint->tensors()) {
    stored_bytes += static_cast<int64_t>(tensor.bytes.size());
  }
  EXPECT_EQ(untied.weight_bytes(), stored_bytes);
  EXPECT_THAT(error_of([&] { load(fixtures::TinyModel{.head = false}, ""); }),
              HasSubstr("tensor lm_head.weight is missing"));
}

/// The tensors under other names: what begins with `from` begins with `to`.
std::vector<fixtures::Tensor> renamed(std::vector<fixtures::Tensor> tensors, const std::string& from,
                                      const std::string& to) {
  for (fixtures::Tensor& tensor : tensors) {
    if (tensor.name.starts_with(from)) tensor.name = to + tensor.name.substr(from.size());
  }
  return tensors;
}

/// AutoModel.save_pretrained leaves out the head and "model." in front of the names.
TEST_F(Weights, ABaseModelSavedAloneIsReadWhereItsHeadIsTied) {
  const auto tensors = fixtures::tiny_model({.head = false});
  const auto alone = renamed(tensors, "model.", "");
  const std::string tied = fixtures::tiny_config(R"("tie_word_embeddings": true,)");
  const Model model = load(alone, tied);
  EXPECT_TRUE(model.head.weight.stored.is_same(model.embedding.stored));
  EXPECT_EQ(rows_of(model.layers[1].linear(Module::down).weight),
            stored(tensors, "model.layers.1.mlp.down_proj.weight"));
  EXPECT_EQ(model.layers[1].linear(Module::down).weight.name, "model.layers.1.mlp.w2");
  EXPECT_EQ(model.final_norm.weight, stored(tensors, "model.norm.weight"));
  EXPECT_THAT(error_of([&] { load(alone, fixtures::tiny_config()); }),
              HasSubstr("a base model saved without its head"));
  auto both = alone;
  both.push_back(fixtures::f32_tensor("model.embed_tokens.weight", {1}, {1}));
  EXPECT_THAT(error_of([&] { load(both, tied); }), HasSubstr("embed_tokens.weight"));
}

/// The part for text of a model that sees pictures, in transformers' older and newer names.
TEST_F(Weights, AreFoundInsideALargerModel) {
  const auto tensors = fixtures::tiny_model();
  const std::string config =
      R"({"model_type": "llava", "vision_config": {"hidden_size": 1}, "text_config": )" +
      fixtures::tiny_config() + "}";
  const auto older =
      renamed(renamed(tensors, "model.", "language_model.model."), "lm_head", "language_model.lm_head");
  const auto newer = renamed(tensors, "model.", "model.language_model.");
  for (auto inside : {older, newer}) {
    for (const char* other :
         {"vision_tower.patch.weight", "model.vision_tower.patch.weight", "multi_modal_projector.bias"})
      inside.push_back(fixtures::f32_tensor(other, {1}, {1}));
    const Model model = load(inside, config);
    EXPECT_EQ(rows_of(model.layers[0].linear(Module::up).weight),
              stored(tensors, "model.layers.0.mlp.up_proj.weight"));
    EXPECT_EQ(rows_of(model.head.weight), stored(tensors, "lm_head.weight"));
  }
  auto more = newer;
  more.push_back(fixtures::f32_tensor("model.language_model.layers.0.extra.weight", {1}, {1}));
  EXPECT_THAT(error_of([&] { load(more, config); }), HasSubstr("extra.weight [1] belongs to no part"));
  // By itself a model has no pictures.
  more = tensors;
  more.push_back(fixtures::f32_tensor("vision_tower.patch.weight", {1}, {1}));
  EXPECT_THAT(error_of([&] { load(more, fixtures::tiny_config()); }), HasSubstr("belongs to no part"));
}

/// Other tools list the head of a tied model in the index, although no file holds it.
TEST_F(Weights, AnIndexMayListWhatATiedModelDoesNotStore) {
  const auto load_listing = [&](const std::string& config, const std::vector<std::string>& absent) {
    const auto tensors = fixtures::tiny_model({.head = false});
    std::string map;
    for (const auto& tensor : tensors) map += '"' + tensor.name + R"(": "a.safetensors",)";
    for (const std::string& name : absent) map += '"' + name + R"(": "a.safetensors",)";
    map.pop_back();
    fixtures::write(folder_ / "config.json", config);
    fixtures::write(folder_ / "a.safetensors", fixtures::safetensors(tensors));
    fixtures::write(folder_ / "model.safetensors.index.json", R"({"weight_map": {)" + map + "}}");
    return load_model(folder_.path());
  };
  const std::string tied = fixtures::tiny_config(R"("tie_word_embeddings": true,)");
  const Model model = load_listing(tied, {"lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"});
  EXPECT_TRUE(model.head.weight.stored.is_same(model.embedding.stored));
  EXPECT_THAT(error_of([&] { load_listing(fixtures::tiny_config(), {"lm_head.weight"}); }),
              HasSubstr("a.safetensors: tensor lm_head.weight is missing"));
  EXPECT_THAT(
      error_of([&] { load_listing(tied, {"model.layers.0.mlp.up_proj.bias"}); }),
      HasSubstr("a.safetensors: tensor model.layers.0.mlp.up_proj.bias is missing; the index lists it"));
}

TEST_F(Weights, IgnoresKnownLeftOversOnly) {
  auto tensors = fixtures::tiny_model();
  tensors.push_back(fixtures::f32_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {4}, {1, 2, 3, 4}));
  tensors.push_back(fixtures::f32_tensor("model.layers.0.self_attn.q_proj.temp_weight", {1}, {1}));
  EXPECT_NO_THROW(
      load(tensors, fixtures::tiny_config(R"("tie_word_embeddings": true,)")));  // a head beside the tie
  tensors.push_back(fixtures::f32_tensor("model.layers.2.mlp.up_proj.weight", {1}, {1}));
  EXPECT_THAT(error_of([&] { load(tensors, fixtures::tiny_config()); }),
              HasSubstr("tensor model.layers.2.mlp.up_proj.weight [1] belongs to no part"));
  // A bias that the configuration does not speak of would change the result.
  EXPECT_THAT(error_of([&] { load(fixtures::TinyModel{.qkv_bias = true}, ""); }),
              HasSubstr("_proj.bias [16] belongs to no part"));
}

TEST_F(Weights, ChecksShapesAndTypes) {
  const auto with = [&](auto change) {
    auto tensors = fixtures::tiny_model();
    change(tensors);
    return error_of([&] { load(tensors, fixtures::tiny_config()); });
  };
  const auto named = [](std::vector<fixtures::Tensor>& tensors,
                        const std::string& name) -> fixtures::Tensor& {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const auto& tensor) { return tensor.name == name; });
  };
  EXPECT_THAT(with([&](auto& t) {
                named(t, "model.layers.1.mlp.down_proj.weight").shape = {64, 32};
              }),
              HasSubstr("down_proj.weight has shape [64, 32]; the configuration asks for [32, 64]"));
  EXPECT_THAT(with([&](auto& t) { named(t, "model.norm.weight").shape = {32, 1}; }), HasSubstr("[32, 1]"));
  EXPECT_THAT(with([&](auto& t) { named(t, "model.norm.weight").dtype = DType::i32; }),
              HasSubstr("of type I32"));
  EXPECT_THAT(with([&](auto& t) { t.erase(t.begin() + 4); }), HasSubstr("k_proj.weight is missing"));
}

TEST_F(Weights, HashIsTheIdentityOfTheWeights) {
  auto tensors = fixtures::tiny_model();
  const std::string config = fixtures::tiny_config();
  const std::string hash = load(tensors, config).weight_hash();
  EXPECT_EQ(hash.size(), 64U);
  EXPECT_EQ(load(tensors, config).weight_hash(), hash);
  EXPECT_NE(load(tensors, fixtures::tiny_config(R"("rope_theta": 5e4,)")).weight_hash(), hash);
  for (fixtures::Tensor& tensor : tensors) {
    tensor.bytes[0] = static_cast<char>(tensor.bytes[0] ^ 1);
    EXPECT_NE(load(tensors, config).weight_hash(), hash) << tensor.name;
    tensor.bytes[0] = static_cast<char>(tensor.bytes[0] ^ 1);
  }
}

// Llama 3's frequency scaling as a GGUF file holds it: the divisor of every frequency.
TEST_F(Weights, RecoversLlama3ScalingFromItsFactors) {
  fixtures::GgufParts parts = fixtures::tiny_gguf();
  parts.values.push_back(fixtures::gguf_f32("llama.rope.freq_base", 500000.0F));
  std::vector<float> factors;
  for (int i = 0; i < 4; ++i) {
    const double wavelength = 2 * M_PI * std::pow(500000.0, i / 4.0);
    const double m = (8192 / wavelength - 1) / (4 - 1);
    factors.push_back(static_cast<float>(m <= 0 ? 32.0 : m >= 1 ? 1.0 : 1.0 / ((1 - m) / 32.0 + m)));
  }
  parts.tensors.push_back(fixtures::f32_tensor("rope_freqs.weight", {4}, factors));
  const RopeScaling scaling = load_gguf(parts).config.rotary.scaling;
  EXPECT_EQ(scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(scaling.factor, 32.0);
  EXPECT_EQ(scaling.original_max_position_embeddings, 8192);

  factors[1] = 1.01F;
  parts.tensors.back() = fixtures::f32_tensor("rope_freqs.weight", {4}, factors);
  EXPECT_EQ(load_gguf(parts).config.rotary.scaling.kind, RopeScaling::Kind::longrope);  // any others
  parts.tensors.back() = fixtures::f32_tensor("rope_freqs.weight", {3}, {1, 1, 1});
  EXPECT_THAT(error_of([&] { load_gguf(parts); }), HasSubstr("accepted: F32 [4]"));
  parts.tensors.back() = fixtures::f32_tensor("rope_freqs.weight", {4}, {1, 1, 1, 1});
  EXPECT_EQ(load_gguf(parts).config.rotary.scaling.kind, RopeScaling::Kind::none);
}

TEST_F(Weights, RefusesOtherPaths) {
  EXPECT_THAT(error_of([&] { load_model(folder_ / "missing"); }), HasSubstr("no such file or folder"));
  EXPECT_THAT(error_of([&] { load_model(folder_.path()); }),
              HasSubstr("holds no config.json; accepted: a folder"));
  fixtures::write(folder_ / "model.onnx", "x");
  EXPECT_THAT(error_of([&] { load_model(folder_ / "model.onnx"); }), HasSubstr("or a .gguf file"));
}

TEST_F(Weights, NameIgnoresATrailingSlash) {
  load(fixtures::TinyModel{}, "");
  EXPECT_EQ(load_model(folder_.path() / "").name, folder_.path().filename());
}

TEST(RealModel, SmolLm2Loads) {
  const char* path = std::getenv("QEVAL_SMOLLM2_GGUF");
  if (path == nullptr) GTEST_SKIP() << "QEVAL_SMOLLM2_GGUF does not name a SmolLM2 GGUF file";
  const Model model = load_model(path);
  EXPECT_EQ(model.config.architecture, "llama");
  EXPECT_EQ(model.layers.size(), 30U);
  EXPECT_TRUE(model.config.tie_word_embeddings);
  EXPECT_EQ(model.embedding.rows, 49152);
}

TEST(Goldens, Load) {
  int count = 0;
  for (const char* folder : {"huggingface", "mobilequant", "models"}) {
    for (const auto& entry : std::filesystem::directory_iterator(test::goldens() / folder)) {
      const Model model = load_model(entry.path());
      EXPECT_EQ(static_cast<int64_t>(model.layers.size()), model.config.num_layers);
      EXPECT_EQ(model.name, entry.path().filename());
      ++count;
    }
  }
  EXPECT_GE(count, 18);
}

}  // namespace
}  // namespace qeval::model
