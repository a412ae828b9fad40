#include "quant/arithmetic/prefix.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/decoder.h"
#include "quant/methods/quantize.h"
#include "tests/quant/integer_forms.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

using test::TemporaryFolder;
using test::TinyModel;
using testing::HasSubstr;

constexpr int32_t kStart = 5;

std::vector<int32_t> tokens_behind_start(int64_t count, int64_t salt = 0) {
  std::vector<int32_t> ids{kStart};
  for (int64_t i = 1; i < count; ++i) ids.push_back(static_cast<int32_t>((i * i * 7 + 3 * i + salt) % 61));
  return ids;
}

std::vector<float> logits(const model::Model& model, const model::Arithmetic& arithmetic,
                          const std::vector<int32_t>& ids) {
  model::KvSpan kv(arithmetic, std::ssize(ids), 1);
  model::Batch batch;
  batch.tokens = ids;
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < std::ssize(ids); ++i) {
    batch.positions.push_back(static_cast<int32_t>(i));
    rows.push_back(i);
  }
  batch.segments.push_back({.first_row = 0, .length = std::ssize(ids), .first_position = 0, .kv = &kv});
  model::Decoder decoder(model, arithmetic);
  decoder.forward(batch);
  return decoder.logits(rows);
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i] - b[i])));
  return largest;
}

/// A quantization with a prefix, as a checkpoint would have it.
Quantization with_prefix(const QuantizedModel& made) {
  const model::ModelConfig& config = made.model().config;
  return {.qcfg = made.qcfg,
          .ranges = complete_ranges(made.qcfg, made.ranges, config, "test"),
          .known_ranges = made.ranges,
          .first = made.first,
          .prefix = made.prefix,
          .hash = ""};
}

QuantizedModel quantized(const model::Model& model, const std::string& scheme, bool rotated = false) {
  QuantizeOptions options;
  options.method = rotated ? Method::rotate : Method::rtn;
  if (rotated) options.rotation = {RotationKind::online, true, 4, 3};
  options.scheme = parse_scheme(scheme);
  options.calibration = {.first_token_apart = true, .prefix_token = kStart};
  return quantize(model, {tokens_behind_start(30), tokens_behind_start(30, 17)}, options);
}

/// What is kept is what the float model has: where nothing else is rounded, nothing is lost.
TEST(Prefix, OfAModelThatIsNotRoundedChangesNothing) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantConfig nothing(model.config.num_layers);
  Quantization q{
      .qcfg = nothing, .ranges = ActRanges(model.config.num_layers), .known_ranges = {}, .hash = ""};
  q.prefix = make_prefix(model, kStart);
  q.first = prefix_grids(*q.prefix, nothing, model.config);
  const model::FloatArithmetic plain(model, 64);
  model::Model eps_free = model;
  eps_free.config.l2norm_as_rmsnorm = model.config.norm == model::NormKind::rms;
  q.prefix = make_prefix(eps_free, kStart);
  const auto fake = make_fake_arithmetic(model, q, 64);
  const std::vector<float> want = logits(eps_free, model::FloatArithmetic(eps_free, 64),
                                         tokens_behind_start(20)),
                           got = logits(model, *fake, tokens_behind_start(20));
  EXPECT_LT(largest_difference(want, got, want.size()), 1e-4);
}

/// The first row is a constant: the float model's own, whatever the others lose.
TEST(Prefix, StandsAtPositionZeroInEitherArithmetic) {
  for (const bool rotated : {false, true}) {
    TinyModel tiny;
    const model::Model model = tiny.build();
    const QuantizedModel made = quantized(model, "w4a8", rotated);
    const Quantization q = with_prefix(made);
    const auto fake = make_fake_arithmetic(made.model(), q, 64);
    const auto integer = make_integer_arithmetic(made.model(), q, 64);
    const std::vector<int32_t> ids = tokens_behind_start(24, 9);
    model::Model source = model;
    source.config.l2norm_as_rmsnorm = true;  // as the blocks of all that is quantized
    const std::vector<float> exact = logits(source, model::FloatArithmetic(source, 64), ids);
    const std::vector<float> simulated = logits(made.model(), *fake, ids);
    const std::vector<float> integers = logits(made.model(), *integer, ids);
    const auto vocabulary = static_cast<size_t>(model.config.vocab_size);
    EXPECT_LT(largest_difference(exact, simulated, vocabulary), 1e-4);
    EXPECT_LT(largest_difference(exact, integers, vocabulary), 5e-2);  // the head has 8 bits
    EXPECT_GT(largest_difference(exact, simulated, exact.size()), 1e-3);
    // Behind it nothing but a code's flip tells integers from their simulation.
    std::vector<double> apart;
    for (size_t i = 0; i < integers.size(); ++i)
      apart.push_back(std::abs(static_cast<double>(integers[i] - simulated[i])));
    std::ranges::nth_element(apart, apart.begin() + std::ssize(apart) / 2);
    EXPECT_LT(apart[apart.size() / 2], 2e-2);
  }
}

