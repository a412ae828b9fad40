#include "python/native/model.h"

#include <algorithm>

#include "base/error.h"
#include "cli/command.h"
#include "cli/evaluation_options.h"
#include "cli/model_options.h"
#include "cli/parse.h"
#include "cli/score_request.h"
#include "eval/evaluation.h"
#include "python/native/fields.h"
#include "python/native/texts.h"

namespace qeval::python {
namespace {

namespace po = boost::program_options;
using nlohmann::ordered_json;

po::options_description load_options() {
  po::options_description options("Options");
  cli::add_model_options(options);
  cli::add_scoring_options(options);
  return options;
}

/// The options of `qeval score` that belong to a model.
const cli::Command kLoad{.name = "score",
                         .summary = "",
                         .usage = "-m MODEL [options]",
                         .example = "",
                         .options = load_options,
                         .run = nullptr};

/// The scores of all requests, in order. Throws Error naming the first whose score is not finite.
std::vector<eval::TokenScores> score_all(eval::Session& session, std::span<const eval::TokenRequest> requests,
                                         int64_t batch_tokens, const Observer& observer) {
  const eval::Plan plan(requests, batch_tokens, &session.model().config);
  eval::ScoringRun run(session.decoder(), plan);
  std::vector<eval::TokenScores> scores(requests.size());
  while (!run.done()) {
    observer.progress("score", run.tokens_done(), plan.tokens_computed());
    for (const int64_t i : run.step()) {
      const auto request = static_cast<size_t>(i);
      scores[request] = run.take(i);
      if (!scores[request].is_finite())
        fail("request {}: {}", i,
             eval::why_not_finite(session.decoder(), requests[request], scores[request]));
    }
  }
  observer.progress("score", plan.tokens_computed(), plan.tokens_computed());
  return scores;
}

/// An Error of one request says which it is, counted from 0.
template <typename Make>
auto of_request(const char* what, size_t index, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    fail("{} {}: {}", what, index, error.what());
  }
}

}  // namespace

std::vector<std::string> words_of(const ordered_json& list) {
  std::vector<std::string> words;
  for (const auto& bytes : list.get<std::vector<std::vector<uint8_t>>>())
    words.emplace_back(bytes.begin(), bytes.end());
  return words;
}

Model::Model(std::vector<std::string> words, const Observer& observer)
    : words_(std::move(words)), arguments_(cli::parse_arguments(kLoad, words_)) {
  const cli::ThreadLimit limit(arguments_);
  cli::batch_tokens(arguments_);  // refused here rather than by the first request
  session_ = std::make_unique<eval::Session>(cli::session_options(arguments_));
  warn(session_->warnings(), observer);
}

void Model::warn(std::span<const std::string> warnings, const Observer& observer) {
  for (const std::string& warning : warnings) {
    if (warned_.insert(warning).second) observer.warning(warning);
  }
}

ordered_json Model::call(std::string_view name, const ordered_json& request, const Observer& observer) {
  const std::thread::id self = std::this_thread::get_id();
  if (caller_ == self)
    fail("the model is computing in this thread: it cannot be called from within its own call");
  const std::lock_guard lock(mutex_);
  caller_ = self;
  const struct Leave {
    std::atomic<std::thread::id>& caller;
    ~Leave() { caller = std::thread::id(); }
  } leave{caller_};
  const cli::ThreadLimit limit(arguments_);
  if (name == "describe") return describe();
  if (name == "score") return score(request, observer);
  if (name == "rolling") return rolling(request, observer);
  if (name == "generate") return generate(request, observer);
  if (name == "answer") return answer(request, observer);
  if (name == "evaluate") return evaluate(request, observer);
  if (name == "template") return chat_template(request);
  if (name == "chat") return chat(request, observer);
  if (name == "encode") return session_->tokenizer().encode(request.at("text").get<std::string>());
  if (name == "decode") {
    const int32_t size = session_->tokenizer().vocab_size();
    std::vector<int32_t> ids;
    for (const ordered_json& one : request.at("ids")) {
      const auto id = whole_number<int64_t>(one, "ids");
      if (id < 0 || id >= size) fail("{} is no token id of this model (0 to {})", id, size - 1);
      ids.push_back(static_cast<int32_t>(id));
    }
    return session_->tokenizer().decode(ids);
  }
  fail("{}: unknown request", name);
}

ordered_json Model::describe() {
  const model::ModelConfig& config = session_->model().config;
  return {{"path", session_->model().path.string()}, {"arithmetic", session_->arithmetic().name()},
          {"max_length", session_->max_length()},    {"context", config.context()},
          {"vocab_size", config.vocab_size},         {"weight_hash", session_->weight_hash()}};
}

eval::RequestEncoder Model::encoder(bool composed) {
  return {session_->tokenizer(),
          cli::protocol(arguments_),
          cli::prefix_token(arguments_),
          session_->max_length(),
          eval::add_bos_for(*session_, cli::add_bos_token(arguments_)),
          composed};
}

