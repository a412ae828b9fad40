#include "quant/grid/qcfg.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace qeval::quant {
namespace {

model::ModelConfig llama() {
  model::ModelConfig config;
  config.vocab_size = 50;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 11;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = config.rotary.dim = 8;
  config.graph = model::make_graph(config);
  return config;
}

std::string qcfg_error(const std::string& text) {
  try {
    parse_qcfg(text, llama(), "q.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string ranges_error(const std::string& text) {
  try {
    parse_act_ranges(text, llama(), "a.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

/// docs/specification.md#other-points.
TEST(Points, OfExperts) {
  model::ModelConfig config = llama();
  config.experts.emplace();
  config.experts->inner = config.experts->shared_inner = 16;
  config.experts->shared_gate = true;
  config.experts->route = {.experts = 4, .used = 2};
  config.layers.resize(11);
  config.layers[1].sparse = true;
  config.graph = model::make_graph(config);
  const auto bits = [&](const char* scheme, Module module, Slot slot) {
    const Point point{1, module, slot};
    EXPECT_TRUE(has_point(config, point)) << point_name(point);
    return make_qcfg(config, parse_scheme(scheme))[point].bits;
  };
  for (const char* scheme : {"w8a8", "w4a8"}) {
    const int weight = scheme[1] - '0';
    for (const Module router : {Module::router, Module::shared_expert_gate}) {
      EXPECT_EQ(bits(scheme, router, Slot::weight), 8);
      EXPECT_EQ(bits(scheme, router, Slot::output), 16);
      EXPECT_TRUE((make_qcfg(config, parse_scheme(scheme))[{1, router, Slot::weight}].per_channel));
    }
    for (const Module module : {Module::expert_gate, Module::expert_up, Module::shared_gate}) {
      EXPECT_EQ(bits(scheme, module, Slot::weight), weight);
      EXPECT_EQ(bits(scheme, module, Slot::output), 8);
    }
    for (const Module down : {Module::expert_down, Module::shared_down}) {
      EXPECT_EQ(bits(scheme, down, Slot::input), 8);
      EXPECT_EQ(bits(scheme, down, Slot::output), 16);
      EXPECT_TRUE((make_qcfg(config, parse_scheme(scheme))[{1, down, Slot::weight}].per_channel));
    }
    EXPECT_EQ(bits(scheme, Module::expert_activation, Slot::output), 8);
    EXPECT_EQ(bits(scheme, Module::expert_mix, Slot::input), 16);
    EXPECT_EQ(bits(scheme, Module::expert_mix, Slot::output), 16);
  }
  EXPECT_GT(bits("w4a16", Module::router, Slot::weight), 16);  // weight-only schemes leave routers alone
  EXPECT_EQ(bits("w4a16", Module::expert_up, Slot::weight), 4);
  EXPECT_FALSE(has_point(config, {1, Module::gate, Slot::weight}));
  EXPECT_FALSE(has_point(config, {0, Module::router, Slot::weight}));
  // The rows of the experts are those of the norm, in another order.
  EXPECT_EQ(made_at(config, {1, Module::expert_up, Slot::input}),
            (Point{1, Module::post_attention_norm, Slot::output}));
}

TEST(Points, NamesGoThereAndBack) {
  for (const Point& point : all_points(llama())) {
    const auto id = find_module(module_name(point.layer, point.module), 11);
    ASSERT_TRUE(id);
    EXPECT_EQ(id->layer, point.layer);
    EXPECT_EQ(id->module, point.module);
  }
  EXPECT_EQ(point_name({3, Module::down, Slot::input}), "model.layers.3.mlp.w2.input");
  for (const char* name : {"model.layers.11.mlp.w2", "model.layers.03.mlp.w2", "model.layers.-1.mlp.w2",
                           "model.layers.3.mlp.w4", "model.layers.3", "model.layers.3.", "model.layers.", "",
                           "model.layers.99999999999999999999.mlp.w2", "model.layers.3.lm_head", "mlp.w2"}) {
    EXPECT_FALSE(find_module(name, 11)) << name;
  }
}

TEST(Points, EachHasAPlaceOfItsOwn) {
  PointMap<int> map(11, 0);
  int next = 0;
  for (const Point& point : all_points(llama())) map[point] = ++next;
  next = 0;
  for (const Point& point : all_points(llama())) EXPECT_EQ(map[point], ++next);
}

TEST(Scheme, DefaultsAreThoseOfThePaper) {
  const auto config = llama();
  const QuantConfig w8a8 = make_qcfg(config, parse_scheme("w8a8"));
  const auto bits = [&](const QuantConfig& qcfg, Module module, Slot slot) {
    return qcfg[{5, module, slot}].bits;
  };
  EXPECT_EQ(bits(w8a8, Module::input_norm, Slot::input), 16);
  EXPECT_EQ(bits(w8a8, Module::input_norm, Slot::weight), 16);
  EXPECT_EQ(bits(w8a8, Module::input_norm, Slot::output), 8);
  EXPECT_FALSE((w8a8[{5, Module::q, Slot::input}].enabled()));
  EXPECT_EQ(bits(w8a8, Module::qk_product, Slot::output), 16);
  EXPECT_EQ(bits(w8a8, Module::pv_product, Slot::input), 16);
  EXPECT_EQ(bits(w8a8, Module::pv_product, Slot::input2), 8);
  EXPECT_EQ(bits(w8a8, Module::o, Slot::output), 16);
  EXPECT_EQ(bits(w8a8, Module::activation, Slot::input2), 8);
  EXPECT_EQ(bits(w8a8, Module::down, Slot::input), 8);
  EXPECT_EQ((w8a8[{5, Module::down, Slot::weight}]), (QuantSpec{.bits = 8, .per_channel = true}));
  EXPECT_EQ((w8a8[{5, Module::up, Slot::weight}]), (QuantSpec{.bits = 8}));
  EXPECT_FALSE((w8a8[{0, Module::head, Slot::weight}].enabled()));

  const QuantConfig w4 = make_qcfg(config, parse_scheme("w4a8-sym"));
  EXPECT_EQ((w4[{5, Module::q, Slot::weight}]),
            (QuantSpec{.bits = 4, .symmetric = true, .per_channel = true}));
  const QuantConfig a16 = make_qcfg(config, parse_scheme("w8a16"));
  for (const Point& point : all_points(config)) {
    if (point.slot != Slot::weight && w8a8[point].enabled()) {
      EXPECT_EQ(a16[point].bits, 16);
    }
  }
  const QuantConfig w4a16 = make_qcfg(config, parse_scheme("w4a16"));
  for (const Point& point : all_points(config)) {
    EXPECT_EQ(w4a16[point].enabled(),
              point.slot == Slot::weight && is_linear(point.module) && point.module != Module::head)
        << point_name(point);
  }
  EXPECT_THROW(parse_scheme("w3a3"), Error);
  const Scheme groups = parse_scheme("w8a8-g16");
  EXPECT_EQ(groups.weight, (QuantSpec{.bits = 8, .per_channel = true, .group_size = 16}));
  EXPECT_EQ(groups.activation_bits, 8);
  EXPECT_EQ(parse_scheme("w3a16-sym-g128").weight,
            (QuantSpec{.bits = 3, .symmetric = true, .per_channel = true, .group_size = 128}));
  for (const char* wrong :
       {"w4a8-g", "w4a8-g0", "w4a8-g-8", "w4a8-g08", "w4a8-g8x", "w4a8-g8-sym", "-g8", "w3a8-g8"})
    EXPECT_THROW(parse_scheme(wrong), Error) << wrong;
}

TEST(Scheme, GeluHasNoSigmoid) {
  auto config = llama();
  config.activation = model::Activation::gelu_erf;
  config.graph = model::make_graph(config);
  EXPECT_FALSE(has_point(config, {0, Module::activation, Slot::input2}));
  EXPECT_THAT(qcfg_json(make_qcfg(config, {}), config)["model.layers.0.mlp.act_fn"].dump(),
              testing::Not(testing::HasSubstr("input2")));
}

TEST(Scheme, GroupsMustDivideTheInputs) {
  Scheme scheme;
  scheme.weight.group_size = 32;  // 48 inputs of the down projection
  try {
    make_qcfg(llama(), scheme);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.0.mlp.w2"));
  }
  scheme.weight.group_size = 16;
  EXPECT_EQ((make_qcfg(llama(), scheme)[{0, Module::q, Slot::weight}].group_size), 16);
}

TEST(Qcfg, WrittenFilesReadBack) {
  for (const char* name : {"w8a8", "w4a8", "w4a8-sym", "w8a16", "w4a16"}) {
    const QuantConfig qcfg = make_qcfg(llama(), parse_scheme(name));
    EXPECT_EQ(parse_qcfg(qcfg_json(qcfg, llama()).dump(), llama(), "x"), qcfg) << name;
  }
  const auto json = qcfg_json(make_qcfg(llama(), {}), llama());
  EXPECT_EQ(json["model.layers.0.mlp.w2"]["weight"]["is_per_channel"], "True");
  EXPECT_EQ(json["model.layers.0.mlp.w2"]["weight"]["group_size"], "-1");
}

TEST(Qcfg, EntriesOverrideSlotBySlot) {
  const QuantConfig qcfg = parse_qcfg(
      R"({"model.layers.2.mlp.w2": {"input": {"bitwidth": "16"}},
          "model.layers.3.mlp.w1": {"weight": {"bitwidth": 4, "group_size": "16", "is_per_channel": true}},
          "lm_head": {"weight": {"bitwidth": "8"}}})",
      llama(), "q.json");
  QuantConfig want = make_qcfg(llama(), {});
  want[{2, Module::down, Slot::input}].bits = 16;
  want[{3, Module::gate, Slot::weight}] = {.bits = 4, .per_channel = true, .group_size = 16};
  want[{0, Module::head, Slot::weight}].bits = 8;
  EXPECT_EQ(qcfg, want);
}

TEST(Qcfg, NonsenseIsRefusedByModule) {
  using testing::AllOf, testing::HasSubstr;
  const auto entry = [](const std::string& slot, const std::string& fields) {
    return R"({"model.layers.1.self_attn.q_proj": {")" + slot + "\": {" + fields + "}}}";
  };
  const char* module = "model.layers.1.self_attn.q_proj";
  for (const char* fields :
       {R"("bitwidth": "0")", R"("bitwidth": "99")", R"("bitwidth": "1")", R"("bitwidth": "-8")",
        R"("bitwidth": "8.5")", R"("bitwidth": "")", R"("bitwidth": null)", R"("bitwidth": 1e99)",
        R"("bitwidth": 18446744073709551615)", R"("is_symmetric": "maybe")", R"("is_dynamic": 1)",
        R"("group_size": "7")", R"("group_size": "0")", R"("group_size": "-2")", R"("colour": "red")"}) {
    EXPECT_THAT(qcfg_error(entry("weight", fields)), AllOf(HasSubstr("q.json"), HasSubstr(module))) << fields;
  }
  EXPECT_THAT(qcfg_error(entry("output", R"("is_per_channel": "True")")), HasSubstr(module));
  EXPECT_THAT(qcfg_error(entry("output", R"("group_size": "8")")), HasSubstr(module));
  EXPECT_THAT(qcfg_error(entry("input2", R"("bitwidth": "8")")), HasSubstr(module));
  EXPECT_THAT(qcfg_error(entry("bias", R"("bitwidth": "8")")), HasSubstr(module));
  EXPECT_THAT(qcfg_error(R"({"model.layers.40.mlp.w1": {}})"), HasSubstr("model.layers.40.mlp.w1"));
  EXPECT_THAT(qcfg_error(R"({"model.layers.1.mlp.w1": 3})"), HasSubstr("model.layers.1.mlp.w1"));
  EXPECT_THAT(qcfg_error(R"({"model.layers.1.mlp.w1": {"weight": []}})"), HasSubstr("model.layers.1.mlp.w1"));
  EXPECT_THAT(qcfg_error("[]"), HasSubstr("q.json"));
  EXPECT_THAT(qcfg_error("{"), HasSubstr("q.json"));
  EXPECT_THAT(qcfg_error(R"({"lm_head": {"output": {"bitwidth": "8", "is_dynamic": "True"}}})"),
              HasSubstr("lm_head"));
}

TEST(ActRanges, ReadAndWritten) {
  const ActRanges ranges = parse_act_ranges(
      R"({"model.layers.0.mlp.act_fn": {"input": [-1, 2], "output": [-0.25, 2.5], "input2": [0.125, 1]},
          "model.norm": {"input": [-3.2999999523162842, 1e-3]}})",
      llama(), "a.json");
  EXPECT_EQ((ranges[{0, Module::activation, Slot::input2}]), (Range{0.125F, 1.0F}));
  EXPECT_EQ((ranges[{0, Module::final_norm, Slot::input}]), (Range{-3.3F, 1e-3F}));
  EXPECT_FALSE((ranges[{1, Module::activation, Slot::input}]));
  const auto json = act_ranges_json(ranges, llama());
  EXPECT_EQ(json["model.norm"].dump(), R"({"input":[-3.3,0.001]})");
  EXPECT_EQ(parse_act_ranges(json.dump(), llama(), "a.json"), ranges);
}

TEST(ActRanges, NonsenseIsRefusedByModule) {
  using testing::AllOf, testing::HasSubstr;
  const char* module = "model.layers.1.mlp.w1";
  for (const char* range : {"[1, -1]", "[0]", "[0, 1, 2]", "[null, 1]", "\"0, 1\"", "[1e300, 1e301]",
                            "[0, \"1\"]", "{}", "[NaN, 1]", "[0, Infinity]", "[0, 1e999]"}) {
    EXPECT_THAT(ranges_error(fmt::format(R"({{"{}": {{"input": {}}}}})", module, range)),
                AllOf(HasSubstr("a.json"), HasSubstr(module)))
        << range;
  }
  EXPECT_THAT(ranges_error(R"({"model.layers.11.mlp.w1": {"input": [0, 1]}})"),
              HasSubstr("model.layers.11.mlp.w1"));
  EXPECT_THAT(ranges_error(R"({"model.layers.1.mlp.w1": {"weight": [0, 1]}})"), HasSubstr(module));
  EXPECT_THAT(ranges_error(R"({"model.layers.1.mlp.w1": [0, 1]})"), HasSubstr(module));
}

TEST(ActRanges, EveryStaticPointNeedsOne) {
  const auto config = llama();
  QuantConfig qcfg = make_qcfg(config, {});
  ActRanges ranges(config.num_layers);
  for (const Point& point : all_points(config)) {
    if (needs_range(qcfg, point)) ranges[point] = Range{-1.0F, 1.0F};
  }
  ranges[{4, Module::activation, Slot::input2}].reset();
  EXPECT_EQ((complete_ranges(qcfg, ranges, config, "a")[{4, Module::activation, Slot::input2}]),
            kSigmoidRange);
  const Point missing{4, Module::qk_product, Slot::input2};
  ranges[missing].reset();
  try {
    complete_ranges(qcfg, ranges, config, "a.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("model.layers.4.self_attn.qk_bmm.input2"));
  }
  qcfg[missing].dynamic = true;
  EXPECT_NO_THROW(complete_ranges(qcfg, ranges, config, "a.json"));
  qcfg[missing] = {};
  EXPECT_NO_THROW(complete_ranges(qcfg, ranges, config, "a.json"));
}

}  // namespace
}  // namespace qeval::quant
