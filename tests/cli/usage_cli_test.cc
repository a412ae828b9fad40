// A wrong command line ends with status 2 and one line that says what would be accepted, whichever option it
// is; what only the model, the data or the machine can tell ends with status 1.

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "cli_fixture.h"
#include "quant/calibrate/calibration.h"
#include "quant/grid/qcfg.h"
#include "quant/methods/learn/loss.h"
#include "quant/methods/quantize.h"
#include "quant/methods/smoothquant.h"

namespace qeval::test {
namespace {

/// An option whose value is one of a few names, or several of them.
struct NameOption {
  std::string command, option;
  std::vector<std::string> names;
  bool several = false;
};

struct Wrong {
  std::string arguments;  ///< behind the command's own, space between them
  std::string message;
};

class UsageCli : public Cli {
 protected:
  UsageCli() { write("text.txt", std::string(2000, 'x')); }
  /// What each command needs, so that nothing but the option under test is wrong.
  std::vector<std::string> needed(const std::string& command) const {
    const std::string model = path("model"), text = path("text.txt"), out = path("out");
    if (command == "eval") return {"eval", "-m", model, "-t", "piqa", "-d", path("data"), "-o", out};
    if (command == "quantize") return {"quantize", "-m", model, "--calibration", text, "-o", out};
    if (command == "compare")
      return {"compare", "-m", model, "-t", "piqa", "-d", path("data"), "--calibration", text, "-o", out};
    if (command == "generate") return {"generate", "-m", model, "-p", "a"};
    if (command == "convert" || command == "export") return {command, "-m", model, "-o", out};
    if (command == "inspect")
      return {"inspect", "-m", model, "--calibration", text, "--samples", "1", "--sequence-length", "8"};
    return {command, "-m", model};
  }
  /// All of them, as the shell completes them: an option that is added later is in the tests.
  std::vector<NameOption> name_options() const {
    static const std::regex command(R"(^    ([a-z]+)\)$)");
    static const std::regex option(
        R"(^        (?:-.\|)?(--[a-z0-9-]+)\) (COMP.* -W|_qeval_list) \"([^"$]+)\".*)");
    std::vector<NameOption> found;
    std::istringstream lines(run({"completion", "bash"}).output);
    std::smatch match;
    std::string of;
    for (std::string line; std::getline(lines, line);) {
      if (std::regex_match(line, match, command)) of = match[1];
      if (!std::regex_match(line, match, option)) continue;
      found.push_back({of, match[1], {}, match[2] == "_qeval_list"});
      std::istringstream names(match[3]);
      for (std::string name; names >> name;) found.back().names.push_back(name);
    }
    return found;
  }
  std::vector<std::string> with(const std::string& command, const std::string& arguments) const {
    std::vector<std::string> all = needed(command);
    for (size_t at = 0; at < arguments.size();) {
      const size_t end = std::min(arguments.find(' ', at), arguments.size());
      all.push_back(arguments.substr(at, end - at));
      at = end + 1;
    }
    return all;
  }
};

TEST_F(UsageCli, EveryOptionOfNamesRefusesAnother) {
  const std::vector<NameOption> options = name_options();
  EXPECT_GE(options.size(), 30);
  for (const NameOption& option : options) {
    SCOPED_TRACE(option.command + " " + option.option);
    const auto refuses = [&](const std::string& value, const std::string& message) {
      expect_one_line(run({option.command, option.option, value}), kWrongUsage,
                      fmt::format("{} {} (see qeval {} --help)", option.option, message, option.command));
    };
    // Schemes and ggml take an end that no list of names holds.
    const auto has = [&](const char* name) {
      return std::ranges::find(option.names, name) != option.names.end();
    };
    const std::string accepted = fmt::format("unknown; accepted: {}{}", fmt::join(option.names, ", "),
                                             has("w4a8-sym") ? "; each also with groups of N inputs, -gN"
                                             : has("ggml") ? "; ggml-TYPE for other keys and values than f16"
                                                           : "");
    const std::string first = option.names.front(), twice = fmt::format("{0},{0}", first);
    refuses("fou", "fou: " + accepted);
    refuses("", ": " + accepted);
    if (option.several) {
      refuses(first + ",fou", "fou: " + accepted);
      refuses(first + ",", ": " + accepted);
      refuses(twice, first + ": stands there twice");
    } else {
      refuses(twice, fmt::format("{}: {}", twice, accepted));
    }
  }
  expect_one_line(run({"completion", "fish"}), kWrongUsage, "fish: unknown; accepted: bash, zsh");
}

