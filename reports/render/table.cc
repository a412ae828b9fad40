#include "reports/render/table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "reports/format.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

constexpr size_t label_limit = 80, name_limit = 60;

TableCell text_cell(const std::string& text, size_t limit = label_limit) {
  return {.text = text.empty() ? absent : clean(text, limit)};
}
TableCell number_cell(std::string text, double sort) {
  return {.text = std::move(text), .sort = sort};
}
TableCell count_cell(int64_t count) {
  return number_cell(count_text(count), static_cast<double>(count));
}
TableCell absent_cell() {
  return {.text = absent, .sort = std::nan("")};
}

Heading words(std::string title) {
  return {.title = std::move(title), .numeric = false};
}
Heading figure(std::string title, std::string detail = "") {
  return {.title = std::move(title), .detail = std::move(detail)};
}

std::string method_of(const Row& row) {
  if (row.method.empty() && row.arithmetic == "float") return row.format.empty() ? "Float" : row.format;
  if (row.method.empty()) return row.model;
  return method_title(row.method) + (row.variant == "original" ? " (original)" : "");
}

/// What the first column calls each row: its method, or where another has the same method, scheme and
/// arithmetic, the row's label.
std::vector<std::string> row_names(const Report& report) {
  using Kind = std::tuple<std::string, std::string, std::string>;
  const auto kind_of = [](const Row& row) { return Kind(method_of(row), row.scheme, row.arithmetic); };
  std::map<Kind, int> rows;
  for (const Row& row : report.rows) ++rows[kind_of(row)];
  std::vector<std::string> out;
  for (const Row& row : report.rows) out.push_back(rows[kind_of(row)] > 1 ? row.label : method_of(row));
  return out;
}

Tone tone_of(const Difference& difference) {
  if (difference.significance == 0) return Tone::neutral;
  return difference.worse ? Tone::worse : Tone::better;
}

std::string delta_with_mark(const Difference& difference, Unit unit) {
  return delta_text(difference.delta, unit) + (difference.significance > 0 ? " " : "") +
         mark(difference.significance);
}

TableCell score_cell(const std::optional<Cell>& cell, Unit unit) {
  if (!cell) return absent_cell();
  TableCell out = number_cell(score_text(cell->value, unit), cell->value);
  out.error = error_text(cell->standard_error, cell->value, unit);
  if (cell->difference) {
    out.second = delta_with_mark(*cell->difference, unit);
    out.tone = tone_of(*cell->difference);
  }
  return out;
}

std::string direction(const Column& column) {
  const char* percent = column.unit == Unit::fraction ? ", %" : "";
  return fmt::format("{}{} {}", clean(column.metric, name_limit), percent,
                     column.higher_is_better ? "↑" : "↓");
}

Heading score_heading(const Column& column) {
  return figure(clean(column.title, name_limit),
                fmt::format("{}, n\u00a0=\u00a0{}", direction(column), count_text(column.documents)));
}

/// Without the columns in which no row says anything.
Table without_empty_columns(Table table) {
  for (size_t i = table.headings.size(); i-- > 1;) {
    if (!std::ranges::all_of(table.rows, [&](const auto& row) { return row[i].text == absent; })) continue;
    const auto at = static_cast<ptrdiff_t>(i);
    table.headings.erase(table.headings.begin() + at);
    for (auto& row : table.rows) row.erase(row.begin() + at);
  }
  return table;
}

}  // namespace

