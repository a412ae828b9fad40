#include "quant/checkpoint/checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "model/checkpoint/safetensors_writer.h"
#include "model/export.h"
#include "model/tokenizer/tokenizer.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/calibrate/observer.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::fixtures::error_of;
using test::TemporaryFolder;
using test::TinyModel;
using testing::HasSubstr;

Samples one_sample() {
  Samples all(1);
  for (int64_t i = 0; i < 40; ++i) all[0].push_back(static_cast<int32_t>((i * 17 + 3) % 61));
  return all;
}

std::vector<float> decoded(const model::Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  matrix.decode_rows(0, matrix.rows, values.data());
  return values;
}

void expect_same_weights(const model::Model& a, const model::Model& b) {
  EXPECT_EQ(decoded(a.embedding), decoded(b.embedding));
  EXPECT_EQ(decoded(a.head.weight), decoded(b.head.weight));
  EXPECT_EQ(a.final_norm.weight, b.final_norm.weight);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    for (const auto& [module, x] : a.layers[i].linears) {
      const model::LinearWeights& y = b.layers[i].linear(module);
      EXPECT_EQ(decoded(x.weight), decoded(y.weight)) << x.weight.name;
      EXPECT_EQ(x.bias, y.bias) << x.weight.name;
    }
    EXPECT_EQ(a.layers[i].norm(Module::input_norm).weight, b.layers[i].norm(Module::input_norm).weight);
    EXPECT_EQ(a.layers[i].norm(Module::post_attention_norm).bias,
              b.layers[i].norm(Module::post_attention_norm).bias);
  }
}

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    tiny_.config.qkv_bias = true;
    tiny_.config.rotary.dim = 10;
    tiny_.config.rotary.theta = 5e5;
    tiny_.config.rotary.scaling.kind = model::RopeScaling::Kind::llama3;
    tiny_.config.rotary.scaling.factor = 8.0;
    tiny_.config.rotary.scaling.original_max_position_embeddings = 64;
    base_ = tiny_.build();
    base_.path = folder_ / "source";
    base_.format = "safetensors";
    std::filesystem::create_directories(base_.path);
    QuantizeOptions options;
    options.method = Method::smoothquant;
    options.keep_16bit = {"mlp.w2.input"};
    quantized_.emplace(quantize(base_, one_sample(), options));
  }
  TinyModel tiny_;
  TemporaryFolder folder_;
  model::Model base_;
  std::optional<QuantizedModel> quantized_;
};

TEST_F(CheckpointTest, ReadsBackAsItWasWritten) {
  const auto out = folder_ / "out";
  prepare_checkpoint_folder(out, base_);
  write_checkpoint(out, *quantized_, one_sample(), {{"method", "smoothquant"}},
                   CheckpointFormat::mobilequant);
  EXPECT_TRUE(is_quantized_checkpoint(out));
  const model::Model loaded = model::load_model(out);
  EXPECT_EQ(loaded.config.rotary.scaling.factor, 8.0);
  EXPECT_TRUE(loaded.config.l2norm_as_rmsnorm);
  expect_same_weights(loaded, quantized_->model());
  const Quantization read = load_quantization(loaded, {}, {});
  EXPECT_EQ(read.qcfg, quantized_->qcfg);
  EXPECT_EQ(read.ranges, complete_ranges(quantized_->qcfg, quantized_->ranges, loaded.config, "x"));
  const auto sketch = read_ngram_sketch(out);
  ASSERT_TRUE(sketch);
  NgramSketch::Overlap overlap;
  sketch->look_up(one_sample()[0], overlap);
  EXPECT_EQ(overlap.share(), 1.0);
}