ordered_json Model::score(const ordered_json& request, const Observer& observer) {
  std::optional<eval::RequestEncoder> encoder;  // a model without a tokenizer can be scored by ids
  const auto for_texts = [&]() -> const eval::RequestEncoder& {
    if (!encoder) {
      warn(session_->tokenizer().warnings(), observer);
      encoder.emplace(this->encoder(request.at("composed").get<bool>()));
    }
    return *encoder;
  };
  std::vector<eval::TokenRequest> tokens;
  for (const ordered_json& one : request.at("requests")) {
    tokens.push_back(of_request("request", tokens.size(), [&] {
      return cli::parse_score_request(one.dump(), session_->model().config.vocab_size, session_->max_length(),
                                      for_texts)
          .tokens;
    }));
  }
  const std::vector<eval::TokenScores> scores =
      score_all(*session_, tokens, cli::batch_tokens(arguments_), observer);
  const bool details = request.at("details").get<bool>();
  ordered_json answers = ordered_json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    ordered_json& answer = answers.emplace_back();
    answer["logprob"] = scores[i].log_likelihood();
    answer["is_greedy"] = scores[i].is_greedy(tokens[i]);
    if (!details) continue;
    answer["tokens"] = std::span(tokens[i].tokens).last(static_cast<size_t>(tokens[i].scored));
    answer["token_logprobs"] = scores[i].log_probabilities;
    answer["top1"] = scores[i].top1;
  }
  return answers;
}

ordered_json Model::rolling(const ordered_json& request, const Observer& observer) {
  warn(session_->tokenizer().warnings(), observer);
  const eval::RequestEncoder encoder = this->encoder(false);
  std::vector<eval::TokenRequest> windows;
  std::vector<size_t> ends;  // of each text's windows
  for (const ordered_json& text : request.at("texts")) {
    std::vector<eval::TokenRequest> of_text =
        of_request("text", ends.size(), [&] { return encoder.windows(text.get_ref<const std::string&>()); });
    std::ranges::move(of_text, std::back_inserter(windows));
    ends.push_back(windows.size());
  }
  const std::vector<eval::TokenScores> scores =
      score_all(*session_, windows, cli::batch_tokens(arguments_), observer);
  ordered_json answers = ordered_json::array();
  size_t window = 0;
  for (const size_t end : ends) {
    double total = 0;
    for (; window < end; ++window) total += scores[window].log_likelihood();
    answers.push_back(total);
  }
  return answers;
}

ordered_json Model::generate(const ordered_json& request, const Observer& observer) {
  warn(session_->tokenizer().warnings(), observer);
  return continue_texts(*session_, encoder(request.at("composed").get<bool>()), cli::batch_tokens(arguments_),
                        request, observer);
}

ordered_json Model::answer(const ordered_json& request, const Observer& observer) {
  warn(session_->tokenizer().warnings(), observer);
  std::vector<std::string> warnings;
  ordered_json texts = answer_prompts(*session_, encoder(request.at("composed").get<bool>()),
                                      cli::batch_tokens(arguments_), request, warnings, observer);
  warn(warnings, observer);
  return texts;
}

ordered_json Model::evaluate(const ordered_json& request, const Observer& observer) {
  std::vector<std::string> words = words_;
  std::ranges::copy(words_of(request.at("words")), std::back_inserter(words));
  const po::variables_map arguments = cli::parse_arguments(cli::eval_command, words);
  const cli::ThreadLimit limit(arguments);
  eval::EvaluationOptions options = cli::run_options(arguments, limit);
  options.command = request.at("command").get<std::string>();
  eval::Evaluation evaluation(*session_, std::move(options));
  evaluation.begin();
  warn(evaluation.warnings(), observer);
  eval::Evaluation::Progress state = evaluation.progress();
  while (!evaluation.done()) {
    observer.progress(state.task, state.tokens_done, state.tokens_total);
    evaluation.step();
    state = evaluation.progress();
  }
  observer.progress(state.task, state.tokens_total, state.tokens_total);
  return to_json(evaluation.finish());
}

ordered_json Model::chat_template(const ordered_json& request) {
  return eval::load_chat_template(session_->model().path, request.at("name").get<std::string>()).source;
}

ordered_json Model::chat(const ordered_json& request, const Observer& observer) {
  eval::ChatRenderer& render =
      renderer(request.at("name").get<std::string>(), request.at("arguments"), observer);
  const bool prompt = request.at("prompt").get<bool>();
  ordered_json prompts = ordered_json::array();
  for (const ordered_json& messages : request.at("conversations"))
    prompts.push_back(render(messages, prompt));
  return prompts;
}

eval::ChatRenderer& Model::renderer(const std::string& name, const ordered_json& arguments,
                                    const Observer& observer) {
  std::unique_ptr<eval::ChatRenderer>& found = renderers_[name + '\n' + arguments.dump()];
  if (!found) {
    eval::ChatTemplate chat = eval::load_chat_template(session_->model().path, name);
    warn(chat.warnings, observer);
    found = std::make_unique<eval::ChatRenderer>(std::move(chat), arguments);
  }
  return *found;
}

}  // namespace qeval::python
