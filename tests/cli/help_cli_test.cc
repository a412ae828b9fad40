// What a newcomer leans on: examples that work, completion and a manual page that know every option.

#include <filesystem>
#include <regex>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli_fixture.h"

namespace qeval::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;

class HelpCli : public Cli {
 protected:
  /// A shell in the user's folder, with the program on the path.
  Outcome shell(const std::string& script, const std::string& interpreter = "sh") const {
    const std::string folder = fs::path(QEVAL_BINARY).parent_path();
    write("script", fmt::format("cd {}\nPATH={}:$PATH\n{}\n", path(""), folder, script));
    return wait_for(start_program(path(""), {interpreter, path("script")}));
  }
  std::vector<std::string> commands() const {
    std::vector<std::string> names;
    std::istringstream lines(run({"--help"}).output);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("  ")) names.push_back(line.substr(2, line.find(' ', 2) - 2));
    }
    return names;
  }
  std::string example(const std::string& command) const {
    const std::string help = run({command, "--help"}).output;
    const size_t begin = help.find("Example:\n  ") + std::string("Example:\n  ").size();
    return help.substr(begin, help.find('\n', begin) - begin);
  }
  /// Every "--option" that the help of a command lists.
  std::set<std::string> options(const std::string& command) const {
    std::set<std::string> names;
    std::istringstream lines(run({command, "--help"}).output);
    for (std::string line; std::getline(lines, line);) {
      const size_t text = line.find_first_not_of(' ');
      if (text != 2 || line[text] != '-') continue;
      const size_t begin = line.find("--");
      names.insert(line.substr(begin, line.find_first_of(" ]", begin) - begin));
    }
    return names;
  }
  std::vector<std::string> complete(const std::vector<std::string>& words) const {
    std::string list;
    for (const std::string& word : words) list += fmt::format(" '{}'", word);
    const Outcome outcome = shell(
        fmt::format(
            "source completion\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_qeval\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            list, words.size() - 1),
        "bash");
    EXPECT_THAT(outcome.error, IsEmpty());
    std::vector<std::string> found;
    std::istringstream lines(outcome.output);
    for (std::string line; std::getline(lines, line);) found.push_back(line);
    return found;
  }
};

TEST_F(HelpCli, EveryExampleWorksAsItStands) {
  nlohmann::json config = nlohmann::json::parse(read("model/config.json"));
  config["max_position_embeddings"] = 4096;  // of a usual length
  write("model/config.json", config.dump());
  write("model/chat_template.jinja", "{% for message in messages %}{{ message.content }}{% endfor %}");
  std::string text;
  for (int i = 0; i < 20000; ++i) text += fmt::format("{} words and ", i);
  write("text.txt", text);
  write("page.txt", text.substr(0, 2000));
  expect_success(
      shell("HOME=$PWD\nqeval eval -m model -t sample --keep-logprobs -o results/fp && cp -r results/fp "
            "results/first\n"
            "for i in 1 2 3; do qeval eval -m model -t sample --shard $i/3 -o shard-$i; done"));
  const auto work = [&](const std::string& command) {
    SCOPED_TRACE(command);
    std::string line = example(command);
    EXPECT_THAT(line, HasSubstr("qeval " + command));
    // Any model would do: the examples name a GGUF file, here lies a folder.
    for (size_t at = 0; (at = line.find("model.gguf", at)) != std::string::npos; ++at)
      line.replace(at, 10, "model");
    if (command == "serve") line += " --help";  // which would not end by itself: only that it is understood
    if (command == "man") line = line.substr(0, line.find(" &&"));
    const Outcome outcome = shell("HOME=$PWD\n" + line);
    EXPECT_EQ(outcome.status, 0) << line << "\n" << outcome.error;
    EXPECT_THAT(outcome.error, Not(HasSubstr("qeval: "))) << line;
  };
  work("quantize");  // whose result others start from
  expect_success(shell("qeval eval -m smoothed -t sample --base results/fp -o results/w8a8"));
  const std::vector<std::string> all = commands();
  EXPECT_THAT(all, IsSupersetOf({"eval", "quantize", "compare", "verify", "completion", "man"}));
  for (const std::string& command : all) {
    if (command != "quantize") work(command);
  }
  for (const char* made : {"bench.json", "compared/report.html", "report.html", "results/results.json",
                           "smoothed-onnx/model.onnx", "unified/config.json", "qeval.1", ".qeval-completion"})
    EXPECT_TRUE(fs::exists(path(made))) << made;
}