/// Operations, grids of position 0 and the untied head of a rotated model, in either layout.
TEST_F(CheckpointTest, ARotatedModelComputesAsItDidBeforeItWasWritten) {
  QuantizeOptions options;
  options.method = Method::rotate;
  options.rotation = {RotationKind::online, true, 4, 3};
  options.calibration = {.estimator = RangeEstimator::mse, .first_token_apart = true};
  const QuantizedModel rotated = quantize(base_, one_sample(), options);
  const model::ModelConfig& config = rotated.model().config;
  const FirstToken first{rotated.first->qcfg,
                         complete_ranges(rotated.first->qcfg, rotated.first->ranges, config, "")};
  const FakeArithmetic before(rotated.model(), rotated.qcfg,
                              complete_ranges(rotated.qcfg, rotated.ranges, config, ""), 64, first);
  for (const CheckpointFormat format : {CheckpointFormat::mobilequant, CheckpointFormat::packed}) {
    SCOPED_TRACE(std::string(name(format)));
    const auto out = folder_ / std::string(name(format));
    prepare_checkpoint_folder(out, base_);
    write_checkpoint(out, rotated, one_sample(), {{"method", "rotate"}}, format);
    const model::Model loaded = model::load_model(out);
    EXPECT_EQ(loaded.config.rotation, config.rotation);
    EXPECT_EQ(loaded.config.rotation->down_block, 4);
    EXPECT_FALSE(loaded.config.tie_word_embeddings);
    const Quantization read = load_quantization(loaded, {}, {});
    EXPECT_EQ(read.qcfg, rotated.qcfg);
    ASSERT_TRUE(read.first);
    EXPECT_EQ(read.first->qcfg, first.qcfg);
    EXPECT_EQ(read.hash, quantization_hash(rotated.qcfg, rotated.ranges, config, rotated.first));
    EXPECT_NE(read.hash, quantization_hash(rotated.qcfg, rotated.ranges, config));
    const FakeArithmetic after(loaded, read.qcfg, read.ranges, 64, read.first);
    const auto want = run_sample(rotated.model(), before, one_sample()[0]),
               got = run_sample(loaded, after, one_sample()[0]);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(want[i].log_probability, got[i].log_probability);
  }
  // What is missing or wrong of position 0 is named.
  const auto out = folder_ / "packed";
  const model::Model loaded = model::load_model(out);
  const std::string text = read_file(out / "act_dict.json");
  auto ranges = nlohmann::ordered_json::parse(text);
  ranges["model.layers.1.mlp.w2"]["first_token"].erase("output");
  model::fixtures::write(out / "act_dict.json", ranges.dump());
  EXPECT_THAT(error_of([&] { load_quantization(loaded, {}, {}); }),
              testing::AllOf(HasSubstr("position 0"), HasSubstr("model.layers.1.mlp.w2.output")));
  model::fixtures::write(out / "act_dict.json", text);
  auto qcfg = nlohmann::ordered_json::parse(read_file(out / "default_qcfg.json"));
  qcfg["model.layers.0.mlp.w2"]["first_token"]["output"]["bitwidth"] = "32";
  model::fixtures::write(out / "default_qcfg.json", qcfg.dump());
  EXPECT_THAT(error_of([&] { load_quantization(loaded, {}, {}); }),
              testing::AllOf(HasSubstr("model.layers.0.mlp.w2.output"), HasSubstr("both or neither")));
  auto settings = nlohmann::ordered_json::parse(read_file(out / "config.json"));
  settings["qeval_rotation"]["down_block"] = 6;
  model::fixtures::write(out / "config.json", settings.dump());
  EXPECT_THAT(error_of([&] { model::load_model(out); }), HasSubstr("down_block"));
}

/// A LayerNorm whose mean and bias were folded comes back as the RMS norm that is left.
TEST_F(CheckpointTest, AFoldedLayerNormIsReadAsWhatIsLeftOfIt) {
  TinyModel tiny;
  tiny.config.norm = model::NormKind::layer;
  model::Model base = tiny.build();
  base.path = folder_ / "source";
  base.format = "safetensors";
  QuantizeOptions options;
  options.rotation = {RotationKind::offline, false, 0, 0};
  const QuantizedModel rotated = quantize(base, one_sample(), options);
  const auto out = folder_ / "out";
  prepare_checkpoint_folder(out, base);
  write_checkpoint(out, rotated, one_sample(), {{"method", "rtn"}}, CheckpointFormat::mobilequant);
  const model::Model loaded = model::load_model(out);
  EXPECT_EQ(loaded.config.norm, model::NormKind::rms);
  EXPECT_TRUE(loaded.config.qkv_bias && loaded.config.mlp_bias);
  EXPECT_FALSE(loaded.head.bias.empty());
  const auto exact = model::make_float_arithmetic(rotated.model(), 64),
             read = model::make_float_arithmetic(loaded, 64);
  const auto want = run_sample(rotated.model(), *exact, one_sample()[0]),
             got = run_sample(loaded, *read, one_sample()[0]);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(want[i].log_probability, got[i].log_probability);
}

TEST_F(CheckpointTest, NeverWritesOverSomethingElse) {
  EXPECT_THAT(error_of([&] { prepare_checkpoint_folder(base_.path, base_); }), HasSubstr("the model itself"));
  model::fixtures::write(folder_ / "diary.txt", "dear diary");
  EXPECT_THAT(error_of([&] { prepare_checkpoint_folder(folder_.path(), base_); }), HasSubstr("not empty"));
  const auto out = folder_ / "out";
  prepare_checkpoint_folder(out, base_);
  write_checkpoint(out, *quantized_, one_sample(), {{"method", "smoothquant"}},
                   CheckpointFormat::mobilequant);
  prepare_checkpoint_folder(out, base_);  // an earlier checkpoint may go
  EXPECT_FALSE(std::filesystem::exists(out / kRecordFile));
}

