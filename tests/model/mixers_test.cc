// Experts, recurrent mixers and what else stands beyond a dense block. That the numbers are right, the
// goldens of the families say (tests/tools/check_families.py); here is what no golden shows: which experts
// are chosen where it is close, and that no bit depends on how a sequence is cut or what else is in the
// batch.

#include <algorithm>
#include <functional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <tbb/global_control.h>

#include "model/decoder.h"
#include "model/float_arithmetic.h"
#include "tests/tiny_model.h"

namespace qeval::model {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

std::vector<int32_t> uniform_tokens(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> token(0, 60);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& t : tokens) t = token(random);
  return tokens;
}

struct MixerVariant {
  const char* name;
  std::function<void(ModelConfig&)> change;
};

void PrintTo(const MixerVariant& variant, std::ostream* out) {
  *out << variant.name;
}

Experts experts() {
  Experts e;
  e.route = {.experts = 6, .used = 2, .normalize = true};
  e.inner = 7;
  e.shared_inner = 9;
  e.shared_gate = true;
  return e;
}

void make_sparse(ModelConfig& c) {
  c.experts = experts();
  c.layers.resize(2);
  c.layers[1].sparse = true;
}

void make_recurrent(ModelConfig& c, Recurrence r, LayerSettings::Mixer mixer) {
  c.recurrence = r;
  c.layers.resize(2);
  c.layers[0].mixer = c.layers[1].mixer = mixer;
}

Recurrence mamba() {
  return {.kind = Recurrence::Kind::state_space,
          .taps = 4,
          .conv_bias = true,
          .key_heads = 2,
          .value_heads = 4,
          .key_dim = 5,
          .value_dim = 3,
          .most_step = 100,
          .norm = Recurrence::Norm::after_gate,
          .norm_group = 6,
          .norm_own_weights = true};
}

const MixerVariant kVariants[] = {
    {"experts", make_sparse},
    {"experts_in_both_layers_with_clamp",
     [](ModelConfig& c) {
       make_sparse(c);
       c.layers[0].sparse = true;
       c.experts->expert_bias = c.experts->router_bias = true;
       c.experts->limit = 1;
       c.experts->up_offset = 1;
       c.attention_sinks = true;
     }},
    {"convolution",
     [](ModelConfig& c) {
       make_recurrent(c, {.taps = 3}, LayerSettings::Mixer::recurrent);
       c.layers[1].mixer = LayerSettings::Mixer::attention;
     }},
    {"delta_rule",
     [](ModelConfig& c) {
       make_recurrent(c,
                      {.kind = Recurrence::Kind::delta_rule,
                       .taps = 4,
                       .key_heads = 2,
                       .value_heads = 4,
                       .key_dim = 5,
                       .value_dim = 3,
                       .norm = Recurrence::Norm::before_gate,
                       .norm_group = 3},
                      LayerSettings::Mixer::recurrent);
       c.attention_gate = true;
     }},
    {"mamba", [](ModelConfig& c) { make_recurrent(c, mamba(), LayerSettings::Mixer::recurrent); }},
    {"mamba_beside_attention",
     [](ModelConfig& c) {
       make_recurrent(c, mamba(), LayerSettings::Mixer::both);
       c.attention_in = 0.5F;
       c.recurrence->in_factor = 2;
     }},
    {"shared_keys_and_inputs_of_layers",
     [](ModelConfig& c) {
       c.layers.resize(2);
       c.layers[1].kv_from = 1;
       c.layers[0].kv_lent = true;
       c.layer_inputs = LayerInputs{.size = 3, .vocab_size = 40};
       c.layer_scalar = c.v_norm = true;
     }},
    {"residual_streams",
     [](ModelConfig& c) {
       c.layers.resize(2);
       c.layers[0].activation_sparsity = 0.5F;
       c.layer_inputs = LayerInputs{.size = 3, .vocab_size = 61};
       c.altup = Altup{.streams = 3, .active = 0, .rank = 5, .scales_output = true};
     }},
};

class MixersTest : public testing::TestWithParam<MixerVariant> {
 protected:
  MixersTest() {
    GetParam().change(tiny_.config);
    model_ = tiny_.build();
    arithmetic_ = make_float_arithmetic(model_, 256);
  }

