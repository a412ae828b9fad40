#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/score_request.h"

namespace qeval::cli {
namespace {

using nlohmann::json;

po::options_description options() {
  po::options_description options("Options");
  add_model_options(options);
  add_scoring_options(options);
  return options;
}

int run(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  eval::Session session(session_options(arguments));
  // Requests by token ids need no tokenizer: it is loaded for the first text, whose fault it is not.
  std::unique_ptr<eval::RequestEncoder> made;
  bool model_at_fault = false;
  const auto encoder = [&]() -> const eval::RequestEncoder& {
    if (made) return *made;
    try {
      made = make_encoder(session, arguments);
    } catch (...) {
      model_at_fault = true;
      throw;
    }
    return *made;
  };
  std::vector<ScoreRequest> requests;
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      requests.push_back(
          parse_score_request(line, session.model().config.vocab_size, session.max_length(), encoder));
    } catch (const Error& error) {
      if (model_at_fault) throw;
      fail("standard input, line {}: {}", number, error.what());
    }
  }
  std::vector<eval::TokenRequest> tokens;
  tokens.reserve(requests.size());
  for (ScoreRequest& request : requests) tokens.push_back(std::move(request.tokens));
  const eval::Plan plan(tokens, batch_tokens(arguments));
  eval::ScoringRun scoring(session.decoder(), plan);
  while (!scoring.done()) scoring.step();
  for (size_t i = 0; i < requests.size(); ++i) {
    const eval::TokenScores scores = scoring.take(static_cast<int64_t>(i));
    const std::span<const int32_t> scored =
        std::span(tokens[i].tokens).last(static_cast<size_t>(tokens[i].scored));
    nlohmann::ordered_json answer;
    answer["id"] = requests[i].id;
    answer["logprob"] = scores.log_likelihood();
    answer["token_logprobs"] = scores.log_probabilities;
    answer["tokens"] = scored;
    answer["top1"] = scores.top1;
    answer["is_greedy"] = scores.is_greedy(tokens[i]);
    std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  return 0;
}

}  // namespace

const Command score_command{
    .name = "score",
    .summary = "Log-likelihoods of continuations, one JSON request per line of standard input",
    .usage = "-m MODEL [options] < requests.jsonl > scores.jsonl",
    .example =
        R"(echo '{"id": 1, "context": "The capital of France is", "continuation": " Paris"}' | qeval score -m model.gguf)",
    .options = options,
    .run = run,
};

}  // namespace qeval::cli
