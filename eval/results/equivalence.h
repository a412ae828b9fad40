#pragma once

#include <cstdint>

namespace qeval::eval {

/// The chance with which a loss is to be seen, and the level of the test that sees it.
inline constexpr double kPower = 0.8, kLevel = 0.05;

/// The smallest loss of accuracy that the two-sided McNemar test over `documents` sees with a chance of 80 %,
/// where a share `flips` of the documents changes between right and wrong, lost or gained: the δ of
///
///     δ √n = z(97.5 %) √ψ + z(80 %) √(ψ − δ²)
///
/// (Connor, Biometrics 43, 1987, 207–211), ψ being the flips, or δ where they are fewer: a loss is made of
/// them. At most 1; 1 without documents.
double detectable_loss(int64_t documents, double flips);

/// How many documents see a loss of `loss`, 0 < loss ≤ 1, by the same rule, rounded up.
int64_t documents_to_detect(double loss, double flips);

/// Whether two one-sided tests at 5 % each show that the difference of two paired proportions lies within
/// ±margin: whether Tango's score interval of 90 % does (TOST; Schuirmann 1987, Liu et al. 2002). Never with
/// fewer than two documents.
bool equivalent(int64_t lost, int64_t gained, int64_t documents, double margin);

}  // namespace qeval::eval
