#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/results/results.h"
#include "eval/results/text_divergence.h"

namespace qeval::eval {

/// The text that divergences were measured on, and how it was cut.
struct TextSettings {
  std::string file;  ///< name without folders
  std::string sha256;
  int64_t bytes = 0;
  std::string protocol;  ///< "qeval", "llama.cpp"
  int64_t context = 0, windows = 0;
  bool operator==(const TextSettings&) const = default;
};

/// What roundings of a GGUF file cost on the text: mean KL(base ‖ the base with the part), nats per token.
struct SplitLoss {
  double weights = 0, activations = 0, kv = 0;  ///< each alone
  double together = 0;                          ///< all three at once
  std::string kv_type;                          ///< of keys and values
  int64_t tokens = 0;

  double interaction() const { return together - weights - activations - kv; }
};

/// A model on a text: the base, or another with its divergence from it.
struct DivergenceRun {
  std::string label;
  std::string path;  ///< of the checkpoint, as given
  ModelInfo model;
  TextDivergence divergence;  ///< of the base: empty
  std::optional<SplitLoss> losses{};
};

/// What `qeval divergence` finds.
struct DivergenceResults {
  TextSettings text;
  DivergenceRun base;
  std::vector<DivergenceRun> runs;
};

inline constexpr const char* divergence_results_file = "divergence.json";

/// "0.01234 [0.0120, 0.0127]"-like parts, as tables and verdicts show them.
std::string estimate_text(const Estimate& estimate, int digits);
std::string interval_text(const Estimate& estimate, int digits);

/// Tables for a terminal: a row per run, the nearest to the base first, with what it takes; then the
/// quantiles.
std::string render_divergence(const DivergenceResults& results);

/// FOLDER/divergence.json, replaced atomically: {"divergence": 1, "text": {…}, "base": {"label", "path",
/// "model"}, "runs": [{…, "tied_for_best", "divergence": to_json(TextDivergence), "losses" where they
/// were split}]}. No times: the same models and text give the same bytes.
void write_divergence_results(const std::filesystem::path& folder, const DivergenceResults& results);
DivergenceResults read_divergence_results(const std::filesystem::path& folder);

nlohmann::ordered_json to_json(const TextSettings& text);
TextSettings text_settings_from_json(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace qeval::eval
