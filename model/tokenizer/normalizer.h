#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/character_map.h"
#include "model/tokenizer/split_pattern.h"

namespace qeval::model {

/// One step of tokenizer.json's `normalizer`.
struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kPrepend, kReplace, kCharacterMap };
  Kind kind = Kind::kNfc;
  std::string pattern = {};  // kReplace: SplitPattern's dialect
  /// kPrepend: what goes before a text; kReplace: what a match becomes; kCharacterMap: the map, checked
  std::string text = {};
};

/// Rewrites text before it is cut into pieces. Immutable.
class Normalizer {
 public:
  /// Throws Error as SplitPattern does.
  explicit Normalizer(std::vector<NormalizerStep> steps);

  bool empty() const { return steps_.empty(); }
  /// `text` must be well-formed UTF-8; an empty one stays empty. `keeps_start`, unless null, becomes false
  /// where the result does not begin with what `text` begins with. Throws Error as SplitPattern::find does.
  std::string apply(std::string_view text, bool* keeps_start = nullptr) const;

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<std::optional<SplitPattern>> patterns_;  // one per step
  std::vector<CharacterMap> maps_;                     // one per step of that kind
};

}  // namespace qeval::model
