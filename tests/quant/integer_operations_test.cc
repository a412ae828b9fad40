// Every operation of the integer-only arithmetic, fed the same input as the fake-quantized one.

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/decoder.h"
#include "quant/fake_arithmetic.h"
#include "quant/integer/integer_arithmetic.h"
#include "quant/integer/prepare.h"
#include "quant/integer/run/kernels.h"
#include "tests/quant/tiny_ranges.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::NormPoint;
using model::Projection;
using model::Tensor;

struct OperationCase {
  std::string name;
  std::string scheme;
  bool gelu_layer_norm = false;
  bool symmetric = false;
  bool probabilities_exclude_zero = false;
  bool coarse_updates = false;  ///< steps of o_proj and w2 that are 2^15 of the stream's
};

class IntegerOperations : public testing::TestWithParam<OperationCase> {
 protected:
  IntegerOperations() {
    tiny_.config.l2norm_as_rmsnorm = true;
    if (GetParam().gelu_layer_norm) {
      tiny_.config.norm = model::NormKind::layer;
      tiny_.config.activation = model::Activation::gelu_erf;
      tiny_.config.qkv_bias = true;
      tiny_.config.num_kv_heads = 4;
    }
    model_ = tiny_.build();
    qcfg_ = make_qcfg(model_.config, parse_scheme(GetParam().scheme));
    for (const Point& point : all_points(model_.config)) {
      if (point.slot != Slot::weight && GetParam().symmetric) qcfg_[point].symmetric = true;
    }
    ranges_ = tiny_ranges(model_.config);
    if (GetParam().probabilities_exclude_zero) {
      for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
        ranges_[{layer, Module::pv_product, Slot::input}] = Range{0.002F, 1};
      }
    }
    if (GetParam().coarse_updates) {
      for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
        for (const Module module : {Module::o, Module::down}) qcfg_[{layer, module, Slot::output}].bits = 2;
      }
    }
    fake_ = std::make_unique<FakeArithmetic>(model_, qcfg_,
                                             complete_ranges(qcfg_, ranges_, model_.config, "test"), 64);
    integer_ = std::make_unique<IntegerArithmetic>(model_, qcfg_, ranges_, 64);
  }

  PointGrid grid(int64_t layer, Module module, Slot slot) const {
    const Point point{layer, module, slot};
    return make_point_grid(qcfg_[point], ranges_[point].value());
  }
  StreamGrid stream_grid(int64_t layer, Module module) const {
    return {make_point_grid({.bits = 16}, ranges_[{layer, module, Slot::input}].value()), kStreamGuardBits};
  }

  /// Random numbers of a residual stream, on the codes of the norm that reads it: what lies between them is
  /// for the additions.
  Tensor random_stream(int64_t rows, int64_t cols, const StreamGrid& grid) {
    const Tensor codes = random_codes(rows, cols, grid.grid);
    Tensor stream;
    stream.resize(rows, cols, sizeof(int32_t));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const int32_t d = codes.row<int16_t>(0)[i] - grid.grid.codes.zero_point;
      stream.row<int32_t>(0)[i] = d * (1 << grid.guard_bits);
    }
    return stream;
  }

  static Tensor dequantized_stream(const Tensor& stream, const StreamGrid& grid) {
    Tensor values;
    values.resize(stream.rows, stream.cols, sizeof(float));
    for (int64_t i = 0; i < stream.rows * stream.cols; ++i) {
      values.row<float>(0)[i] = grid.value(stream.row<int32_t>(0)[i]);
    }
    return values;
  }

  /// What a norm reads of the stream.
  static Tensor stream_codes(const Tensor& stream, const StreamGrid& grid) {
    Tensor codes;
    codes.resize(stream.rows, stream.cols, sizeof(int16_t));
    for (int64_t i = 0; i < stream.rows * stream.cols; ++i) {
      codes.row<int16_t>(0)[i] = grid.grid.code(grid.value(stream.row<int32_t>(0)[i]));
    }
    return codes;
  }

  /// Random codes over most of the grid, and the extremes now and then.
  Tensor random_codes(int64_t rows, int64_t cols, const PointGrid& grid) {
    Tensor codes;
    codes.resize(rows, cols, sizeof(int16_t));
    std::uniform_int_distribution<int> any(grid.codes.lo, grid.codes.hi);
    std::uniform_int_distribution<int> rare(0, 30);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const int r = rare(random_);
      codes.row<int16_t>(0)[i] = static_cast<int16_t>(r == 0   ? grid.codes.lo
                                                      : r == 1 ? grid.codes.hi
                                                               : any(random_));
    }
    return codes;
  }

  static Tensor dequantized(const Tensor& codes, const PointGrid& grid) {
    Tensor values;
    values.resize(codes.rows, codes.cols, sizeof(float));
    for (int64_t i = 0; i < codes.rows * codes.cols; ++i) {
      values.row<float>(0)[i] = grid.value(codes.row<int16_t>(0)[i]);
    }
    return values;
  }

  /// The simulated values lie on the grid: their codes may differ by one.
  static void expect_one_step(const Tensor& codes, const Tensor& values, const PointGrid& grid,
                              const char* what) {
    ASSERT_EQ(codes.rows, values.rows);
    ASSERT_EQ(codes.cols, values.cols);
    int64_t different = 0;
    for (int64_t i = 0; i < codes.rows * codes.cols; ++i) {
      const int code = codes.row<int16_t>(0)[i];
      const int wanted = grid.code(values.row<float>(0)[i]);
      ASSERT_NEAR(code, wanted, 1) << what << " element " << i;
      different += static_cast<int64_t>(code != wanted);
    }
    // Rounding the same way but for near ties.
    EXPECT_LE(different, codes.rows * codes.cols / 20 + 2) << what;
  }

  test::TinyModel tiny_;
  model::Model model_;
  QuantConfig qcfg_;
  ActRanges ranges_;
  std::unique_ptr<FakeArithmetic> fake_;
  std::unique_ptr<IntegerArithmetic> integer_;
  std::mt19937 random_{17};
};

