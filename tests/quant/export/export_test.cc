#include "quant/export/export.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "model/decoder.h"
#include "quant/arithmetic/prefix.h"
#include "quant/calibrate/calibration.h"
#include "quant/export/point_codes.h"
#include "quant/export/weight_codes.h"
#include "tests/model/fixtures.h"
#include "tests/quant/block_forms.h"
#include "tests/quant/onnx_interpreter.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::fixtures::error_of;
using test::TemporaryFolder;
using test::TinyModel;
using test::tokens;
using testing::HasSubstr;

/// What the decoder gives for the ids: logits [ids, vocabulary].
std::vector<float> sequence_logits(const model::Model& model, const model::Arithmetic& arithmetic,
                                   const std::vector<int32_t>& ids) {
  model::Decoder decoder(model, arithmetic);
  const auto length = std::ssize(ids);
  model::KvSpan span(arithmetic, length, model.config.num_layers);
  model::Batch batch{.tokens = ids, .positions = {}, .segments = {{.length = length, .kv = &span}}};
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < length; ++i) {
    batch.positions.push_back(static_cast<int32_t>(i));
    rows.push_back(i);
  }
  decoder.forward(batch);
  return decoder.logits(rows);
}

test::OnnxTensor as_input(const std::vector<int32_t>& ids) {
  test::OnnxTensor out{{1, std::ssize(ids)}, {}};
  for (const int32_t id : ids) out.values.push_back(static_cast<float>(id));
  return out;
}

Quantization quantization(const model::Model& model, const QuantConfig& qcfg) {
  Quantization q;
  q.qcfg = qcfg;
  q.known_ranges = calibrate(model, {tokens(30), tokens(30, 17)}, qcfg, {}).ranges;
  q.ranges = complete_ranges(qcfg, q.known_ranges, model.config, "test");
  q.hash = "hash";
  return q;
}

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(std::abs(a[i] - b[i]));
  return sum / static_cast<double>(a.size());
}

/// Between the exported graph, run by the interpreter, and our own arithmetic: mean over the logits of `ids`.
double difference_of_export(const model::Model& model, const Quantization& q,
                            const std::filesystem::path& folder, const std::vector<int32_t>& ids) {
  export_onnx(model, q, 64, "0", folder);
  auto tensors = test::run_onnx(test::read_onnx(folder / kOnnxFile), folder, {{"input_ids", as_input(ids)}});
  const auto fake = make_fake_arithmetic(model, q, 64);
  return mean_difference(tensors["logits"].values, sequence_logits(model, *fake, ids));
}

using Case = test::FormCase;

class ExportedGraph : public testing::TestWithParam<Case> {};

/// The graph, computed by ONNX's definitions, gives the simulation's logits: every projection, point and
/// constant is where it belongs. (One on a grid's other side would show at 1e-2 and above.)
TEST_P(ExportedGraph, ComputesWhatTheSimulationDoes) {
  TinyModel tiny;
  GetParam().change(tiny.config);
  const model::Model model = tiny.build();
  const Quantization q = quantization(model, make_qcfg(model.config, parse_scheme(GetParam().scheme)));
  const TemporaryFolder folder;
  const ExportSummary summary = export_onnx(model, q, 64, "0", folder.path());
  const onnx::ModelProto proto = test::read_onnx(folder / kOnnxFile);
  EXPECT_EQ(summary.nodes, proto.graph().node_size());

  const std::vector<int32_t> ids = tokens(25, 9);
  auto tensors = test::run_onnx(proto, folder.path(), {{"input_ids", as_input(ids)}});
  EXPECT_THAT(tensors["logits"].dims, testing::ElementsAre(1, 25, 61));
  const FakeArithmetic fake(model, q.qcfg, q.ranges, 64);
  const std::vector<float> ours = sequence_logits(model, fake, ids);
  EXPECT_LT(mean_difference(tensors["logits"].values, ours), 1e-4);
  // And quantization is not lost in the comparison.
  const auto exact = model::make_float_arithmetic(model, 64);
  EXPECT_GT(mean_difference(sequence_logits(model, *exact, ids), ours), 1e-2);
}