TEST_F(UsageCli, TheNamesAreThoseThatTheLibraryKnows) {
  using Parse = void (*)(const std::string&);
  const std::vector<std::pair<std::string, Parse>> parsers{
      {"--method", [](const std::string& name) { (void)quant::parse_method(name); }},
      {"--methods", [](const std::string& name) { (void)quant::parse_method(name); }},
      {"--scheme", [](const std::string& name) { (void)quant::parse_scheme(name); }},
      {"--schemes",
       [](const std::string& name) {
         if (name != "fp" && name != "own") (void)quant::parse_scheme(name);
       }},
      {"--variant", [](const std::string& name) { (void)quant::parse_variant(name); }},
      {"--range", [](const std::string& name) { (void)quant::parse_range_estimator(name); }},
      {"--rounding", [](const std::string& name) { (void)quant::parse_rounding(name); }},
      {"--weight-range", [](const std::string& name) { (void)quant::parse_weight_range(name); }},
      {"--loss", [](const std::string& name) { (void)quant::parse_loss(name); }}};
  std::set<std::string> seen;
  for (const NameOption& option : name_options()) {
    for (const auto& [name, parse] : parsers) {
      if (option.option != name) continue;
      seen.insert(name);
      for (const std::string& value : option.names) EXPECT_NO_THROW(parse(value)) << name << " " << value;
      EXPECT_THROW(parse("fou"), Error) << name;
    }
  }
  EXPECT_EQ(seen.size(), parsers.size());
}

