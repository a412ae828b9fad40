#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <boost/program_options.hpp>

namespace qeval::cli {

namespace po = boost::program_options;

/// One subcommand: its option table serves parsing and help alike.
struct Command {
  std::string_view name;
  std::string_view summary;  ///< one line
  std::string_view usage;    ///< behind the name: "-m MODEL -t TASKS [options]"
  std::string_view example;  ///< one command that works
  po::options_description (*options)();
  /// Returns the exit status; failures are thrown as Error, a wrong command line as UsageError.
  int (*run)(const po::variables_map& arguments);
  const char* positional = nullptr;  ///< the option that arguments without a name belong to; none: refused
  bool shared = false;               ///< several processes (cli/ranks.h) can work on it together
};

/// All subcommands, in the order of `qeval --help`.
std::span<const Command> commands();

extern const Command eval_command, merge_command, score_command, quantize_command, compare_command,
    divergence_command, convert_command, report_command, verify_command, generate_command, bench_command,
    serve_command, export_command, tokenize_command, template_command, inspect_command, tasks_command,
    completion_command, man_command;

/// The message for std::bad_alloc.
extern const char* const kOutOfMemory;

/// The one line that says why a command failed, behind "qeval: ".
std::string message_of(const std::exception& error);

/// --help, which every command has.
void add_help_option(po::options_description& options);

/// The options of every command that loads a model: -m and --threads.
void add_model_options(po::options_description& options);

/// The command line of this process, quoted for a shell: what reproduces the run.
const std::string& command_line();
void remember_command_line(int argc, char** argv);

/// The value of a required option; UsageError naming it where missing.
std::string require(const po::variables_map& arguments, const char* option);
/// The value of an option if it was given.
template <typename T>
std::optional<T> optional(const po::variables_map& arguments, const char* option) {
  if (arguments.count(option) == 0) return std::nullopt;
  return arguments[option].as<T>();
}

/// Limits TBB to --threads (default: all of the CPU's) while it lives.
class ThreadLimit {
 public:
  explicit ThreadLimit(const po::variables_map& arguments);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;
  int64_t threads() const { return threads_; }

 private:
  int64_t threads_;
  struct Control;
  std::unique_ptr<Control> control_;
};

}  // namespace qeval::cli
