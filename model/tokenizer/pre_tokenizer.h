#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/split_pattern.h"

namespace qeval::model {

/// One step of a pre-tokenizer: every piece is changed or cut, and each cut is a piece for the next step.
struct PreTokenizerStage {
  enum class Kind {
    kSplit,           // cut by `pattern`
    kPrefixSpace,     // a space goes before each piece that does not begin with one
    kPrefixMark,      // the same with the mark of a space, "▁"
    kPrefixMarkOnce,  // only before the piece that begins the whole text
    kMarkSpaces,      // spaces become "▁"
    kByteLevel        // bytes are spelt in the byte-level alphabet from here on
  };
  /// What a cut keeps, as tokenizer.json names it.
  enum class Behavior {
    kIsolated,            // matches and what lies between them are pieces
    kRemoved,             // only what lies between them
    kContiguous,          // isolated, but matches that touch are one piece
    kMergedWithPrevious,  // a match ends the piece before it
    kMergedWithNext       // a match begins the piece behind it
  };
  Kind kind = Kind::kSplit;
  std::string pattern = {};  // SplitPattern's dialect
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;  // what the pattern does not match counts as the matches
};

/// Cuts text into the pieces within which tokens are formed. Immutable.
class PreTokenizer {
 public:
  /// Throws Error as SplitPattern does.
  explicit PreTokenizer(std::vector<PreTokenizerStage> stages);

  /// The pieces of one text. Views point into the text or into `owned`.
  struct Pieces {
    std::vector<std::string_view> views;
    std::vector<std::string_view> previous;  // of the stage before, kept for its memory
    std::deque<std::string> owned;           // pieces that the text does not have like this
    SplitPattern::MatchBuffer buffer;
  };

  /// Replaces `pieces.views` by the non-empty pieces of `text` (well-formed UTF-8), in order; `begins` says
  /// whether the whole text begins here. Throws Error as SplitPattern::find does.
  void split(std::string_view text, bool begins, Pieces& pieces) const;

 private:
  void cut(size_t stage, Pieces& pieces) const;

  std::vector<PreTokenizerStage> stages_;
  std::vector<std::optional<SplitPattern>> patterns_;  // one per stage
  bool ends_byte_level_ = false;                       // pieces have to be turned back into bytes
};

/// GPT-2's pattern, which is also what tokenizer.json's ByteLevel step cuts with.
extern const std::string_view kGpt2Pattern;

/// What a GGUF file's `tokenizer.ggml.pre` stands for.
struct NamedPreTokenizer {
  std::vector<PreTokenizerStage> stages;
  bool ignore_merges = false;  // a word that is a token is never merged from its parts
  bool adds_bos_by_default = false;
  bool marks_spaces = false;  // words are characters with "▁" for a space, not bytes
  bool raw_text = false;      // words are characters as they are, not bytes
  bool always_adds_bos = false;
};

/// Throws Error listing the names that are known.
NamedPreTokenizer find_named_pre_tokenizer(std::string_view name);

}  // namespace qeval::model
