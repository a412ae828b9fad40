#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/peers.h"
#include "eval/distributed/shard.h"
#include "eval/requests.h"
#include "eval/tasks/documents.h"

namespace qeval::eval {

/// How prompts are put to a chat model.
struct ChatOptions {
  std::string template_name = {};  ///< empty: the model's only or default one
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();  ///< more variables for the template
  bool fewshot_as_multiturn = true;  ///< the examples are turns of the conversation
};

/// What to evaluate and how.
struct EvaluationOptions {
  std::string tasks;  ///< as -t takes them
  Protocol protocol = Protocol::lm_eval_0_4;
  PrefixToken prefix = PrefixToken::automatic;
  std::optional<AddBos> add_bos = {};    ///< as RequestEncoder takes it
  LoadOptions load;                      ///< its style's `chat` and `fewshot_as_multiturn` follow from `chat`
  std::optional<ChatOptions> chat = {};  ///< put prompts into the model's chat template
  std::string limit;                     ///< as given, for the results
  /// How tasks that generate do it, instead of their own settings (eval/tasks/generation_settings.h).
  nlohmann::ordered_json generation = nlohmann::ordered_json::object();
  int64_t batch_tokens = 2048;
  int64_t kv_bytes = int64_t{1} << 30;  ///< of texts that are generated side by side; changes no result
  std::optional<std::filesystem::path>
      output;  ///< folder of results and samples; none: results are only returned
  bool resume = false;
  /// Keep the likeliest tokens of every scored position (kept_distributions.h), so that other runs can be
  /// compared with this one. Needs an output folder.
  bool keep_logprobs = false;
  /// A finished run of the same tasks that kept them: divergences from it are written. Needs an output
  /// folder.
  std::optional<std::filesystem::path> base;
  std::string command;  ///< the command line that reproduces the run
  std::string version;  ///< of qeval
  std::string commit;   ///< that it was built from, for the record; may be empty
  int64_t threads = 0;
  /// Score this share of the documents only and write what merge_shards() needs. Needs an output folder.
  std::optional<Shard> shard{};
  /// Who shares the documents that are left to score. Several need an output folder that all of them see.
  Peers peers{};
};

}  // namespace qeval::eval