  /// The logits of every position, of one batch.
  std::vector<float> whole(const std::vector<int32_t>& tokens) const {
    Decoder decoder(model_, *arithmetic_);
    KvSpan kv(*arithmetic_, std::ssize(tokens), 1);
    Batch batch{.tokens = tokens, .positions = {}, .segments = {}};
    std::vector<int64_t> rows;
    for (int64_t t = 0; t < std::ssize(tokens); ++t) {
      batch.positions.push_back(static_cast<int32_t>(t));
      rows.push_back(t);
    }
    batch.segments.push_back({.length = std::ssize(tokens), .kv = &kv});
    decoder.forward(batch);
    return decoder.logits(rows);
  }

  std::vector<float> row(const std::vector<float>& logits, int64_t t) const {
    const auto first = logits.begin() + t * model_.config.vocab_size;
    return {first, first + model_.config.vocab_size};
  }

  test::TinyModel tiny_;
  Model model_;
  std::unique_ptr<Arithmetic> arithmetic_;
};

TEST_P(MixersTest, PiecesAndSingleTokensGiveTheBitsOfOneBatch) {
  const auto tokens = uniform_tokens(40, 3);
  const std::vector<float> want = whole(tokens);
  for (const std::vector<int64_t>& cuts :
       {std::vector<int64_t>{17, 1, 1, 2, 19}, std::vector<int64_t>(40, 1)}) {
    Decoder decoder(model_, *arithmetic_);
    KvSpan kv(*arithmetic_, 64, model_.config.num_layers);
    int64_t at = 0;
    for (const int64_t count : cuts) {
      Batch batch;
      for (int64_t t = at; t < at + count; ++t) {
        batch.tokens.push_back(tokens[static_cast<size_t>(t)]);
        batch.positions.push_back(static_cast<int32_t>(t));
      }
      batch.segments.push_back({.length = count, .first_position = at, .kv = &kv, .kv_at = at});
      batch.read = std::vector<int64_t>{count - 1};
      decoder.forward(batch);
      ASSERT_EQ(decoder.logits(*batch.read), row(want, at + count - 1)) << at;
      at += count;
    }
  }
}

TEST_P(MixersTest, BranchesContinueFromTheStateOfTheirStem) {
  const auto stem = uniform_tokens(20, 4), left = uniform_tokens(9, 5), right = uniform_tokens(13, 6);
  const auto joined = [&](const std::vector<int32_t>& branch) {
    std::vector<int32_t> all = stem;
    all.insert(all.end(), branch.begin(), branch.end());
    return all;
  };
  const std::vector<float> want_left = whole(joined(left)), want_right = whole(joined(right));
  Decoder decoder(model_, *arithmetic_);
  // Stem and first branch in one batch, the second in another, as a plan has them; beside them a stranger.
  KvSpan trunk(*arithmetic_, 20, model_.config.num_layers), one(*arithmetic_, 9, 1), two(*arithmetic_, 13, 1);
  KvSpan stranger(*arithmetic_, 7, 1);
  const auto add = [](Batch& batch, const std::vector<int32_t>& tokens, int64_t position, KvSpan& kv,
                      std::vector<Segment::Ancestor> ancestors) {
    Segment segment{.first_row = std::ssize(batch.tokens),
                    .length = std::ssize(tokens),
                    .first_position = position,
                    .kv = &kv,
                    .ancestors = std::move(ancestors)};
    for (const int32_t token : tokens) {
      batch.tokens.push_back(token);
      batch.positions.push_back(static_cast<int32_t>(position++));
    }
    batch.segments.push_back(std::move(segment));
  };
  Batch first, second;
  add(first, stem, 0, trunk, {});
  add(first, uniform_tokens(7, 9), 0, stranger, {});
  add(first, left, 20, one, {{&trunk, 20}});
  add(second, right, 20, two, {{&trunk, 20}});
  decoder.forward(first);
  const int64_t last_left[] = {std::ssize(first.tokens) - 1};
  EXPECT_EQ(decoder.logits(last_left), row(want_left, 28));
  second.read = std::vector<int64_t>{3, 12};
  decoder.forward(second);
  std::vector<float> want = row(want_right, 23);
  const std::vector<float> end = row(want_right, 32);
  want.insert(want.end(), end.begin(), end.end());
  EXPECT_EQ(decoder.logits(*second.read), want);
}

TEST_P(MixersTest, ThreadsChangeNoBit) {
  const auto tokens = uniform_tokens(50, 8);
  const std::vector<float> want = whole(tokens);
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  EXPECT_EQ(whole(tokens), want);
}

