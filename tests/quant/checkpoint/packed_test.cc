// A checkpoint as codes and one as the floats that round to them are the same quantized model.

#include "quant/checkpoint/packed.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "model/export.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/calibrate/observer.h"
#include "quant/checkpoint/checkpoint.h"
#include "quant/grid/stored_codes.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::fixtures::error_of;
using nlohmann::json;
using test::TemporaryFolder;
using test::TinyModel;
using testing::AllOf;
using testing::HasSubstr;

std::vector<int32_t> sample(int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < 40; ++i) ids.push_back(static_cast<int32_t>((i * 17 + 3) % vocabulary));
  return ids;
}

/// A fingerprint of all logits at every position.
std::vector<uint64_t> answers(const model::Model& model, const model::Arithmetic& arithmetic) {
  std::vector<uint64_t> hashes;
  for (const auto& answer : run_sample(model, arithmetic, sample(model.config.vocab_size)))
    hashes.push_back(answer.logits_hash);
  return hashes;
}

json read_json(const std::filesystem::path& file) {
  return json::parse(read_file(file));
}

struct Written {
  std::filesystem::path folder;
  model::Model model;
  Quantization quantization;

  Written(const QuantizedModel& quantized, const std::filesystem::path& to, CheckpointFormat format)
      : folder(to) {
    std::filesystem::create_directories(folder);
    write_checkpoint(folder, quantized, {}, {{"method", "rtn"}}, format);
    model = model::load_model(folder);
    quantization = load_quantization(model, {}, {});
  }
  std::vector<uint64_t> fake() const {
    return answers(model, FakeArithmetic(model, quantization.qcfg, quantization.ranges, 64));
  }
  std::vector<uint64_t> integer() const {
    return answers(model, IntegerArithmetic(model, quantization.qcfg, quantization.known_ranges, 64));
  }
};

void expect_same_codes(const QuantizedMatrix& a, const QuantizedMatrix& b, const std::string& name) {
  ASSERT_EQ(a.byte_count(), b.byte_count()) << name;
  EXPECT_EQ(std::memcmp(a.codes.data(), b.codes.data(), static_cast<size_t>(a.byte_count())), 0) << name;
  EXPECT_EQ(a.scales, b.scales) << name;
  EXPECT_EQ(a.zero_points, b.zero_points) << name;
}

struct PackedCase {
  const char* name;
  Scheme scheme;
  Method method = Method::rtn;
  bool tied = false, head = false, integers = true;
};

Scheme scheme(std::string_view name, int64_t group = -1, int bits = 0) {
  Scheme scheme = parse_scheme(name);
  scheme.weight.group_size = group;
  if (bits != 0) scheme.weight.bits = bits;
  return scheme;
}

class Packed : public testing::TestWithParam<PackedCase> {};

