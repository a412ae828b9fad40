// Which continuation does a model find likeliest? qeval's libraries in thirty lines:
//
//   best_choice MODEL "The capital of France is" " Paris" " Rome" " Madrid"

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "eval/engine/plan.h"
#include "eval/engine/session.h"
#include "eval/requests.h"

namespace {

/// Prints the log-likelihood of each choice after the context; returns the likeliest choice.
std::string best_choice(const std::string& model, const std::string& context,
                        const std::vector<std::string>& choices) {
  namespace eval = qeval::eval;
  eval::Session session({.model = model, .arithmetic = "", .max_length = {}});
  const eval::RequestEncoder encoder(session.tokenizer(), eval::Protocol::lm_eval_0_4,
                                     eval::PrefixToken::automatic, session.max_length());
  std::vector<eval::TokenRequest> requests;
  for (const std::string& choice : choices) requests.push_back(encoder.encode({context, choice}).tokens);

  // What the choices share, the context, is computed once.
  const eval::Plan plan(requests, 2048, &session.model().config);
  eval::ScoringRun run(session.decoder(), plan);
  while (!run.done()) run.step();

  size_t best = 0;
  std::vector<double> scores;
  for (size_t i = 0; i < choices.size(); ++i) {
    scores.push_back(run.take(static_cast<int64_t>(i)).log_likelihood());
    std::printf("%10.4f  %s\n", scores[i], choices[i].c_str());
    if (scores[i] > scores[best]) best = i;
  }
  return choices[best];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: best_choice MODEL CONTEXT CHOICE...\n", stderr);
    return 2;
  }
  try {
    const std::string best = best_choice(argv[1], argv[2], std::vector<std::string>(argv + 3, argv + argc));
    std::printf("likeliest: %s\n", best.c_str());
    return 0;
  } catch (
      const std::exception& error) {  // qeval::Error: one line that says what, where, what would be accepted
    std::fprintf(stderr, "best_choice: %s\n", error.what());
    return 1;
  }
}