TEST_P(IntegerOperations, Norms) {
  for (const NormPoint point : {NormPoint::input, NormPoint::post_attention}) {
    const Module module = norm_module(point);
    const StreamGrid grid_in = stream_grid(1, module);
    Tensor x = random_stream(9, model_.config.hidden_size, grid_in);
    // Rows of the value 0 and one of a single large value.
    std::fill_n(x.row<int32_t>(3), 2 * x.cols, 0);
    *x.row<int32_t>(4) = grid_in.code(6);
    Tensor codes;
    Tensor values;
    integer_->norm(1, point, x, codes);
    fake_->norm(1, point, dequantized_stream(x, grid_in), values);
    expect_one_step(codes, values, grid(1, module, Slot::output), "norm");
  }
}

TEST_P(IntegerOperations, Projections) {
  struct Case {
    Projection projection;
    Module source;
    Slot slot;
  };
  for (const Case& c : {Case{Projection::q, Module::input_norm, Slot::output},
                        Case{Projection::k, Module::input_norm, Slot::output},
                        Case{Projection::v, Module::input_norm, Slot::output},
                        Case{Projection::o, Module::pv_product, Slot::output},
                        Case{Projection::gate, Module::post_attention_norm, Slot::output},
                        Case{Projection::up, Module::post_attention_norm, Slot::output},
                        Case{Projection::down, Module::down, Slot::input}}) {
    const PointGrid input = grid(1, c.source, c.slot);
    const int64_t cols = c.projection == Projection::down ? model_.config.intermediate_size
                         : c.projection == Projection::o  ? model_.config.num_heads * model_.config.head_dim
                                                          : model_.config.hidden_size;
    const Tensor x = random_codes(53, cols, input);
    Tensor codes;
    Tensor values;
    const model::Arithmetic::Target integer_target[] = {{c.projection, &codes}};
    const model::Arithmetic::Target fake_target[] = {{c.projection, &values}};
    integer_->linear(1, x, integer_target);
    fake_->linear(1, dequantized(x, input), fake_target);
    // v leaves on the grid of the mix.
    const PointGrid output = c.projection == Projection::v
                                 ? grid(1, Module::pv_product, Slot::input2)
                                 : grid(1, linear_module(c.projection), Slot::output);
    expect_one_step(codes, values, output, module_name(1, linear_module(c.projection)).c_str());
  }
}

