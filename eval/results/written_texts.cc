#include "eval/results/written_texts.h"

#include <algorithm>
#include <cassert>

#include "base/unicode.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

bool continues(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80;
}

/// For every i the length of the longest common prefix of `text` and its suffix from i on (Z-function).
std::vector<size_t> prefix_lengths(std::string_view text) {
  std::vector<size_t> out(text.size());
  size_t left = 0, right = 0;  // the match that reaches farthest
  for (size_t i = 1; i < text.size(); ++i) {
    if (i < right) out[i] = std::min(right - i, out[i - left]);
    while (i + out[i] < text.size() && text[out[i]] == text[i + out[i]]) ++out[i];
    if (i + out[i] > right) {
      left = i;
      right = i + out[i];
    }
  }
  return out;
}

/// A habit that a text has or has not.
template <typename Has>
MetricComparison compare_habit(const char* name, std::span<const WrittenText> base,
                               std::span<const WrittenText> other, const Has& has) {
  MetricComparison out{.metric = name, .difference = {}, .right_or_wrong = true, .lost = {}, .gained = {}};
  for (size_t i = 0; i < base.size(); ++i) {
    const bool before = has(base[i]), after = has(other[i]);
    out.base += before ? 1 : 0;
    out.other += after ? 1 : 0;
    if (before && !after) out.lost.push_back(base[i].doc_id);
    if (after && !before) out.gained.push_back(base[i].doc_id);
  }
  out.base /= static_cast<double>(base.size());
  out.other /= static_cast<double>(base.size());
  out.difference = paired_proportions(std::ssize(out.lost), std::ssize(out.gained), std::ssize(base));
  return out;
}

MetricComparison compare_lengths(std::span<const WrittenText> base, std::span<const WrittenText> other,
                                 BootstrapOptions options) {
  MetricComparison out{.metric = "tokens", .difference = {}, .lost = {}, .gained = {}};
  std::vector<PairedTerm> pairs;
  for (size_t i = 0; i < base.size(); ++i) {
    pairs.push_back({static_cast<double>(base[i].tokens), static_cast<double>(other[i].tokens)});
    out.base += pairs.back().base / static_cast<double>(base.size());
    out.other += pairs.back().other / static_cast<double>(base.size());
  }
  options.resamples = std::max(options.resamples, least_comparison_resamples);
  out.difference = paired_bootstrap(pairs, options);
  return out;
}

}  // namespace

bool ends_in_loop(std::string_view text) {
  constexpr size_t kTimes = 3, kLength = 60;
  const std::string reversed(text.rbegin(), text.rend());
  const std::vector<size_t> matches = prefix_lengths(reversed);
  for (size_t period = 1; period * kTimes <= text.size(); ++period) {
    const size_t length = period + matches[period];  // of the end of the text that has this period
    if (length < period * kTimes || length < kLength) continue;
    const std::string_view loop = text.substr(text.size() - length);
    if (static_cast<size_t>(std::ranges::count_if(loop, [](char c) { return !continues(c); })) >= kLength)
      return true;
  }
  return false;
}

size_t common_prefix(std::string_view a, std::string_view b) {
  size_t length = static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  // Two code points may begin with the same bytes.
  const auto inside = [&](std::string_view text) { return length < text.size() && continues(text[length]); };
  while (length > 0 && (inside(a) || inside(b))) --length;
  return length;
}

WrittenTexts compare_texts(std::span<const WrittenText> base, std::span<const WrittenText> other,
                           const BootstrapOptions& options) {
  assert(!base.empty() && base.size() == other.size());
  WrittenTexts out{.documents = std::ssize(base), .first_difference = {}, .habits = {}};
  std::vector<double> differences;
  for (size_t i = 0; i < base.size(); ++i) {
    const std::string &a = base[i].text, &b = other[i].text;
    const auto common =
        static_cast<double>(count_code_points(std::string_view(a).substr(0, common_prefix(a, b))));
    const auto longer = static_cast<double>(std::max(count_code_points(a), count_code_points(b)));
    out.agreement += longer > 0 ? common / longer : 1;
    if (a == b) {
      ++out.equal;
    } else {
      differences.push_back(common);
    }
  }
  out.agreement /= static_cast<double>(base.size());
  if (!differences.empty()) out.first_difference = quantile(std::move(differences), 0.5);
  out.habits = {compare_habit("ended", base, other, [](const WrittenText& text) { return text.ended; }),
                compare_habit("free_of_loops", base, other,
                              [](const WrittenText& text) { return !ends_in_loop(text.text); }),
                compare_lengths(base, other, options)};
  return out;
}

std::vector<WrittenText> read_texts(const std::filesystem::path& samples) {
  std::vector<WrittenText> out;
  for_each_sample(samples, Tail::refuse, [&](SampleLine&& line) {
    const Scores& scores = line.sample.scores;
    for (size_t i = 0; i < scores.answers.size(); ++i) {
      const Answer& answer = scores.answers[i];
      out.push_back({scores.doc_id, std::move(line.sample.generated.responses.at(i)), answer.tokens,
                     answer.end != TextEnd::length});
    }
  });
  return out;
}

}  // namespace qeval::eval
