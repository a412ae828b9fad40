#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>

#include "base/error.h"
#include "base/mapping_guard.h"
#include "base/setting.h"
#include "cli/command.h"
#include "cli/commit.h"
#include "cli/parse.h"
#include "cli/ranks.h"
#include "quant/arithmetic/integer/run/cpu.h"

namespace qeval::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

void print_overview(std::ostream& out) {
  out << "qeval: what did quantization cost this model?\n\n"
         "Usage: qeval COMMAND [options]\n\nCommands:\n";
  for (const Command& command : commands())
    out << fmt::format("  {:<10} {}\n", command.name, command.summary);
  out << "\n`qeval COMMAND --help` or `qeval help COMMAND` shows a command's options, `qeval --version` the "
         "version.\n";
}

void print_help(const Command& command) {
  std::cout << fmt::format("{}\n\nUsage: qeval {} {}\n\n", command.summary, command.name, command.usage)
            << all_options(command) << "\nExample:\n  " << command.example << "\n";
}

std::string shared_commands() {
  std::string names;
  for (const Command& command : commands()) {
    if (command.shared) names += fmt::format("{}{}", names.empty() ? "" : ", ", command.name);
  }
  return names;
}

int run_command(const Command& command, int argc, char** argv) {
  const po::variables_map arguments = parse_arguments(command, {argv + 1, argv + argc});
  if (arguments.count("help") != 0) {
    print_help(command);
    return 0;
  }
  if (!command.shared && !peers().alone()) {
    throw UsageError(
        fmt::format("qeval {} runs in one process, not in {} ranks; those that share their work: {}",
                    command.name, peers().size, shared_commands()));
  }
  return command.run(arguments);
}

const Command& find_command(std::string_view name) {
  const auto all = commands();
  const auto command = std::ranges::find(all, name, &Command::name);
  if (command != all.end()) return *command;
  if (name.starts_with('-'))
    throw UsageError(fmt::format("{}: a command comes first; `qeval --help` lists them", printable(name)));
  std::string names;
  for (const Command& known : all) names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  throw UsageError(fmt::format("unknown command {}; accepted: {}", printable(name), names));
}

int dispatch(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "help" && argc > 2) {
    if (argc > 3) throw UsageError("usage: qeval help COMMAND");
    print_help(find_command(argv[2]));
    return 0;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    print_overview(std::cout);
    return 0;
  }
  if (name == "--version") {
    if (argc > 2) throw UsageError("--version stands alone");
    constexpr std::string_view commit = QEVAL_COMMIT;
    std::cout << "qeval " QEVAL_VERSION << (commit.empty() ? "" : " (commit " QEVAL_COMMIT ")")
              << "\nkernels: " << quant::kernels_in_force() << '\n';
    return 0;
  }
  if (name.empty()) {
    print_overview(std::cerr);
    return kWrongUsage;
  }
  const Command& command = find_command(name);
  try {
    return run_command(command, argc - 1, argv + 1);
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{} (see qeval {} --help)", error.what(), name));
  }
}

/// What the library does where an exception finds no handler.
const std::terminate_handler library_terminate = std::get_terminate();

/// Memory and threads may also run out where no exception may pass: destructors of the JSON library need
/// memory, that of oneTBB's limit of threads starts one. Such an exception ends in a line like any other;
/// allocates nothing.
[[noreturn]] void end_without_unwinding() {
  const auto end = [](const char* message) {
    for (const char* part : {"qeval: ", message, "\n"}) std::fputs(part, stderr);
    std::_Exit(kFailed);
  };
  try {
    if (std::current_exception() != nullptr) throw;
  } catch (const std::bad_alloc&) {
    end(kOutOfMemory);
  } catch (const std::exception& error) {
    end(error.what());
  } catch (...) {
  }
  library_terminate();  // no exception of ours: a fault of the program
  std::abort();
}

}  // namespace
}  // namespace qeval::cli

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    qeval::spell_settings_as_options();
    qeval::report_lost_mappings();
    std::set_terminate(qeval::cli::end_without_unwinding);
    std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f` is an error of the write instead
    qeval::cli::join_ranks();
    qeval::cli::remember_command_line(argc, argv);
    const int status = qeval::cli::dispatch(argc, argv);
    std::cout.flush();
    if (!std::cout) {
      std::fputs("qeval: standard output: cannot write (is the disk full, or the reader gone?)\n", stderr);
      return qeval::cli::leave_ranks(qeval::cli::kFailed, false);
    }
    return qeval::cli::leave_ranks(status, true);
  } catch (const qeval::UsageError& error) {  // every rank has the same command line
    if (qeval::cli::peers().is_first()) std::fprintf(stderr, "qeval: %s\n", error.what());
    return qeval::cli::leave_ranks(qeval::cli::kWrongUsage, true);
  } catch (const qeval::JointError& error) {
    if (qeval::cli::peers().is_first()) std::fprintf(stderr, "qeval: %s\n", error.what());
    return qeval::cli::leave_ranks(qeval::cli::kFailed, true);
  } catch (const std::exception& error) {
    qeval::cli::complain(qeval::cli::message_of(error));
  }
  return qeval::cli::leave_ranks(qeval::cli::kFailed, false);
}