TEST_P(Packed, ComputesAsTheFloatLayoutDoes) {
  const PackedCase& given = GetParam();
  TinyModel tiny(3);
  tiny.config.qkv_bias = true;
  tiny.config.tie_word_embeddings = given.tied;
  model::Model source = tiny.build();
  source.path = "nowhere";
  source.format = "safetensors";
  if (given.tied) source.head.weight = source.embedding;
  QuantizeOptions options;
  options.method = given.method;
  options.scheme = given.scheme;
  QuantizedModel quantized = quantize(source, {sample(61)}, options);
  if (given.head) quantized.qcfg[{0, Module::head, Slot::weight}] = {.bits = 8, .per_channel = true};
  const TemporaryFolder folder;
  const Written packed(quantized, folder / "packed", CheckpointFormat::packed);
  const Written floats(quantized, folder / "floats", CheckpointFormat::mobilequant);
  EXPECT_EQ(packed.model.quant_method, "compressed-tensors");
  EXPECT_EQ(floats.model.quant_method, "");
  EXPECT_EQ(packed.quantization.hash, floats.quantization.hash);
  int64_t stored = 0;
  for (size_t layer = 0; layer < source.layers.size(); ++layer) {
    for (const auto& [module, linear] : packed.model.layers[layer].linears) {
      const QuantSpec& spec = packed.quantization.qcfg[{static_cast<int64_t>(layer), module, Slot::weight}];
      stored += is_stored_as(linear.weight, spec) ? 1 : 0;
      expect_same_codes(quantized_weight(linear.weight, spec),
                        quantize_matrix(floats.model.layers[layer].linear(module).weight, spec),
                        linear.weight.name);
      EXPECT_EQ(linear.bias, floats.model.layers[layer].linear(module).bias);
    }
  }
  // Small asymmetric groups may lie so far from 0 that their matrix stays in float.
  EXPECT_GE(stored, given.scheme.weight.group_size > 0 && !given.scheme.weight.symmetric ? 8 : 14);
  EXPECT_EQ(packed.model.head.weight.stored.coded() != nullptr, given.head && !given.tied);
  EXPECT_EQ(packed.fake(), floats.fake());
  if (given.integers) {
    EXPECT_EQ(packed.integer(), floats.integer());
  }
  // As floats the codes are worth what the simulation multiplies with.
  if (given.scheme.activation_bits > 16 && stored == 14) {
    EXPECT_EQ(answers(packed.model, *model::make_float_arithmetic(packed.model, 64)), packed.fake());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, Packed,
    testing::Values(PackedCase{"w8a8", scheme("w8a8")}, PackedCase{"w4a8", scheme("w4a8")},
                    PackedCase{"w4a8_sym", scheme("w4a8-sym"), Method::smoothquant},
                    PackedCase{"w8a16", scheme("w8a16"), Method::rtn, true},
                    PackedCase{"w4a16", scheme("w4a16"), Method::rtn, false, false, false},
                    PackedCase{"w4a16_sym", scheme("w4a16-sym"), Method::rtn, true, false, false},
                    PackedCase{"w8a16_sym", scheme("w8a16-sym"), Method::smoothquant, false, false, false},
                    PackedCase{"groups", scheme("w4a16", 8), Method::smoothquant, false, false, false},
                    PackedCase{"three_bits", scheme("w4a16-sym", 8, 3), Method::rtn, false, false, false},
                    PackedCase{"five_bits", scheme("w4a16", -1, 5), Method::rtn, false, false, false},
                    PackedCase{"two_bits_of_activations", scheme("w4a8", -1, 2)},
                    PackedCase{"head", scheme("w8a8"), Method::rtn, false, true},
                    PackedCase{"tied_head", scheme("w8a8"), Method::rtn, true, true}),
    [](const auto& test) { return test.param.name; });

QuantizedModel round_to_nearest(const model::Model& source, const Scheme& scheme) {
  QuantizeOptions options;
  options.scheme = scheme;
  return quantize(source, {sample(source.config.vocab_size)}, options);
}

/// Codes that no float of theirs rounds to by itself are kept in both layouts.
class MadeCodes : public testing::TestWithParam<PackedCase> {};

TEST_P(MadeCodes, AreThoseOfEitherLayout) {
  TinyModel tiny(6);
  tiny.config.qkv_bias = true;
  model::Model source = tiny.build();
  source.path = "nowhere";
  source.format = "safetensors";
  QuantizeOptions options;
  options.method = GetParam().method;
  options.scheme = GetParam().scheme;
  const bool gptq = options.method != Method::awq;
  if (gptq) options.rounding = Rounding::gptq;
  const QuantizedModel quantized = quantize(source, {sample(61)}, options);
  const TemporaryFolder folder;
  const Written packed(quantized, folder / "packed", CheckpointFormat::packed);
  const Written floats(quantized, folder / "floats", CheckpointFormat::mobilequant);
  EXPECT_EQ(floats.model.quant_method, "compressed-tensors");
  int64_t moved = 0;
  for (size_t layer = 0; layer < source.layers.size(); ++layer) {
    for (const auto& [module, linear] : quantized.model().layers[layer].linears) {
      const QuantSpec& spec = quantized.qcfg[{static_cast<int64_t>(layer), module, Slot::weight}];
      const QuantizedMatrix made = quantized_weight(linear.weight, spec);
      for (const Written* written : {&packed, &floats}) {
        const model::Matrix& read = written->model.layers[layer].linear(module).weight;
        ASSERT_TRUE(is_stored_as(read, spec)) << linear.weight.name;
        expect_same_codes(quantized_weight(read, spec), made, linear.weight.name);
      }
      const QuantizedMatrix anew = quantize_matrix(linear.weight, spec);
      moved += std::memcmp(anew.codes.data(), made.codes.data(), static_cast<size_t>(made.byte_count())) != 0;
    }
  }
  if (gptq) {
    EXPECT_GT(moved, 0) << "the floats alone would have done";
  }
  const std::vector<uint64_t> in_memory =
      answers(quantized.model(),
              FakeArithmetic(quantized.model(), packed.quantization.qcfg, packed.quantization.ranges, 64));
  EXPECT_EQ(packed.fake(), in_memory);
  EXPECT_EQ(floats.fake(), in_memory);
  if (GetParam().integers) {
    EXPECT_EQ(packed.integer(), floats.integer());
  }
  // Other programs find the values of the codes as floats.
  const auto checkpoint = model::open_directory(folder / "floats");
  const model::TensorView& tensor = checkpoint->require("model.layers.1.mlp.w2.weight");
  const model::Matrix& down = quantized.model().layers[1].linear(Module::down).weight;
  std::vector<float> values(static_cast<size_t>(down.rows * down.cols));
  down.decode_rows(0, down.rows, values.data());
  ASSERT_EQ(tensor.bytes.size(), values.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(tensor.bytes.data(), values.data(), tensor.bytes.size()), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, MadeCodes,
    testing::Values(PackedCase{"gptq_w4a8", scheme("w4a8"), Method::gptq},
                    PackedCase{"gptq_w8a8", scheme("w8a8"), Method::gptq},
                    PackedCase{"smooth_gptq_w4a8_groups", scheme("w4a8", 8), Method::smoothquant},
                    PackedCase{"gptq_w3a16", scheme("w3a16"), Method::gptq, false, false, false},
                    PackedCase{"gptq_w4a16_sym_groups", scheme("w4a16-sym", 8), Method::gptq, false, false,
                               false},
                    PackedCase{"awq_w4a16_groups", scheme("w4a16", 8), Method::awq, false, false, false},
                    PackedCase{"awq_w4a8", scheme("w4a8"), Method::awq}),
    [](const auto& test) { return test.param.name; });

/// A grid far from 0 has a zero point that no field of the layout holds.
TEST(PackedLayout, LeavesAWeightWithoutRoomForItsZeroPointsAsNumbers) {
  TinyModel tiny(4);
  model::Model source = tiny.build();
  source.path = "nowhere";
  source.format = "safetensors";
  model::Matrix& far = source.layers[1].linears.at(Module::up).weight;
  std::vector<float> values(static_cast<size_t>(far.rows * far.cols));
  far.decode_rows(0, far.rows, values.data());
  for (float& value : values) value = 3.0F + 0.1F * value;
  far.stored = model::StoredWeight(values.data(), far.cols);
  const QuantizedModel quantized = round_to_nearest(source, scheme("w4a16"));
  const TemporaryFolder folder;
  const Written packed(quantized, folder / "packed", CheckpointFormat::packed);
  EXPECT_EQ(packed.model.layers[1].linear(Module::up).weight.stored.coded(), nullptr);
  EXPECT_NE(packed.model.layers[0].linear(Module::up).weight.stored.coded(), nullptr);
  EXPECT_THAT(read_json(folder / "packed" / "config.json")["quantization_config"]["ignore"],
              testing::Contains("model.layers.1.mlp.w3"));
  EXPECT_EQ(packed.fake(), Written(quantized, folder / "floats", CheckpointFormat::mobilequant).fake());
}

TEST(PackedLayout, RefusesAConfigurationThatContradictsTheCodes) {
  TinyModel tiny(5);
  model::Model source = tiny.build();
  source.path = "nowhere";
  source.format = "safetensors";
  const TemporaryFolder folder;
  const Written packed(round_to_nearest(source, scheme("w4a16-sym")), folder / "packed",
                       CheckpointFormat::packed);
  const auto refusal = [&](const char* field, const char* value) {
    json qcfg = read_json(packed.folder / "default_qcfg.json");
    qcfg["model.layers.1.mlp.w2"]["weight"][field] = value;
    folder.write("qcfg.json", qcfg.dump());
    return error_of([&] { load_quantization(packed.model, folder / "qcfg.json", {}); });
  };
  for (const auto& [field, value] : {std::pair{"bitwidth", "8"},
                                     {"bitwidth", "32"},
                                     {"is_symmetric", "False"},
                                     {"is_per_channel", "False"},
                                     {"group_size", "8"}}) {
    EXPECT_THAT(refusal(field, value), AllOf(HasSubstr("qcfg.json: model.layers.1.mlp.w2.weight is "),
                                             HasSubstr("int4 per channel")))
        << field;
  }
  EXPECT_NO_THROW(load_quantization(packed.model, {}, {}));
}

/// A checkpoint that is quantized again is rounded from what its codes are worth, in both layouts.
TEST(PackedLayout, IsAModelToQuantizeLikeAnyOther) {
  TinyModel tiny(6);
  model::Model source = tiny.build();
  source.path = "nowhere";
  source.format = "safetensors";
  const TemporaryFolder folder;
  const Written first(round_to_nearest(source, scheme("w4a16")), folder / "first", CheckpointFormat::packed);
  const QuantizedModel again = round_to_nearest(first.model, scheme("w4a16"));
  EXPECT_EQ(Written(again, folder / "packed", CheckpointFormat::packed).fake(),
            Written(again, folder / "floats", CheckpointFormat::mobilequant).fake());
}

/// Q8_0 is int8 in groups of 32 with float16 scales: as floats it would take four bytes a number.
TEST(PackedLayout, KeepsAGgufsEmbeddingInEightBits) {
  using namespace model::fixtures;
  const TemporaryFolder folder;
  GgufParts parts = tiny_gguf({.head = false});
  const auto embedding =
      std::ranges::find(parts.tensors, "token_embd.weight", &model::fixtures::Tensor::name);
  ASSERT_NE(embedding, parts.tensors.end());
  embedding->dtype = model::DType::q8_0;
  embedding->bytes.clear();
  for (int64_t row = 0; row < kTinyVocab; ++row) {  // a block each: its scale, of either sign or 0, and codes
    embedding->bytes +=
        raw<uint16_t>(row == 5 ? 0 : static_cast<uint16_t>((row % 3 == 1 ? 0xA400 : 0x2400) + row));
    for (int64_t i = 0; i < 32; ++i) embedding->bytes += static_cast<char>((row * 37 + i * 11) % 256 - 128);
  }
  write(folder / "tiny.gguf", gguf(parts));
  const model::Model source = model::load_model(folder / "tiny.gguf");
  const Written packed(round_to_nearest(source, scheme("w4a16-sym")), folder / "packed",
                       CheckpointFormat::packed);
  std::vector<float> want(static_cast<size_t>(source.embedding.rows * source.embedding.cols)),
      got(want.size());
  source.embedding.decode_rows(0, source.embedding.rows, want.data());
  packed.model.embedding.decode_rows(0, source.embedding.rows, got.data());
  EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0);
  ASSERT_NE(packed.model.embedding.stored.coded(), nullptr);
  EXPECT_EQ(packed.model.embedding.stored.format(), "compressed-tensors int8 g32");
  EXPECT_EQ(read_json(folder / "packed" / "config.json")["model_type"], "llama");
}

/// As the architecture's own code calls them, so that others load it; the answers are transformers' in
/// check_transformers.py.
TEST(PackedLayout, HasTheNamesOfItsArchitecture) {
  const model::Model source = model::load_model(test::goldens() / "huggingface/llama-f32");
  const TemporaryFolder folder;
  const Written packed(round_to_nearest(source, scheme("w8a16-sym")), folder / "packed",
                       CheckpointFormat::packed);
  const auto checkpoint = model::open_directory(folder / "packed");
  EXPECT_EQ(checkpoint->require("model.layers.2.mlp.gate_proj.weight_packed").shape,
            (std::vector<int64_t>{160, 16}));
  const json config = read_json(folder / "packed" / "config.json");
  EXPECT_EQ(config["model_type"], "llama");
  EXPECT_EQ(config["quantization_config"]["config_groups"]["group_0"]["targets"], json{"Linear"});
  // Blocks' norms have no eps: others read one for all norms, we the final norm's.
  EXPECT_LT(config["rms_norm_eps"].get<double>(), 1e-20);
  EXPECT_EQ(packed.model.config.norm_eps, source.config.norm_eps);
  EXPECT_TRUE(packed.model.config.l2norm_as_rmsnorm);
}

/// Experts are linear maps of their own where their architecture has them so, else those of the unified
/// layout.
TEST(PackedLayout, HasExpertsOneByOne) {
  for (const auto& [family, expert, router] :
       {std::tuple{"qwen2_moe", "mlp.experts.3.up_proj", "mlp.gate"},
        {"mixtral", "block_sparse_moe.experts.3.w3", "block_sparse_moe.gate"},
        {"granitemoe", "mlp.experts.3.w3", "mlp.router"}}) {
    SCOPED_TRACE(family);
    const model::Model source = model::load_model(test::goldens() / "architectures" / family);
    const TemporaryFolder folder;
    const Written packed(round_to_nearest(source, scheme("w4a16-sym")), folder / "packed",
                         CheckpointFormat::packed);
    const auto checkpoint = model::open_directory(folder / "packed");
    EXPECT_NE(checkpoint->find(fmt::format("model.layers.1.{}.weight_packed", expert)), nullptr);
    EXPECT_NE(checkpoint->find(fmt::format("model.layers.1.{}.weight", router)), nullptr);  // left in float
    const json config = read_json(folder / "packed" / "config.json");
    EXPECT_EQ(config["model_type"], family);
    EXPECT_EQ(config["quantization_config"]["ignore"].dump().find("experts"), std::string::npos);
  }
}

/// Token log-probabilities of each row of ids behind its first.
std::vector<double> packed_log_probabilities(const Written& written, const json& rows) {
  const FakeArithmetic fake(written.model, written.quantization.qcfg, written.quantization.ranges, 128);
  std::vector<double> values;
  for (const auto& row : rows) {
    for (const auto& answer : run_sample(written.model, fake, row.get<std::vector<int32_t>>()))
      values.push_back(answer.log_probability);
  }
  return values;
}

/// What transformers with compressed-tensors answered, loading this very file (check_transformers.py
/// --record).
TEST(PackedLayout, GivesTheAnswersThatTransformersGave) {
  const json recorded = read_json(test::goldens() / "packed/llama-f32.json");
  const model::Model source = model::load_model(test::goldens() / "huggingface/llama-f32");
  const TemporaryFolder folder;
  for (const auto& [name, expected] : recorded.items()) {
    const Written packed(round_to_nearest(source, scheme(name)), folder / name, CheckpointFormat::packed);
    EXPECT_EQ(sha256_hex(read_file(folder / name / "model.safetensors")), expected["weights_sha256"]) << name;
    const auto want = expected["token_logprobs"].get<std::vector<double>>();
    const std::vector<double> got = packed_log_probabilities(packed, expected["input_ids"]);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i], want[i], 2e-3 + 1e-4 * std::abs(want[i])) << name << " " << i;
  }
  EXPECT_EQ(recorded.size(), 2U);
}