TEST_F(HelpCli, CompletionKnowsEveryCommandAndOption) {
  const Outcome script = run({"completion", "bash"});
  expect_success(script);
  write("completion", script.output);
  expect_success(shell("bash -n completion"));
  const std::vector<std::string> all = commands();
  EXPECT_THAT(complete({"qeval", ""}), IsSupersetOf(all));
  EXPECT_THAT(complete({"qeval", "quan"}), testing::ElementsAre("quantize"));
  for (const std::string& command : all)
    EXPECT_THAT(complete({"qeval", command, "-"}), IsSupersetOf(options(command))) << command;
  EXPECT_THAT(complete({"qeval", "eval", "-m", "mod"}), testing::ElementsAre("model"));
  EXPECT_THAT(complete({"qeval", "verify", "mod"}), testing::ElementsAre("model"));
  EXPECT_THAT(complete({"qeval", "eval", "-t", "arc_"}),
              testing::UnorderedElementsAre("arc_easy", "arc_challenge"));
  EXPECT_THAT(complete({"qeval", "eval", "-t", "piqa,hellas"}), testing::ElementsAre("piqa,hellaswag"));
  EXPECT_THAT(complete({"qeval", "eval", "--seed", ""}), testing::ElementsAre(""));
  EXPECT_THAT(complete({"qeval", "quantize", "--method", "s"}), testing::ElementsAre("smoothquant"));
  EXPECT_THAT(complete({"qeval", "compare", "--methods", "rtn,sm"}), testing::ElementsAre("rtn,smoothquant"));
  EXPECT_THAT(complete({"qeval", "completion", "z"}), testing::ElementsAre("zsh"));
}

TEST_F(HelpCli, ZshCompletionKnowsThemToo) {
  const Outcome script = run({"completion", "zsh"});
  expect_success(script);
  EXPECT_THAT(script.output, testing::StartsWith("#compdef qeval\n"));
  for (const std::string& command : commands()) {
    EXPECT_THAT(script.output, HasSubstr("    " + command + ")\n")) << command;
    for (const std::string& option : options(command))
      EXPECT_THAT(script.output, HasSubstr("'*" + option + "'")) << command;
  }
  write("_qeval", script.output);
  const Outcome parsed = shell("command -v zsh > has || exit 0; zsh -n _qeval");
  EXPECT_EQ(parsed.status, 0) << parsed.error;
  expect_one_line(run({"completion", "fish"}), kWrongUsage, "accepted: bash, zsh");
}

TEST_F(HelpCli, TheManualPageKnowsThemToo) {
  const Outcome page = run({"man"});
  expect_success(page);
  std::string text;  // without troff's escapes
  for (const char c : page.output) {
    if (c != '\\') text += c;
  }
  for (const std::string& command : commands()) {
    EXPECT_THAT(text, HasSubstr(".SS qeval " + command + "\n"));
    for (const std::string& option : options(command)) EXPECT_THAT(text, HasSubstr(option)) << command;
  }
  std::istringstream lines(page.output);
  const std::set<std::string> known{".TH", ".SH", ".SS", ".PP", ".B", ".I",
                                    ".TP", ".nf", ".fi", ".RS", ".RE"};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('.')) {
      EXPECT_TRUE(known.contains(line.substr(0, line.find(' ')))) << line;
    }
    EXPECT_FALSE(line.starts_with('\'')) << line;
  }
  write("qeval.1", page.output);
  const Outcome set = shell("command -v groff > has || exit 0; groff -man -Tutf8 -ww qeval.1 > page.txt");
  EXPECT_EQ(set.status, 0);
  EXPECT_THAT(set.error, IsEmpty());
}

