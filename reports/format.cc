#include "reports/format.h"

#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace qeval::reports {
namespace {

constexpr const char* minus = "−";

std::string negative(const std::string& text) {
  return fmt::format("{}{}", minus, text);
}

/// What is not finite, in words; empty for ordinary numbers.
std::string special(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "∞" : negative("∞");
  return {};
}

std::string fixed(double value, int decimals) {
  if (std::string text = special(value); !text.empty()) return text;
  std::string text = fmt::format("{:.{}f}", std::abs(value), decimals);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return value < 0 && !zero ? negative(text) : text;
}

int decimals_of(double value, Unit unit) {
  if (unit == Unit::fraction) return 1;
  if (unit == Unit::bits) return 3;
  const double size = std::abs(value);
  return size < 10 ? 3 : size < 1000 || !std::isfinite(value) ? 2 : 0;
}

std::string with_decimals(double value, int decimals, Unit unit) {
  if (unit == Unit::fraction) return fixed(100 * value, decimals);
  if (!std::isfinite(value) || std::abs(value) < 1e6) return fixed(value, decimals);
  return fmt::format("{}{:.2e}", value < 0 ? minus : "", std::abs(value));
}

std::string with_sign(std::string text) {
  const bool plain =
      text.starts_with(minus) || text == "NaN" || text.find_first_not_of("0.") == std::string::npos;
  return plain ? text : fmt::format("+{}", text);
}

}  // namespace

std::string score_text(double value, Unit unit) {
  return with_decimals(value, decimals_of(value, unit), unit);
}

std::string error_text(const std::optional<double>& standard_error, double value, Unit unit) {
  return standard_error ? "± " + with_decimals(*standard_error, decimals_of(value, unit), unit) : "";
}

std::string delta_text(double delta, Unit unit) {
  switch (unit) {
    case Unit::fraction:
      return with_sign(fixed(100 * delta, 1));
    case Unit::perplexity:
      if (std::isfinite(delta) && std::abs(delta) >= 1e4) return fmt::format("× {:.2e}", delta + 1);
      if (std::isfinite(delta) && std::abs(delta) >= 10) return "× " + fixed(delta + 1, 1);
      return with_sign(fixed(100 * delta, 1)) + " %";
    case Unit::bits:
      return with_sign(fixed(delta, 3));
  }
  return {};
}

std::string interval_text(const eval::Interval& interval, Unit unit) {
  return delta_text(interval.low, unit) + " … " + delta_text(interval.high, unit);
}

std::string mark(int significance) {
  return std::string(static_cast<size_t>(significance), '*');
}

std::string p_text(double p) {
  if (std::isnan(p)) return absent;
  if (p < 0.001) return "<0.001";
  return fmt::format("{:.3f}", p);
}

std::string count_text(int64_t count) {
  const std::string digits = std::to_string(count);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool group_begins = i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0;
    if (group_begins) text += ',';
    text += digits[i];
  }
  return text;
}

std::string percent_text(double fraction) {
  return fixed(100 * fraction, 1) + " %";
}

std::string bytes_text(int64_t bytes) {
  constexpr std::array<const char*, 5> units{"bytes", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < units.size(); ++unit) value /= 1000;
  return fmt::format("{:.{}f} {}", value,
                     unit > 0 && value < 9.95   ? 2
                     : unit > 0 && value < 99.5 ? 1
                                                : 0,
                     units[unit]);
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return absent;
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const double whole = std::round(seconds);
  if (whole < 60) return fmt::format("{:.0f} s", whole);
  if (whole < 3600) return fmt::format("{:.0f} min {:.0f} s", std::floor(whole / 60), std::fmod(whole, 60));
  return fmt::format("{:.0f} h {:.0f} min", std::floor(whole / 3600),
                     std::floor(std::fmod(whole, 3600) / 60));
}

std::string hash_text(const std::string& hash) {
  return hash.empty() ? absent : hash.substr(0, 12);
}

std::string ids_text(std::span<const int64_t> ids) {
  std::string out;
  for (const int64_t id : ids) out += (out.empty() ? "" : ", ") + std::to_string(id);
  return out.empty() ? absent : out;
}

std::string significant_text(double value, int digits) {
  if (std::string text = special(value); !text.empty()) return text;
  const std::string text = fmt::format("{:.{}g}", std::abs(value), digits);
  return value < 0 ? negative(text) : text;
}

std::string kl_text(double nats) {
  if (std::string text = special(nats); !text.empty()) return text;
  return nats == 0 ? "0" : fmt::format("{:#.3g}", nats);  // trailing zeros are figures, too
}

std::string task_title(const std::string& task) {
  constexpr std::array<std::pair<const char*, const char*>, 16> titles{{
      {"wikitext", "WikiText"},
      {"arc_easy", "ARC-E"},
      {"arc_challenge", "ARC-C"},
      {"hellaswag", "HellaSwag"},
      {"mmlu", "MMLU"},
      {"piqa", "PIQA"},
      {"winogrande", "WinoGrande"},
      {"openbookqa", "OpenBookQA"},
      {"boolq", "BoolQ"},
      {"sciq", "SciQ"},
      {"commonsense_qa", "CommonsenseQA"},
      {"copa", "COPA"},
      {"social_iqa", "Social IQa"},
      {"truthfulqa_mc1", "TruthfulQA MC1"},
      {"truthfulqa_mc2", "TruthfulQA MC2"},
      {"lambada_openai", "LAMBADA"},
  }};
  for (const auto& [name, title] : titles) {
    if (task == name) return title;
  }
  return task;
}

std::string method_title(const std::string& method) {
  constexpr std::array<std::pair<const char*, const char*>, 6> titles{{
      {"rtn", "RTN"},
      {"smoothquant", "SmoothQuant"},
      {"omniquant", "OmniQuant"},
      {"lrl", "LRL"},
      {"mobilequant", "MobileQuant"},
      {"rotate", "Rotated"},
  }};
  for (const auto& [name, title] : titles) {
    if (method == name) return title;
  }
  return method;
}

}  // namespace qeval::reports
