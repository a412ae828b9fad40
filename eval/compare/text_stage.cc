#include "eval/compare/text_stage.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/setting.h"
#include "eval/describe_model.h"
#include "eval/losses.h"
#include "eval/run_settings.h"
#include "quant/arithmetic/ggml_rounding.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

DivergenceRun describe(Session& session, const std::string& label, std::string path) {
  DivergenceRun run{label, std::move(path), model_info(session), {}};
  run.model.details = to_json(describe_model(session));
  run.model.details.erase("training_loss");  // results.json of the run has them
  run.model.details.erase("layer_errors");
  run.model.details.erase("quantize");
  return run;
}

}  // namespace

bool splits_losses(const fs::path& model) {
  return !model.empty() && !fs::is_directory(model);
}

TextStage::TextStage(const ComparedText& text, Session& base, const ComparisonEntry& entry,
                     TextProtocol protocol)
    : text_(read_file(text.file)), losses_(text.losses) {
  if (text.context > base.max_length()) {
    throw UsageError(fmt::format("{} {}: accepted: 1 to {}, the longest input ({})", setting("context"),
                                 text.context, base.max_length(), setting("max-length")));
  }
  windows_ = text_windows(base.tokenizer(), {text.file.string(), text_}, protocol, text.context);
  results_.text = {.file = text.file.filename().string(),
                   .sha256 = sha256_hex(text_),
                   .bytes = std::ssize(text_),
                   .protocol = std::string(name(windows_.protocol)),
                   .context = text.context,
                   .windows = std::ssize(windows_.windows)};
  results_.base = describe(base, entry.label.empty() ? entry.name : entry.label, base.model().path.string());
}

void TextStage::resume(const fs::path& output) {
  std::error_code code;
  if (!fs::exists(output / divergence_results_file, code)) return;
  DivergenceResults there = read_divergence_results(output);
  if (there.text == results_.text && there.base.model.weight_hash == results_.base.model.weight_hash)
    results_.runs = std::move(there.runs);
}

bool TextStage::is_measured(const std::string& entry) const {
  return std::ranges::find(results_.runs, entry, &DivergenceRun::label) != results_.runs.end();
}

std::string TextStage::identity() const {
  // What differs is to be seen in a message, which cuts long values.
  return fmt::format("windows of {}{} of {}", results_.text.context, losses_ ? ", losses split," : "",
                     results_.text.sha256);
}

int64_t TextStage::tokens() const {
  int64_t tokens = 0;
  for (const TokenRequest& window : windows_.windows) tokens += std::ssize(window.input());
  return tokens;
}

SplitLoss TextStage::split(const Session& base, const Session& session,
                           const std::function<void(int64_t done, int64_t total)>& progress) const {
  std::vector<std::vector<int32_t>> samples;
  samples.reserve(windows_.windows.size());
  std::vector<int64_t> scored;
  for (const TokenRequest& window : windows_.windows) {
    samples.push_back(window.tokens);
    scored.push_back(window.scored);
  }
  // "ggml-TYPE" says that of keys and values; "ggml", and float arithmetics, which know of none, take f16.
  const std::string arithmetic = session.arithmetic().name();
  const std::string type = arithmetic.starts_with("ggml-") ? arithmetic.substr(5) : "f16";
  const FileLosses losses = file_losses({.base = base.model(),
                                         .file = session.model(),
                                         .kv_type = quant::find_kv_type(type).value(),
                                         .samples = samples,
                                         .scored = scored,
                                         .details = false,
                                         .progress = progress});
  return {.weights = losses.parts.weights,
          .activations = losses.parts.inputs,
          .kv = losses.parts.kv,
          .together = losses.together,
          .kv_type = type,
          .tokens = losses.tokens};
}

void TextStage::measure(Session& base, std::span<const TextRun> runs, const Open& open,
                        const fs::path& output,
                        const std::function<void(int64_t done, int64_t total)>& progress) {
  std::vector<const TextRun*> left;
  for (const TextRun& run : runs) {
    if (!is_measured(run.entry.name)) left.push_back(&run);
  }
  const int64_t total = tokens() * std::ssize(left);
  int64_t finished = 0;
  for (size_t first = 0; first < left.size(); first += static_cast<size_t>(kTextModelsAtOnce)) {
    const size_t count = std::min(left.size() - first, static_cast<size_t>(kTextModelsAtOnce));
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<Session*> others;
    for (size_t i = first; i < first + count; ++i) {
      sessions.push_back(open(*left[i]));
      Session& session = *sessions.back();
      if (session.tokenizer().hash() != base.tokenizer().hash()) {
        require_same_windows(windows_,
                             text_windows(session.tokenizer(), {results_.text.file, text_}, windows_.protocol,
                                          windows_.context),
                             left[i]->model);
      }
      if (losses_ && splits_losses(session.model().path)) require_comparable(base.model(), session.model());
      others.push_back(&session);
    }
    std::vector<Measured> measured = measure_divergence(
        {.base = &base,
         .others = others,
         .windows = windows_,
         .progress = [&](int64_t done, int64_t windows) {
           progress(finished + tokens() * done / windows * static_cast<int64_t>(count), total);
         }});
    for (size_t i = 0; i < count; ++i) {
      const ComparisonEntry& entry = left[first + i]->entry;
      results_.runs.push_back(
          describe(*sessions[i], entry.name, entry.model.empty() ? entry.checkpoint : entry.model));
      results_.runs.back().divergence = std::move(measured[i].divergence);
    }
    for (size_t i = 0; i < count && losses_; ++i) {
      const Session& session = *sessions[i];
      if (!splits_losses(session.model().path)) continue;
      results_.runs[results_.runs.size() - count + i].losses =
          split(base, session, [&](int64_t done, int64_t all) {
            progress(finished + tokens() * (static_cast<int64_t>(i) * all + done) / all, total);
          });
    }
    finished += tokens() * static_cast<int64_t>(count);
    write_divergence_results(output, results_);
  }
}

std::string TextStage::nearest(std::span<const std::string> names) const {
  const DivergenceRun* best = nullptr;
  for (const DivergenceRun& run : results_.runs) {
    if (std::ranges::find(names, run.label) == names.end()) continue;
    if (best == nullptr || run.divergence.kl().value < best->divergence.kl().value) best = &run;
  }
  return best == nullptr ? std::string() : best->label;
}

void TextStage::write(const fs::path& output, std::span<const std::string> names) {
  const auto place = [&](const DivergenceRun& run) {
    return std::ranges::find(names, run.label) - names.begin();
  };
  std::ranges::stable_sort(results_.runs, {}, place);
  write_divergence_results(output, results_);
}

}  // namespace qeval::eval
