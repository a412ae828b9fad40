#include "reports/render/document.h"

#include <fmt/format.h>

#include "reports/format.h"
#include "reports/render/plots.h"
#include "reports/render/scatter.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

std::string facts_line(const Report& report) {
  const Conventions& protocol = report.protocol;
  std::string shots;
  for (const TaskProtocol& task : protocol.tasks) {
    if (task.num_fewshot > 0)
      shots = ", few-shot examples drawn with seed " + std::to_string(protocol.fewshot_seed);
  }
  return fmt::format(
      "Protocol {}, prefix token {}{}, windows of {} tokens{}{}; tokenizer {}; standard errors of "
      "perplexities "
      "from {} bootstrap resamples (seed {}).",
      clean(protocol.name, 60), clean(protocol.prefix_policy, 60),
      protocol.add_bos_token.empty() ? "" : ", add-bos-token " + clean(protocol.add_bos_token, 10),
      count_text(protocol.max_length), protocol.limit.empty() ? "" : ", limit " + clean(protocol.limit, 40),
      shots, clean(hash_text(protocol.tokenizer_hash)), count_text(protocol.bootstrap.resamples),
      protocol.bootstrap.seed);
}

void move_plots(std::vector<Plot>& plots, std::string_view prefix, Section& section) {
  for (Plot& plot : plots) {
    if (plot.id.starts_with(prefix)) section.plots.push_back(std::move(plot));
  }
}

/// Which runs nothing beats in both size and divergence.
std::vector<std::string> front_paragraph(const Report& report) {
  const std::vector<size_t> front = size_front(report);
  if (front.empty()) return {};
  std::string out;
  for (const size_t row : front) out += (out.empty() ? "" : ", ") + clean(report.rows[row].label, 60);
  return {"On the Pareto front of size and divergence, which no run beats in both: " + out + "."};
}

}  // namespace

Document make_document(const Report& report) {
  std::vector<Plot> plots = make_plots(report);
  Document out;
  out.title = report.has_baseline ? "Quantization of " + clean(report.title, 100)
                                  : "Evaluation of " + clean(report.title, 100);
  out.verdict = report.verdict;
  out.facts = facts_line(report);
  const auto add = [&](Section section) { out.sections.push_back(std::move(section)); };
  const auto add_table = [&](const char* id, const char* heading, Table table) {
    if (!table.rows.empty()) add({.id = id, .heading = heading, .tables = {std::move(table)}});
  };

  add({.id = "scores", .heading = "Scores", .tables = {score_table(report)}});
  if (!report.notes.empty()) add({.id = "notes", .heading = "Read with care", .list = report.notes});
  Section nearness{.id = "nearness", .heading = "What is lost for what"};
  move_plots(plots, "pareto", nearness);
  if (Table table = nearness_table(report); !table.rows.empty()) {
    nearness.paragraphs = front_paragraph(report);
    nearness.tables.push_back(std::move(table));
    if (Table losses = losses_table(report); !losses.rows.empty())
      nearness.tables.push_back(std::move(losses));
    out.sections.insert(out.sections.begin(), std::move(nearness));
  }
  Section comparisons{.id = "differences", .heading = "Differences from the baseline"};
  if (Table table = comparison_table(report); !table.rows.empty()) {
    move_plots(plots, "delta", comparisons);
    comparisons.tables.push_back(std::move(table));
    add(std::move(comparisons));
  }
  Section costs{.id = "costs", .heading = "Cost", .tables = {cost_table(report)}};
  move_plots(plots, "perplexity", costs);
  add(std::move(costs));
  if (!report.paper.empty()) {
    Section paper{.id = "paper", .heading = "Beside the paper"};
    paper.paragraphs.emplace_back(
        "Tan et al., MobileQuant: Mobile-friendly Quantization for On-device Language Models, arXiv "
        "2408.13933v2. Rows "
        "with four figures are those of its Table 4, the others its WikiText figures. There, accuracies are "
        "in percent, "
        "and the calibration is larger than most runs here.");
    for (const PaperTable& table : report.paper) paper.tables.push_back(paper_table(table));
    add(std::move(paper));
  }
  Section flips{.id = "flips", .heading = "Answers that changed"};
  if (Table table = flip_table(report); !table.rows.empty()) {
    flips.tables.push_back(std::move(table));
    flips.examples = !report.examples.empty();
    add(std::move(flips));
  }
  add_table("texts", "Texts beside the baseline's", text_table(report));
  add_table("divergence", "Divergence from the baseline", divergence_table(report));
  Section layers{.id = "layers", .heading = "Layers"};
  if (Table table = layer_table(report); !table.rows.empty()) {
    move_plots(plots, "layers", layers);
    layers.tables.push_back(std::move(table));
    add(std::move(layers));
  }
  Section training{.id = "training", .heading = "Training"};
  move_plots(plots, "training", training);
  if (!training.plots.empty()) add(std::move(training));
  add_table("details", "All metrics", detail_table(report));
  Section protocol{.id = "protocol",
                   .heading = "Protocol",
                   .paragraphs = {out.facts},
                   .tables = {protocol_table(report), run_table(report)}};
  add(std::move(protocol));
  Section commands{.id = "commands", .heading = "To reproduce"};
  for (const Row& row : report.rows) {
    std::string text;
    for (const std::string& command : row.commands) text += command + "\n";
    if (!text.empty()) commands.code.push_back({row.label, text});
  }
  if (!commands.code.empty()) add(std::move(commands));
  return out;
}

std::string plot_file(const std::string& plot_stem, const Plot& plot) {
  return plot_stem + "-" + plot.id + ".svg";
}

}  // namespace qeval::reports