/// Keys and values of the rows behind it are computed with the constants, not with what the row itself gives.
TEST(Prefix, IsWhatTheOtherPositionsSee) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantizedModel made = quantized(model, "w8a8");
  Quantization q = with_prefix(made);
  const std::vector<float> before =
      logits(made.model(), *make_fake_arithmetic(made.model(), q, 64), tokens_behind_start(9));
  const std::vector<float> codes =
      logits(made.model(), *make_integer_arithmetic(made.model(), q, 64), tokens_behind_start(9));
  for (float& x : q.prefix->values[0]) x = -x;
  q.first = prefix_grids(*q.prefix, q.qcfg, model.config);
  const auto vocabulary = static_cast<size_t>(model.config.vocab_size);
  for (const auto& [was, arithmetic] : {std::pair{&before, make_fake_arithmetic(made.model(), q, 64)},
                                        std::pair{&codes, make_integer_arithmetic(made.model(), q, 64)}}) {
    const std::vector<float> now = logits(made.model(), *arithmetic, tokens_behind_start(9));
    EXPECT_EQ(largest_difference(*was, now, vocabulary), 0);
    EXPECT_GT(largest_difference(*was, now, now.size()), 1e-2);
  }
}

TEST(Prefix, KeepsTheBitsAndHasRangesOfItsOwn) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const QuantizedModel made = quantized(model, "w8a8");
  ASSERT_TRUE(made.first && made.prefix);
  for (const Point& point : all_points(model.config)) {
    if (point.slot == Slot::weight || !made.qcfg[point].enabled()) continue;
    const bool kept = (point.module == Module::v && point.slot == Slot::output) ||
                      (point.slot == Slot::input2 && point.module != Module::activation);
    EXPECT_EQ(made.first->qcfg[point].enabled(), kept) << point_name(point);
    if (kept) {
      EXPECT_EQ(made.first->qcfg[point].bits, 8);
    }
  }
  const Range range = made.first->ranges[{0, Module::qk_product, Slot::input2}].value();
  EXPECT_EQ(range.lo, std::ranges::min(made.prefix->keys[0]));
  EXPECT_EQ(range.hi, std::ranges::max(made.prefix->keys[0]));
}

TEST(Prefix, OfAnotherTokenIsRefused) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const Quantization q = with_prefix(quantized(model, "w8a8"));
  std::vector<int32_t> ids = tokens_behind_start(5);
  ids.front() = 6;
  for (const auto& arithmetic : {make_fake_arithmetic(model, q, 64), make_integer_arithmetic(model, q, 64)}) {
    try {
      logits(model, *arithmetic, ids);
      FAIL();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("token 6"), HasSubstr("token 5")));
    }
  }
  QuantizeOptions options;
  options.scheme = parse_scheme("w8a8");
  options.calibration = {.first_token_apart = true, .prefix_token = kStart};
  try {
    quantize(model, {tokens_behind_start(8), ids}, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("sample 2 of the calibration begins with token 6"));
  }
}

TEST(Prefix, OfExpertsIsRefusedBeforeAnyWork) {
  TinyModel tiny;
  test::experts(tiny.config);
  const model::Model model = tiny.build();
  QuantizeOptions options;
  options.calibration = {.first_token_apart = true, .prefix_token = kStart};
  try {
    require_apart(options, make_qcfg(model.config, options.scheme), model.config, {{kStart, 4, 5}});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("a prefix has no"), HasSubstr("ranges")));
  }
}

TEST(Prefix, IsReadAsWritten) {
  TinyModel tiny;
  const model::Model model = tiny.build();
  const Prefix prefix = make_prefix(model, kStart);
  const TemporaryFolder folder;
  const auto read = [&](const nlohmann::ordered_json& json) {
    folder.write("prefix.json", json.dump());
    return read_prefix(folder.path() / "prefix.json", model.config);
  };
  const auto json = prefix_json(prefix);
  const Prefix back = read(json);
  EXPECT_EQ(back.token, prefix.token);
  EXPECT_EQ(back.keys, prefix.keys);
  EXPECT_EQ(back.values, prefix.values);
  EXPECT_EQ(back.normed, prefix.normed);
  const auto error_with = [&](const std::string& pointer,
                              const nlohmann::ordered_json& value) -> std::string {
    auto changed = json;
    changed[nlohmann::ordered_json::json_pointer(pointer)] = value;
    try {
      read(changed);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_with("/token", 1000), HasSubstr("token is 1000"));
  EXPECT_THAT(error_with("/layers", nlohmann::ordered_json::array()), HasSubstr("layers"));
  EXPECT_THAT(error_with("/layers/1/key", {1.0}), HasSubstr("layers[1]"));
  EXPECT_THAT(error_with("/final_norm_output", "x"), HasSubstr("final_norm_output"));
  EXPECT_THAT(error_with("/layers/0/value/0", 1e39), HasSubstr("value"));
}

}  // namespace
}  // namespace qeval::quant
