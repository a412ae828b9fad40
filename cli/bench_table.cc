// The phone's figures: Tan et al., "MobileQuant: Mobile-friendly Quantization for On-device Language Models",
// arXiv 2408.13933v2, Tables 6 and 8: TinyLlama-1.1B on a Snapdragon 8 Gen 3.
#include "cli/bench_table.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace qeval::cli {
namespace {

using nlohmann::ordered_json;

struct PhoneRow {
  const char* what;
  double prompt_ms, token_ms;
  std::optional<double> prompt_mj;
};
const PhoneRow kPhone[] = {{"w8a16", 510, 54, 1000},
                           {"MobileQuant w8a8", 276, 46, 490},
                           {"full w8a8 (every activation in 8 bits)", 89, 42, 183},
                           {"w4a16", 320, 50, std::nullopt},
                           {"MobileQuant w4a8", 239, 38, std::nullopt},
                           {"full w4a8", 89, 40, std::nullopt}};
constexpr const char* kPhoneName = "TinyLlama-1.1B on a Snapdragon 8 Gen 3, as the paper gives it";

std::string milliseconds(const Spread& s) {
  return fmt::format("{:.1f} ({:.1f}–{:.1f})", 1e3 * s.median, 1e3 * s.least, 1e3 * s.most);
}

std::string mebibytes(int64_t bytes) {
  return fmt::format("{:.0f}", static_cast<double>(bytes) / (1 << 20));
}

using Lines = std::vector<std::vector<std::string>>;

/// Columns as wide as their widest cell (in characters), the first to the left, others to the right.
std::string aligned(const Lines& lines) {
  const auto width = [](const std::string& text) {
    size_t count = 0;
    for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return count;
  };
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width(line[i]));
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string gap(widths[i] - width(line[i]), ' ');
      text += (i == 0 ? "" : "  ") + (i == 0 ? line[i] + gap : gap + line[i]);
    }
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

}  // namespace

std::string to_text(const BenchReport& report) {
  const LatencySettings& settings = report.settings;
  const bool energy = report.energy_note.empty();
  Lines lines{{"", "arithmetic", fmt::format("prompt of {}, ms", settings.prompt), "tokens/s"}};
  for (const int64_t context : settings.contexts) lines[0].push_back(fmt::format("ms/token at {}", context));
  lines[0].emplace_back("tokens/s");
  if (energy) lines[0].insert(lines[0].end(), {"prompt, J", "token, J"});
  lines[0].emplace_back("memory, MiB");
  for (const BenchReport::Row& row : report.rows) {
    const Latency& l = row.latency;
    std::vector<std::string> line{
        row.scheme, row.arithmetic, milliseconds(l.prompt),
        fmt::format("{:.1f}", static_cast<double>(settings.prompt) / l.prompt.median)};
    for (const auto& g : l.generation) line.push_back(milliseconds(g.token));
    line.push_back(fmt::format("{:.1f}", 1 / l.generation.front().token.median));
    if (energy) {
      const auto joules = [](const std::optional<double>& j) { return j ? fmt::format("{:.2f}", *j) : "–"; };
      line.push_back(joules(l.prompt_joules));
      line.push_back(joules(l.generation.front().token_joules));
    }
    line.push_back(mebibytes(l.memory_bytes + row.in_place_bytes));
    lines.push_back(std::move(line));
  }
  std::string out = fmt::format("{}\n{}\n\n{}", report.model, report.machine, aligned(lines));
  out += fmt::format(
      "\nMedian (least–most) of {} prompts and of {} tokens at each length, after {} unmeasured. Tokens/s of "
      "generation are those at {}.\nMemory: what the process holds at the longest text, and the weights that "
      "it "
      "reads in the file.\n",
      settings.repeat, settings.generate, settings.warmup, settings.contexts.front());
  if (!energy) out += fmt::format("Energy: not measured; {}.\n", report.energy_note);

  Lines phone{{"", "prompt of 256, ms", "prompt, mJ", "ms/token at 1024"}};
  for (const PhoneRow& row : kPhone) {
    phone.push_back({row.what, fmt::format("{:.0f}", row.prompt_ms),
                     row.prompt_mj ? fmt::format("{:.0f}", *row.prompt_mj) : "–",
                     fmt::format("{:.0f}", row.token_ms)});
  }
  out += fmt::format("\nAnother machine and another model, for comparison of magnitudes only: {}.\n\n{}",
                     kPhoneName, aligned(phone));
  return out;
}

ordered_json to_json(const BenchReport& report) {
  ordered_json rows = ordered_json::array();
  for (const BenchReport::Row& row : report.rows) {
    ordered_json entry{{"scheme", row.scheme}, {"arithmetic", row.arithmetic}};
    entry.update(to_json(row.latency));
    entry["weights_read_in_place_bytes"] = row.in_place_bytes;
    rows.push_back(std::move(entry));
  }
  ordered_json phone = ordered_json::array();
  for (const PhoneRow& row : kPhone) {
    phone.push_back({{"what", row.what},
                     {"prompt_ms", row.prompt_ms},
                     {"prompt_mj", row.prompt_mj ? ordered_json(*row.prompt_mj) : ordered_json(nullptr)},
                     {"token_ms_at_1024", row.token_ms}});
  }
  const LatencySettings& s = report.settings;
  return {
      {"model", report.model},
      {"machine", report.machine},
      {"settings",
       {{"prompt", s.prompt},
        {"contexts", s.contexts},
        {"generate", s.generate},
        {"repeat", s.repeat},
        {"warmup", s.warmup}}},
      {"energy", report.energy_note.empty() ? "RAPL, whole packages" : "not measured; " + report.energy_note},
      {"rows", std::move(rows)},
      {"paper", {{"machine", kPhoneName}, {"rows", std::move(phone)}}}};
}

}  // namespace qeval::cli
