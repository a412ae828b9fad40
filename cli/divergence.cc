#include <algorithm>
#include <iostream>
#include <limits>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/chat_options.h"
#include "cli/command.h"
#include "cli/compared_models.h"
#include "cli/interrupt.h"
#include "cli/option_values.h"
#include "cli/progress.h"
#include "datasets/reader.h"
#include "eval/describe_model.h"
#include "eval/divergence/chat_windows.h"
#include "eval/divergence/measure.h"
#include "eval/results/divergence_results.h"
#include "eval/results/folder_use.h"
#include "eval/run_settings.h"

namespace qeval::cli {
namespace {

namespace fs = std::filesystem;

po::options_description divergence_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_with_option(options);
  auto add = options.add_options();
  add("file,f", po::value<std::string>()->value_name("FILE"), "the text, UTF-8");
  add("chat", po::value<std::string>()->value_name("FILE"),
      "instead of a text: conversations, a .jsonl with \"messages\" on each line, in the base's chat "
      "template; the assistant's turns alone are scored");
  add("chat-template-args", template_arguments_value(),
      "variables for the template, with --chat: enable_thinking=false");
  add("context", po::value<int64_t>()->value_name("N")->default_value(512),
      "tokens per window; the default is less where a model's context is, and 2048 with --chat");
  add("protocol", one_of("NAME", eval::kTextProtocolNames)->default_value("qeval"),
      "qeval: every token of the text is predicted once; qeval-bos: the same, every window beginning with "
      "BOS (the default where a model has a prefix); llama.cpp: what llama-perplexity --kl-divergence does "
      "and prints (whole chunks, the second half of each, predictions of the base in 16 bits)");
  add("kl-divergence-base", po::value<std::string>()->value_name("FILE"),
      "with --protocol llama.cpp: llama.cpp's file of the base's predictions, which is written from -m and "
      "-f; "
      "without them it is read in their place");
  add("output,o", po::value<std::string>()->value_name("DIR"), "folder for divergence.json");
  return options;
}

/// The sessions of a command line; a checkpoint that is named twice is loaded once.
class Models {
 public:
  const std::shared_ptr<eval::LoadedModel>& load(const fs::path& path) {
    std::shared_ptr<eval::LoadedModel>& model = loaded_[path];
    if (!model) model = std::make_shared<eval::LoadedModel>(path);
    shortest_ = std::min(shortest_, model->model().config.context());
    return model;
  }
  /// The shortest of the contexts of what is loaded.
  int64_t shortest_context() const { return shortest_; }

  eval::Session& open(const fs::path& path, const std::string& arithmetic, int64_t context) {
    const std::shared_ptr<eval::LoadedModel>& model = load(path);
    const int64_t most = model->model().config.context();
    if (context > most)
      throw UsageError(
          fmt::format("--context {}: accepted: 1 to {}, the context of {}", context, most, path.string()));
    sessions_.push_back(std::make_unique<eval::Session>(
        eval::SessionOptions{.model = path, .arithmetic = arithmetic, .max_length = context}, model));
    for (const std::string& warning : sessions_.back()->warnings())
      std::cerr << "qeval: warning: " << path.string() << ": " << warning << '\n';
    return *sessions_.back();
  }

 private:
  std::map<fs::path, std::shared_ptr<eval::LoadedModel>> loaded_;
  int64_t shortest_ = std::numeric_limits<int64_t>::max();
  std::vector<std::unique_ptr<eval::Session>> sessions_;
};

/// The conversations of --chat in the base's template, which is the same text for all models.
class Conversations {
 public:
  Conversations(const po::variables_map& arguments, const std::string& file, const std::string& text) {
    const fs::path model = require(arguments, "model");
    eval::ChatRenderer renderer(eval::load_chat_template(model), template_arguments(arguments));
    for (const std::string& warning : renderer.chat().warnings) warn(warning);
    turns_ = assistant_turns(renderer, datasets::read_jsonl({file, text}));
    if (renderer.dropped_system())
      warn(fmt::format("{}: knows no system messages; they are left out", renderer.chat().where));
    ends_ = eval::answer_ends(model);
  }

  eval::TextWindows windows(const model::Tokenizer& tokenizer, int64_t context) const {
    std::vector<int32_t> ends = ends_;
    if (tokenizer.eos_id()) ends.push_back(*tokenizer.eos_id());
    int64_t cut = 0;
    eval::TextWindows out = chat_windows(tokenizer, turns_, ends, context, cut);
    if (cut > 0)
      warn(
          fmt::format("{} of {} turns have more than {} tokens before their end; their conversations lose "
                      "the left end (--context)",
                      cut, turns_.size(), context));
    return out;
  }

 private:
  static void warn(const std::string& warning) { std::cerr << "qeval: warning: " << warning << '\n'; }

