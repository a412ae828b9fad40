#include "quant/methods/rotate.h"

#include <cmath>
#include <filesystem>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/hadamard.h"
#include "quant/calibrate/observer.h"
#include "tests/model/fixtures.h"
#include "tests/quant/block_forms.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using model::fixtures::error_of;
using test::TinyModel;
using test::tokens;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<double> log_probabilities(const model::Model& model) {
  const auto arithmetic = model::make_float_arithmetic(model, 64);
  std::vector<double> all;
  for (const auto& answer : run_sample(model, *arithmetic, tokens(24, 5, model.config.vocab_size)))
    all.push_back(answer.log_probability);
  return all;
}

void expect_same_function(const model::Model& base, const model::Model& rotated) {
  const std::vector<double> before = log_probabilities(base), after = log_probabilities(rotated);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], 1e-4) << "token " << i;
}

TEST(Hadamard, MatricesAreOrthogonal) {
  for (const int64_t order : {1, 2, 4, 12, 16, 20, 24, 28, 36, 40, 44, 48, 60, 72, 112, 576}) {
    ASSERT_TRUE(model::has_hadamard(order)) << order;
    const model::HadamardMatrix h = model::make_hadamard(order);
    std::vector<std::vector<int32_t>> rows;
    std::vector<int32_t> scratch(static_cast<size_t>(h.base_order));
    for (int64_t i = 0; i < order; ++i) {
      auto& row = rows.emplace_back(static_cast<size_t>(order), 0);
      row[static_cast<size_t>(i)] = 1;
      model::multiply_hadamard(h, row.data(), scratch.data());
      for (const int32_t entry : row) ASSERT_EQ(std::abs(entry), 1) << order;
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t j = 0; j < rows.size(); ++j) {
        int64_t product = 0;
        for (size_t c = 0; c < rows.size(); ++c) product += rows[i][c] * rows[j][c];
        ASSERT_EQ(product, i == j ? order : 0) << order << ": rows " << i << ", " << j;
      }
    }
  }
  for (const int64_t order : {0, 3, 6, 10, 92, 1023}) EXPECT_FALSE(model::has_hadamard(order)) << order;
  EXPECT_EQ(model::hadamard_order(1536), 1536);
  EXPECT_EQ(model::hadamard_order(92), 4);
  EXPECT_EQ(model::hadamard_order(11008), 256);
}

/// Floats, and integers of either width, by the same sums.
TEST(Hadamard, EveryTypeGivesTheSameSums) {
  const model::HadamardMatrix h = model::make_hadamard(96);
  std::mt19937 random(3);
  std::vector<int32_t> x(96);
  for (int32_t& value : x) value = static_cast<int32_t>(random() % 2001) - 1000;
  std::vector<int64_t> wide(x.begin(), x.end()), wide_scratch(96);
  std::vector<double> real(x.begin(), x.end()), real_scratch(96);
  std::vector<int32_t> scratch(96);
  model::multiply_hadamard(h, x.data(), scratch.data());
  model::multiply_hadamard(h, wide.data(), wide_scratch.data());
  model::multiply_hadamard(h, real.data(), real_scratch.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(x[i], wide[i]);
    EXPECT_EQ(static_cast<double>(x[i]), real[i]);
  }
}

class RotatedForm : public testing::TestWithParam<test::FormCase> {};

TEST_P(RotatedForm, KeepsTheFunction) {
  TinyModel tiny;
  GetParam().change(tiny.config);
  const model::Model base = tiny.build();
  if (base.config.rotation) {  // the form of a model that is rotated already
    EditableModel edited(base);
    EXPECT_THAT(error_of([&] { rotate(edited, {RotationKind::online, false, 0, 0}); }), HasSubstr("already"));
    return;
  }
  const std::vector<double> before = log_probabilities(base);
  for (const RotationOptions& options : {RotationOptions{RotationKind::online, true, 0, 0},
                                         RotationOptions{RotationKind::online, false, 4, 7}}) {
    EditableModel edited(base);
    rotate(edited, options);
    expect_same_function(base, edited.model());
  }
  EXPECT_EQ(log_probabilities(base), before);  // the source is not touched
}

INSTANTIATE_TEST_SUITE_P(Forms, RotatedForm, testing::ValuesIn(test::block_forms()),
                         [](const auto& param) { return param.param.name; });

