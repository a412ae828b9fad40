#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <boost/program_options/variables_map.hpp>
#include <nlohmann/json.hpp>

#include "eval/engine/chat_template.h"
#include "eval/engine/session.h"
#include "eval/requests.h"

namespace qeval::python {

/// What is told while work is under way. Both may throw, which ends the work.
struct Observer {
  /// What is being done, tokens done and in all: before every batch.
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress;
  std::function<void(const std::string& warning)> warning;
};

/// The words of a command line, each a list of its bytes: paths are not always UTF-8, which JSON needs.
std::vector<std::string> words_of(const nlohmann::ordered_json& list);

/// A loaded model as the Python package uses it: requests and answers are JSON, options are words of the
/// program's command line, so that all that the program checks is checked here. Thread-safe: one call at a
/// time computes, the others wait.
class Model {
 public:
  /// `words`: the options of `qeval score` that say how a model is loaded and texts become tokens. Throws as
  /// the program does.
  Model(std::vector<std::string> words, const Observer& observer);

  /// Answers a request; throws Error, or what the observer throws, which may not call the model itself
  /// (Error). Each request is an object:
  /// - describe {} → {path, arithmetic, max_length, context, vocab_size, weight_hash}
  /// - score {requests: as `qeval score` reads them, composed, details} → a list of {logprob, is_greedy},
  /// with
  ///   `details` also tokens, token_logprobs and top1
  /// - rolling {texts} → a list of log-likelihoods of whole texts
  /// - generate {prompts, max_tokens, stop, temperature, top_k, top_p, seed, ignore_eos, composed} → a list
  /// of
  ///   {text, tokens, finish}; a text as `qeval generate` prints it
  /// - answer {prompts, settings, composed} → a list of texts as tasks that generate get them, by the
  /// settings
  ///   of --gen-kwargs
  /// - evaluate {words, command} → results.json; `words`: more options of `qeval eval`, as words_of reads
  /// them
  /// - template {name} → the source of a chat template; chat {conversations, name, arguments, prompt} → a
  /// list
  ///   of prompts, which an answer follows unless `prompt` is false
  /// - encode {text}, decode {ids} → what the tokenizer makes of them
  nlohmann::ordered_json call(std::string_view name, const nlohmann::ordered_json& request,
                              const Observer& observer);

 private:
  using Json = nlohmann::ordered_json;

  Json describe();
  Json score(const Json& request, const Observer& observer);
  Json rolling(const Json& request, const Observer& observer);
  Json generate(const Json& request, const Observer& observer);
  Json answer(const Json& request, const Observer& observer);
  Json evaluate(const Json& request, const Observer& observer);
  Json chat_template(const Json& request);
  Json chat(const Json& request, const Observer& observer);

  eval::RequestEncoder encoder(bool composed);
  eval::ChatRenderer& renderer(const std::string& name, const Json& arguments, const Observer& observer);
  /// Once per model, whatever is asked of it how often.
  void warn(std::span<const std::string> warnings, const Observer& observer);

  std::mutex mutex_;
  std::atomic<std::thread::id> caller_;  ///< who has the mutex
  std::vector<std::string> words_;
  boost::program_options::variables_map arguments_;
  std::unique_ptr<eval::Session> session_;
  std::set<std::string> warned_;
  std::map<std::string, std::unique_ptr<eval::ChatRenderer>> renderers_;  ///< by name and arguments
};

}  // namespace qeval::python