TEST(PackedLayout, LoadsInTransformers) {
  const char* chosen = std::getenv("QEVAL_PYTHON");  // one that has it, if the first on the path has not
  const TemporaryFolder folder;
  const std::string log = folder / "log.txt";
  const std::string command = fmt::format(
      "'{}' '{}/python/check_transformers.py' '{}' '{}' --schemes w4a16-sym,w8a16-sym > '{}' 2>&1",
      chosen == nullptr ? "python3" : chosen, QEVAL_TESTS_DIR, QEVAL_BINARY,
      (test::goldens() / "huggingface/llama-f32").string(), log);
  const int status = std::system(command.c_str());
  const std::string said = read_file(log);
  if (said.starts_with("skip: ")) GTEST_SKIP() << said;
  EXPECT_EQ(status, 0) << said;
  EXPECT_THAT(said, AllOf(HasSubstr("ok   llama-f32 w4a16-sym"), HasSubstr("ok   llama-f32 w8a16-sym")));
}

/// Gemma's norms are stored less 1, which loses bits of some numbers: then the names are ours.
TEST(PackedLayout, KeepsNormsThatAreStoredLessOne) {
  const model::Model source = model::load_model(test::goldens() / "huggingface/gemma-f16");
  const TemporaryFolder folder;
  for (const Method method : {Method::rtn, Method::smoothquant}) {
    QuantizeOptions options;
    options.method = method;
    options.scheme = scheme("w4a16-sym");
    const QuantizedModel quantized = quantize(source, {sample(source.config.vocab_size)}, options);
    const Written packed(quantized, folder / fmt::format("packed-{}", name(method)),
                         CheckpointFormat::packed);
    EXPECT_EQ(packed.model.final_norm.weight, source.final_norm.weight);
    for (size_t i = 0; i < source.layers.size(); ++i) {
      EXPECT_EQ(packed.model.layers[i].norm(Module::input_norm).weight,
                quantized.model().layers[i].norm(Module::input_norm).weight);
    }
    const Written floats(quantized, folder / fmt::format("floats-{}", name(method)),
                         CheckpointFormat::mobilequant);
    EXPECT_EQ(packed.fake(), floats.fake());
  }
}

}  // namespace
}  // namespace qeval::quant