/// Published families, as tiny random models.
TEST(Rotation, KeepsTheFunctionOfEveryFamily) {
  int64_t models = 0, refused = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(QEVAL_GOLDENS_DIR) / "architectures")) {
    SCOPED_TRACE(entry.path().filename().string());
    const model::Model base = model::load_model(entry.path());
    EditableModel edited(base);
    bool beyond_dense = false;
    for (const model::BlockGraph& block : base.config.graph.blocks) {
      for (const model::Operation& operation : block.operations)
        beyond_dense = beyond_dense || model::is_beyond_dense(operation);
    }
    if (beyond_dense) {
      EXPECT_THAT(error_of([&] {
                    rotate(edited, {RotationKind::online, false, 0, 1});
                  }),
                  HasSubstr("no rotation goes through it yet"));
      ++refused;
      continue;
    }
    rotate(edited, {RotationKind::online, !base.config.latent, 0, 1});
    expect_same_function(base, edited.model());
    ++models;
  }
  EXPECT_GT(models, 30);
  EXPECT_GT(refused, 10);
}

TEST(Rotation, SaysWhatItCannotDo) {
  EXPECT_THAT(error_of([] { parse_rotation_kind("around"); }), HasSubstr("none, offline, online"));
}

TEST(Rotation, FoldsNormsUntiesTheHeadAndMovesEveryWeight) {
  TinyModel tiny;
  tiny.config.tie_word_embeddings = true;
  model::Model base = tiny.build();
  base.head.weight = base.embedding;
  EditableModel edited(base);
  EXPECT_THAT(rotate(edited, {RotationKind::offline, false, 0, 0}).left_out, IsEmpty());
  const model::Model& rotated = edited.model();
  EXPECT_FALSE(rotated.config.tie_word_embeddings);
  EXPECT_EQ(rotated.config.graph.block(0).operations.size(), base.config.graph.block(0).operations.size());
  for (const auto& [module, norm] : rotated.layers[0].norms) {
    EXPECT_THAT(norm.weight, testing::Each(1.0F));
  }
  expect_same_function(base, rotated);
  // A plain model's norms of rows are rotated with the stream: its embedding has the same lengths.
  std::vector<float> before(24), after(24);
  base.embedding.decode_rows(5, 1, before.data());
  rotated.embedding.decode_rows(5, 1, after.data());
  double squares = 0, rotated_squares = 0, moved = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    squares += static_cast<double>(before[i]) * static_cast<double>(before[i]);
    rotated_squares += static_cast<double>(after[i]) * static_cast<double>(after[i]);
    moved += static_cast<double>(std::abs(before[i] - after[i]));
  }
  EXPECT_NEAR(squares, rotated_squares, 1e-4 * squares);
  EXPECT_GT(moved, 1);
}

TEST(Rotation, TheSeedDecidesTheSigns) {
  TinyModel tiny;
  const model::Model base = tiny.build();
  const auto first_row = [&](uint64_t seed) {
    EditableModel edited(base);
    rotate(edited, {RotationKind::offline, false, 0, seed});
    std::vector<float> row(24);
    edited.model().embedding.decode_rows(0, 1, row.data());
    return row;
  };
  EXPECT_EQ(first_row(1), first_row(1));
  EXPECT_NE(first_row(1), first_row(2));
}

TEST(Rotation, WhatAnEdgeForbidsIsNamed) {
  TinyModel tiny;
  tiny.config.form = model::BlockForm::sandwich;
  {
    const model::Model base = tiny.build();
    EditableModel edited(base);
    EXPECT_THAT(rotate(edited, {RotationKind::online, false, 0, 0}).left_out,
                ElementsAre(AllOf(HasSubstr("R1"), HasSubstr("model.layers.0.post_attention_layernorm"))));
    EXPECT_FALSE(edited.model().config.rotation->residual);
    EXPECT_TRUE(edited.model().config.rotation->values);
    EXPECT_EQ(edited.model().config.rotation->down_block, 40);
    EXPECT_THAT(error_of([&] {
                  rotate(edited, {RotationKind::offline, false, 0, 0});
                }),
                HasSubstr("rotated already"));
  }
  tiny.config.head_dim = 9;
  tiny.config.rotary.dim = 6;
  const model::Model base = tiny.build();
  EditableModel edited(base);
  EXPECT_THAT(error_of([&] {
                rotate(edited, {RotationKind::none, true, 0, 0});
              }),
              AllOf(HasSubstr("R3"), HasSubstr("9 channels")));
  EXPECT_THAT(error_of([&] {
                rotate(edited, {RotationKind::online, false, 6, 0});
              }),
              AllOf(HasSubstr("6: accepted"), HasSubstr("40 channels")));
}

}  // namespace
}  // namespace qeval::quant
