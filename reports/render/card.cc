#include <array>
#include <cmath>
#include <ctime>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "reports/format.h"
#include "reports/render/document.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

/// A YAML string between double quotes, which are those of JSON.
std::string quoted(const std::string& text) {
  return nlohmann::json(clean(text, 200)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

const TaskProtocol* protocol_of(const Report& report, const std::string& task) {
  for (const TaskProtocol& protocol : report.protocol.tasks) {
    if (protocol.task == task) return &protocol;
  }
  return nullptr;
}

/// The value as cards give it: percent of accuracies, all else as it is.
double card_value(double value, Unit unit) {
  return unit == Unit::fraction ? 100 * value : value;
}

std::string metric_lines(const Report& report, const Column& column, const Cell& cell) {
  const TaskProtocol* protocol = protocol_of(report, column.task);
  std::string out =
      fmt::format("  - task:\n      type: text-generation\n    dataset:\n      name: {}\n      type: {}\n",
                  quoted(column.title), quoted(column.task));
  if (protocol != nullptr) {
    out += fmt::format("      split: {}\n      args:\n        num_few_shot: {}\n        documents: {}\n",
                       quoted(protocol->split), protocol->num_fewshot, protocol->documents);
  }
  out += fmt::format("    metrics:\n    - type: {}\n      value: {:.4f}\n      name: {}\n",
                     quoted(column.metric), card_value(cell.value, column.unit),
                     quoted(column.metric + (column.unit == Unit::fraction ? ", percent" : "")));
  if (cell.standard_error && std::isfinite(*cell.standard_error))
    out += fmt::format("      stderr: {:.4f}\n", card_value(*cell.standard_error, column.unit));
  out += fmt::format(
      "      verified: false\n    source:\n      name: {}\n",
      quoted("qeval " + program_text(report.version, report.commit) + ", protocol " + report.protocol.name));
  return out;
}

std::string front_matter(const Report& report) {
  std::string out = "---\nmodel-index:\n";
  for (const Row& row : report.rows) {
    out += fmt::format("- name: {}\n  results:\n", quoted(row.label));
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (row.cells[c] && std::isfinite(row.cells[c]->value))
        out += metric_lines(report, report.columns[c], *row.cells[c]);
    }
  }
  return out + "---\n";
}

std::string card_cell(const std::optional<Cell>& cell, Unit unit) {
  return cell ? score_text(cell->value, unit) : "–";
}

/// "95.2 – 97.1" of a divergence.
std::string kl_cell(const std::optional<Nearness>& nearness) {
  if (!nearness) return "–";
  const eval::Estimate& kl = nearness->kl;
  if (!kl.interval) return kl_text(kl.value);
  return fmt::format("{} ({} – {})", kl_text(kl.value), kl_text(kl.interval->low),
                     kl_text(kl.interval->high));
}

std::string table(const Report& report) {
  std::string head = "| Benchmark |", line = "|---|";
  for (const Row& row : report.rows) {
    head += fmt::format(" {} |", markdown_text(clean(row.label, 80)));
    line += "---:|";
  }
  std::string out = fmt::format("{}\n{}\n", head, line);
  for (size_t c = 0; c < report.columns.size(); ++c) {
    const Column& column = report.columns[c];
    out += fmt::format("| {} ({}{}) |", markdown_text(clean(column.title, 60)),
                       markdown_text(clean(column.metric, 40)), column.unit == Unit::fraction ? ", %" : "");
    for (const Row& row : report.rows) out += fmt::format(" {} |", card_cell(row.cells[c], column.unit));
    out += "\n";
  }
  const auto add = [&](const std::string& name, const auto& text) {
    out += fmt::format("| {} |", name);
    for (const Row& row : report.rows) out += fmt::format(" {} |", text(row));
    out += "\n";
  };
  if (report.has_baseline) {
    add("Recovery of accuracy", [](const Row& row) {
      return row.is_baseline ? std::string("100.0 %") : row.recovery ? percent_text(*row.recovery) : "–";
    });
  }
  if (!report.nearness_of.empty()) {
    add("KL from the baseline, nats, on " + markdown_text(report.nearness_of),
        [](const Row& row) { return row.is_baseline ? std::string("0") : kl_cell(row.nearness); });
  }
  add("Size, MB", [](const Row& row) {
    return row.costs.size_bytes ? fmt::format("{:.1f}", static_cast<double>(*row.costs.size_bytes) / 1e6)
                                : "–";
  });
  return out;
}

/// Where the hub keeps a task's documents, and what it calls the task there.
struct HubTask {
  const char *task, *dataset, *task_id;
};
constexpr std::array kHubTasks{
    HubTask{"arc_easy", "allenai/ai2_arc", "ARC-Easy"},
    HubTask{"arc_challenge", "allenai/ai2_arc", "ARC-Challenge"},
    HubTask{"hellaswag", "Rowan/hellaswag", "default"},
    HubTask{"piqa", "ybisk/piqa", "plain_text"},
    HubTask{"winogrande", "allenai/winogrande", "winogrande_xl"},
    HubTask{"openbookqa", "allenai/openbookqa", "main"},
    HubTask{"boolq", "google/boolq", "default"},
    HubTask{"sciq", "allenai/sciq", "default"},
    HubTask{"commonsense_qa", "tau/commonsense_qa", "default"},
    HubTask{"copa", "aps/super_glue", "copa"},
    HubTask{"social_iqa", "allenai/social_i_qa", "default"},
    HubTask{"truthfulqa_mc1", "truthfulqa/truthful_qa", "multiple_choice"},
    HubTask{"truthfulqa_mc2", "truthfulqa/truthful_qa", "multiple_choice"},
    HubTask{"lambada_openai", "EleutherAI/lambada_openai", "default"},
    HubTask{"mmlu", "cais/mmlu", "all"},
    HubTask{"wikitext", "Salesforce/wikitext", "wikitext-2-raw-v1"},
};

std::string iso_date(double seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

/// What a score means, for its `notes`.
std::string setup_text(const Report& report, const Row& row, const Column& column) {
  std::string out = fmt::format("{}, qeval {}, protocol {}", column.metric,
                                program_text(row.version, row.commit), report.protocol.name);
  if (const TaskProtocol* protocol = protocol_of(report, column.task)) {
    out += fmt::format(", {} split, {}-shot", protocol->split, protocol->num_fewshot);
    if (protocol->documents < protocol->original_documents)
      out += fmt::format(", {} of {} documents", protocol->documents, protocol->original_documents);
  }
  return out + fmt::format(", {} arithmetic", row.arithmetic);
}

}  // namespace

std::string to_card(const Report& report) {
  std::string out = fmt::format("{}\n## Evaluation\n\n{}\n", front_matter(report), table(report));
  out += fmt::format("Measured with qeval {}, protocol {}, tokenizer {}, windows of {} tokens{}.\n",
                     clean(program_text(report.version, report.commit), 60), clean(report.protocol.name, 60),
                     clean(hash_text(report.protocol.tokenizer_hash)), count_text(report.protocol.max_length),
                     report.protocol.limit.empty() ? "" : ", limit " + clean(report.protocol.limit, 40));
  if (report.has_baseline) {
    out += "\n";
    for (const std::string& sentence : report.verdict) out += fmt::format("- {}\n", markdown_text(sentence));
  }
  return out;
}

std::string to_evaluation_results(const Report& report, const Row& row) {
  std::string out;
  for (size_t c = 0; c < report.columns.size(); ++c) {
    const Column& column = report.columns[c];
    const auto hub = std::ranges::find(kHubTasks, std::string_view(column.task), &HubTask::task);
    if (hub == kHubTasks.end() || !row.cells[c] || !std::isfinite(row.cells[c]->value)) continue;
    out +=
        fmt::format("- dataset:\n    id: {}\n    task_id: {}\n  value: {:.4f}\n  date: \"{}\"\n  notes: {}\n",
                    hub->dataset, hub->task_id, card_value(row.cells[c]->value, column.unit),
                    iso_date(row.date), quoted(setup_text(report, row, column)));
  }
  return out;
}

}  // namespace qeval::reports