TEST_P(IntegerOperations, Rotary) {
  const std::vector<int32_t> positions{0, 1, 17, 63};
  for (const Projection p : {Projection::q, Projection::k}) {
    const PointGrid input = grid(1, linear_module(p), Slot::output);
    const int64_t heads = p == Projection::q ? model_.config.num_heads : model_.config.num_kv_heads;
    Tensor codes = random_codes(4, heads * model_.config.head_dim, input);
    Tensor values = dequantized(codes, input);
    integer_->rotate(1, p, positions, codes);
    fake_->rotate(1, p, positions, values);
    expect_one_step(codes, values,
                    grid(1, Module::qk_product, p == Projection::q ? Slot::input : Slot::input2), "rotary");
  }
}

TEST_P(IntegerOperations, AdditionFeedsTheNextNorm) {
  struct Case {
    int64_t layer;
    Projection from;
    StreamGrid before, after;
  };
  const StreamGrid final_grid = stream_grid(0, Module::final_norm);
  for (const Case& c : {Case{0, Projection::o, stream_grid(0, Module::input_norm),
                             stream_grid(0, Module::post_attention_norm)},
                        Case{0, Projection::down, stream_grid(0, Module::post_attention_norm),
                             stream_grid(1, Module::input_norm)},
                        Case{1, Projection::down, stream_grid(1, Module::post_attention_norm), final_grid}}) {
    const PointGrid update = grid(c.layer, linear_module(c.from), Slot::output);
    Tensor stream = random_stream(5, model_.config.hidden_size, c.before);
    for (int64_t i = 0; i < stream.cols; ++i) stream.row<int32_t>(0)[i] += static_cast<int32_t>(13 * i);
    const Tensor x = random_codes(5, model_.config.hidden_size, update);
    Tensor values = dequantized_stream(stream, c.before);
    integer_->add(c.layer, c.from, x, stream);
    fake_->add(c.layer, c.from, dequantized(x, update), values);
    expect_one_step(stream_codes(stream, c.after), values, c.after.grid, "addition");
    // And closer than that: the roundings of many additions must not add up.
    for (int64_t i = 0; i < stream.rows * stream.cols; ++i) {
      ASSERT_NEAR(stream.row<int32_t>(0)[i], c.after.code(values.row<float>(0)[i]), 40) << i;
    }
  }
}

TEST_P(IntegerOperations, ActivationAndProduct) {
  const PointGrid gate = grid(1, Module::gate, Slot::output);
  const PointGrid activated = grid(1, Module::activation, Slot::output);
  const PointGrid up = grid(1, Module::up, Slot::output);
  Tensor codes = random_codes(30, model_.config.intermediate_size, gate);
  Tensor values = dequantized(codes, gate);
  integer_->activate(1, codes);
  fake_->activate(1, values);
  expect_one_step(codes, values, activated, "activation");
  const Tensor other = random_codes(30, model_.config.intermediate_size, up);
  values = dequantized(codes, activated);
  integer_->multiply(1, other, codes);
  fake_->multiply(1, dequantized(other, up), values);
  expect_one_step(codes, values, grid(1, Module::down, Slot::input), "product");
}

