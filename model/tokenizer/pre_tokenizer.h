#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/split_pattern.h"

namespace qeval::model {

/// One step of a pre-tokenizer: every piece is cut by a pattern, and each cut is a piece for the next step.
struct PreTokenizerStage {
  std::string pattern = {};   // SplitPattern's dialect; empty: no cutting
  bool keep_matches = true;   // matches become pieces
  bool keep_gaps = true;      // so does what lies between them
  bool prefix_space = false;  // first put a space before each piece that does not begin with one
};

/// Cuts text into the words within which byte pairs merge. Immutable.
class PreTokenizer {
 public:
  /// Throws Error as SplitPattern does.
  explicit PreTokenizer(std::vector<PreTokenizerStage> stages);

  /// The pieces of one text. Views point into the text or into `owned`.
  struct Pieces {
    std::vector<std::string_view> views;
    std::vector<std::string_view> previous;  // of the stage before, kept for its memory
    std::deque<std::string> owned;           // pieces that begin with a space the text does not have
    SplitPattern::MatchBuffer buffer;
  };

  /// Replaces `pieces.views` by the non-empty pieces of `text` (well-formed UTF-8), in order. Throws Error as
  /// SplitPattern::find does.
  void split(std::string_view text, Pieces& pieces) const;

 private:
  std::vector<PreTokenizerStage> stages_;
  std::vector<std::optional<SplitPattern>> patterns_;  // one per stage
};

/// GPT-2's pattern, which is also what tokenizer.json's ByteLevel step cuts with.
extern const std::string_view kGpt2Pattern;

/// What a GGUF file's `tokenizer.ggml.pre` stands for.
struct NamedPreTokenizer {
  std::vector<PreTokenizerStage> stages;
  bool ignore_merges = false;  // a word that is a token is never merged from its parts
  bool adds_bos_by_default = false;
};

/// Throws Error listing the names that are known.
NamedPreTokenizer find_named_pre_tokenizer(std::string_view name);

}  // namespace qeval::model