TEST_F(UsageCli, NumbersTasksAndCombinations) {
  const std::vector<std::pair<std::string, std::vector<Wrong>>> table{
      {"eval",
       {{"--threads 0", "--threads 0: accepted: 1 to 4096"},
        {"--threads x", "'--threads' is invalid"},
        {"--batch-tokens 0", "--batch-tokens 0: accepted: 1 to 16777216"},
        {"--max-length 0", "--max-length 0: accepted: 1 to "},
        {"--max-length 4096", "--max-length 4096: accepted: 1 to "},
        {"--num-fewshot -1", "--num-fewshot -1: accepted: 0 to "},
        {"--limit foo", "--limit foo: a number of documents"},
        {"--limit -1", "--limit -1: a count of documents"},
        {"--seed -1", "--seed -1: accepted: 0 to 18446744073709551615 (see"},
        {"--limit 1.5", "--limit 1.5: a count of documents"},
        {"--shard 3/2", "--shard 3/2: which of how many"},
        {"--shard x", "--shard x: which of how many"},
        {"--arithmetic float --qcfg x.json", "--qcfg: not used by float arithmetic"},
        {"--arithmetic float --act-ranges x.json", "--act-ranges: not used by float arithmetic"},
        {"--arithmetic fake --precision bf16", "--precision bf16: not used by fake arithmetic"}}},
      {"score", {{"-t piqa", "unrecognised option '-t'"}, {"--max-length x", "is invalid"}}},
      {"quantize",
       {{"--seed -1", "--seed -1: accepted: 0 to "},
        {"--samples 0", "--samples 0: accepted: 1 to "},
        {"--sequence-length 0", "--sequence-length 0: accepted: 1 to "},
        {"--weight-bits 40", "--weight-bits 40: accepted: 2 to 16"},
        {"--act-bits 1", "--act-bits 1: accepted: 2 to 16"},
        {"--weight-group-size 0", "--weight-group-size 0: accepted: 1 to "},
        {"--percentile 10 --range percentile", "--percentile 10: accepted: 50 to 100"},
        {"--percentile 50 --range percentile", "--percentile 50: accepted: 50 to 100, without 50 itself"},
        {"--percentile nan --range percentile", "--percentile nan: accepted: 50 to 100"},
        {"--percentile 99", "--percentile: not used without --range percentile"},
        {"--alpha 0.5", "--alpha: not used by method rtn"},
        {"--method smoothquant --alpha 2", "--alpha 2: accepted: 0 to 1"},
        {"--method omniquant --epochs 0", "--epochs 0: accepted: 1 to "},
        {"--method omniquant --let-lr 2", "--let-lr 2: accepted: 0 to 1"},
        {"--method omniquant --preset distill",
         "--preset: not used by method omniquant; used by mobilequant"},
        {"--method omniquant --loss logits", "--loss: not used by method omniquant; used by mobilequant"},
        {"--method lrl --activation-memory 9", "--activation-memory: not used by method lrl"},
        {"--method omniquant --gradients-only g", "--gradients-only: not used by method omniquant"},
        {"--method omniquant --lrl-lr 1e-5",
         "--lrl-lr: not used by method omniquant; used by lrl, mobilequant"},
        {"--method omniquant --lrl-min-lr 1e-5", "--lrl-min-lr: not used by method omniquant"},
        {"--method omniquant --lrl-relative", "--lrl-relative: not used by method omniquant"},
        {"--method lrl --let-lr 1e-4 --let-min-lr 1e-3", "--let-min-lr: 0.001 is above --let-lr"},
        {"--method lrl --lwc-min-lr 0.5",
         "--lwc-min-lr: 0.5 is above --lwc-lr, the rate that it ends; accepted for"},
        {"--method lrl --no-smooth --alpha 0.5", "--alpha: not used with --no-smooth"},
        {"--scheme w4a16 --range mse", "--range: mse: narrows static activation ranges of 10 bits or fewer"},
        {"--scheme w8a16 --range percentile", "--range: percentile: narrows static"},
        {"--act-dynamic --range mse", "--range: mse: narrows static"},
        {"--act-dynamic --scheme w4a16", "--act-dynamic: not used where activations stay in float"},
        {"--method omniquant --save-minutes 0", "--save-minutes 0: accepted: 1 to "}}},
      {"compare",
       {{"--alpha 7", "--alpha 7: accepted: 0 to 1"},
        {"--methods rtn --alpha 0.5", "--alpha: not used by method rtn; used by smoothquant, "},
        {"--methods rtn --variant original", "--variant: not used by method rtn"},
        {"--methods rtn,smoothquant --no-smooth",
         "--no-smooth: not used by methods rtn, smoothquant; used by "},
        {"--methods rtn,lrl --no-smooth --alpha 0.4", "--alpha: not used with --no-smooth"},
        {"--methods omniquant,lrl --preset distill",
         "--preset: not used by methods omniquant, lrl; used by mobil"},
        {"--plan --ranks 0", "--ranks 0: accepted: 1 to 100000"},
        {"--ranks 2", "--ranks: only with --plan"},
        {"--arithmetic integer --integer best", "--integer: not used with --arithmetic integer"}}},
      {"generate",
       {{"--precision auto", "--precision auto: measures many tokens together"},
        {"--seed -5", "--seed -5: accepted: 0 to "},
        {"-n 0", "--tokens 0: accepted: 1 to "},
        {"--temperature -1", "--temperature -1; accepted: 0 (greedy) or more"},
        {"--temperature 1 --top-k -1", "--top-k -1; accepted: "},
        {"--temperature 1 --top-p 2", "--top-p 2; accepted: "},
        {"--top-k 4", "--top-k: not used at temperature 0"},
        {"--system x", "--system: not used without --chat"},
        {"--chat-template-args a=b", "--chat-template-args: not used without --chat"},
        {"--chat --chat-template-args a", "--chat-template-args: a: accepted: K=V"}}},
      {"bench",
       {{"--prompt 0", "--prompt 0: accepted: 1 to 1000000"},
        {"--contexts x", "--contexts x: accepted: 2 to "},
        {"--contexts 9999999", "--contexts 9999999: accepted: 2 to "},
        {"--schemes own", "--schemes own: "},
        {"--schemes w4a16", "--schemes w4a16: leaves activations in float"},
        {"--repeat 0", "--repeat 0: accepted: 1 to 1000000"}}},
      {"serve",
       {{"--port 99999", "--port 99999: accepted: 0 to 65535"},
        {"--client-seconds 0", "--client-seconds 0: accepted: 1 to 86400"}}},
      {"inspect", {{"--compare fake", "--compare fake: accepted: fake,integer"}}},
  };
  for (const auto& [command, wrongs] : table) {
    for (const Wrong& wrong : wrongs) {
      SCOPED_TRACE(command + " " + wrong.arguments);
      expect_one_line(run(with(command, wrong.arguments)), kWrongUsage, wrong.message);
    }
  }
  for (const char* tasks : {"piqqa", "mmmlu_*", ",", ""}) {
    SCOPED_TRACE(tasks);
    expect_one_line(run({"eval", "-m", path("model"), "-t", tasks}), kWrongUsage, "`qeval tasks` lists all");
  }
}

TEST_F(UsageCli, WhatTheFilesAreLackingIsNoWrongCommandLine) {
  expect_one_line(eval({"-t", "piqa", "--split", "fou"}), kFailed, "--split validation would read");
  expect_one_line(eval({"-t", "hellaswag"}), kFailed, "not found");
  expect_one_line(run({"eval", "-m", path("nowhere"), "-t", "piqa"}), kFailed, "no such file or folder");
  expect_one_line(eval({"-t", "piqa", "--arithmetic", "integer"}), kFailed, "no default_qcfg.json");
  expect_one_line(run({"generate", "-m", path("model")}), kFailed, "the prompt is empty");
  expect_one_line(run({"merge", path("nowhere"), "-o", path("out")}), kFailed, "no folder of a shard");
}

}  // namespace
}  // namespace qeval::test