/// Beside the encodings stands the float model, in which every encoding finds its tensor.
TEST_P(ExportedGraph, FloatGraphHasATensorForEveryEncoding) {
  TinyModel tiny;
  GetParam().change(tiny.config);
  tiny.config.l2norm_as_rmsnorm = true;
  const model::Model model = tiny.build();
  const Quantization q = quantization(model, make_qcfg(model.config, parse_scheme(GetParam().scheme)));
  const TemporaryFolder folder;
  export_encodings(model, q, 64, "0", folder.path());
  const std::vector<int32_t> ids = tokens(25, 9);
  const auto tensors =
      test::run_onnx(test::read_onnx(folder / kOnnxFile), folder.path(), {{"input_ids", as_input(ids)}});
  // Quantized, the tanh form may be the erf form.
  if (model.config.activation != model::Activation::gelu_tanh || !rounded_gelu_is_erf(model.config)) {
    const auto exact = model::make_float_arithmetic(model, 64);
    EXPECT_LT(mean_difference(tensors.at("logits").values, sequence_logits(model, *exact, ids)), 1e-4);
  }
  const auto encodings = nlohmann::json::parse(read_file(folder / kEncodingsFile));
  std::set<std::string> expected;
  for (const Point& point : all_points(model.config)) {
    if (q.qcfg[point].enabled()) expected.insert(point_name(point));
  }
  std::set<std::string> found;
  for (const char* kind : {"activation_encodings", "param_encodings"}) {
    for (const auto& [name, list] : encodings.at(kind).items()) {
      found.insert(name);
      EXPECT_TRUE(tensors.contains(name)) << name;
    }
  }
  EXPECT_EQ(found, expected);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ExportedGraph,
                         testing::Values(Case{"llama", [](model::ModelConfig&) {}, "w8a8"},
                                         Case{"gemma",
                                              [](model::ModelConfig& c) {
                                                c.architecture = "gemma";
                                                c.num_kv_heads = 1;
                                                c.activation = model::Activation::gelu_tanh;
                                                c.scale_embedding = true;
                                                c.rotary.dim = 10;
                                              },
                                              "w4a8"},
                                         Case{"stablelm",
                                              [](model::ModelConfig& c) {
                                                c.num_kv_heads = 4;
                                                c.norm = model::NormKind::layer;
                                                c.qkv_bias = c.o_bias = c.mlp_bias = true;
                                              },
                                              "w4a8-sym"},
                                         Case{"wide", [](model::ModelConfig&) {}, "w8a16"}),
                         [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(Forms, ExportedGraph, testing::ValuesIn(test::block_forms()),
                         [](const auto& tested) { return tested.param.name; });

/// Rows at position 0 take the other of two grids, in the graph as in the simulation.
TEST(Export, AFirstTokenApartHasGridsByPosition) {
  for (const bool rotated : {false, true}) {
    TinyModel tiny;
    if (rotated) tiny.config.rotation = model::Rotation{.down_block = 40, .query_key_block = 2};
    const model::Model model = tiny.build();
    Quantization q = quantization(model, make_qcfg(model.config, parse_scheme("w8a8")));
    const Calibration apart =
        calibrate(model, {tokens(30), tokens(30, 17)}, q.qcfg, {.first_token_apart = true});
    q.ranges = complete_ranges(q.qcfg, apart.ranges, model.config, "test");
    q.first = FirstToken{apart.first->qcfg,
                         complete_ranges(apart.first->qcfg, apart.first->ranges, model.config, "test")};
    const TemporaryFolder folder;
    EXPECT_LT(difference_of_export(model, q, folder.path(), tokens(25, 9)), 1e-4);
    EXPECT_THAT(error_of([&] { export_encodings(model, q, 64, "0", folder.path()); }),
                HasSubstr("position 0"));
  }
}

/// Constants at position 0 are constants of the graph.
TEST(Export, APrefixIsAConstant) {
  for (const bool rotated : {false, true}) {
    TinyModel tiny;
    if (rotated) tiny.config.rotation = model::Rotation{.down_block = 40, .query_key_block = 2};
    const model::Model model = tiny.build();
    Quantization q = quantization(model, make_qcfg(model.config, parse_scheme("w8a8")));
    const std::vector<int32_t> ids = tokens(25, 9);
    q.prefix = make_prefix(model, ids.front());
    q.first = prefix_grids(*q.prefix, q.qcfg, model.config);
    const TemporaryFolder folder;
    EXPECT_LT(difference_of_export(model, q, folder.path(), ids), 1e-4);
    EXPECT_THAT(error_of([&] { export_encodings(model, q, 64, "0", folder.path()); }),
                HasSubstr("keys and values of its own"));
  }
}

/// A table that depends on a sequence's length has a form as long as no sequence is that long.
TEST(Export, RotaryTablesOfLongSequencesAreRefused) {
  TinyModel tiny;
  tiny.config.rotary.scaling = {.kind = model::RopeScaling::Kind::dynamic,
                                .factor = 4,
                                .original_max_position_embeddings = 64,
                                .long_factors = {},
                                .short_factors = {}};
  const model::Model model = tiny.build();
  const Quantization q = quantization(model, make_qcfg(model.config, parse_scheme("w8a8")));
  const TemporaryFolder folder;
  EXPECT_LT(difference_of_export(model, q, folder.path(), tokens(25, 9)), 1e-4);
  const std::string message = error_of([&] { export_onnx(model, q, 65, "0", folder.path()); });
  EXPECT_THAT(message, HasSubstr("rotary embedding"));
  EXPECT_THAT(message, HasSubstr("64 or less"));
}

TEST(Export, OperationsWithoutAFormAreRefusedByName) {
  const TemporaryFolder folder;
  const auto refusal = [&](const model::ModelConfig& config) {
    model::Model model;
    model.config = config;
    model.config.graph = model::make_graph(config);
    Quantization q;
    q.qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
    return error_of([&] { export_onnx(model, q, 64, "0", folder.path()); });
  };
  model::ModelConfig xielu = TinyModel().config, latent = xielu;
  xielu.activation = model::Activation::xielu;
  EXPECT_THAT(refusal(xielu), HasSubstr("export has no xIELU"));
  latent.latent = model::LatentAttention{.q_rank = 8, .kv_rank = 8, .nope = 4, .rope = 6, .value_dim = 10};
  EXPECT_THAT(refusal(latent), HasSubstr("export has no latent attention"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Export, WeightsInGroupsAreBlocks) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  Scheme scheme = parse_scheme("w4a16");
  scheme.weight.group_size = 8;
  const Quantization q = quantization(model, make_qcfg(model.config, scheme));
  const TemporaryFolder folder;
  EXPECT_LT(difference_of_export(model, q, folder.path(), tokens(12)), 1e-4);
  EXPECT_THAT(error_of([&] { export_encodings(model, q, 64, "0", folder.path()); }),
              HasSubstr("model.layers.0.self_attn.q_proj.weight"));
}

TEST(Export, PointsAfterThePointsAndTheTiedHeadAreComputed) {
  TinyModel tiny;
  tiny.config.tie_word_embeddings = true;
  model::Model model = tiny.build();
  model.head.weight = model.embedding;
  QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
  // Every point that may be on, so that each of the rarer ones shows.
  for (const Point& point : all_points(model.config)) {
    if (point.slot != Slot::weight && !qcfg[point].enabled()) qcfg[point] = {.bits = 8};
  }
  const Quantization q = quantization(model, qcfg);
  const TemporaryFolder folder;
  EXPECT_LT(difference_of_export(model, q, folder.path(), tokens(20)), 1e-3);
}

/// Probabilities whose range excludes 0: what is masked stays 0 all the same.
TEST(Export, MaskedProbabilitiesStayZeroWithoutAZeroOnTheGrid) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  QuantConfig qcfg = make_qcfg(model.config, parse_scheme("w8a8"));
  const Point point{0, Module::pv_product, Slot::input};
  qcfg[point].bits = 8;
  Quantization q = quantization(model, qcfg);
  q.ranges[point] = Range{0.2F, 0.7F};
  const TemporaryFolder folder;
  EXPECT_LT(difference_of_export(model, q, folder.path(), tokens(20)), 1e-3);
}

TEST(Export, DynamicRangesAreRefusedByName) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  Scheme scheme = parse_scheme("w8a8");
  scheme.dynamic_activations = true;
  const Quantization q = quantization(model, make_qcfg(model.config, scheme));
  const TemporaryFolder folder;
  const std::string message = error_of([&] { export_onnx(model, q, 64, "0", folder.path()); });
  EXPECT_THAT(message, HasSubstr("model.layers.0.input_layernorm.input"));
  EXPECT_THAT(message, HasSubstr("static"));
  EXPECT_FALSE(std::filesystem::exists(folder / kOnnxFile));
  EXPECT_FALSE(std::filesystem::exists(folder / kOnnxTensorFile));
}

/// ONNX's definition of the two operators, applied to the codes, is the simulation's rounding to the last
/// bit.
TEST(PointCodes, GiveTheSimulationsValuesBitForBit) {
  std::mt19937 random(3);
  const Range ranges[] = {{-1.5F, 2.25F},     {0, 6}, {0.4F, 3}, {-9, -2}, {100, 101},
                          {-0.001F, 0.0005F}, {5, 5}};
  int wide = 0, clipped = 0;
  for (const int bits : {2, 4, 8, 12, 16}) {
    for (const bool symmetric : {false, true}) {
      for (const Range range : ranges) {
        const QuantSpec spec{.bits = bits, .symmetric = symmetric};
        const Grid grid = make_grid(spec, range);
        PointCodes codes;
        try {
          codes = point_codes({}, spec, grid);
        } catch (const Error&) {  // as the next test says
          const int64_t lo = int64_t{grid.q_min} - grid.zero_point,
                        hi = int64_t{grid.q_max} - grid.zero_point;
          EXPECT_GT(std::max(std::abs(lo), std::abs(hi)), 65535);
          continue;
        }
        wide += bits <= 8 && (codes.type == onnx::TensorProto::UINT16);
        clipped += codes.clip.has_value();
        const bool is_signed =
            codes.type == onnx::TensorProto::INT8 || codes.type == onnx::TensorProto::INT16;
        const bool small = codes.type == onnx::TensorProto::INT8 || codes.type == onnx::TensorProto::UINT8;
        const float least = is_signed ? (small ? -128.0F : -32768.0F) : 0.0F;
        const float most = least + (small ? 255.0F : 65535.0F);
        EXPECT_GE(static_cast<float>(codes.zero_point), least);
        EXPECT_LE(static_cast<float>(codes.zero_point), most);
        std::vector<float> x{0, range.lo, range.hi, -1e30F, 1e30F};
        std::uniform_real_distribution<float> near(2 * range.lo - range.hi, 2 * range.hi - range.lo + 1e-3F);
        for (int i = 0; i < 2000; ++i) x.push_back(near(random));
        for (int i = -300; i < 300; ++i) x.push_back((static_cast<float>(i) + 0.5F) * grid.scale);
        for (const float value : x) {
          const float seen = codes.clip ? std::clamp(value, codes.clip->lo, codes.clip->hi) : value;
          const auto zero = static_cast<float>(codes.zero_point);
          const float code = std::clamp(std::nearbyint(seen / codes.scale) + zero, least, most);
          float expected = value;
          fake_quantize_row(spec, grid, &expected, 1);
          ASSERT_EQ((code - zero) * codes.scale, expected) << bits << symmetric << " at " << value;
        }
      }
    }
  }
  EXPECT_GT(wide, 0);
  EXPECT_GT(clipped, 0);
}

TEST(PointCodes, RefuseByNameWhatNoZeroPointReaches) {
  const QuantSpec spec{.bits = 16};
  const Point point{1, Module::down, Slot::input};
  const std::string message = error_of([&] { point_codes(point, spec, make_grid(spec, {100, 101})); });
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.w2.input"));
  EXPECT_THAT(message, HasSubstr("0"));
  EXPECT_THAT(message, HasSubstr("act_ranges"));
  const QuantSpec narrow{.bits = 8};
  EXPECT_FALSE(point_codes(point, narrow, make_grid(narrow, {0.5F, 3})).has_zero);
  EXPECT_TRUE(point_codes(point, narrow, make_grid(narrow, {-0.5F, 3})).has_zero);
}

/// Weights whose grids exclude 0 keep their values: the codes widen.
TEST(WeightCodes, KeepTheValuesOfEveryGrid) {
  const TemporaryFolder folder;
  std::mt19937 random(7);
  struct Shape {
    float lo, hi;
    QuantSpec spec;
    onnx::TensorProto::DataType type;
  };
  const Shape shapes[] = {
      {-1, 1, {.bits = 8}, onnx::TensorProto::INT8},
      {-1, 1, {.bits = 4, .symmetric = true, .per_channel = true}, onnx::TensorProto::INT8},
      {1, 3, {.bits = 8, .per_channel = true}, onnx::TensorProto::INT16},
      {1000, 1001, {.bits = 8}, onnx::TensorProto::INT32},
      {-1, 1, {.bits = 12}, onnx::TensorProto::INT16},
      {-1, 1, {.bits = 4, .group_size = 4}, onnx::TensorProto::INT8}};
  for (const Shape& shape : shapes) {
    std::uniform_real_distribution<float> uniform(shape.lo, shape.hi);
    std::vector<float> values(12 * 8);
    for (float& v : values) v = uniform(random);
    const model::Matrix matrix{.name = "w",
                               .rows = 12,
                               .cols = 8,
                               .stored = model::StoredWeight(
                                   model::DType::f32, 8, reinterpret_cast<const std::byte*>(values.data()))};
    const QuantizedMatrix quantized = quantize_matrix(matrix, shape.spec);
    TensorFile file(folder / "w.data");
    OnnxGraph graph(file);
    add_quantized_matrix(graph, "w", quantized);
    file.commit();
    const onnx::ModelProto proto = graph.take("w", "0");
    EXPECT_EQ(proto.graph().initializer(0).data_type(), shape.type);
    const auto tensors = test::run_onnx(proto, folder.path(), {});
    std::vector<float> expected(values.size());
    const model::WeightView weights = view(quantized);
    weights.decode(weights.context, {0, 12, 0, 8, expected.data(), 8});
    for (int64_t r = 0; r < 12; ++r) {
      for (int64_t c = 0; c < 8; ++c) {
        EXPECT_EQ(tensors.at("w").values[static_cast<size_t>(c * 12 + r)],
                  expected[static_cast<size_t>(r * 8 + c)]);
      }
    }
  }
}

/// min, max, offset and scale of an encoding say the same grid, the one that the simulation rounds to.
TEST(Encodings, SayTheSimulationsGrids) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const Quantization q = quantization(model, make_qcfg(model.config, parse_scheme("w4a8-sym")));
  const TemporaryFolder folder;
  export_encodings(model, q, 64, "0", folder.path());
  const auto json = nlohmann::json::parse(read_file(folder / kEncodingsFile));
  for (const Point& point : all_points(model.config)) {
    const QuantSpec& spec = q.qcfg[point];
    if (!spec.enabled() || point.slot == Slot::weight) continue;
    const auto& entry = json.at("activation_encodings").at(point_name(point)).at(0);
    const Range range = representable(make_grid(spec, q.ranges[point].value()));
    EXPECT_EQ(entry.at("bitwidth"), spec.bits);
    EXPECT_EQ(entry.at("is_symmetric"), spec.symmetric ? "True" : "False");
    EXPECT_FLOAT_EQ(entry.at("min").get<float>(), range.lo) << point_name(point);
    EXPECT_FLOAT_EQ(entry.at("max").get<float>(), range.hi) << point_name(point);
    EXPECT_FLOAT_EQ(entry.at("offset").get<float>() * entry.at("scale").get<float>(), range.lo);
  }
  // Symmetric 4-bit weights, per output channel: 16 codes from −8.
  const auto& weights = json.at("param_encodings").at("model.layers.1.mlp.w1.weight");
  EXPECT_EQ(std::ssize(weights), model.config.intermediate_size);
  EXPECT_EQ(weights.at(3).at("offset"), -8);
  EXPECT_EQ(weights.at(3).at("is_symmetric"), "True");
  EXPECT_FLOAT_EQ(weights.at(3).at("max").get<float>(), 7 * weights.at(3).at("scale").get<float>());
}

}  // namespace
}  // namespace qeval::quant
