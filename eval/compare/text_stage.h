#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/compare/compare_options.h"
#include "eval/divergence/measure.h"
#include "eval/results/comparison_file.h"
#include "eval/results/divergence_results.h"

namespace qeval::eval {

/// Models that are measured side by side with the base: more need more memory, fewer compute the base more
/// often.
inline constexpr int64_t kTextModelsAtOnce = 4;

/// A run of a comparison whose predictions of the text are wanted.
struct TextRun {
  ComparisonEntry entry;
  std::filesystem::path model;
};

/// Whether a model's losses can be told apart (--losses): a GGUF file's, not those of a folder.
bool splits_losses(const std::filesystem::path& model);

/// The divergences of a comparison's runs on its text. What is measured is kept in OUT/divergence.json after
/// every few models, and not measured again.
class TextStage {
 public:
  /// Reads and encodes the text by the base's tokenizer. Throws Error for a text that has no tokens.
  TextStage(const ComparedText& text, Session& base, const ComparisonEntry& entry,
            TextProtocol protocol = TextProtocol::qeval);

  /// Takes over what OUT/divergence.json holds of this text and base.
  void resume(const std::filesystem::path& output);
  bool is_measured(const std::string& entry) const;
  /// What decides the results, for the settings of the comparison.
  std::string identity() const;
  int64_t tokens() const;

  /// Opens a session for an entry.
  using Open = std::function<std::unique_ptr<Session>(const TextRun& run)>;
  /// Measures those of `runs` that are not measured yet and writes OUT/divergence.json; `progress` gets
  /// tokens done and in all, of this call. Throws Error for a GGUF file whose losses are wanted and cannot be
  /// split (file_losses).
  void measure(Session& base, std::span<const TextRun> runs, const Open& open,
               const std::filesystem::path& output,
               const std::function<void(int64_t done, int64_t total)>& progress);

  /// Of the measured runs, in the order in which they were measured.
  const DivergenceResults& results() const { return results_; }
  /// Name of the measured entry among `names` whose mean divergence is the least.
  std::string nearest(std::span<const std::string> names) const;
  /// Writes the file with its runs in the order of `names`.
  void write(const std::filesystem::path& output, std::span<const std::string> names);

 private:
  /// What the parts of a GGUF file cost; `progress` as in file_losses().
  SplitLoss split(const Session& base, const Session& session,
                  const std::function<void(int64_t done, int64_t total)>& progress) const;

  std::string text_;
  bool losses_;
  TextWindows windows_;
  DivergenceResults results_;
};

}  // namespace qeval::eval