TEST_P(IntegerOperations, Attention) {
  const model::ModelConfig& c = model_.config;
  const int64_t keys = 33;
  const int64_t group = c.num_heads / c.num_kv_heads;
  const PointGrid q_grid = grid(1, Module::qk_product, Slot::input);
  const PointGrid k_grid = grid(1, Module::qk_product, Slot::input2);
  const PointGrid v_grid = grid(1, Module::pv_product, Slot::input2);
  const PointGrid score_grid = grid(1, Module::qk_product, Slot::output);
  const PointGrid p_grid = grid(1, Module::pv_product, Slot::input);
  const Tensor q = random_codes(keys, c.num_heads * c.head_dim, q_grid);
  const Tensor k = random_codes(keys, c.num_kv_heads * c.head_dim, k_grid);
  const Tensor v = random_codes(keys, c.num_kv_heads * c.head_dim, v_grid);
  const Tensor q_values = dequantized(q, q_grid);
  model::KvSpan integer_kv(*integer_, keys + 2, 1);
  model::KvSpan fake_kv(*fake_, keys + 2, 1);
  integer_->store_kv(1, k, v, 0, keys, integer_kv.block(1), 0);
  fake_->store_kv(1, dequantized(k, k_grid), dequantized(v, v_grid), 0, keys, fake_kv.block(1), 0);
  const model::KvPiece integer_path[] = {integer_kv.piece(1, keys)};
  const model::KvPiece fake_path[] = {fake_kv.piece(1, keys)};
  AlignedBuffer scores, scratch, fake_scores, fake_scratch;
  const auto tile = [&](std::span<const model::KvPiece> path, AlignedBuffer& s, AlignedBuffer& t) {
    return model::AttentionTile{.layer = 1,
                                .kv_head = 1,
                                .first_row = 20,
                                .query_count = 13,
                                .first_position = 20,
                                .key_count = keys,
                                .path = path,
                                .scores = s,
                                .scratch = t};
  };
  const auto integer_tile = tile(integer_path, scores, scratch);
  const auto fake_tile = tile(fake_path, fake_scores, fake_scratch);
  integer_->scores(integer_tile, q);
  fake_->scores(fake_tile, q_values);
  for (int64_t r = 0; r < 13 * group; ++r) {
    for (int64_t j = 0; j <= 20 + r / group; ++j) {
      ASSERT_NEAR(scores.as<int16_t>()[r * keys + j], score_grid.code(fake_scores.as<float>()[r * keys + j]),
                  1)
          << "score " << r << "," << j;
      // The same scores for the softmax.
      fake_scores.as<float>()[r * keys + j] = score_grid.value(scores.as<int16_t>()[r * keys + j]);
    }
  }
  integer_->softmax(integer_tile);
  fake_->softmax(fake_tile);
  for (int64_t r = 0; r < 13 * group; ++r) {
    for (int64_t j = 0; j < keys; ++j) {
      const int16_t code = scores.as<int16_t>()[r * keys + j];
      float& fake = fake_scores.as<float>()[r * keys + j];
      if (j > 20 + r / group) {
        // Hidden: a probability of 0, or where no code says that, the code 0.
        ASSERT_EQ(code, std::abs(p_grid.codes.zero_point) > 32768 ? 0 : p_grid.codes.zero_point);
        ASSERT_EQ(fake, 0);
        continue;
      }
      ASSERT_NEAR(code, p_grid.code(fake), 1) << "probability " << r << "," << j;
      fake = p_grid.value(code);
    }
  }
  Tensor mixed;
  Tensor mixed_values;
  integer_->shape_mixed(keys, mixed);
  fake_->shape_mixed(keys, mixed_values);
  integer_->mix(integer_tile, mixed);
  fake_->mix(fake_tile, mixed_values);
  const PointGrid output = grid(1, Module::pv_product, Slot::output);
  for (int64_t i = 20; i < 33; ++i) {
    for (int64_t j = group * c.head_dim; j < 2 * group * c.head_dim; ++j) {
      ASSERT_NEAR(mixed.row<int16_t>(i)[j], output.code(mixed_values.row<float>(i)[j]), 1) << "mix " << i;
    }
  }
}

