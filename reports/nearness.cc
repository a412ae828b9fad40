#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "eval/results/equivalence.h"
#include "reports/format.h"
#include "reports/stages.h"
#include "reports/text.h"

namespace qeval::reports {
namespace {

/// Per run, the text's blocks, or nothing where it was not measured.
using Measures = std::vector<std::optional<eval::TextDivergence>>;

Measures on_text(const SourceList& sources, size_t runs) {
  Measures out(runs);
  for (size_t i = 0; i < runs && sources.text; ++i) {
    for (const eval::DivergenceRun& run : sources.text->runs) {
      if (!sources.runs[i + 1].name.empty() && run.label == sources.runs[i + 1].name) out[i] = run.divergence;
    }
  }
  return out;
}

/// What the parts of run i's file cost on the text, where that was measured.
std::optional<eval::SplitLoss> losses_on_text(const SourceList& sources, size_t i) {
  for (const eval::DivergenceRun& run : sources.text->runs) {
    if (!sources.runs[i + 1].name.empty() && run.label == sources.runs[i + 1].name) return run.losses;
  }
  return {};
}

/// Documents of all tasks as blocks.
Measures on_tasks(const eval::Comparison& comparison) {
  Measures out(comparison.runs.size());
  for (size_t i = 0; i < out.size(); ++i) {
    eval::TextDivergence all;
    for (const eval::TaskDifference& task : comparison.differences[i].tasks) {
      if (!task.divergence) continue;
      for (const eval::BlockSum& block : task.divergence->blocks)
        all.blocks.push_back({.tokens = block.tokens, .kl = block.sum});
    }
    if (!all.blocks.empty() && std::isfinite(all.kl().value)) out[i] = std::move(all);
  }
  return out;
}

bool any(const Measures& measures) {
  return std::ranges::any_of(measures, [](const auto& measure) { return measure.has_value(); });
}

/// Runs that were measured on the same tokens can be paired.
std::vector<bool> ties(const Measures& measures) {
  std::vector<bool> out(measures.size());
  std::vector<eval::TextDivergence> known;
  std::vector<size_t> index;
  for (size_t i = 0; i < measures.size(); ++i) {
    const auto same = [&](const eval::TextDivergence& other) {
      return std::ranges::equal(measures[i]->blocks, other.blocks, {}, &eval::DivergenceBlock::tokens,
                                &eval::DivergenceBlock::tokens);
    };
    if (!measures[i] || (!known.empty() && !same(known.front()))) continue;
    known.push_back(*measures[i]);
    index.push_back(i);
  }
  const std::vector<bool> tied = eval::tied_for_best(known);
  for (size_t k = 0; k < index.size(); ++k) out[index[k]] = tied[k];
  return out;
}

void add_pooled(const Report& report, Row& row) {
  Pooled pooled;
  double recovery = 0;
  int64_t tasks = 0;
  const Row& base = report.rows.front();
  for (size_t c = 0; c < report.columns.size(); ++c) {
    if (!row.cells[c] || !base.cells[c] || report.columns[c].unit != Unit::fraction) continue;
    const double value = row.cells[c]->value, before = base.cells[c]->value;
    if (before > 0 && std::isfinite(value)) {
      recovery += value / before;
      ++tasks;
    }
    if (!row.cells[c]->difference || !row.cells[c]->difference->has_flips) continue;
    pooled.documents += report.columns[c].documents;
    pooled.lost += row.cells[c]->difference->lost;
    pooled.gained += row.cells[c]->difference->gained;
  }
  if (tasks > 0) row.recovery = recovery / static_cast<double>(tasks);
  if (pooled.documents == 0) return;
  pooled.equivalent = eval::equivalent(pooled.lost, pooled.gained, pooled.documents, report.margin);
  row.pooled = pooled;
}

}  // namespace

void add_nearness(const SourceList& sources, const eval::Comparison& comparison, Report& report) {
  Measures measures = on_text(sources, comparison.runs.size());
  const bool of_text = any(measures);
  if (of_text) {
    const eval::TextSettings& text = sources.text->text;
    int64_t tokens = 0;
    for (const auto& measure : measures) tokens = std::max(tokens, measure ? measure->tokens() : 0);
    report.nearness_of =
        fmt::format("{} ({} token{})", clean(text.file, 60), count_text(tokens), tokens == 1 ? "" : "s");
  } else {
    measures = on_tasks(comparison);
    if (any(measures)) report.nearness_of = "the tasks' scored positions";
  }
  const std::vector<bool> tied = ties(measures);
  for (size_t i = 0; i < measures.size(); ++i) {
    Row& row = report.rows[i + 1];
    if (measures[i]) row.nearness = Nearness{.kl = measures[i]->kl(), .tied = tied[i]};
    if (measures[i] && of_text) {
      row.nearness->perplexity_ratio = measures[i]->perplexity_ratio();
      row.nearness->acceptance = measures[i]->acceptance();
      row.nearness->top1_agreement = measures[i]->top1_agreement();
      row.nearness->losses = losses_on_text(sources, i);
    }
    add_pooled(report, row);
  }
}

}  // namespace qeval::reports
