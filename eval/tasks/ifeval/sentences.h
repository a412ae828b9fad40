#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace qeval::eval {

/// NLTK's sentence splitter Punkt (Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection",
/// Computational Linguistics 32, 2006) with a trained model, and its word splitter: what the harness counts
/// IFEval's sentences and words in capitals by (nltk 3.10).
class SentenceSplitter {
 public:
  /// A folder as NLTK's `punkt_tab` has one per language: abbrev_types.txt and sent_starters.txt (a word a
  /// line), collocations.tab (two words), ortho_context.tab (a word and its flags). Throws Error naming the
  /// file that is missing or line that is none.
  explicit SentenceSplitter(const std::filesystem::path& folder);

  /// sent_tokenize. The text is well-formed UTF-8.
  std::vector<std::string> sentences(std::string_view text) const;
  /// word_tokenize: the words and punctuation marks of all sentences.
  std::vector<std::string> words(std::string_view text) const;

 private:
  struct Token;
  struct Context;  ///< a mark that may end a sentence, with the words around it
  enum class Starter : uint8_t { no, yes, unknown };

  int flags_of(const std::string& type) const;
  Starter may_start(const Token& token) const;
  void annotate(Token& token) const;
  void annotate_pair(Token& token, const Token& next) const;
  /// Whether a sentence ends inside the text.
  bool holds_break(std::string_view text) const;

  std::set<std::string> abbreviations_, starters_;
  std::set<std::pair<std::string, std::string>> collocations_;
  std::unordered_map<std::string, int> contexts_;
};

/// A letter, mark, digit or connector of a word, as a pattern: what NLTK's engine (the Python package regex)
/// takes for \w. Python's own \w has no marks.
inline constexpr const char* kNltkWord = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";

/// NLTK's word tokenizer of one sentence (`NLTKWordTokenizer`).
std::vector<std::string> treebank_words(std::string sentence);

}  // namespace qeval::eval