INSTANTIATE_TEST_SUITE_P(Kinds, MixersTest, testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

/// What a router makes of one row of logits.
class RouterTest : public testing::Test {
 protected:
  Routing route(const RouteOp& op, const std::vector<float>& logits,
                const std::vector<float>& correction = {}, const std::vector<float>& scales = {}) {
    make_sparse(tiny_.config);
    tiny_.config.experts->route = op;
    model_ = tiny_.build();
    model_.layers[1].vectors[Module::router] = correction;
    model_.layers[1].vectors[Module::expert_mix] = scales;
    const FloatArithmetic arithmetic(model_, 8);
    Tensor row;
    row.resize(1, std::ssize(logits), sizeof(float));
    std::ranges::copy(logits, row.row<float>(0));
    Routing routing;
    arithmetic.route(1, op, row, routing);
    return routing;
  }

  test::TinyModel tiny_;
  Model model_;
};

TEST_F(RouterTest, OfEqualsTheLowerIndex) {
  const Routing routing = route({.experts = 5, .used = 2}, {0, 1, 0, 1, 1});
  EXPECT_THAT(routing.experts, ElementsAre(1, 3));
  const float p = std::exp(1.0F) / (3 * std::exp(1.0F) + 2);
  EXPECT_THAT(routing.weights, ElementsAre(FloatNear(p, 1e-6F), FloatNear(p, 1e-6F)));
  EXPECT_THAT(route({.experts = 5, .used = 2, .normalize = true}, {0, 1, 0, 1, 1}).weights,
              ElementsAre(FloatNear(0.5F, 1e-6F), FloatNear(0.5F, 1e-6F)));
}

TEST_F(RouterTest, CorrectionsChooseButDoNotWeigh) {
  const RouteOp op{.scores = RouteOp::Scores::sigmoid,
                   .experts = 4,
                   .used = 2,
                   .normalize = true,
                   .factor = 3,
                   .correction = true};
  const Routing routing = route(op, {0, 0, 0, 2}, {0, 1, 0.5F, -1});
  EXPECT_THAT(routing.experts, ElementsAre(1, 2));
  EXPECT_THAT(routing.weights, ElementsAre(FloatNear(1.5F, 1e-6F), FloatNear(1.5F, 1e-6F)));
}

TEST_F(RouterTest, AtLeastTheLeastSum) {
  const RouteOp op{.experts = 2, .used = 1, .normalize = true, .least_sum = 4};
  EXPECT_THAT(route(op, {0, 0}).weights, ElementsAre(FloatNear(0.125F, 1e-6F)));
}

TEST_F(RouterTest, OnlyOutOfTheBestGroups) {
  // Groups of two: without corrections the one with the best expert counts.
  const RouteOp plain{.experts = 4, .used = 2, .groups = 2, .used_groups = 1};
  EXPECT_THAT(route(plain, {3, -9, 2, 2}).experts, ElementsAre(0, 1));
  // With them the one whose two best are best together.
  RouteOp corrected = plain;
  corrected.correction = true;
  EXPECT_THAT(route(corrected, {3, -9, 2.9F, 2.9F}, {0, 0, 0, 0}).experts, ElementsAre(2, 3));
  // Out of the others none is chosen, however little the corrections leave of the best.
  EXPECT_THAT(route(corrected, {3, -9, 2.9F, 2.9F}, {-8, -8, -2, -2}).experts, ElementsAre(2, 3));
}

TEST_F(RouterTest, FactorsOfExperts) {
  const RouteOp op{.experts = 3, .used = 2, .normalize = true, .expert_scale = true};
  EXPECT_THAT(route(op, {1, 0, 1}, {}, {2, 9, 4}).weights,
              ElementsAre(FloatNear(1, 1e-6F), FloatNear(2, 1e-6F)));
}

TEST_F(RouterTest, PhiWeighsAgainstWhatComesNear) {
  const RouteOp op{.scores = RouteOp::Scores::sparse_mixer, .experts = 4, .used = 2, .jitter = 0.1F};
  // 3.8 is nearer to 4 than a fifth of it, 3 is not; then 3 is judged by 3.8.
  const Routing routing = route(op, {3, 4, 0, 3.8F});
  EXPECT_THAT(routing.experts, ElementsAre(1, 3));
  EXPECT_THAT(routing.weights, ElementsAre(FloatNear(1 / (1 + std::exp(-0.2F)), 1e-6F), FloatNear(1, 1e-6F)));
}

}  // namespace
}  // namespace qeval::model
