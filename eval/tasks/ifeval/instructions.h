#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "datasets/row.h"
#include "eval/tasks/ifeval/language.h"
#include "eval/tasks/ifeval/sentences.h"

namespace qeval::eval {

/// What two kinds of instructions are checked with, read from folders beside the data file when the first row
/// needs it. Threads may share it.
class LanguageData {
 public:
  /// `folder`/punkt_english, as NLTK's punkt_tab/english. Throws Error that says how to get it.
  std::shared_ptr<const SentenceSplitter> sentences(const std::filesystem::path& folder);
  /// `folder`/langdetect. Likewise.
  std::shared_ptr<const LanguageDetector> languages(const std::filesystem::path& folder);

 private:
  std::mutex mutex_;
  std::shared_ptr<const SentenceSplitter> sentences_;
  std::shared_ptr<const LanguageDetector> languages_;
};

/// Whether a response follows an instruction. The response is well-formed UTF-8 and not of white space alone.
using InstructionCheck = std::function<bool(const std::string& response)>;

/// The checks of a row of IFEval, one per entry of its `instruction_id_list`, with the arguments in `kwargs`.
/// Throws Error naming the field of an instruction that is none of the 25 kinds, or whose arguments are
/// missing or zero: the harness draws those by chance.
std::vector<InstructionCheck> instruction_checks(const datasets::Row& row,
                                                 const std::shared_ptr<LanguageData>& data);

/// Python's json.loads: whether the text is JSON as that function reads it, which takes NaN, Infinity and
/// lone surrogates, too.
bool is_python_json(std::string_view text);

}  // namespace qeval::eval
