#include "eval/results/equivalence.h"

#include <cmath>

#include <gtest/gtest.h>

#include "eval/results/statistics.h"

namespace qeval::eval {
namespace {

/// Without further flips the formula has a closed form in δ: ψ = δ, so z₁√δ + z₂√(δ − δ²) = δ√n.
TEST(Power, DetectableLossSolvesTheFormula) {
  for (const int64_t n : {50, 150, 1000, 20'000}) {
    for (const double flips : {0.0, 0.02, 0.1, 0.3}) {
      const double loss = detectable_loss(n, flips), share = std::max(loss, flips);
      EXPECT_NEAR(loss * std::sqrt(static_cast<double>(n)),
                  1.959963985 * std::sqrt(share) + 0.841621234 * std::sqrt(share - loss * loss), 1e-6)
          << n << ' ' << flips;
      EXPECT_LE(documents_to_detect(loss * 1.0001, flips), n);
      EXPECT_GT(documents_to_detect(loss * 0.99, flips), n);
    }
  }
  EXPECT_EQ(detectable_loss(0, 0), 1);
  EXPECT_EQ(detectable_loss(3, 0), 1);  // not even everything lost is seen
  // Connor's example by hand: ψ 0.2, δ 0.1: (1.96 · 0.44721 + 0.84162 · 0.43589)² / 0.01 = 154.6
  EXPECT_EQ(documents_to_detect(0.1, 0.2), 155);
}

struct Counts {
  int64_t lost = 0, gained = 0;
};

Counts draw(Random& random, int64_t n, double lost, double gained) {
  Counts out;
  for (int64_t i = 0; i < n; ++i) {
    const double u = random.uniform();
    out.lost += u < lost ? 1 : 0;
    out.gained += u >= lost && u < lost + gained ? 1 : 0;
  }
  return out;
}

/// 80 % of the draws at the detectable loss are significant (McNemar without continuity, as the formula has
/// it).
TEST(Power, IsEightyPercentInSimulation) {
  Random random(11);
  constexpr int64_t kDocuments = 400;
  constexpr double kFlips = 0.12;
  constexpr int kDraws = 4000;
  const double loss = detectable_loss(kDocuments, kFlips);
  int seen = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Counts counts = draw(random, kDocuments, (kFlips + loss) / 2, (kFlips - loss) / 2);
    const auto difference = static_cast<double>(counts.lost - counts.gained);
    seen += difference > kNormal975 * std::sqrt(static_cast<double>(counts.lost + counts.gained)) ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(seen) / kDraws, 0.8, 0.025);
}

/// Two models whose accuracies differ by the margin are called equivalent in at most 5 % of the draws, and
/// equal ones as often as the normal approximation says.
TEST(Equivalence, KeepsItsLevelInSimulation) {
  Random random(12);
  constexpr int64_t kDocuments = 1000;
  constexpr double kMargin = 0.03, kFlips = 0.1;
  constexpr int kDraws = 3000;
  int wrong = 0, right = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Counts apart = draw(random, kDocuments, (kFlips + kMargin) / 2, (kFlips - kMargin) / 2);
    const Counts equal = draw(random, kDocuments, kFlips / 2, kFlips / 2);
    wrong += equivalent(apart.lost, apart.gained, kDocuments, kMargin) ? 1 : 0;
    right += equivalent(equal.lost, equal.gained, kDocuments, kMargin) ? 1 : 0;
  }
  EXPECT_LE(static_cast<double>(wrong) / kDraws, 0.06);
  EXPECT_GE(static_cast<double>(wrong) / kDraws, 0.035);
  // Power 2Φ(margin·√n/√ψ − 1.645) − 1 = 2Φ(1.355) − 1 = 0.825
  EXPECT_NEAR(static_cast<double>(right) / kDraws, 0.825, 0.03);
  EXPECT_FALSE(equivalent(0, 0, 1, 0.5));
  EXPECT_FALSE(equivalent(0, 0, 100, 0.01));  // 100 documents without flips prove ±2.6 %
  EXPECT_TRUE(equivalent(0, 0, 1000, 0.01));
}

}  // namespace
}  // namespace qeval::eval