TEST_P(IntegerOperations, FinalNormAndHeadWithinTheirSixteenAndEightBits) {
  const StreamGrid stream = stream_grid(0, Module::final_norm);
  const Tensor x = random_stream(6, model_.config.hidden_size, stream);
  Tensor codes;
  Tensor values;
  integer_->norm(0, NormPoint::final, x, codes);
  fake_->norm(0, NormPoint::final, dequantized_stream(x, stream), values);
  const int64_t vocabulary = model_.config.vocab_size;
  std::vector<float> got(static_cast<size_t>(6 * vocabulary));
  std::vector<float> want(got.size());
  integer_->logits(codes, 0, vocabulary, got.data());
  fake_->logits(values, 0, vocabulary, want.data());
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(static_cast<double>(got[i] - want[i]), 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  // Weights of 8 bits per channel: a relative error of about 1/127/√12 · (largest over typical weight).
  EXPECT_LT(std::sqrt(error / size), 0.01);
}

/// One path cut into pieces, batches of other sizes: the same bits.
TEST_P(IntegerOperations, LogitsDoNotDependOnBatchOrPieces) {
  const int32_t length = 45;
  model::Batch whole;
  for (int32_t i = 0; i < length; ++i) {
    whole.tokens.push_back(i * 7 % 61);
    whole.positions.push_back(i);
  }
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < length; ++i) rows.push_back(i);
  model::Decoder decoder(model_, *integer_);
  model::KvSpan span(*integer_, length, model_.config.num_layers);
  whole.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &span});
  decoder.forward(whole);
  const std::vector<float> want = decoder.logits(rows);

  std::vector<std::unique_ptr<model::KvSpan>> spans;
  std::vector<model::Segment::Ancestor> ancestors;
  std::vector<float> got;
  int32_t first = 0;
  for (const int32_t count : {1, 2, 15, 17, 3, 7}) {
    model::Batch part;
    spans.push_back(std::make_unique<model::KvSpan>(*integer_, count + 1, model_.config.num_layers));
    for (int32_t i = first; i < first + count; ++i) {
      part.tokens.push_back(whole.tokens[static_cast<size_t>(i)]);
      part.positions.push_back(i);
    }
    part.segments.push_back({.first_row = 0,
                             .length = count,
                             .first_position = first,
                             .kv = spans.back().get(),
                             .kv_at = 0,
                             .ancestors = ancestors});
    decoder.forward(part);
    const std::vector<float> logits = decoder.logits({rows.data(), static_cast<size_t>(count)});
    got.insert(got.end(), logits.begin(), logits.end());
    ancestors.push_back({spans.back().get(), count});
    first += count;
  }
  ASSERT_EQ(got.size(), want.size());
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, IntegerOperations,
    testing::Values(OperationCase{"w8a8", "w8a8"}, OperationCase{"w4a8", "w4a8"},
                    OperationCase{"w8a16", "w8a16"}, OperationCase{"w8a8_symmetric", "w8a8", false, true},
                    OperationCase{"w8a8_no_zero", "w8a8", false, false, true},
                    OperationCase{"w8a8_coarse_updates", "w8a8", false, false, false, true},
                    OperationCase{"w4a8_gelu_layer_norm", "w4a8-sym", true},
                    OperationCase{"w8a16_gelu_layer_norm", "w8a16", true}),
    [](const auto& test) { return test.param.name; });

/// Weights like a model's: normally distributed, with a few far out.
void make_normal(std::vector<float>& weights, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 0.02F);
  for (float& w : weights) w = normal(random) * (random() % 2000 == 0 ? 4.0F : 1.0F);
}

TEST(IntegerMemory, WeightsTakeAQuarterAndAnEighthOfFloat) {
  std::mt19937 random(23);
  const int64_t rows = 320, cols = 576;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  make_normal(values, random);
  model::LinearWeights weights;
  weights.weight = {.name = "weight",
                    .dtype = model::DType::f32,
                    .rows = rows,
                    .cols = cols,
                    .data = reinterpret_cast<const std::byte*>(values.data()),
                    .row_bytes = cols * 4};
  const PointGrid input = make_point_grid({.bits = 8}, {-3, 4});
  const PointGrid output = make_point_grid({.bits = 8}, {-5, 4});
  const auto share = [&](const QuantSpec& spec) {
    const IntegerMatrix matrix = prepare_linear(weights, spec, input, output);
    // Eight bits per channel have too few small codes here for groups: those stay pairs.
    const PanelLayout quads = integer_kernels().quad_layout;
    EXPECT_EQ(matrix.layout, quads == PanelLayout::grouped_quads && spec.bits == 8 && spec.per_channel
                                 ? PanelLayout::pairs
                                 : quads);
    return static_cast<double>(matrix.byte_count()) / static_cast<double>(rows * cols * 4);
  };
  EXPECT_LE(share({.bits = 8}), 0.25 * 1.1);
  EXPECT_LE(share({.bits = 8, .per_channel = true}), 0.25 * 1.1);
  EXPECT_LE(share({.bits = 4, .per_channel = true}), 0.125 * 1.1);
  EXPECT_LE(share({.bits = 4, .symmetric = true, .per_channel = true}), 0.125 * 1.1);
}

}  // namespace
}  // namespace qeval::quant