  std::vector<eval::AssistantTurn> turns_;
  std::vector<int32_t> ends_;
};

eval::DivergenceRun describe(eval::Session& session, const std::string& label) {
  eval::DivergenceRun run{label, session.model().path.string(), eval::model_info(session), {}};
  run.model.details = to_json(describe_model(session));
  return run;
}

/// Labels, unlike one another: those given; else of the formats, with the file's name where two are the same.
std::vector<std::string> labels(const std::vector<ComparedModel>& models,
                                const std::vector<eval::Session*>& sessions) {
  std::vector<std::string> out, names;
  for (size_t i = 0; i < models.size(); ++i) {
    out.push_back(models[i].label.empty() ? eval::run_label(*sessions[i]) : models[i].label);
    names.push_back(sessions[i]->model().name);
  }
  return eval::distinct_labels(std::move(out), names);
}

eval::TextSettings text_settings(const std::string& file, std::string_view text,
                                 const eval::TextWindows& windows) {
  return {.file = fs::path(file).filename().string(),
          .sha256 = text.empty() ? "" : sha256_hex(text),
          .bytes = std::ssize(text),
          .protocol = std::string(name(windows.protocol)),
          .context = windows.context,
          .windows = std::ssize(windows.windows)};
}

void check(const po::variables_map& arguments, bool llama) {
  if (!llama && given(arguments, "kl-divergence-base"))
    refuse("kl-divergence-base", "only with --protocol llama.cpp");
  const bool reads = given(arguments, "kl-divergence-base") && !given(arguments, "model");
  if (reads && given(arguments, "file"))
    refuse("file", "not used without -m: the file of --kl-divergence-base has the text's tokens");
  if (given(arguments, "chat") && given(arguments, "file"))
    refuse("chat", "not with --file: one text or the other");
  if (given(arguments, "chat") && (reads || !arguments["protocol"].defaulted()))
    refuse("chat", "has windows of its own; not with --protocol or --kl-divergence-base");
  if (!given(arguments, "chat") && given(arguments, "chat-template-args"))
    refuse("chat-template-args", "not used without --chat");
  if (reads && !arguments["context"].defaulted())
    refuse("context", "not used without -m: the file of --kl-divergence-base says it");
  if (!given(arguments, "with") && (reads || !given(arguments, "kl-divergence-base")))
    throw UsageError("--with is required: a model to compare with the base");
}

/// Refuses windows that a model with a prefix does not know.
void require_prefix(const eval::TextWindows& windows, const eval::Session& session) {
  const std::optional<int32_t> token = session.prefix_token();
  if (!token) return;
  for (size_t i = 0; i < windows.windows.size(); ++i) {
    const int32_t first = windows.windows[i].tokens.front();
    if (first == *token) continue;
    fail(
        "{}: quantized with a prefix, so that a window begins with token {}; window {} begins with token {}; "
        "accepted: --file with --protocol qeval-bos, and conversations that begin with it in a --context "
        "that "
        "holds them",
        session.model().path.string(), *token, i + 1, first);
  }
}

void print(const eval::DivergenceResults& results, const std::vector<eval::Measured>& measured, bool llama) {
  for (size_t i = 0; llama && i < measured.size(); ++i) {
    std::cout << results.runs[i].label << "\n\n" << eval::LlamaStatistics::chunk_head();
    for (const std::string& line : measured[i].chunk_lines) std::cout << line;
    std::cout << '\n' << measured[i].llama.report() << '\n';
  }
  const eval::TextSettings& text = results.text;
  const eval::TextDivergence& first = results.runs.front().divergence;
  std::cout << fmt::format("{}: {} token{} predicted in {} window{} of up to {}, protocol {}\n",
                           text.file.empty() ? "The stored text" : printable(text.file), first.tokens(),
                           first.tokens() == 1 ? "" : "s", text.windows, text.windows == 1 ? "" : "s",
                           text.context, text.protocol)
            << fmt::format("Base: {}, perplexity {:.4f}{}\n\n", printable(results.base.label),
                           first.base_perplexity().value,
                           first.base_perplexity().standard_error
                               ? fmt::format(" ± {:.4f}", *first.base_perplexity().standard_error)
                               : "")
            << eval::render_divergence(results);
}

int run_divergence(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  eval::TextProtocol protocol = eval::parse_text_protocol(arguments["protocol"].as<std::string>());
  const bool llama = protocol == eval::TextProtocol::llama_cpp;
  check(arguments, llama);
  const auto stored_file = optional<std::string>(arguments, "kl-divergence-base");
  const std::vector<ComparedModel> with = compared_models(arguments);
  const bool reads = stored_file && !given(arguments, "model");
  std::optional<eval::LogitsReader> stored;
  if (reads) stored.emplace(*stored_file);
  const auto chat_file = optional<std::string>(arguments, "chat");
  constexpr int64_t kChatContext = 2048;
  const bool by_default = arguments["context"].defaulted();
  const auto wanted = chat_file && by_default
                          ? kChatContext
                          : in_range<int64_t>("context", arguments["context"].as<int64_t>(), 1, 1 << 24);
  const std::string text_file = stored ? "" : chat_file ? *chat_file : require(arguments, "file");

  const auto output = optional<std::string>(arguments, "output");
  if (output && eval::folder_use(*output) != eval::FolderUse::none)
    fail("{}: is a folder of results or of a model; choose another directory", *output);

  Models models;
  if (!stored) models.load(require(arguments, "model"));
  for (const ComparedModel& model : with) models.load(model.path);
  // The default gives way where a model's context is shorter.
  const int64_t context = stored       ? stored->header().context
                          : by_default ? std::min(wanted, models.shortest_context())
                                       : wanted;
  eval::Session* base = stored ? nullptr : &models.open(require(arguments, "model"), "float", context);
  std::vector<eval::Session*> others;
  for (const ComparedModel& model : with)
    others.push_back(&models.open(model.path, model.arithmetic, context));
  // Models with a prefix know no other windows, and the others are compared on the same.
  const bool prefixed = std::ranges::any_of(
      others, [](const eval::Session* other) { return other->prefix_token().has_value(); });
  if (prefixed && protocol == eval::TextProtocol::qeval) {
    if (!arguments["protocol"].defaulted())
      refuse("protocol qeval", "not of models with a prefix; accepted with them: qeval-bos");
    protocol = eval::TextProtocol::qeval_bos;
  }
  eval::Session& first = base != nullptr ? *base : *others.front();
  if (stored && stored->header().vocabulary != first.model().config.vocab_size) {
    fail("{}: made with a vocabulary of {} tokens; {} has {}", *stored_file, stored->header().vocabulary,
         first.model().path.string(), first.model().config.vocab_size);
  }

  const std::string text = stored      ? ""
                           : chat_file ? datasets::read_text(text_file).text
                                       : read_file(text_file);
  std::optional<Conversations> conversations;
  if (chat_file) conversations.emplace(arguments, text_file, text);
  const auto windows_of = [&](eval::Session& session) {
    if (conversations) return conversations->windows(session.tokenizer(), context);
    return stored ? stored_windows(session.tokenizer(), stored->header())
                  : text_windows(session.tokenizer(), {text_file, text}, protocol, context);
  };
  const eval::TextWindows windows = windows_of(first);
  for (eval::Session* other : others) {
    if (other->tokenizer().hash() != first.tokenizer().hash())
      require_same_windows(windows, windows_of(*other), other->model().path);
    require_prefix(windows, *other);
  }

  std::optional<eval::LogitsWriter> writer;
  if (stored_file && !stored) {
    writer.emplace(*stored_file,
                   eval::LogitsHeader{static_cast<int32_t>(context),
                                      static_cast<int32_t>(first.model().config.vocab_size),
                                      static_cast<int32_t>(windows.windows.size()), windows.tokens});
  }
  catch_interrupts();
  Progress progress;
  const std::vector<eval::Measured> measured =
      eval::measure_divergence({.base = base,
                                .stored = stored ? &*stored : nullptr,
                                .others = others,
                                .windows = windows,
                                .writer = writer ? &*writer : nullptr,
                                .progress = [&](int64_t done, int64_t total) {
                                  if (interrupted()) fail("interrupted");
                                  progress.update("windows", done * context, total * context);
                                }});
  progress.clear();
  if (writer) {
    writer->commit();
    std::cout << fmt::format("Predictions of {}: {}\n", first.model().path.string(), *stored_file);
  }
  if (measured.empty()) return 0;
  eval::DivergenceResults results{text_settings(text_file, text, windows), {}, {}};
  if (base != nullptr) {
    results.base = describe(*base, eval::run_label(*base));
  } else {
    results.base.label = results.base.path = *stored_file;
  }
  const std::vector<std::string> names = labels(with, others);
  for (size_t i = 0; i < others.size(); ++i) {
    results.runs.push_back(describe(*others[i], names[i]));
    results.runs.back().divergence = measured[i].divergence;
  }
  print(results, measured, llama);
  if (output) {
    eval::write_divergence_results(*output, results);
    std::cout << fmt::format("\nResults: {}\n", (fs::path(*output) / eval::divergence_results_file).string());
  }
  return 0;
}

}  // namespace

const Command divergence_command{
    .name = "divergence",
    .summary = "How far models' predictions of a text are from a base's, side by side",
    .usage = "-m BASE --with PATH[@A][=LABEL]... -f TEXT | --chat CONVERSATIONS [options]",
    .example = "qeval divergence -m model.gguf --with smoothed -f page.txt",
    .options = divergence_options,
    .run = run_divergence,
};

}  // namespace qeval::cli
