#include "cli/evaluate.h"

#include <iostream>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "eval/results/comparison_table.h"

namespace qeval::cli {

eval::RunResults evaluate(const eval::SessionOptions& session_options,
                          const eval::EvaluationOptions& options) {
  std::optional<eval::Session> session;
  std::optional<eval::Evaluation> prepared;
  together(options.peers, [&] {
    session.emplace(session_options);
    prepared.emplace(*session, options);
  });
  eval::Evaluation& evaluation = *prepared;
  evaluation.begin();
  for (const std::string& warning : evaluation.warnings()) std::cerr << "qeval: warning: " << warning << '\n';
  catch_interrupts();
  Progress progress;
  while (!evaluation.done()) {
    const auto state = evaluation.progress();
    progress.update(state.task, state.tokens_done, state.tokens_total);
    if (interrupted()) {
      progress.clear();
      if (!options.peers.alone())
        fail(
            "interrupted; the finished documents are kept: the same command with --resume continues on any "
            "number of ranks");
      fail("interrupted with {} documents finished{}", evaluation.documents_finished(),
           options.output ? "; the same command with --resume continues" : "");
    }
    evaluation.step();
  }
  return evaluation.finish();
}

void print_comparison(const eval::Comparison& comparison) {
  std::cout << fmt::format("\nAgainst {}:\n\n", printable(comparison.base.name))
            << eval::render_comparison(comparison);
}

}  // namespace qeval::cli
