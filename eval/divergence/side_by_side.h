#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "eval/engine/plan.h"
#include "eval/engine/session.h"

namespace qeval::eval {

/// Several models of one vocabulary on the same windows of text: each computes a stretch of tokens in turn,
/// and their logits are looked at together, a few rows at a time. Memory does not grow with the window, but
/// for keys and values, nor with the vocabulary.
class SideBySide {
 public:
  /// Windows of at most `longest` tokens. The sessions must outlive the object. Throws Error for vocabularies
  /// of different sizes.
  SideBySide(std::vector<Session*> models, int64_t longest);
  ~SideBySide();
  SideBySide(const SideBySide&) = delete;
  SideBySide& operator=(const SideBySide&) = delete;

  /// Scored tokens in their order and, per model, the logits [targets.size(), vocabulary] that predict them.
  using Visit =
      std::function<void(std::span<const int32_t> targets, std::span<const std::vector<float>> logits)>;
  /// Computes a window and visits all that is scored in it.
  void run(const TokenRequest& window, const Visit& visit);

  int64_t vocabulary() const;

 private:
  struct Lane;
  std::vector<Lane> lanes_;
};

}  // namespace qeval::eval