/// The program's sources, adjacent string literals joined and quotes unescaped.
std::string sources() {
  std::string text;
  for (const char* folder : {"base", "cli", "datasets", "eval", "model", "quant", "reports"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(QEVAL_SOURCE_DIR) / folder)) {
      if (entry.path().extension() == ".cc") text += read_file(entry.path());
    }
  }
  static const std::regex joint("\"\\s*\n\\s*\"");
  text = std::regex_replace(text, joint, "");
  for (size_t at = 0; (at = text.find("\\\"", at)) != std::string::npos; ++at) text.erase(at, 1);
  return text;
}

TEST_F(HelpCli, EveryMessageThatTroubleshootingExplainsIsOneOfOurs) {
  const std::string all = sources();
  // What the libraries and the system say behind our own words.
  const std::set<std::string> others{"unrecognised option", "warning", "No such file or directory",
                                     "No space left on device"};
  std::istringstream lines(read_file(fs::path(QEVAL_SOURCE_DIR) / "docs/troubleshooting.md"));
  int messages = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("### ")) continue;
    ++messages;
    ASSERT_TRUE(line.starts_with("### `") && line.ends_with("`")) << line;
    // Libraries name settings, and the command line spells them as options.
    std::string rest =
        std::regex_replace(line.substr(5, line.size() - 6), std::regex("--[a-z][a-z-]*[a-z]"), "…");
    bool ours = false;
    while (!rest.empty()) {
      const size_t gap = rest.find("…");
      std::string piece = rest.substr(0, gap);
      rest = gap == std::string::npos ? "" : rest.substr(gap + std::string_view("…").size());
      for (const std::string& other : others) {
        if (const size_t at = piece.find(other); at != std::string::npos) piece.erase(at);
      }
      if (piece.find_first_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos) continue;
      ours = true;
      EXPECT_NE(all.find(piece), std::string::npos) << piece << " of " << line;
    }
    EXPECT_TRUE(ours || line.find("unrecognised") != std::string::npos) << line;
  }
  EXPECT_GE(messages, 25);
}

TEST_F(HelpCli, TheDocumentedTableOfArchitecturesIsWhatTheProgramPrints) {
  const Outcome outcome = run({"inspect", "--supported"});
  expect_success(outcome);
  EXPECT_THAT(outcome.output, HasSubstr("\n| qwen3_moe | yes | qwen3moe | yes | yes | yes | – | – |\n"));
  EXPECT_THAT(read_file(fs::path(QEVAL_SOURCE_DIR) / "docs/models.md"),
              HasSubstr("\n\n" + outcome.output + "\n"))
      << "docs/models.md holds what `qeval inspect --supported` prints";
}

TEST_F(HelpCli, TheExampleOfTheLibrariesAgreesWithTheProgram) {
  const Outcome own =
      wait_for(start_program(path(""), {QEVAL_EXAMPLE, path("model"), "Two and", " two", " three"}));
  EXPECT_EQ(own.status, 0) << own.error;
  std::istringstream lines(own.output);
  for (const char* choice : {" two", " three"}) {
    const nlohmann::json request{{"context", "Two and"}, {"continuation", choice}};
    const Outcome scored = run({"score", "-m", path("model")}, request.dump() + "\n");
    expect_success(scored);
    double value = 0;
    std::string name;
    lines >> value >> name;
    EXPECT_EQ(" " + name, choice);
    EXPECT_NEAR(value, nlohmann::json::parse(scored.output)["logprob"].get<double>(), 1e-4);
  }
  const Outcome wrong = wait_for(start_program(path(""), {QEVAL_EXAMPLE, path("nowhere"), "a", "b"}));
  EXPECT_EQ(wrong.status, 1);
  EXPECT_THAT(wrong.error, HasSubstr("nowhere: no such file or folder"));
}

}  // namespace
}  // namespace qeval::test
