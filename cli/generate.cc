#include <algorithm>
#include <iostream>
#include <iterator>

#include <sys/resource.h>

#include "base/error.h"
#include "base/unicode.h"
#include "cli/calibration_options.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "eval/engine/chat_template.h"
#include "eval/engine/generation.h"
#include "eval/engine/session.h"

namespace qeval::cli {
namespace {

po::options_description options() {
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
  add("chat", one_of("NAME", eval::chat_template_names()),
      "the prompt is a message to a chat model: chatml (SmolLM2, Qwen), zephyr (TinyLlama, StableLM-2), "
      "gemma, "
      "llama-2, llama-3");
  add("system", po::value<std::string>()->value_name("TEXT"), "system message in front, with --chat");
  add("ignore-eos", "go on after the end of the text");
  add("ids", "print the new tokens' ids, a JSON array, instead of their text");
  add("stats", "speed, latency and memory, on standard error");
  return options;
}

std::string prompt_text(const po::variables_map& arguments, const model::Tokenizer& tokenizer,
                        const eval::ChatTemplate* chat) {
  std::string text =
      optional<std::string>(arguments, "prompt")
          .value_or(arguments.count("prompt") != 0 ? ""
                                                   : with_unix_line_ends(without_byte_order_mark(std::string(
                                                         std::istreambuf_iterator<char>(std::cin), {}))));
  if (chat == nullptr) return text;
  std::string eos;
  if (const auto id = tokenizer.eos_id()) eos = tokenizer.decode({{*id}});
  return eval::chat_prompt(*chat, optional<std::string>(arguments, "system").value_or(""), text, eos);
}

/// The tokens after which an answer is over.
std::vector<int32_t> stop_tokens(const model::Tokenizer& tokenizer, const eval::ChatTemplate* chat) {
  std::vector<int32_t> stop;
  if (tokenizer.eos_id()) stop.push_back(*tokenizer.eos_id());
  if (chat != nullptr && !chat->stop.empty()) {
    const std::vector<int32_t> ids = tokenizer.encode_prompt(chat->stop);
    if (ids.size() != 1) {
      fail("--chat {}: the tokenizer has no token {}: it belongs to another family", chat->name, chat->stop);
    }
    stop.push_back(ids.front());
  }
  return stop;
}

void print_stats(size_t prompt_tokens, eval::GenerationSeconds seconds, const eval::Generator& generator) {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
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
                           static_cast<double>(usage.ru_maxrss) / 1024, generator.capacity(),
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

int run(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const auto count = in_range<int64_t>("tokens", arguments["tokens"].as<int64_t>(), 1, int64_t{1} << 32);
  const eval::ChatTemplate* chat = nullptr;
  if (const auto name = optional<std::string>(arguments, "chat")) chat = &eval::find_chat_template(*name);
  if (chat == nullptr && arguments.count("system") != 0) refuse("system", "not used without --chat");
  for (const char* option : {"top-k", "top-p", "seed"}) {
    if (arguments["temperature"].as<double>() == 0 && given(arguments, option)) {
      refuse(option, "not used at temperature 0, which always takes the most likely token");
    }
  }
  eval::Sampler sampler = make_sampler(arguments);

  eval::Session session(session_options(arguments));
  print_warnings(session);
  const model::Tokenizer& tokenizer = session.tokenizer();
  print_warnings(tokenizer);
  const std::string text = prompt_text(arguments, tokenizer, chat);
  std::vector<int32_t> ids = chat == nullptr ? tokenizer.encode(text) : tokenizer.encode_prompt(text);
  model::put_in_front(tokenizer.leading_ids(), ids);
  if (ids.empty()) fail("the prompt is empty: there is nothing to continue; -p gives one");
  if (count > session.max_length() - std::ssize(ids)) {
    fail("{} tokens of prompt and {} new ones; accepted: {} in all, or a longer --max-length", ids.size(),
         count, session.max_length());
  }
  const bool print_ids = arguments.count("ids") != 0;
  std::vector<int32_t> stop;
  if (arguments.count("ignore-eos") == 0) stop = stop_tokens(tokenizer, chat);

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
    .usage = "-m MODEL [-p TEXT] [-n N] [--chat NAME] [options]",
    .example = "qeval generate -m model.gguf -p \"Once upon a time\" -n 40",
    .options = options,
    .run = run,
};

}  // namespace qeval::cli
