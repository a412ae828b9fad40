// Every operation of the integers, fed the same input as the fake-quantized one, in every form of block.
#include "quant/arithmetic/integer/integer_arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "model/decoder.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/integer/model_grids.h"
#include "tests/quant/integer_forms.h"
#include "tests/quant/tiny_ranges.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::BlockForm;
using model::ModelConfig;
using model::NormKind;
using model::QkNorm;
using model::Tensor;

constexpr int64_t kPositions = 160;

struct OperationCase {
  std::string name;
  std::string scheme;
  void (*form)(ModelConfig&) = [](ModelConfig&) {};
  bool symmetric = false;
  bool probabilities_exclude_zero = false;
  bool coarse_updates = false;  ///< steps of o_proj and w2 that are 2^15 of the stream's
  bool own_ranges = false;      ///< several readers of the residual stream, each with a range of its own
};

class IntegerOperations : public testing::TestWithParam<OperationCase> {
 protected:
  IntegerOperations() {
    tiny_.config.l2norm_as_rmsnorm = true;
    GetParam().form(tiny_.config);
    model_ = tiny_.build();
    for (model::LayerWeights& layer : model_.layers) {
      if (model_.config.activation == model::Activation::xielu) layer.xielu = {0.3F, -0.2F, 0.5F, -1e-6F};
    }
    qcfg_ = make_qcfg(model_.config, parse_scheme(GetParam().scheme));
    ranges_ = tiny_ranges(model_.config);
    for (const Point& point : all_points(model_.config)) {
      if (point.slot != Slot::weight && GetParam().symmetric) qcfg_[point].symmetric = true;
    }
    for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
      if (GetParam().probabilities_exclude_zero) {
        ranges_[{layer, Module::pv_product, Slot::input}] = Range{0.002F, 1};
      }
      for (const Module module : {Module::o, Module::down}) {
        if (GetParam().coarse_updates) qcfg_[{layer, module, Slot::output}].bits = 2;
      }
      for (const Module module : {Module::post_attention_norm, Module::k, Module::up}) {
        if (GetParam().own_ranges) ranges_[{layer, module, Slot::input}] = Range{-5, 9};
      }
    }
    fake_ = std::make_unique<FakeArithmetic>(
        model_, qcfg_, complete_ranges(qcfg_, ranges_, model_.config, "test"), kPositions);
    integer_ = std::make_unique<IntegerArithmetic>(model_, qcfg_, ranges_, kPositions);
  }

  static constexpr int64_t kLayer = 1;
  const LayerGrids& grids(int64_t layer = kLayer) const {
    return integer_->grids().layers[static_cast<size_t>(layer)];
  }
  /// Calls body(op) for the operations of type Op of a block.
  template <typename Op, typename Body>
  void for_each(const Body& body, int64_t layer = kLayer) const {
    for (const model::Operation& operation : model_.config.graph.block(layer).operations) {
      if (const Op* op = std::get_if<Op>(&operation)) body(*op);
    }
  }

  /// Random numbers of a residual stream, on the codes of its grid: what lies between them is for the
  /// additions.
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

  /// An input that an operation reads, as the integers and as the simulation have it.
  struct Input {
    Tensor codes, values;
  };
  Input random_input(int64_t rows, int64_t cols, const OperationGrids& grids) {
    Input input;
    if (grids.stream) {
      input.codes = random_stream(rows, cols, *grids.stream);
      input.values = dequantized_stream(input.codes, *grids.stream);
    } else {
      input.codes = random_codes(rows, cols, grids.in);
      input.values = dequantized(input.codes, grids.in);
    }
    return input;
  }

  /// The simulated values lie on the grid: their codes may differ by one.
  static void expect_one_step(const Tensor& codes, const Tensor& values, const PointGrid& grid,
                              const std::string& what) {
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

TEST_P(IntegerOperations, EmbeddingIsOnTheFirstReadersGrid) {
  const std::vector<int32_t> tokens{3, 0, 60, 17};
  const std::vector<int32_t> positions{0, 1, 2, 9};
  Tensor stream;
  Tensor values;
  integer_->embed(tokens, {positions}, stream);
  fake_->embed(tokens, {positions}, values);
  const StreamGrid& grid = integer_->grids().embedded;
  expect_one_step(stream_codes(stream, grid), values, grid.grid, "embedding");
}

TEST_P(IntegerOperations, Norms) {
  int64_t norms = 0;
  for_each<model::NormOp>([&](const model::NormOp& op) {
    const OperationGrids& grid = grids().modules.at(op.module);
    Input x = random_input(9, op.width, grid);
    if (grid.stream && grid.stream_is_own) {
      // Rows of the value 0 and one of a single large value.
      std::fill_n(x.codes.row<int32_t>(3), 2 * op.width, 0);
      *x.codes.row<int32_t>(4) = grid.stream->code(6);
      x.values = dequantized_stream(x.codes, *grid.stream);
    }
    Tensor codes;
    Tensor values;
    integer_->norm(kLayer, op, x.codes, codes);
    fake_->norm(kLayer, op, x.values, values);
    expect_one_step(codes, values, grid.out, module_name(kLayer, op.module));
    ++norms;
    if (op.in != op.out) return;
    // As the decoder calls it: the result takes the input's place.
    integer_->norm(kLayer, op, x.codes, x.codes);
    EXPECT_TRUE(std::equal(codes.row<int16_t>(0), codes.row<int16_t>(9), x.codes.row<int16_t>(0)));
  });
  EXPECT_GE(norms, 1);
}

TEST_P(IntegerOperations, LinearMaps) {
  for_each<model::LinearOp>([&](const model::LinearOp& op) {
    const OperationGrids& grid = grids().modules.at(op.module);
    const Input x = random_input(53, op.cols, grid);
    Tensor codes;
    Tensor values;
    const model::Arithmetic::Target integer_target[] = {{&op, &codes}};
    const model::Arithmetic::Target fake_target[] = {{&op, &values}};
    integer_->linear(kLayer, x.codes, integer_target);
    fake_->linear(kLayer, x.values, fake_target);
    expect_one_step(codes, values, grid.out, module_name(kLayer, op.module));
  });
}

/// Maps of one input together: what each reads of it is its own.
TEST_P(IntegerOperations, LinearMapsOfOneInputDoNotDisturbEachOther) {
  std::vector<const model::LinearOp*> maps;
  for_each<model::LinearOp>([&](const model::LinearOp& op) {
    if (maps.empty() || maps.front()->in == op.in) maps.push_back(&op);
  });
  ASSERT_GE(maps.size(), 3U);
  const Input x = random_input(7, maps.front()->cols, grids().modules.at(maps.front()->module));
  std::vector<Tensor> together(maps.size());
  std::vector<model::Arithmetic::Target> targets;
  for (size_t i = 0; i < maps.size(); ++i) targets.push_back({maps[i], &together[i]});
  integer_->linear(kLayer, x.codes, targets);
  for (size_t i = 0; i < maps.size(); ++i) {
    Tensor alone;
    const model::Arithmetic::Target target[] = {{maps[i], &alone}};
    integer_->linear(kLayer, x.codes, target);
    EXPECT_TRUE(
        std::equal(alone.row<int16_t>(0), alone.row<int16_t>(alone.rows), together[i].row<int16_t>(0)))
        << module_name(kLayer, maps[i]->module);
  }
}

TEST_P(IntegerOperations, Rotary) {
  const std::vector<int32_t> positions{0, 1, 17, 63};
  // Of two lengths, one of them beyond what scalings call the original.
  const std::vector<int32_t> lengths{20, 150, 20, 150};
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
    for_each<model::RotateOp>(
        [&](const model::RotateOp& op) {
          const OperationGrids& grid = grids(layer).rotations.at(op.value);
          Tensor codes = random_codes(4, op.width, grid.in);
          Tensor values = dequantized(codes, grid.in);
          const model::RowPositions rows{positions, lengths};
          integer_->rotate(layer, op, rows, codes);
          fake_->rotate(layer, op, rows, values);
          expect_one_step(codes, values, grid.out, "rotary");
        },
        layer);
  }
}