std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

/// What an earlier run had learned on, and from where, passed for the next one's.
TEST_F(CheckpointTest, NothingOfAnEarlierRunIsLeft) {
  const auto out = folder_ / "out";
  const auto make = [&] {
    prepare_checkpoint_folder(out, base_);
    write_checkpoint(out, *quantized_, one_sample(), {{"method", "smoothquant"}},
                     CheckpointFormat::mobilequant);
    for (const char* name : {kTrainingFile, kStateFile, "tokenizer.json", "notes.txt"})
      model::fixtures::write(out / name, "of the earlier run");
  };
  make();
  EXPECT_THAT(names_in(out), testing::Not(testing::Contains(kUnfinishedFile)));
  prepare_checkpoint_folder(out, base_);
  EXPECT_THAT(names_in(out), testing::UnorderedElementsAre(kUnfinishedFile, "notes.txt"));
  make();
  prepare_checkpoint_folder(out, base_, true);
  EXPECT_THAT(names_in(out),
              testing::UnorderedElementsAre(kUnfinishedFile, kTrainingFile, kStateFile, "notes.txt"));
}

/// A run that was killed early left a folder that the next one refused as somebody else's.
TEST_F(CheckpointTest, AnUnfinishedFolderLoadsAsNoModelAndIsTakenAgain) {
  const auto out = folder_ / "out";
  prepare_checkpoint_folder(out, base_);
  std::filesystem::create_directories(out / "config.json" / "in the way");
  EXPECT_ANY_THROW(write_checkpoint(out, *quantized_, one_sample(), {{"method", "smoothquant"}},
                                    CheckpointFormat::mobilequant));
  EXPECT_THAT(names_in(out), testing::IsSupersetOf({"model.safetensors", "act_dict.json", kUnfinishedFile}));
  EXPECT_FALSE(std::filesystem::exists(out / kRecordFile));
  std::filesystem::remove_all(out / "config.json");
  EXPECT_ANY_THROW(model::load_model(out));
  prepare_checkpoint_folder(out, base_);
  EXPECT_THAT(names_in(out), testing::ElementsAre(kUnfinishedFile));
}

/// A process that was killed while it wrote its first file left a folder that looked like somebody else's.
TEST_F(CheckpointTest, AFolderWithNothingButAFileThatWasBeingWrittenIsTaken) {
  const auto out = folder_ / "out";
  std::filesystem::create_directories(out);
  for (const char* name : {"quantize.unfinished.tmp12", "model.safetensors.tmp7", "notes.txt.tmp7"})
    model::fixtures::write(out / name, "half");
  prepare_checkpoint_folder(out, base_);
  EXPECT_THAT(names_in(out), testing::UnorderedElementsAre(kUnfinishedFile, "notes.txt.tmp7"));
}

TEST_F(CheckpointTest, SettingsMayComeFromElsewhere) {
  const auto out = folder_ / "out";
  std::filesystem::create_directories(out);
  model::write_unified(base_, out, model::DType::f32);
  const model::Model loaded = model::load_model(out);
  EXPECT_THAT(error_of([&] { load_quantization(loaded, {}, {}); }), HasSubstr("default_qcfg.json"));
  const auto config = loaded.config;
  model::fixtures::write(folder_ / "q.json",
                         qcfg_json(make_qcfg(config, parse_scheme("w4a16")), config).dump());
  EXPECT_NO_THROW(load_quantization(loaded, folder_ / "q.json", {}));  // weight-only: no ranges needed
  model::fixtures::write(folder_ / "q.json", qcfg_json(make_qcfg(config, {}), config).dump());
  EXPECT_THAT(error_of([&] { load_quantization(loaded, folder_ / "q.json", {}); }),
              HasSubstr("input_layernorm.input"));
  model::fixtures::write(folder_ / "a.json", act_ranges_json(quantized_->ranges, config).dump());
  EXPECT_EQ(load_quantization(loaded, folder_ / "q.json", folder_ / "a.json").qcfg, make_qcfg(config, {}));
}

