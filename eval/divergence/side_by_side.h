#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "eval/engine/plan.h"
#include "eval/engine/session.h"

namespace qeval::eval {

/// Several models of one vocabulary on the same windows of text: each computes some short windows, or a
/// stretch of a long one, in turn, and their logits are looked at together, a few rows at a time. Memory does
/// not grow with the window, but for keys and values, nor with the vocabulary.
class SideBySide {
 public:
  /// Windows of at most `longest` tokens. The sessions must outlive the object. Throws Error for vocabularies
  /// of different sizes.
  SideBySide(std::vector<Session*> models, int64_t longest);
  ~SideBySide();
  SideBySide(const SideBySide&) = delete;
  SideBySide& operator=(const SideBySide&) = delete;

  /// Scored tokens of one window in their order and, per model, the logits [targets.size(), vocabulary] that
  /// predict them.
  using Visit =
      std::function<void(std::span<const int32_t> targets, std::span<const std::vector<float>> logits)>;
  /// Computes the first of `windows`, as many as go side by side and at least one, visits all that is scored
  /// in them, one after the other, and returns how many they are.
  int64_t run(std::span<const TokenRequest> windows, const Visit& visit);

  int64_t vocabulary() const;

 private:
  struct Lane;
  struct Stretch;
  /// Computes stretches of different windows at once and visits what is scored in each.
  void compute(std::span<const Stretch> stretches, const Visit& visit);

  std::vector<Lane> lanes_;
};

}  // namespace qeval::eval
