#include "quant/methods/layer_errors.h"

#include <gtest/gtest.h>

#include "tests/tiny_model.h"

namespace qeval::quant {
namespace {

Samples samples() {
  Samples all(2);
  for (int32_t i = 0; i < 30; ++i) all[0].push_back(i * 17 % 61);
  for (int32_t i = 0; i < 12; ++i) all[1].push_back(i * 5 % 61);
  return all;
}

std::vector<double> errors(const model::Model& model, Scheme scheme) {
  QuantizeOptions options;
  options.scheme = scheme;
  return layer_errors(quantize(model, samples(), options), samples());
}

TEST(LayerErrors, GrowAsBitsGo) {
  test::TinyModel tiny;
  const model::Model model = tiny.build();
  const auto with = [&](int weight_bits, int activation_bits) {
    Scheme scheme;
    scheme.weight.bits = weight_bits;
    scheme.activation_bits = activation_bits;
    return errors(model, scheme);
  };
  const auto nothing = with(32, 32), fine = with(16, 16), w8a8 = with(8, 8), w4a8 = with(4, 8);
  ASSERT_EQ(nothing.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_LT(nothing[layer], 1e-6);
    EXPECT_LT(fine[layer], w8a8[layer]);
    EXPECT_LT(w8a8[layer], w4a8[layer]);
    EXPECT_GT(w8a8[layer], 0);
    EXPECT_LT(w4a8[layer], 2);
  }
}

}  // namespace
}  // namespace qeval::quant
