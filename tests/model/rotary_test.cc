#include "model/rotary.h"

#include <gtest/gtest.h>

namespace qeval::model {
namespace {

using Kind = RopeScaling::Kind;

void expect_frequencies(const Rotary& rotary, int64_t length, const std::vector<float>& wanted) {
  const std::vector<float> found = rotary_frequencies(rotary, length);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i] / wanted[i], 1, 2e-6) << i;
}

/// By transformers 5.24 (ROPE_INIT_FUNCTIONS). The middle ones lie in the bands where long and short
/// wavelengths are mixed.
TEST(RotaryFrequencies, AreThoseOfTransformers) {
  expect_frequencies({.theta = 500000,
                      .dim = 32,
                      .scaling = {.kind = Kind::llama3,
                                  .factor = 8,
                                  .low_freq_factor = 1,
                                  .high_freq_factor = 4,
                                  .original_max_position_embeddings = 8192,
                                  .long_factors = {},
                                  .short_factors = {}}},
                     0,
                     {1, 0.440366626F, 0.193922758F, 0.0853971019F, 0.0376060307F, 0.0165604409F,
                      0.00729266508F, 0.00321144611F, 0.000524846022F, 7.78465546e-05F, 3.42810235e-05F,
                      1.50962178e-05F, 6.64786967e-06F, 2.92749974e-06F, 1.28917316e-06F, 5.6770881e-07F});
  expect_frequencies({.theta = 10000,
                      .dim = 32,
                      .scaling = {.kind = Kind::yarn,
                                  .factor = 8,
                                  .original_max_position_embeddings = 4096,
                                  .long_factors = {},
                                  .short_factors = {}}},
                     0,
                     {1, 0.562341332F, 0.316227764F, 0.177827939F, 0.100000001F, 0.0562341288F, 0.0276699308F,
                      0.0133370962F, 0.00624999963F, 0.00281170662F, 0.0011858542F, 0.000444569858F,
                      0.000125000006F, 7.02926627e-05F, 3.95284733e-05F, 2.22284925e-05F});
  expect_frequencies({.theta = 10000,
                      .dim = 16,
                      .scaling = {.kind = Kind::dynamic,
                                  .factor = 2,
                                  .original_max_position_embeddings = 2048,
                                  .long_factors = {},
                                  .short_factors = {}}},
                     4096,
                     {1, 0.270296127F, 0.0730599985F, 0.0197478328F, 0.00533776265F, 0.00144277664F,
                      0.000389976922F, 0.000105409257F});
}

}  // namespace
}  // namespace qeval::model