Table score_table(const Report& report) {
  Table table{.id = "scores", .headings = {words("Method"), words("Scheme"), words("Arithmetic")}};
  table.caption = "Value ± standard error; n is the number of documents.";
  if (report.has_baseline) {
    table.caption += fmt::format(
        " Below it the difference from {}: relative for perplexities, percentage points for accuracies. "
        "* ** *** : p below 0.05, 0.01, 0.001 after Holm's correction over all {} comparisons of this table.",
        clean(report.rows[0].label, label_limit), report.comparisons);
  }
  for (const Column& column : report.columns) table.headings.push_back(score_heading(column));
  const std::vector<std::string> names = row_names(report);
  for (size_t r = 0; r < report.rows.size(); ++r) {
    const Row& row = report.rows[r];
    std::vector<TableCell> cells{text_cell(names[r]), text_cell(row.scheme), text_cell(row.arithmetic)};
    for (size_t c = 0; c < report.columns.size(); ++c)
      cells.push_back(score_cell(row.cells[c], report.columns[c].unit));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table comparison_table(const Report& report) {
  Table table{.id = "comparisons"};
  table.caption = fmt::format(
      "Paired by document. Right or wrong answers: exact McNemar test and Tango's score interval; "
      "perplexities "
      "and other means: bootstrap over documents ({} resamples). The 95 % intervals are of each difference "
      "alone, p (Holm) is adjusted for all {} comparisons.",
      count_text(report.protocol.comparison_resamples), report.comparisons);
  table.headings = {
      words("Run"),       words("Task"), figure("Difference"), figure("95 % interval"), figure("p"),
      figure("p (Holm)"), words("")};
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (!row.cells[c] || !row.cells[c]->difference) continue;
      const Difference& difference = *row.cells[c]->difference;
      const Unit unit = report.columns[c].unit;
      const bool interval = difference.interval.has_value();
      table.rows.push_back(
          {text_cell(row.label), text_cell(report.columns[c].title, name_limit),
           number_cell(delta_text(difference.delta, unit), difference.delta),
           interval ? number_cell(interval_text(*difference.interval, unit), difference.interval->low)
                    : absent_cell(),
           number_cell(p_text(difference.p), difference.p),
           number_cell(p_text(difference.p_holm), difference.p_holm),
           TableCell{.text = mark(difference.significance)}});
    }
  }
  return table;
}

Table cost_table(const Report& report) {
  Table table{.id = "costs"};
  table.caption =
      "Bits per weight are the mean over the projections. Speed is that of the evaluation: input tokens "
      "computed "
      "per second, prefixes shared, on the machine below.";
  table.headings = {
      words("Run"),          figure("Weights", "bits"),           figure("Activations", "bits"),
      figure("Size"),        figure("Speed", "tokens/s"),         figure("Evaluation", "wall time"),
      figure("Peak memory"), figure("Quantization", "wall time"), figure("Quantization", "peak memory")};
  const auto bits = [](const std::optional<double>& value) {
    return value ? number_cell(significant_text(*value, 3), *value) : absent_cell();
  };
  const auto bytes = [](const std::optional<int64_t>& value) {
    return value ? number_cell(bytes_text(*value), static_cast<double>(*value)) : absent_cell();
  };
  for (const Row& row : report.rows) {
    const Costs& costs = row.costs;
    table.rows.push_back(
        {text_cell(row.label), bits(costs.weight_bits), bits(costs.activation_bits), bytes(costs.size_bytes),
         costs.tokens_per_second
             ? number_cell(count_text(std::llround(std::min(*costs.tokens_per_second, 1e15))),
                           *costs.tokens_per_second)
             : absent_cell(),
         number_cell(duration_text(costs.seconds), costs.seconds), bytes(costs.peak_rss_bytes),
         costs.quantize_seconds ? number_cell(duration_text(*costs.quantize_seconds), *costs.quantize_seconds)
                                : absent_cell(),
         bytes(costs.quantize_peak_bytes)});
  }
  return without_empty_columns(std::move(table));
}

