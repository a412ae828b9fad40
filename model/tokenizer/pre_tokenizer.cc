#include "model/tokenizer/pre_tokenizer.h"

#include <array>

#include <fmt/ranges.h>

#include "base/error.h"

namespace qeval::model {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

/// Llama 3's: tiktoken's cl100k, where digits go by threes.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// The same with every digit alone.
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// SmolLM's step before GPT-2's pattern, as llama.cpp has it. (lm-evaluation-harness reads a GGUF file
/// through transformers, which drops the step.)
constexpr std::string_view kSingleDigit = "\\p{N}";

enum class Family { kGpt2, kSingleDigitsThenGpt2, kLlama3, kQwen2 };

struct Name {
  std::string_view name;
  Family family;
};

/// "default" is missing on purpose: it marks files that were converted before the pattern was recorded.
constexpr auto kNames = std::to_array<Name>({
    {"gpt-2", Family::kGpt2},
    {"gpt-neox", Family::kGpt2},
    {"olmo", Family::kGpt2},
    {"mpt", Family::kGpt2},
    {"smollm", Family::kSingleDigitsThenGpt2},
    {"llama-bpe", Family::kLlama3},
    {"llama3", Family::kLlama3},
    {"llama-v3", Family::kLlama3},
    {"qwen2", Family::kQwen2},
    {"stablelm2", Family::kQwen2},
});

PreTokenizerStage isolate(std::string_view pattern) {
  return {.pattern = std::string(pattern)};
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStage> stages) : stages_(std::move(stages)) {
  for (const PreTokenizerStage& stage : stages_) {
    if (stage.pattern.empty()) {
      patterns_.emplace_back(std::nullopt);
    } else {
      patterns_.emplace_back(SplitPattern(stage.pattern));
    }
  }
}

void PreTokenizer::split(std::string_view text, Pieces& pieces) const {
  pieces.owned.clear();
  pieces.views.assign(text.empty() ? 0 : 1, text);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const PreTokenizerStage& stage = stages_[i];
    if (stage.prefix_space) {
      for (std::string_view& piece : pieces.views) {
        if (!piece.starts_with(' ')) piece = pieces.owned.emplace_back(" ").append(piece);
      }
    }
    if (!patterns_[i]) continue;
    std::swap(pieces.views, pieces.previous);
    pieces.views.clear();
    for (const std::string_view piece : pieces.previous) {
      size_t done = 0;
      while (done < piece.size()) {
        const auto match = patterns_[i]->find(piece, done, pieces.buffer);
        const TextRange range = match.value_or(TextRange{piece.size(), piece.size()});
        if (stage.keep_gaps && range.begin > done)
          pieces.views.push_back(piece.substr(done, range.begin - done));
        if (stage.keep_matches && match)
          pieces.views.push_back(piece.substr(range.begin, range.end - range.begin));
        done = range.end;
      }
    }
  }
}

NamedPreTokenizer find_named_pre_tokenizer(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Name& entry : kNames) {
    known.push_back(entry.name);
    if (entry.name != name) continue;
    switch (entry.family) {
      case Family::kGpt2:
        return {.stages = {isolate(kGpt2Pattern)}};
      case Family::kSingleDigitsThenGpt2:
        return {.stages = {isolate(kSingleDigit), isolate(kGpt2Pattern)}};
      case Family::kLlama3:
        return {.stages = {isolate(kLlama3Pattern)}, .ignore_merges = true, .adds_bos_by_default = true};
      case Family::kQwen2:
        return {.stages = {isolate(kQwen2Pattern)}};
    }
  }
  fail("pre-tokenizer '{}' is unknown; accepted are {}", printable(name), fmt::join(known, ", "));
}

}  // namespace qeval::model
