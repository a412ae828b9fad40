#include "cli/command.h"

#include <filesystem>
#include <memory>
#include <new>

#include <tbb/global_control.h>

#include "base/error.h"
#include "base/shell.h"
#include "cli/option_values.h"
#include "cli/ranks.h"

namespace qeval::cli {

const char* const kOutOfMemory = "out of memory; a smaller --batch-tokens or --max-length needs less";

std::string message_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return kOutOfMemory;
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error))
    return fmt::format("{}: {}", file->path1().string(), file->code().message());
  return error.what();
}

void add_help_option(po::options_description& options) {
  options.add_options()("help,h", "show this help");
}

void add_model_options(po::options_description& options) {
  options.add_options()("model,m", po::value<std::string>()->value_name("MODEL"),
                        "model: a Hugging Face or unified folder, a MobileQuant checkpoint, or a .gguf file");
  options.add_options()("threads", po::value<int>()->value_name("N"),
                        "threads to use (default: all cores; with several ranks on a machine, their share)");
}

namespace {

std::string& stored_command_line() {
  static std::string text;
  return text;
}

}  // namespace

const std::string& command_line() {
  return stored_command_line();
}

void remember_command_line(int argc, char** argv) {
  std::string& line = stored_command_line();
  for (int i = 0; i < argc; ++i) {
    const std::string_view word = i == 0 ? "qeval" : argv[i];
    if (word == "--resume") continue;  // it changes when the work is done, not what comes out
    if (!line.empty()) line += ' ';
    line += shell_quoted(word);
  }
}

std::string require(const po::variables_map& arguments, const char* option) {
  if (arguments.count(option) == 0) throw UsageError(fmt::format("--{} is required", option));
  return arguments[option].as<std::string>();
}

struct ThreadLimit::Control {
  explicit Control(int64_t threads)
      : control(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads)) {}
  tbb::global_control control;
};

ThreadLimit::ThreadLimit(const po::variables_map& arguments)
    : threads_(optional<int>(arguments, "threads").value_or(default_threads())) {
  constexpr int64_t kMost = 4096;
  in_range<int64_t>("threads", threads_, 1, kMost);
  control_ = std::make_unique<Control>(threads_);
}

ThreadLimit::~ThreadLimit() = default;

}  // namespace qeval::cli