Table flip_table(const Report& report) {
  Table table{.id = "flips"};
  table.caption =
      "Documents whose answer was right in the baseline and wrong here (lost), and the reverse (gained).";
  table.headings = {words("Run")};
  std::vector<size_t> shown;
  for (size_t c = 0; c < report.columns.size(); ++c) {
    for (const Row& row : report.rows) {
      if (!row.cells[c] || !row.cells[c]->difference || !row.cells[c]->difference->has_flips) continue;
      shown.push_back(c);
      table.headings.push_back(
          figure(clean(report.columns[c].title, name_limit),
                 fmt::format("lost / gained, n\u00a0=\u00a0{}", count_text(report.columns[c].documents))));
      break;
    }
  }
  if (shown.empty()) return table;
  for (const Row& row : report.rows) {
    if (row.is_baseline) continue;
    std::vector<TableCell> cells{text_cell(row.label)};
    for (const size_t c : shown) {
      if (!row.cells[c] || !row.cells[c]->difference || !row.cells[c]->difference->has_flips) {
        cells.push_back(absent_cell());
        continue;
      }
      const Difference& difference = *row.cells[c]->difference;
      cells.push_back(number_cell(count_text(difference.lost) + " / " + count_text(difference.gained),
                                  static_cast<double>(difference.lost + difference.gained)));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table nearness_table(const Report& report) {
  Table table{.id = "nearness"};
  table.caption = "KL(baseline ‖ run) in nats on " + report.nearness_of +
                  ", with the 95 % interval; = is tied with the nearest run (the interval of their paired "
                  "difference holds "
                  "0). Recovery is the mean of accuracy / the baseline's over the tasks.";
  table.headings = {
      words("Run"),         figure("KL"),      figure("95 % interval"), figure("PPL ratio"),
      figure("Acceptance"), figure("Top-1"),   figure("Size, MB"),      figure("Bits per weight"),
      figure("Tokens / s"), figure("Recovery")};
  std::vector<const Row*> rows;
  for (const Row& row : report.rows) {
    if (row.nearness) rows.push_back(&row);
  }
  std::ranges::stable_sort(rows, {}, [](const Row* row) { return row->nearness->kl.value; });
  const auto tied = std::ranges::count_if(rows, [](const Row* row) { return row->nearness->tied; });
  const auto estimate = [](const std::optional<eval::Estimate>& value, int digits) {
    return value ? number_cell(fmt::format("{:.{}f}", value->value, digits), value->value) : text_cell("–");
  };
  const auto share = [](const std::optional<eval::Estimate>& value) {
    return value ? number_cell(percent_text(value->value), value->value) : text_cell("–");
  };
  const auto cost = [](const std::optional<double>& value, int digits) {
    return value ? number_cell(fmt::format("{:.{}f}", *value, digits), *value) : text_cell("–");
  };
  for (const Row* row : rows) {
    const Nearness& nearness = *row->nearness;
    const auto size = row->costs.size_bytes ? std::optional(static_cast<double>(*row->costs.size_bytes) / 1e6)
                                            : std::nullopt;
    table.rows.push_back(
        {text_cell(row->label + (nearness.tied && tied > 1 ? " =" : "")),
         number_cell(kl_text(nearness.kl.value), nearness.kl.value),
         text_cell(nearness.kl.interval
                       ? kl_text(nearness.kl.interval->low) + " … " + kl_text(nearness.kl.interval->high)
                       : "–"),
         estimate(nearness.perplexity_ratio, 4), share(nearness.acceptance), share(nearness.top1_agreement),
         cost(size, 1), cost(row->costs.weight_bits, 2), cost(row->costs.tokens_per_second, 0),
         row->recovery ? number_cell(percent_text(*row->recovery), *row->recovery) : text_cell("–")});
  }
  return table;
}

Table losses_table(const Report& report) {
  Table table{.id = "losses"};
  table.caption = "What the roundings of a GGUF file cost on " + report.nearness_of +
                  ": KL from the baseline in nats per token with each part put into it alone (activations as "
                  "llama.cpp rounds them), and with all three. The interaction is what they have over their "
                  "sum, negative where parts cancel one another.";
  table.headings = {words("Run"),        figure("Weights"),     figure("Activations"), figure("Keys, values"),
                    words("Their type"), figure("Interaction"), figure("Together")};
  for (const Row& row : report.rows) {
    if (!row.nearness || !row.nearness->losses) continue;
    const eval::SplitLoss& losses = *row.nearness->losses;
    const auto loss = [](double value) { return number_cell(kl_text(value), value); };
    table.rows.push_back({text_cell(row.label), loss(losses.weights), loss(losses.activations),
                          loss(losses.kv), text_cell(losses.kv_type), loss(losses.interaction()),
                          loss(losses.together)});
  }
  return table;
}

Table divergence_table(const Report& report) {
  Table table{.id = "divergence"};
  table.caption =
      "KL(baseline ‖ run) of the next-token distributions over scored positions, in nats. The baseline's "
      "likeliest "
      "tokens are taken one by one and the rest as one, which bounds the mean from below; the bound from "
      "above "
      "stands beside it.";
  table.headings = {words("Run"),       words("Task"),     figure("Mean KL"),
                    figure("at most"),  figure("99 % KL"), figure("Top-1 agreement"),
                    figure("Positions")};
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (!row.cells[c] || !row.cells[c]->divergence) continue;
      const Divergence& divergence = *row.cells[c]->divergence;
      table.rows.push_back({text_cell(row.label), text_cell(report.columns[c].title, name_limit),
                            number_cell(kl_text(divergence.mean_kl), divergence.mean_kl),
                            number_cell(kl_text(divergence.mean_kl_upper), divergence.mean_kl_upper),
                            number_cell(kl_text(divergence.kl_99), divergence.kl_99),
                            number_cell(percent_text(divergence.top1_agreement), divergence.top1_agreement),
                            count_cell(divergence.positions)});
    }
  }
  return table;
}

Table text_table(const Report& report) {
  Table table{.id = "texts"};
  table.caption =
      "Texts that the model wrote, beside the baseline's for the same prompts. Agreement is the mean of the "
      "common prefix over the longer text; the first difference is the median place, in characters, where "
      "texts part. Not ended: broken off at the most tokens that the task allows. Loops: texts whose end "
      "says "
      "one thing three times or more. p: exact McNemar test of this habit alone.";
  table.headings = {words("Run"),
                    words("Task"),
                    figure("Equal"),
                    figure("Agreement"),
                    figure("First difference"),
                    figure("Tokens", "baseline → run"),
                    figure("Not ended", "baseline → run"),
                    figure("p"),
                    figure("Loops", "baseline → run"),
                    figure("p")};
  const auto change = [](int64_t base, int64_t here) {
    return number_cell(count_text(base) + " → " + count_text(here), static_cast<double>(here - base));
  };
  for (const Row& row : report.rows) {
    for (size_t c = 0; c < report.columns.size(); ++c) {
      if (!row.cells[c] || !row.cells[c]->texts) continue;
      const Texts& texts = *row.cells[c]->texts;
      table.rows.push_back(
          {text_cell(row.label), text_cell(report.columns[c].title, name_limit),
           number_cell(fmt::format("{} of {}", count_text(texts.equal), count_text(texts.documents)),
                       static_cast<double>(texts.equal)),
           number_cell(percent_text(texts.agreement), texts.agreement),
           texts.first_difference
               ? number_cell(count_text(std::llround(*texts.first_difference)), *texts.first_difference)
               : absent_cell(),
           number_cell(fmt::format("{:.1f} → {:.1f}", texts.base_tokens, texts.tokens),
                       texts.tokens - texts.base_tokens),
           change(texts.unended.base, texts.unended.here),
           number_cell(p_text(texts.unended.p), texts.unended.p),
           change(texts.looping.base, texts.looping.here),
           number_cell(p_text(texts.looping.p), texts.looping.p)});
    }
  }
  return table;
}

Table layer_table(const Report& report) {
  Table table{.id = "layers",
              .caption =
                  "The blocks whose output is furthest from the unquantized one's, errors of earlier "
                  "blocks included.",
              .headings = {words("Run"), words("Worst layers (error)")}};
  for (const Row& row : report.rows) {
    if (row.worst_layers.empty()) continue;
    std::string text;
    for (const eval::LayerError& error : row.worst_layers)
      text +=
          fmt::format("{}{} ({})", text.empty() ? "" : ", ", error.layer, significant_text(error.error, 3));
    table.rows.push_back({text_cell(row.label), text_cell(text, 200)});
  }
  return table;
}

Table detail_table(const Report& report) {
  Table table{.id = "details"};
  table.caption =
      "Every metric of every task and group. Differences here are not tested, so that they bear no marks.";
  table.headings = {words("Task"), words("Metric"), figure("Documents")};
  for (const Row& row : report.rows) table.headings.push_back(figure(clean(row.label, name_limit)));
  for (size_t c = 0; c < report.details.size(); ++c) {
    const Column& column = report.details[c];
    std::vector<TableCell> cells{text_cell(column.task, name_limit), text_cell(direction(column)),
                                 count_cell(column.documents)};
    for (const Row& row : report.rows) cells.push_back(score_cell(row.details[c], column.unit));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table protocol_table(const Report& report) {
  Table table{.id = "protocol"};
  table.caption = "What was scored. The first ids are those of the first document's first request.";
  table.headings = {words("Task"), words("Version"), words("Split"),  figure("Few-shot"), figure("Documents"),
                    figure("of"),  words("Data"),    words("Prompt"), words("First ids")};
  for (const TaskProtocol& task : report.protocol.tasks) {
    table.rows.push_back({text_cell(task.task, name_limit), text_cell(task.version, name_limit),
                          text_cell(task.split, name_limit), count_cell(task.num_fewshot),
                          count_cell(task.documents), count_cell(task.original_documents),
                          text_cell(hash_text(task.data_hash)), text_cell(hash_text(task.prompt_hash)),
                          text_cell(ids_text(task.first_request_ids), 200)});
  }
  return table;
}

Table run_table(const Report& report) {
  Table table{.id = "runs", .caption = "What was run, and where. Hashes are the first digits of SHA-256."};
  table.headings = {words("Run"),       words("Model"),   words("Weights"),  words("Quantization"),
                    words("Processor"), words("Kernels"), figure("Threads"), words("qeval")};
  for (const Row& row : report.rows) {
    table.rows.push_back({text_cell(row.label), text_cell(row.model), text_cell(hash_text(row.weight_hash)),
                          text_cell(hash_text(row.quantization_hash)), text_cell(row.cpu),
                          text_cell(row.cpu_path), count_cell(row.threads),
                          text_cell(program_text(row.version, row.commit))});
  }
  return table;
}

Table paper_table(const PaperTable& paper) {
  Table table{.id = "paper", .headings = {words("Method")}};
  table.caption = paper.same_family
                      ? fmt::format(
                            "{} as published, and this report's run of the same method where there is one. "
                            "In parentheses the difference from the unquantized model.",
                            paper.model)
                      : fmt::format(
                            "{} as published. The paper has no model of this family: only the differences, "
                            "in parentheses, can be set beside each other.",
                            paper.model);
  for (const std::string& column : paper.columns) {
    table.headings.push_back(figure(column, "paper"));
    table.headings.push_back(figure(column, "here"));
  }
  const auto value_cell = [](const std::optional<double>& value, const std::optional<double>& delta,
                             Unit unit) {
    if (!value) return absent_cell();
    TableCell cell = number_cell(score_text(*value, unit), *value);
    if (delta) cell.second = "(" + delta_text(*delta, unit) + ")";
    return cell;
  };
  for (const PaperRow& row : paper.rows) {
    std::vector<TableCell> cells{text_cell(row.label)};
    for (size_t i = 0; i < paper.columns.size(); ++i) {
      cells.push_back(value_cell(row.paper[i], row.paper_delta[i], paper.units[i]));
      if (i == 0 && row.beyond) cells.back().text = ">1000";
      cells.push_back(value_cell(row.ours[i], row.ours_delta[i], paper.units[i]));
    }
    table.rows.push_back(std::move(cells));
  }
  return without_empty_columns(std::move(table));
}

}  // namespace qeval::reports