/// The integers' residual stream ends on the final norm's input range, which no point of the simulation
/// needs: another one gave other scores under the same hash, and a run was continued with them.
TEST_F(CheckpointTest, TheHashNamesEveryRangeThatAnArithmeticUses) {
  const auto hash = [&](const ActRanges& ranges) {
    return quantization_hash(quantized_->qcfg, ranges, base_.config);
  };
  const std::string before = hash(quantized_->ranges);
  const auto changed = [&](const Point& point) {
    ActRanges ranges = quantized_->ranges;
    ranges[point]->hi += 1;
    return hash(ranges);
  };
  EXPECT_NE(changed({0, Module::final_norm, Slot::input}), before);
  EXPECT_NE(changed({1, Module::down, Slot::input}), before);
  EXPECT_EQ(changed({0, Module::head, Slot::input}), before);  // nothing rounds there
}

TEST_F(CheckpointTest, LoadsInPython) {
  const char* chosen = std::getenv("QEVAL_PYTHON");  // one that has them, if the first on the path has not
  const std::string python = chosen == nullptr ? "python3" : chosen;
  if (std::system(fmt::format("'{}' -c 'import numpy, safetensors.numpy' 2>/dev/null", python).c_str()) != 0)
    GTEST_SKIP() << python << " has no safetensors and numpy";
  const auto out = folder_ / "out";
  prepare_checkpoint_folder(out, base_);
  write_checkpoint(out, *quantized_, one_sample(), {{"method", "smoothquant"}},
                   CheckpointFormat::mobilequant);
  std::ofstream sums(folder_ / "sums.txt");
  const auto checkpoint = model::open_directory(out);
  for (const auto& tensor : checkpoint->tensors()) {
    std::vector<float> values(static_cast<size_t>(tensor.element_count()));
    model::decode(tensor.dtype, tensor.bytes.data(), tensor.element_count(), values.data());
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value);
    sums << fmt::format("{} {} {:.17g}\n", tensor.name, tensor.shape[0], sum);
  }
  sums.close();
  model::fixtures::write(folder_ / "check.py", R"(
import sys, json, numpy
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1] + "/model.safetensors")
lines = open(sys.argv[2]).read().splitlines()
assert len(lines) == len(tensors)
for line in lines:
    name, rows, total = line.split()
    assert tensors[name].shape[0] == int(rows) and tensors[name].dtype == numpy.float32, name
    assert abs(tensors[name].astype("float64").sum() - float(total)) < 1e-9, name
config = json.load(open(sys.argv[1] + "/config.json"))
assert config["model_type"] == "hfmodel"
json.load(open(sys.argv[1] + "/act_dict.json")); json.load(open(sys.argv[1] + "/default_qcfg.json"))
)");
  const std::string command = fmt::format("'{}' '{}' '{}' '{}'", python, (folder_ / "check.py").string(),
                                          out.string(), (folder_ / "sums.txt").string());
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(SafetensorsWriter, RoundsToHalfPrecisionAsTheStandardSays) {
  const auto f16 = [](float x) { return static_cast<int>(model::narrow_f16(x)); };
  const auto bf16 = [](float x) { return static_cast<int>(model::narrow_bf16(x)); };
  EXPECT_EQ(f16(1.0F), 0x3C00);
  EXPECT_EQ(f16(-2.0F), 0xC000);
  EXPECT_EQ(f16(65504.0F), 0x7BFF);
  EXPECT_EQ(f16(65519.0F), 0x7BFF);
  EXPECT_EQ(f16(65520.0F), 0x7C00);
  EXPECT_EQ(f16(std::numeric_limits<float>::infinity()), 0x7C00);
  EXPECT_EQ(f16(5.9604645e-8F), 0x0001);   // the smallest subnormal
  EXPECT_EQ(f16(2.9802322e-8F), 0x0000);   // half of it: to even
  EXPECT_EQ(f16(6.1035156e-5F), 0x0400);   // the smallest normal
  EXPECT_EQ(f16(6.1020e-5F), 0x0400);      // rounds up into it
  EXPECT_EQ(f16(1.00048828125F), 0x3C00);  // a tie: to even
  EXPECT_EQ(f16(1.00146484375F), 0x3C02);
  EXPECT_EQ(f16(2049.0F), 0x6800);
  EXPECT_EQ(bf16(1.0F), 0x3F80);
  EXPECT_EQ(bf16(1.00390625F), 0x3F80);  // a tie: to even
  EXPECT_EQ(bf16(1.01171875F), 0x3F82);
  EXPECT_EQ(bf16(3.4e38F), 0x7F80);
  EXPECT_TRUE((f16(NAN) & 0x7C00) == 0x7C00 && (f16(NAN) & 0x3FF) != 0);
  EXPECT_TRUE((bf16(NAN) & 0x7F80) == 0x7F80 && (bf16(NAN) & 0x7F) != 0);
}

