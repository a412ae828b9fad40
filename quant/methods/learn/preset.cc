#include "quant/methods/learn/preset.h"

#include <optional>

#include "base/error.h"

namespace qeval::quant {
namespace {

/// The families whose rates the paper gives, told apart by what makes them differ.
enum class Family : uint8_t { llama, gemma, stablelm };

Family family(const model::ModelConfig& config) {
  if (config.norm == model::NormKind::layer) return Family::stablelm;
  return config.scale_embedding ? Family::gemma : Family::llama;
}

RateSchedules paper_rates(Family family) {
  switch (family) {
    case Family::stablelm:
      return {{{1e-3, 5e-4}, {5e-3, 1e-3}, {1e-6, 1e-7}}};
    case Family::gemma:
      return {{{1e-3, 1e-3}, {5e-3, 5e-3}, {5e-6, 1e-6}}};
    case Family::llama:
      break;
  }
  return {{{1e-3, 1e-4}, {1e-2, 1e-3}, {1e-6, 1e-7}}};
}

enum class Preset : uint8_t { laptop, distill, near_lossless, paper };

std::optional<Preset> find_preset(std::string_view name, LearnMethod method) {
  if (name == "laptop") return Preset::laptop;
  if (name == "paper") return Preset::paper;
  if (method != LearnMethod::mobilequant) return std::nullopt;
  if (name == "distill") return Preset::distill;
  if (name == kNearLossless) return Preset::near_lossless;
  return std::nullopt;
}

Preset parse_preset(std::string_view name, LearnMethod method) {
  if (const auto preset = find_preset(name, method)) return *preset;
  fail("{}: unknown preset; accepted: laptop, paper, and for mobilequant distill, near-lossless",
       printable(name));
}

}  // namespace

bool has_preset(std::string_view preset, LearnMethod method) {
  return find_preset(preset, method).has_value();
}

LearnSettings preset_settings(std::string_view preset, LearnMethod method, const model::ModelConfig& config,
                              int weight_bits) {
  LearnSettings settings;
  settings.method = method;
  const Preset chosen = parse_preset(preset, method);
  const bool paper = chosen == Preset::paper;
  if (chosen == Preset::near_lossless) {
    settings.loss = LearnLoss::logits;
    settings.relative_ranges = true;
    settings.round_first = true;
    // Where codes move, the scales that they are rounded on may follow them faster.
    if (weight_bits < kFewestBitsThatStay) {
      settings.rates = {{{1e-3, 1e-4}, {2e-3, 2e-4}, {4e-3, 2e-4}, {2e-2, 1e-3}}};
    } else {
      settings.rates = {{{2e-4, 2e-5}, {2e-4, 2e-5}, {4e-3, 2e-4}, {2e-2, 1e-3}}};
    }
    settings.epochs = 2;
    settings.batch_size = 4;
  } else if (chosen == Preset::distill) {
    settings.loss = LearnLoss::logits;
    settings.relative_ranges = true;
    settings.rates = {{{1e-2, 5e-4}, {1e-2, 1e-3}, {2e-3, 1e-4}}};
    settings.epochs = 10;
  } else if (method == LearnMethod::mobilequant) {
    settings.rates = paper_rates(family(config));
    settings.epochs = paper ? 60 : 4;
  } else {
    settings.rates = {{{1e-3, 1e-4}, {1e-2, 1e-3}, {1e-5, 5e-6}}};
    settings.epochs = paper ? 20 : 4;
  }
  return settings;
}

SampleSize preset_samples(std::string_view preset, LearnMethod method) {
  switch (parse_preset(preset, method)) {
    case Preset::laptop:
      return {};
    case Preset::distill:
      return {.count = 80};
    case Preset::near_lossless:
      return {.count = 256, .length = 256};
    case Preset::paper:
      break;
  }
  return {.count = method == LearnMethod::mobilequant ? 1024 : 128};
}

}  // namespace qeval::quant