TEST_P(IntegerOperations, AdditionFeedsTheNextReader) {
  for (int64_t layer = 0; layer < model_.config.num_layers; ++layer) {
    for_each<model::AddOp>(
        [&](const model::AddOp& op) {
          const AddGrids& grid = grids(layer).adds.at(op.module);
          Tensor stream = random_stream(5, model_.config.hidden_size, grid.stream);
          for (int64_t i = 0; i < stream.cols; ++i) stream.row<int32_t>(0)[i] += static_cast<int32_t>(13 * i);
          const Tensor x = random_codes(5, model_.config.hidden_size, grid.update);
          Tensor values = dequantized_stream(stream, grid.stream);
          integer_->add(layer, op, x, stream);
          fake_->add(layer, op, dequantized(x, grid.update), values);
          expect_one_step(stream_codes(stream, grid.next), values, grid.next.grid, "addition");
          // And closer than that: the roundings of many additions must not add up.
          for (int64_t i = 0; i < stream.rows * stream.cols; ++i) {
            ASSERT_NEAR(stream.row<int32_t>(0)[i], grid.next.code(values.row<float>(0)[i]), 40) << i;
          }
        },
        layer);
  }
}

TEST_P(IntegerOperations, ActivationAndProduct) {
  const int64_t width = model_.config.intermediate_size;
  for_each<model::ActivateOp>([&](const model::ActivateOp& op) {
    Input x = random_input(30, width, grids().activations.at(Module::activation));
    integer_->activate(kLayer, op, x.codes);
    fake_->activate(kLayer, op, x.values);
    expect_one_step(x.codes, x.values, grids().activations.at(Module::activation).out, "activation");
  });
  for_each<model::MultiplyOp>([&](const model::MultiplyOp& op) {
    const ProductGrids& grid = grids().products.at(Module::down);
    Tensor codes = random_codes(30, width, grid.gate);
    const Tensor up = random_codes(30, width, grid.up);
    Tensor values = dequantized(codes, grid.gate);
    integer_->multiply(kLayer, op, up, codes);
    fake_->multiply(kLayer, op, dequantized(up, grid.up), values);
    expect_one_step(codes, values, grid.out, "product");
  });
}

