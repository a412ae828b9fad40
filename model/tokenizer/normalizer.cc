#include "model/tokenizer/normalizer.h"

#include <algorithm>

#include "base/unicode.h"

namespace qeval::model {
namespace {

std::string replace(std::string_view text, const SplitPattern& pattern, std::string_view by,
                    bool* keeps_start) {
  SplitPattern::MatchBuffer buffer;
  std::string out;
  size_t done = 0;
  while (done < text.size()) {
    const auto match = pattern.find(text, done, buffer);
    if (!match) break;
    if (keeps_start != nullptr && match->begin == 0 && by.empty()) *keeps_start = false;
    out.append(text.substr(done, match->begin - done)).append(by);
    done = match->end;
  }
  return out.append(text.substr(done));
}

/// ASCII is in every normal form.
std::string normalize_text(std::string text, NormalForm form) {
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  return ascii ? text : normalize(text, form);
}

}  // namespace

Normalizer::Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {
  for (const NormalizerStep& step : steps_) {
    if (step.kind == NormalizerStep::Kind::kCharacterMap) maps_.emplace_back(step.text);
    if (step.kind == NormalizerStep::Kind::kReplace) {
      patterns_.emplace_back(SplitPattern(step.pattern));
    } else {
      patterns_.emplace_back(std::nullopt);
    }
  }
}

std::string Normalizer::apply(std::string_view original, bool* keeps_start) const {
  using Kind = NormalizerStep::Kind;
  std::string text(original);
  auto map = maps_.begin();
  for (size_t i = 0; i < steps_.size(); ++i) {
    switch (steps_[i].kind) {
      case Kind::kNfc:
        text = normalize_text(std::move(text), NormalForm::nfc);
        break;
      case Kind::kNfd:
        text = normalize_text(std::move(text), NormalForm::nfd);
        break;
      case Kind::kNfkc:
        text = normalize_text(std::move(text), NormalForm::nfkc);
        break;
      case Kind::kNfkd:
        text = normalize_text(std::move(text), NormalForm::nfkd);
        break;
      case Kind::kPrepend:
        if (!text.empty()) text.insert(0, steps_[i].text);
        break;
      case Kind::kReplace:
        text = replace(text, *patterns_[i], steps_[i].text, keeps_start);
        break;
      case Kind::kCharacterMap:
        text = (map++)->apply(text);
        break;
    }
  }
  return text;
}

}  // namespace qeval::model
