#include "eval/run_settings.h"

#include "base/error.h"
#include "eval/kept_distributions.h"

namespace qeval::eval {
namespace {

std::string_view protocol_name(Protocol protocol) {
  return protocol == Protocol::lm_eval_0_4 ? "lm-eval-0.4" : "lm-eval-0.3";
}

/// One hash for all files a task read.
std::string data_hash(const LoadedTask& loaded) {
  std::string hash;
  for (const datasets::DataFile& file : loaded.files) hash += (hash.empty() ? "" : "+") + file.sha256;
  return hash;
}

}  // namespace

std::string quantization_hash(const Session& session) {
  return session.quantization() ? session.quantization()->hash : "";
}

ModelInfo model_info(Session& session) {
  const model::Model& model = session.model();
  return {.name = model.name,
          .arithmetic = session.arithmetic().name(),
          .format = model.format,
          .weight_hash = session.weight_hash(),
          .quantization_hash = quantization_hash(session)};
}

RunResults run_settings(Session& session, const EvaluationOptions& options, const EncodedTasks& tasks) {
  RunResults run;
  run.model = model_info(session);
  run.protocol = protocol_name(options.protocol);
  run.prefix_policy = tasks.prefix_policy;
  run.add_bos_token = tasks.add_bos_policy;
  run.chat = tasks.chat;
  run.tokenizer_hash = session.tokenizer().hash();
  run.max_length = session.max_length();
  run.limit = options.limit;
  run.seed = options.load.seed;
  run.command = options.command;
  return run;
}

TaskResults task_settings(const EncodedTask& encoded) {
  const LoadedTask& loaded = encoded.loaded();
  TaskResults task;
  task.name = encoded.task().name;
  task.version = std::to_string(encoded.task().version);
  task.split = loaded.split;
  task.num_fewshot = loaded.num_fewshot;
  task.original_documents = loaded.split_size;
  // The whole task's, so that a resumed run reports what an unbroken one does.
  task.tokens_computed = encoded.plan().tokens_computed();
  task.data_hash = data_hash(loaded);
  task.prompt_hash = loaded.prompt_hash;
  task.answer_hash = loaded.answer_hash;
  task.first_request_ids = encoded.first_request_ids();
  if (encoded.task().generation) task.config["generation_kwargs"] = encoded.task().generation->settings();
  return task;
}

Fingerprint run_fingerprint(Session& session, const EvaluationOptions& options, const EncodedTasks& tasks,
                            const BaseRun* base) {
  Fingerprint print{{"weights", session.weight_hash()},
                    {"tokenizer", session.tokenizer().hash()},
                    {"arithmetic", session.arithmetic().name()},
                    {"quantization", quantization_hash(session)},
                    {"protocol", std::string(protocol_name(options.protocol))},
                    {"prefix", tasks.prefix_policy},
                    {"max_length", std::to_string(session.max_length())},
                    {"seed", std::to_string(options.load.seed)},
                    {"limit", options.limit},
                    {"version", options.version}};
  std::vector<int64_t> examples;
  for (const auto& encoded : tasks.tasks) {
    const Task& task = encoded->task();
    examples.push_back(encoded->loaded().num_fewshot);
    print["task " + task.name] = std::to_string(task.version);
    print["split " + task.name] = encoded->loaded().split;
    print["prompts " + task.name] = encoded->loaded().prompt_hash;
    print["answers " + task.name] = encoded->loaded().answer_hash;
    print["data " + task.name] = data_hash(encoded->loaded());
    if (base != nullptr && !task.generation)
      print["base " + task.name] = base->identity(task.name).samples_hash;
  }
  print["fewshot"] = fewshot_setting(examples);
  print.merge(tasks.chat.by_name());
  if (!tasks.add_bos_policy.empty()) print["add_bos_token"] = tasks.add_bos_policy;
  if (options.keep_logprobs) print["logprobs"] = std::to_string(kKeptTokens);
  if (options.shard) print["shard"] = name(*options.shard);
  return print;
}

}  // namespace qeval::eval