TEST(SafetensorsWriter, RefusesWhatHalfPrecisionCannotHold) {
  TinyModel tiny;
  model::Model model = tiny.build();
  model.final_norm.weight[2] = 70000.0F;
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { model::write_unified(model, folder.path(), model::DType::f16); }),
              HasSubstr("model.norm.weight"));
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors"));
  EXPECT_NO_THROW(model::write_unified(model, folder.path(), model::DType::bf16));
}

TEST(Export, ConvertsEveryLayoutToTheSameModel) {
  using namespace model::fixtures;
  const TemporaryFolder folder;
  write(folder / "tiny.gguf", gguf(tiny_gguf()));
  const model::Model source = model::load_model(folder / "tiny.gguf");
  std::filesystem::create_directories(folder / "unified");
  model::write_unified(source, folder / "unified", model::DType::f32);
  expect_same_weights(model::load_model(folder / "unified"), source);
}

namespace {

std::vector<double> fake_log_probabilities(const model::Model& model, const model::Arithmetic& arithmetic) {
  std::vector<double> all;
  for (const auto& answer : run_sample(model, arithmetic, one_sample()[0]))
    all.push_back(answer.log_probability);
  return all;
}

}  // namespace

/// What stands in or beside blocks that are not dense: states, taps, factors, second embeddings, streams,
/// experts.
class ExportedFamily : public testing::TestWithParam<const char*> {
 protected:
  ExportedFamily() : source_(model::load_model(test::goldens() / "architectures" / GetParam())) {}

  std::vector<double> in_float(const model::Model& model) const {
    return fake_log_probabilities(model, *model::make_float_arithmetic(model, 64));
  }
  TemporaryFolder folder_;
  model::Model source_;
};

TEST_P(ExportedFamily, ConvertedComputesTheSameBits) {
  std::filesystem::create_directories(folder_ / "out");
  model::write_unified(source_, folder_ / "out", model::DType::f32);
  EXPECT_EQ(in_float(model::load_model(folder_ / "out")), in_float(source_));
}

TEST_P(ExportedFamily, WeightsAloneMayBeQuantized) {
  for (const CheckpointFormat format : {CheckpointFormat::packed, CheckpointFormat::mobilequant}) {
    QuantizeOptions options;
    options.scheme = parse_scheme("w4a16-sym");
    const QuantizedModel made = quantize(source_, {}, options);
    const FakeArithmetic fake(made.model(), made.qcfg, made.ranges, 64);
    const std::vector<double> want = fake_log_probabilities(made.model(), fake);
    EXPECT_NE(want, in_float(source_));
    const auto out = folder_ / name(format);
    prepare_checkpoint_folder(out, source_);
    write_checkpoint(out, made, {}, {{"method", "rtn"}}, format);
    const model::Model read = model::load_model(out);
    const Quantization q = load_quantization(read, {}, {});
    EXPECT_EQ(fake_log_probabilities(read, FakeArithmetic(read, q.qcfg, q.ranges, 64)), want);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ExportedFamily,
                         testing::Values("lfm2", "qwen3_next", "qwen3_5-nested", "falcon_h1",
                                         "granitemoehybrid", "gemma3n", "gemma4-ple", "gemma4-moe",
                                         "gemma4-nested", "gpt_oss", "qwen2_moe", "ernie4_5_moe", "minicpm3"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Export, AGgufsTokenizerComesAlong) {
  const auto vocabulary = test::goldens() / "tokenizers" / "ggml-vocab-gpt-2.gguf";
  model::Model model;
  model.path = vocabulary;
  model.format = "gguf";
  const TemporaryFolder folder;
  EXPECT_TRUE(model::copy_tokenizer(model, folder.path()));
  EXPECT_EQ(model::load_tokenizer(folder.path())->hash(), model::load_tokenizer(vocabulary)->hash());
}

// The exported config.json is our own: what the source's said of the tokenizer must not be lost.
TEST(Export, AFoldersTokenizerIsReadAsBefore) {
  const TemporaryFolder source, folder;
  std::filesystem::copy(test::goldens() / "models/stories260K/tokenizer.model", source.path());
  source.write("config.json", R"({"model_type": "llama", "tokenizer_class": "LlamaTokenizer"})");
  model::Model model;
  model.path = source.path();
  EXPECT_TRUE(model::copy_tokenizer(model, folder.path()));
  folder.write("config.json", R"({"model_type": "hfmodel"})");
  EXPECT_EQ(model::load_tokenizer(folder.path())->hash(), model::load_tokenizer(source.path())->hash());
}

}  // namespace
}  // namespace qeval::quant
