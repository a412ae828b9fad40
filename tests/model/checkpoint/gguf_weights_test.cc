// GGUF files of each family: where their weights lie.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/gguf_builder.h"

namespace qeval::model {
namespace {

using fixtures::gguf_f32;
using fixtures::gguf_floats;
using fixtures::raw;
using testing::HasSubstr;
using GgufWeights = fixtures::GgufArchitectures;
using File = fixtures::GgufBuilder;
using fixtures::kDim, fixtures::kHeads, fixtures::kHidden, fixtures::kInner, fixtures::kKvHeads,
    fixtures::kVocab;

std::vector<float> row(const Matrix& matrix, int64_t r) {
  std::vector<float> values(static_cast<size_t>(matrix.cols));
  matrix.decode_rows(r, 1, values.data());
  return values;
}

std::vector<float> stored_row(const File& file, const std::string& name, int64_t r) {
  for (const auto& tensor : file.parts().tensors) {
    if (tensor.name != name) continue;
    std::vector<float> values(static_cast<size_t>(tensor.shape[1]));
    tensor.bytes.copy(reinterpret_cast<char*>(values.data()), values.size() * 4,
                      static_cast<size_t>(r) * values.size() * 4);
    return values;
  }
  ADD_FAILURE() << name;
  return {};
}

TEST_F(GgufWeights, FusedTensorsAreSlices) {
  const File file = File("phi3")
                        .tensor("output_norm.weight", {kHidden})
                        .tensor("output.weight", {kVocab, kHidden})
                        .blocks("attn_norm.weight", {kHidden})
                        .blocks("attn_qkv.weight", {(kHeads + 2 * kKvHeads) * kDim, kHidden})
                        .blocks("attn_output.weight", {kHidden, kHeads * kDim})
                        .blocks("ffn_norm.weight", {kHidden})
                        .blocks("ffn_up.weight", {2 * kInner, kHidden})
                        .blocks("ffn_down.weight", {kHidden, kInner});
  const Model model = load(file);
  const LayerWeights& layer = model.layers[1];
  const std::string qkv = "blk.1.attn_qkv.weight", up = "blk.1.ffn_up.weight";
  EXPECT_EQ(row(layer.linear(Module::q).weight, 3), stored_row(file, qkv, 3));
  EXPECT_EQ(row(layer.linear(Module::k).weight, 3), stored_row(file, qkv, kHeads * kDim + 3));
  EXPECT_EQ(row(layer.linear(Module::v).weight, 3), stored_row(file, qkv, (kHeads + kKvHeads) * kDim + 3));
  EXPECT_EQ(row(layer.linear(Module::gate).weight, 3), stored_row(file, up, 3));
  EXPECT_EQ(row(layer.linear(Module::up).weight, 3), stored_row(file, up, kInner + 3));
}

/// Several types: the file's own name for them, where one of them fits it.
TEST_F(GgufWeights, AMixtureHasTheFilesName) {
  const auto format = [&](uint32_t file_type) {
    File file =
        File("llama").body().blocks("attn_norm.weight", {kHidden}).blocks("ffn_norm.weight", {kHidden});
    file.add(fixtures::gguf_u32("general.file_type", file_type));
    fixtures::GgufParts parts = file.parts();
    for (auto& tensor : parts.tensors) {
      if (tensor.name.find("attn_q") == std::string::npos) continue;
      tensor.dtype = DType::q8_0;  // 34 bytes for 32 elements
      tensor.bytes.assign(static_cast<size_t>(kHeads * kDim * kHidden / 32 * 34), '\0');
    }
    fixtures::write(folder_ / "x.gguf", fixtures::gguf(parts));
    return load_model(folder_ / "x.gguf").weight_format();
  };
  EXPECT_EQ(format(7), "Q8_0");
  EXPECT_EQ(format(15), "F32 + Q8_0") << "nothing in it is of 4 bits";
  EXPECT_EQ(format(1000), "F32 + Q8_0");
}

/// Which row of the file is row 1 of a head of eight that rotate: 2 where they lie in pairs.
TEST_F(GgufWeights, RowsInPairs) {
  const auto pre = [&](File file, bool gated = true) {
    file.blocks("attn_norm.weight", {kHidden}).blocks("ffn_norm.weight", {kHidden}).body(gated);
    const Model model = load(file);
    const std::vector<float> second = row(model.layers[0].linear(Module::q).weight, 1);
    for (int64_t r = 0; r < kDim; ++r) {
      if (stored_row(file, "blk.0.attn_q.weight", r) == second) return r;
    }
    return int64_t{-1};
  };
  for (const char* paired : {"llama", "mistral3", "smollm3", "ernie4_5"})
    EXPECT_EQ(pre(File(paired)), 2) << paired;
  EXPECT_EQ(pre(File("granite").f32("logit_scale", 1)), 2);
  EXPECT_EQ(pre(File("arcee"), false), 2);
  for (const char* halves : {"qwen2", "gemma"}) EXPECT_EQ(pre(File(halves)), 1) << halves;
  // GLM-4's are in pairs, but where the text part of a model for images was converted.
  const auto glm = [&] {
    return File("glm4")
        .blocks("ffn_up.weight", {2 * kInner, kHidden})
        .blocks("ffn_down.weight", {kHidden, kInner});
  };
  const auto glm_place = [&](File file) {
    file.blocks("attn_norm.weight", {kHidden}).blocks("ffn_norm.weight", {kHidden});
    file.blocks("post_attention_norm.weight", {kHidden}).blocks("post_ffw_norm.weight", {kHidden});
    file.tensor("output_norm.weight", {kHidden}).tensor("output.weight", {kVocab, kHidden});
    file.blocks("attn_q.weight", {kHeads * kDim, kHidden})
        .blocks("attn_k.weight", {kKvHeads * kDim, kHidden});
    file.blocks("attn_v.weight", {kKvHeads * kDim, kHidden})
        .blocks("attn_output.weight", {kHidden, kHeads * kDim});
    const Model model = load(file);
    const std::vector<float> second = row(model.layers[0].linear(Module::q).weight, 1);
    return second == stored_row(file, "blk.0.attn_q.weight", 2);
  };
  const auto sections = [](const std::vector<int32_t>& numbers) {
    std::string bytes = raw<uint32_t>(5) + raw<uint64_t>(numbers.size());
    for (const int32_t number : numbers) bytes += raw(number);
    return fixtures::gguf_value("glm4.rope.dimension_sections", 9, bytes);
  };
  EXPECT_TRUE(glm_place(glm()));
  EXPECT_TRUE(glm_place(glm().add(sections({0, 0, 0, 0}))));
  EXPECT_FALSE(glm_place(glm().add(sections({2, 1, 1, 0}))));
}

/// llama.cpp knows no such tensors of an Arcee, and refuses the file, too.
TEST_F(GgufWeights, BiasesThatNoModelHas) {
  const auto arcee = [](const char* bias, int64_t size) {
    return File("arcee")
        .blocks("attn_norm.weight", {kHidden})
        .blocks("ffn_norm.weight", {kHidden})
        .blocks(bias, {size})
        .body(false);
  };
  EXPECT_THAT(refusal(arcee("ffn_up.bias", kInner)), HasSubstr("blk.0.ffn_up.bias"));
  EXPECT_THAT(refusal(arcee("ffn_down.bias", kHidden)), HasSubstr("blk.0.ffn_down.bias"));
}

TEST_F(GgufWeights, NormsByTheirPlaceInTheBlock) {
  const auto norm = [](const Model& model, Module module) { return model.layers[1].norm(module).weight; };
  const auto stored = [](const File& file, const std::string& name) {
    for (const auto& tensor : file.parts().tensors) {
      if (tensor.name != name) continue;
      std::vector<float> values(tensor.bytes.size() / 4);
      tensor.bytes.copy(reinterpret_cast<char*>(values.data()), tensor.bytes.size());
      return values;
    }
    return std::vector<float>{};
  };
  const std::string block = "blk.1.";
  const File gemma = File("gemma3")
                         .blocks("attn_norm.weight", {kHidden})
                         .blocks("post_attention_norm.weight", {kHidden})
                         .blocks("ffn_norm.weight", {kHidden})
                         .blocks("post_ffw_norm.weight", {kHidden})
                         .blocks("attn_q_norm.weight", {kDim})
                         .blocks("attn_k_norm.weight", {kDim})
                         .body();
  const Model sandwich = load(gemma);
  EXPECT_EQ(norm(sandwich, Module::input_norm), stored(gemma, block + "attn_norm.weight"));  // no 1 is added
  EXPECT_EQ(norm(sandwich, Module::post_attention_norm), stored(gemma, block + "post_attention_norm.weight"));
  EXPECT_EQ(norm(sandwich, Module::pre_feedforward_norm), stored(gemma, block + "ffn_norm.weight"));
  EXPECT_EQ(norm(sandwich, Module::post_feedforward_norm), stored(gemma, block + "post_ffw_norm.weight"));
  EXPECT_EQ(norm(sandwich, Module::q_norm), stored(gemma, block + "attn_q_norm.weight"));

  const File olmo = File("olmo2")
                        .blocks("post_attention_norm.weight", {kHidden})
                        .blocks("post_ffw_norm.weight", {kHidden})
                        .blocks("attn_q_norm.weight", {kHeads * kDim})
                        .blocks("attn_k_norm.weight", {kKvHeads * kDim})
                        .body();
  const Model updates = load(olmo);
  EXPECT_EQ(norm(updates, Module::post_attention_norm), stored(olmo, block + "post_attention_norm.weight"));
  EXPECT_EQ(norm(updates, Module::k_norm), stored(olmo, block + "attn_k_norm.weight"));

  const File seed = File("seed_oss")
                        .blocks("attn_norm.weight", {kHidden})
                        .blocks("post_attention_norm.weight", {kHidden})
                        .body();
  EXPECT_EQ(norm(load(seed), Module::post_attention_norm),
            stored(seed, block + "post_attention_norm.weight"));

  const File nemotron = File("nemotron")
                            .tensor("output_norm.bias", {kHidden})
                            .blocks("attn_norm.weight", {kHidden})
                            .blocks("attn_norm.bias", {kHidden})
                            .blocks("ffn_norm.weight", {kHidden})
                            .blocks("ffn_norm.bias", {kHidden})
                            .body(false);
  const Model one = load(nemotron);
  EXPECT_EQ(norm(one, Module::post_attention_norm), stored(nemotron, block + "ffn_norm.weight"));
  EXPECT_EQ(row(one.layers[1].linear(Module::gate).weight, 5),
            stored_row(nemotron, block + "ffn_up.weight", 5));

  // StableLM 2 12B: a parallel block, and norms of each head in one tensor.
  const File stable = File("stablelm")
                          .flag("use_parallel_residual", true)
                          .tensor("output_norm.bias", {kHidden})
                          .blocks("attn_norm.weight", {kHidden})
                          .blocks("attn_norm.bias", {kHidden})
                          .blocks("attn_q_norm.weight", {kHeads, kDim})
                          .blocks("attn_k_norm.weight", {kKvHeads, kDim})
                          .body();
  const Model parallel = load(stable);
  EXPECT_EQ(parallel.config.form, BlockForm::parallel);
  EXPECT_EQ(norm(parallel, Module::q_norm), stored(stable, block + "attn_q_norm.weight"));
}

/// llama.cpp's converter writes the name of Falcon-H1's second norm without ".weight", and llama.cpp asks for
/// it so.
TEST_F(GgufWeights, ANormMayBeNamedWithoutWeight) {
  for (const char* name : {"ffn_norm", "ffn_norm.weight"}) {
    File file("falcon-h1");
    file.u32("ssm.conv_kernel", 4).u32("ssm.state_size", 4).u32("ssm.group_count", 1);
    file.u32("ssm.time_step_rank", 2).u32("ssm.inner_size", 8).u32("attention.key_length", kDim);
    file.body().blocks("attn_norm.weight", {kHidden}).blocks(name, {kHidden});
    file.blocks("ssm_in.weight", {26, kHidden})
        .blocks("ssm_conv1d.weight", {16, 4})
        .blocks("ssm_conv1d.bias", {16});
    file.blocks("ssm_dt.bias", {2}).blocks("ssm_a", {2, 1}).blocks("ssm_d", {2, 1});
    file.blocks("ssm_out.weight", {kHidden, 8});
    const Model model = load(file);
    EXPECT_EQ(std::ssize(model.layers[1].norm(Module::post_attention_norm).weight), kHidden) << name;
  }
}

TEST_F(GgufWeights, XieluIsMetadata) {
  const auto apertus = [] {
    return File("apertus")
        .blocks("attn_norm.weight", {kHidden})
        .blocks("ffn_norm.weight", {kHidden})
        .blocks("attn_q_norm.weight", {kDim})
        .blocks("attn_k_norm.weight", {kDim})
        .add(gguf_f32("xielu.beta", 0.5F))
        .add(gguf_f32("xielu.eps", -0.25F))
        .add(gguf_floats("xielu.alpha_n", {3, 4}))
        .body(false);
  };
  const Model model = load(apertus().add(gguf_floats("xielu.alpha_p", {1, 2})));
  EXPECT_EQ(model.layers[1].xielu->alpha_p, 2);
  EXPECT_EQ(model.layers[1].xielu->alpha_n, 4);
  EXPECT_EQ(model.layers[0].xielu->beta, 0.5F);
  EXPECT_EQ(model.layers[1].xielu->eps, -0.25F);
  EXPECT_THAT(refusal(apertus().add(gguf_floats("xielu.alpha_p", {1}))),
              HasSubstr("xielu.alpha_p is a list of 1; accepted: one per layer, 2"));
  EXPECT_THAT(refusal(apertus()), HasSubstr("xielu.alpha_p (a float) is missing"));
}

TEST_F(GgufWeights, LearnedPositions) {
  const File gpt = File("gpt2")
                       .tensor("position_embd.weight", {128, kHidden})
                       .tensor("output_norm.weight", {kHidden})
                       .tensor("output_norm.bias", {kHidden})
                       .blocks("attn_norm.weight", {kHidden})
                       .blocks("attn_norm.bias", {kHidden})
                       .blocks("attn_qkv.weight", {3 * kHidden, kHidden})
                       .blocks("attn_qkv.bias", {3 * kHidden})
                       .blocks("attn_output.weight", {kHidden, kHidden})
                       .blocks("attn_output.bias", {kHidden})
                       .blocks("ffn_norm.weight", {kHidden})
                       .blocks("ffn_norm.bias", {kHidden})
                       .blocks("ffn_up.weight", {kInner, kHidden})
                       .blocks("ffn_up.bias", {kInner})
                       .blocks("ffn_down.weight", {kHidden, kInner})
                       .blocks("ffn_down.bias", {kHidden});
  const Model model = load(gpt);
  EXPECT_EQ(row(model.positions, 77), stored_row(gpt, "position_embd.weight", 77));
  EXPECT_EQ(row(model.layers[0].linear(Module::k).weight, 2),
            stored_row(gpt, "blk.0.attn_qkv.weight", kHidden + 2));
  EXPECT_TRUE(model.head.weight.stored.is_same(model.embedding.stored));
}

}  // namespace
}  // namespace qeval::model