TEST_P(IntegerOperations, Attention) {
  const model::AttentionOp& op = model_.config.graph.block(kLayer).attention();
  const AttentionGrids& grid = grids().attention;
  const int64_t keys = 33;
  const int64_t group = op.group();
  const Tensor q = random_codes(keys, op.heads * op.head_dim, grid.q);
  const Tensor k = random_codes(keys, op.kv_heads * op.head_dim, grid.k);
  const Tensor v = random_codes(keys, op.kv_heads * op.value_dim, grid.v);
  const Tensor q_values = dequantized(q, grid.q);
  model::KvSpan integer_kv(*integer_, keys + 2, 1);
  model::KvSpan fake_kv(*fake_, keys + 2, 1);
  integer_->store_kv(kLayer, k, v, 0, keys, integer_kv.block(kLayer), 0);
  fake_->store_kv(kLayer, dequantized(k, grid.k), dequantized(v, grid.v), 0, keys, fake_kv.block(kLayer), 0);
  const model::KvPiece integer_path[] = {integer_kv.piece(kLayer, keys)};
  const model::KvPiece fake_path[] = {fake_kv.piece(kLayer, keys)};
  AlignedBuffer scores, scratch, fake_scores, fake_scratch;
  const auto tile = [&](std::span<const model::KvPiece> path, AlignedBuffer& s, AlignedBuffer& t) {
    return model::AttentionTile{.layer = kLayer,
                                .op = &op,
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
  const auto sees = [&](int64_t r, int64_t j) {
    return j >= integer_tile.begin(r / group) && j < integer_tile.end(r / group);
  };
  integer_->scores(integer_tile, q);
  fake_->scores(fake_tile, q_values);
  for (int64_t r = 0; r < 13 * group; ++r) {
    for (int64_t j = 0; j < keys; ++j) {
      if (!sees(r, j)) continue;
      const int16_t code = scores.as<int16_t>()[r * keys + j];
      float& fake = fake_scores.as<float>()[r * model::FloatArithmetic::score_stride(fake_tile) + j];
      ASSERT_NEAR(code, grid.scores.code(fake), 1) << "score " << r << "," << j;
      fake = grid.scores.value(code);  // the same scores for the softmax
    }
  }
  integer_->softmax(integer_tile);
  fake_->softmax(fake_tile);
  for (int64_t r = 0; r < 13 * group; ++r) {
    for (int64_t j = 0; j < keys; ++j) {
      const int16_t code = scores.as<int16_t>()[r * keys + j];
      float& fake = fake_scores.as<float>()[r * model::FloatArithmetic::score_stride(fake_tile) + j];
      if (!sees(r, j)) {
        // Hidden: a probability of 0, or where no code says that, the code 0.
        const int32_t zero = grid.probabilities.codes.zero_point;
        ASSERT_EQ(code, std::abs(zero) > 32768 ? 0 : zero);
        ASSERT_EQ(fake, 0);
        continue;
      }
      ASSERT_NEAR(code, grid.probabilities.code(fake), 1) << "probability " << r << "," << j;
      fake = grid.probabilities.value(code);
    }
  }
  Tensor mixed;
  Tensor mixed_values;
  integer_->shape_mixed(op, keys, mixed);
  fake_->shape_mixed(op, keys, mixed_values);
  integer_->mix(integer_tile, mixed);
  fake_->mix(fake_tile, mixed_values);
  for (int64_t i = 20; i < 33; ++i) {
    for (int64_t j = group * op.value_dim; j < 2 * group * op.value_dim; ++j) {
      ASSERT_NEAR(mixed.row<int16_t>(i)[j], grid.mixed.code(mixed_values.row<float>(i)[j]), 1) << "mix " << i;
    }
  }
}

TEST_P(IntegerOperations, FinalNormAndHeadWithinTheirSixteenAndEightBits) {
  const StreamGrid& stream = integer_->grids().stream;
  const Tensor x = random_stream(6, model_.config.hidden_size, stream);
  Tensor codes;
  Tensor values;
  integer_->finish(x, codes);
  fake_->finish(dequantized_stream(x, stream), values);
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

/// One path cut into pieces, batches of other sizes: the same bits. It is longer than what windows skip.
TEST_P(IntegerOperations, LogitsDoNotDependOnBatchOrPieces) {
  const int32_t length = 150;
  model::Batch whole;
  std::vector<int64_t> rows;
  for (int32_t i = 0; i < length; ++i) {
    whole.tokens.push_back(i * 7 % 61);
    whole.positions.push_back(i);
    whole.lengths.push_back(length);
    rows.push_back(i);
  }
  model::Decoder decoder(model_, *integer_);
  model::KvSpan span(*integer_, length, model_.config.num_layers);
  whole.segments.push_back({.first_row = 0, .length = length, .first_position = 0, .kv = &span});
  decoder.forward(whole);
  const std::vector<float> want = decoder.logits(rows);

  std::vector<std::unique_ptr<model::KvSpan>> spans;
  std::vector<model::Segment::Ancestor> ancestors;
  std::vector<float> got;
  int32_t first = 0;
  for (const int32_t count : {1, 2, 15, 17, 3, 7, 80, 25}) {
    model::Batch part;
    spans.push_back(std::make_unique<model::KvSpan>(*integer_, count + 1, model_.config.num_layers));
    for (int32_t i = first; i < first + count; ++i) {
      part.tokens.push_back(whole.tokens[static_cast<size_t>(i)]);
      part.positions.push_back(i);
      part.lengths.push_back(length);
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

void layer_norm_and_biases(ModelConfig& c) {
  c.architecture = "hfmodel";
  c.norm = NormKind::layer;
  c.activation = model::Activation::gelu_tanh;  // rounded in its erf form
  c.qkv_bias = true;
  c.num_kv_heads = 4;
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, IntegerOperations,
    testing::Values(OperationCase{"w8a8", "w8a8"}, OperationCase{"w4a8", "w4a8"},
                    OperationCase{"w8a16", "w8a16"},
                    OperationCase{.name = "w8a8_symmetric", .scheme = "w8a8", .symmetric = true},
                    OperationCase{
                        .name = "w8a8_no_zero", .scheme = "w8a8", .probabilities_exclude_zero = true},
                    OperationCase{.name = "w8a8_coarse_updates", .scheme = "w8a8", .coarse_updates = true},
                    OperationCase{"w4a8_gelu_layer_norm", "w4a8-sym", layer_norm_and_biases},
                    OperationCase{"w8a16_gelu_layer_norm", "w8a16", layer_norm_and_biases},
                    OperationCase{"groups_w4a8", "w4a8-g8"}, OperationCase{"odd_groups_w8a8", "w8a8-g1"},
                    OperationCase{"groups_w8a16_biases", "w8a16-g8", layer_norm_and_biases},
                    OperationCase{"groups_of_the_stream", "w4a8-sym-g4", test::update_norms}),
    [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Forms, IntegerOperations,
    testing::Values(OperationCase{"sandwich_with_soft_caps", "w8a8", test::sandwich_with_soft_caps},
                    OperationCase{"sandwich_with_soft_caps_w8a16", "w8a16", test::sandwich_with_soft_caps},
                    OperationCase{"head_norms_and_local_rotary", "w4a8", test::head_norms_and_local_rotary},
                    OperationCase{"update_norms", "w8a8", test::update_norms},
                    OperationCase{.name = "update_norms_own_ranges",
                                  .scheme = "w8a8",
                                  .form = test::update_norms,
                                  .own_ranges = true},
                    OperationCase{"parallel_with_own_head_norms", "w8a8", test::parallel_with_own_head_norms},
                    OperationCase{"parallel_with_two_norms", "w8a8", test::parallel_with_two_norms},
                    OperationCase{.name = "two_norms_own_ranges",
                                  .scheme = "w8a8",
                                  .form = test::parallel_with_two_norms,
                                  .own_ranges = true},
                    OperationCase{"norms_behind_rotary", "w8a8", test::norms_behind_rotary},
                    OperationCase{"factors_and_yarn", "w8a8", test::factors_and_yarn},
                    OperationCase{"positions_and_relu", "w8a8", test::positions_and_relu},
                    OperationCase{"windows_without_zero", "w8a8", test::windows, false, true},
                    OperationCase{"windows_wide", "w8a16", test::windows},
                    OperationCase{"dynamic_and_xielu", "w8a8", test::dynamic_and_xielu},
                    OperationCase{"longrope_and_relu2", "w4a8-sym", test::longrope_and_relu2}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qeval::quant
