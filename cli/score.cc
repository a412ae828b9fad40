#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "cli/score_request.h"
#include "cli/score_texts.h"

namespace qeval::cli {
namespace {

using nlohmann::json;

po::options_description score_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_scoring_options(options);
  auto add = options.add_options();
  add("task", po::value<std::string>()->value_name("TASKS"),
      "without a model: judge texts that were generated, {\"doc_id\": 0, \"text\": \"...\"} or a line of a "
      "samples file each, by this task's filters and metrics");
  add("data,d", po::value<std::string>()->value_name("DIR")->default_value("data"),
      "folder of task data, with --task");
  add("split", po::value<std::string>()->value_name("NAME"), "split that the texts belong to, with --task");
  add("confirm-run-unsafe-code",
      "with --task: run the texts of humaneval and mbpp, in a sandbox without network");
  return options;
}

/// The model's texts cannot be encoded: no fault of the line that asked.
class NoEncoder : public Error {
 public:
  using Error::Error;
};

/// Made before a request is read. A model without a tokenizer can be scored by ids, so what is wrong with it
/// is said once a text is to be encoded.
class TextEncoder {
 public:
  TextEncoder(eval::Session& session, const po::variables_map& arguments) {
    try {
      encoder_ = make_encoder(session, arguments);
    } catch (const Error& error) {
      fault_ = error.what();
    }
  }
  const eval::RequestEncoder& get() const {
    if (!encoder_) throw NoEncoder(fault_);
    return *encoder_;
  }

 private:
  std::unique_ptr<eval::RequestEncoder> encoder_;
  std::string fault_;
};

/// What the two ways of scoring do not share is refused.
void check_options(const po::variables_map& arguments) {
  const bool texts = arguments.count("task") != 0;
  const po::options_description all = score_options();
  for (const auto& option : all.options()) {
    const std::string& name = option->long_name();
    if (!given(arguments, name.c_str()) || name == "task" || name == "protocol") continue;
    const bool of_texts = name == "data" || name == "split" || name == "confirm-run-unsafe-code";
    if (texts && !of_texts) refuse(name.c_str(), "not used with --task, which judges texts without a model");
    if (!texts && of_texts) refuse(name.c_str(), "not used without --task");
  }
}

int run_score(const po::variables_map& arguments) {
  check_options(arguments);
  if (arguments.count("task") != 0) return score_texts(arguments);
  const ThreadLimit limit(arguments);
  eval::SessionOptions settings = session_options(arguments);
  settings.whole_requests = true;
  eval::Session session(settings);
  print_warnings(session);
  const TextEncoder encoder(session, arguments);
  std::vector<ScoreRequest> requests;
  std::vector<int64_t> lines;
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      requests.push_back(parse_score_request(line, session.model().config.vocab_size, session.max_length(),
                                             [&]() -> const eval::RequestEncoder& { return encoder.get(); }));
      lines.push_back(number);
    } catch (const NoEncoder&) {
      throw;
    } catch (const Error& error) {
      fail("standard input, line {}: {}", number, error.what());
    }
  }
  std::vector<eval::TokenRequest> tokens;
  tokens.reserve(requests.size());
  for (ScoreRequest& request : requests) tokens.push_back(std::move(request.tokens));
  const eval::Plan plan(tokens, batch_tokens(arguments), &session.model().config);
  eval::ScoringRun scoring(session.decoder(), plan);
  while (!scoring.done()) scoring.step();
  std::vector<std::string> faults;
  for (size_t i = 0; i < requests.size(); ++i) {
    const eval::TokenScores scores = scoring.take(static_cast<int64_t>(i));
    const std::span<const int32_t> scored =
        std::span(tokens[i].tokens).last(static_cast<size_t>(tokens[i].scored));
    nlohmann::ordered_json answer;
    answer["id"] = requests[i].id;
    if (scores.is_finite()) {
      answer["logprob"] = scores.log_likelihood();
      answer["token_logprobs"] = scores.log_probabilities;
      answer["tokens"] = scored;
      answer["top1"] = scores.top1;
      answer["is_greedy"] = scores.is_greedy(tokens[i]);
    } else {
      const std::string why = eval::why_not_finite(session.decoder(), tokens[i], scores);
      answer["error"] = why;
      faults.push_back(fmt::format("standard input, line {}: {}", lines[i], why));
    }
    std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  if (!faults.empty()) {
    fail("{} of {} requests have no finite score; the first: {}", faults.size(), requests.size(),
         faults.front());
  }
  return 0;
}

}  // namespace

const Command score_command{
    .name = "score",
    .summary = "Log-likelihoods of continuations, one JSON request per line of standard input",
    .usage = "-m MODEL [options] < requests.jsonl > scores.jsonl, or --task TASK [-d DATA] < texts.jsonl",
    .example =
        R"(echo '{"id": 1, "context": "The capital of France is", "continuation": " Paris"}' | qeval score -m model.gguf)",
    .options = score_options,
    .run = run_score,
};

}  // namespace qeval::cli
