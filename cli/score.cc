#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "eval/requests.h"

namespace qeval::cli {
namespace {

using nlohmann::json;

struct ScoreRequest {
  json id;
  eval::TokenRequest tokens;
};

po::options_description options() {
  po::options_description options("Options");
  add_model_options(options);
  add_scoring_options(options);
  return options;
}

std::vector<int32_t> token_ids(const json& request, const char* field, int64_t vocab_size) {
  const auto it = request.find(field);
  if (it == request.end() || !it->is_array()) fail("\"{}\" must be a list of token ids", field);
  std::vector<int32_t> ids;
  for (const json& id : *it) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      fail("\"{}\": {} is no token id of this model (0 to {})", field,
           printable(id.dump(-1, ' ', false, json::error_handler_t::replace)), vocab_size - 1);
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

std::string text_field(const json& request, const char* field) {
  const auto it = request.find(field);
  if (it == request.end() || !it->is_string()) fail("\"{}\" must be a string", field);
  return it->get<std::string>();
}

ScoreRequest parse(const std::string& line, eval::Session& session, const po::variables_map& arguments,
                   std::unique_ptr<eval::RequestEncoder>& encoder) {
  const json request = json::parse(line, nullptr, false);
  if (!request.is_object()) fail("not a JSON object");
  ScoreRequest out{request.value("id", json()), {}};
  const bool by_ids = request.contains("continuation_ids");
  if (!by_ids && !request.contains("continuation")) {
    fail("neither \"context\" and \"continuation\" nor \"context_ids\" and \"continuation_ids\"");
  }
  if (by_ids) {
    const int64_t vocab_size = session.model().config.vocab_size;
    out.tokens.tokens = token_ids(request, "context_ids", vocab_size);
    const std::vector<int32_t> continuation = token_ids(request, "continuation_ids", vocab_size);
    if (out.tokens.tokens.empty()) fail("\"context_ids\" is empty: nothing to predict the first token from");
    if (continuation.empty()) fail("\"continuation_ids\" is empty: nothing to score");
    out.tokens.scored = std::ssize(continuation);
    out.tokens.tokens.insert(out.tokens.tokens.end(), continuation.begin(), continuation.end());
    eval::truncate_left(out.tokens, session.max_length());
  } else {
    if (!encoder) encoder = make_encoder(session, arguments);
    out.tokens =
        encoder->encode({text_field(request, "context"), text_field(request, "continuation")}).tokens;
  }
  return out;
}

int run(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  eval::Session session(session_options(arguments));
  std::unique_ptr<eval::RequestEncoder> encoder;
  std::vector<ScoreRequest> requests;
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      requests.push_back(parse(line, session, arguments, encoder));
    } catch (const Error& error) {
      fail("standard input, line {}: {}", number, error.what());
    }
  }
  std::vector<eval::TokenRequest> tokens;
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
