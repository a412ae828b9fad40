#include <algorithm>
#include <iostream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/memory.h"
#include "base/unicode.h"
#include "cli/calibration_options.h"
#include "cli/chat_options.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "eval/engine/chat_template.h"
#include "eval/engine/generation.h"
#include "eval/engine/session.h"

namespace qeval::cli {
namespace {

po::options_description generate_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_arithmetic_options(options);
  auto add = options.add_options();
  add("prompt,p", po::value<std::string>()->value_name("TEXT"), "what to continue (default: standard input)");
  add("tokens,n", po::value<int64_t>()->value_name("N")->default_value(128), "at most this many new tokens");
  add("max-length", po::value<int64_t>()->value_name("N"),
      "longest text in tokens, prompt and answer (default: 2048, or the model's context if shorter)");
  add("temperature", po::value<double>()->value_name("T")->default_value(0.0),
      "0: always the most likely token; 1: drawn by the model's probabilities");
  add("top-k", po::value<int64_t>()->value_name("K")->default_value(0),
      "draw among the K most likely; 0: all");
  add("top-p", po::value<double>()->value_name("P")->default_value(1.0),
      "draw among the most likely whose probabilities add up to P");
  add("seed", po::value<uint64_t>()->value_name("N")->default_value(0), "seed of the draw");
  add("chat", po::value<std::string>()->value_name("NAME")->implicit_value(""),
      "the prompt is a message to a chat model, put into the model's own template; NAME picks one where it "
      "has several");
  add("system", po::value<std::string>()->value_name("TEXT"), "system message in front, with --chat");
  add("chat-template-args", template_arguments_value(),
      "variables for the template, with --chat: enable_thinking=false");
  add("ignore-eos", "go on after the end of the text");
  add("ids", "print the new tokens' ids, a JSON array, instead of their text");
  add("stats", "speed, latency and memory, on standard error");
  return options;
}

std::string prompt_text(const po::variables_map& arguments) {
  return optional<std::string>(arguments, "prompt")
      .value_or(arguments.count("prompt") != 0 ? ""
                                               : with_unix_line_ends(without_byte_order_mark(std::string(
                                                     std::istreambuf_iterator<char>(std::cin), {}))));
}

/// The message as the model's template has it.
std::string chat_text(const po::variables_map& arguments, nlohmann::ordered_json variables,
                      const std::string& message) {
  const eval::ChatTemplate chat =
      eval::load_chat_template(require(arguments, "model"), arguments["chat"].as<std::string>());
  for (const std::string& warning : chat.warnings)
    std::cerr << "qeval generate: warning: " << warning << '\n';
  eval::ChatRequest request;
  request.messages = nlohmann::ordered_json::array();
  if (const auto system = optional<std::string>(arguments, "system")) {
    request.messages.push_back({{"role", "system"}, {"content", *system}});
  }
  request.messages.push_back({{"role", "user"}, {"content", message}});
  request.arguments = std::move(variables);
  request.now = eval::local_time_now();
  return eval::chat_prompt(chat, request);
}

/// The tokens after which an answer is over.
std::vector<int32_t> stop_tokens(const po::variables_map& arguments, const model::Tokenizer& tokenizer) {
  std::vector<int32_t> stop;
  if (tokenizer.eos_id()) stop.push_back(*tokenizer.eos_id());
  if (arguments.count("chat") == 0) return stop;
  for (const int32_t id : eval::answer_ends(require(arguments, "model"))) stop.push_back(id);
  return stop;
}

void print_stats(size_t prompt_tokens, eval::GenerationSeconds seconds, const eval::Generator& generator) {
  std::cerr << fmt::format("prompt       {} tokens, {:.1f} tokens/s, {:.1f} ms to the first new one\n",
                           prompt_tokens, static_cast<double>(prompt_tokens) / seconds.prompt,
                           1e3 * seconds.prompt);
  std::vector<double>& latencies = seconds.passes;
  if (!latencies.empty()) {
    std::ranges::sort(latencies);
    double total = 0;
    for (const double latency : latencies) total += latency;
    const auto at = [&](double share) {
      return 1e3 * latencies[static_cast<size_t>(share * static_cast<double>(latencies.size() - 1))];
    };
    std::cerr << fmt::format(
        "generation   {} tokens, {:.1f} tokens/s; per token median {:.1f} ms, 95 % within {:.1f} ms\n",
        latencies.size(), static_cast<double>(latencies.size()) / total, at(0.5), at(0.95));
  }
  std::cerr << fmt::format("memory       {:.1f} MiB at most; keys and values of {} tokens {:.1f} MiB\n",
                           static_cast<double>(peak_memory()) / (1 << 20), generator.capacity(),
                           static_cast<double>(generator.kv_bytes()) / (1 << 20));
}

eval::Sampler make_sampler(const po::variables_map& arguments) {
  try {
    return eval::Sampler({.temperature = arguments["temperature"].as<double>(),
                          .top_k = arguments["top-k"].as<int64_t>(),
                          .top_p = arguments["top-p"].as<double>(),
                          .seed = arguments["seed"].as<uint64_t>()});
  } catch (const Error& error) {  // which names the setting
    throw UsageError(std::string("--") + error.what());
  }
}

int run_generate(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const auto count = in_range<int64_t>("tokens", arguments["tokens"].as<int64_t>(), 1, int64_t{1} << 32);
  const bool chat = arguments.count("chat") != 0;
  for (const char* option : {"system", "chat-template-args"}) {
    if (!chat && arguments.count(option) != 0) refuse(option, "not used without --chat");
  }
  nlohmann::ordered_json variables = template_arguments(arguments);
  for (const char* option : {"top-k", "top-p", "seed"}) {
    if (arguments["temperature"].as<double>() == 0 && given(arguments, option)) {
      refuse(option, "not used at temperature 0, which always takes the most likely token");
    }
  }
  eval::Sampler sampler = make_sampler(arguments);

  refuse_measured_precision(arguments);
  eval::Session session(session_options(arguments));
  print_warnings(session);
  const model::Tokenizer& tokenizer = session.tokenizer();
  print_warnings(tokenizer);
  const std::string text = prompt_text(arguments);
  std::vector<int32_t> ids = chat ? tokenizer.encode_prompt(chat_text(arguments, std::move(variables), text))
                                  : tokenizer.encode(text);
  if (!chat) model::put_in_front(tokenizer.leading_ids(), ids);  // a chat template writes them itself
  if (const auto start = session.prefix_token()) model::put_in_front({&*start, 1}, ids);
  if (ids.empty()) fail("the prompt is empty: there is nothing to continue; -p gives one");
  if (count > session.max_length() - std::ssize(ids)) {
    fail("{} tokens of prompt and {} new ones; accepted: {} in all, or a longer --max-length", ids.size(),
         count, session.max_length());
  }
  const bool print_ids = arguments.count("ids") != 0;
  std::vector<int32_t> stop;
  if (arguments.count("ignore-eos") == 0) stop = stop_tokens(arguments, tokenizer);

  eval::Generator generator(session.decoder(), std::ssize(ids) + count);
  std::vector<int32_t> answer, all = ids;
  size_t printed = tokenizer.decode(ids).size();
  const auto next = [&](std::span<const float> logits) -> std::optional<int32_t> {
    const int32_t token = sampler.draw(logits);
    if (std::ranges::find(stop, token) != stop.end()) return {};
    answer.push_back(token);
    all.push_back(token);
    if (!print_ids) {  // the whole text, since a token's bytes may depend on those before it
      const std::string so_far = tokenizer.decode(all);
      std::cout << so_far.substr(std::min(printed, so_far.size())) << std::flush;
      printed = so_far.size();
    }
    if (!std::cout) fail("standard output: cannot write");
    return std::ssize(answer) < count ? std::optional(token) : std::nullopt;
  };
  const eval::GenerationSeconds seconds = eval::generate(generator, ids, std::ssize(ids), next);
  if (print_ids) {
    std::cout << fmt::format("[{}]", fmt::join(answer, ","));
  }
  std::cout << '\n';
  if (arguments.count("stats") != 0) print_stats(ids.size(), seconds, generator);
  return 0;
}

}  // namespace

const Command generate_command{
    .name = "generate",
    .summary = "Continue a text, or answer a message to a chat model",
    .usage = "-m MODEL [-p TEXT] [-n N] [--chat] [options]",
    .example = "qeval generate -m model.gguf -p \"Once upon a time\" -n 40",
    .options = generate_options,
    .run = run_generate,
};

}  // namespace qeval::cli
