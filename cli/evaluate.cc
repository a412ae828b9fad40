#include "cli/evaluate.h"

#include <iostream>

#include "base/error.h"
#include "base/shell.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "eval/results/comparison_table.h"

namespace qeval::cli {

std::string eval_command_text(const std::filesystem::path& model, const std::string& arguments,
                              const std::string& arithmetic, const std::optional<std::filesystem::path>& base,
                              const std::filesystem::path& output) {
  return fmt::format("qeval eval -m {}{}{} --arithmetic {} {} -o {}", shell_quoted(model.string()),
                     arguments.empty() ? "" : " ", arguments, arithmetic,
                     base ? "--base " + shell_quoted(base->string()) : "--keep-logprobs",
                     shell_quoted(output.string()));
}

eval::RunResults evaluate(const eval::SessionOptions& session_options,
                          const eval::EvaluationOptions& options) {
  std::optional<eval::Session> session;
  std::optional<eval::Evaluation> prepared;
  together(options.peers, [&] {
    session.emplace(session_options);
    prepared.emplace(*session, options);
  });
  return carry_out(*prepared, options);
}

eval::RunResults carry_out(eval::Evaluation& evaluation, const eval::EvaluationOptions& options) {
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
