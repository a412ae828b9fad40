#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <new>
#include <sstream>

#include "base/error.h"
#include "base/mapping_guard.h"
#include "base/near_names.h"
#include "base/setting.h"
#include "cli/command.h"
#include "cli/commit.h"
#include "cli/option_text.h"
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
  out << "\n`qeval COMMAND --help` shows a command's options, `qeval --version` the version.\n";
}

po::options_description options_of(const Command& command) {
  po::options_description options = command.options();
  add_help_option(options);
  return options;
}

void print_help(const Command& command) {
  std::cout << fmt::format("{}\n\nUsage: qeval {} {}\n\n", command.summary, command.name, command.usage)
            << options_of(command) << "\nExample:\n  " << command.example << "\n";
}

std::string shared_commands() {
  std::string names;
  for (const Command& command : commands()) {
    if (command.shared) names += fmt::format("{}{}", names.empty() ? "" : ", ", command.name);
  }
  return names;
}

/// "; near names: --limit", or nothing.
std::string near_options(const Command& command, const std::string& wrong) {
  std::vector<std::string> names;
  for (const OptionText& option : option_texts(command)) names.push_back(option.long_name);
  const std::vector<std::string> near = near_names(wrong, names);
  return near.empty() ? "" : fmt::format("; near names: {}", fmt::join(near, ", "));
}

/// The option library reads "-1" as the largest number that an unsigned option can hold.
void refuse_negatives(const po::parsed_options& parsed, const po::options_description& options) {
  for (const po::option& option : parsed.options) {
    const auto* known = options.find_nothrow(option.string_key, false);
    const auto* typed =
        known == nullptr ? nullptr : dynamic_cast<const po::typed_value_base*>(known->semantic().get());
    if (typed == nullptr || typed->value_type() != typeid(uint64_t)) continue;
    for (const std::string& value : option.value) {
      if (!value.starts_with('-')) continue;
      throw UsageError(fmt::format("--{} {}: accepted: 0 to {}", option.string_key, printable(value),
                                   std::numeric_limits<uint64_t>::max()));
    }
  }
}

/// The words of a command line, the value of an option that may stand alone joined to its name: the option
/// library takes no other for one.
std::vector<std::string> joined_words(const po::options_description& options, int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    words.emplace_back(argv[i]);
    const std::string& word = words.back();
    if (!word.starts_with("--") || i + 1 == argc || argv[i + 1][0] == '-' || argv[i + 1][0] == '\0') continue;
    const po::option_description* option = options.find_nothrow(word.substr(2), false);
    if (option == nullptr) continue;
    const auto value = option->semantic();
    if (value->min_tokens() == 0 && value->max_tokens() == 1) words.back() += fmt::format("={}", argv[++i]);
  }
  return words;
}

int run_command(const Command& command, int argc, char** argv) {
  const po::options_description options = options_of(command);
  po::positional_options_description positional;
  if (command.positional != nullptr) positional.add(command.positional, -1);
  po::variables_map arguments;
  try {
    const po::parsed_options parsed =
        po::command_line_parser(joined_words(options, argc, argv))
            .options(options)
            .positional(positional)
            .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
            .run();
    refuse_negatives(parsed, options);
    po::store(parsed, arguments);
    po::notify(arguments);
  } catch (const po::unknown_option& error) {
    throw UsageError(error.what() + near_options(command, error.get_option_name()));
  } catch (const po::too_many_positional_options_error&) {
    throw UsageError(fmt::format("an argument stands without its option; usage: qeval {} {}", command.name,
                                 command.usage));
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
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

}  // namespace
}  // namespace qeval::cli

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    qeval::spell_settings_as_options();
    qeval::report_lost_mappings();
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
  } catch (const std::bad_alloc&) {
    qeval::cli::complain("out of memory; a smaller --batch-tokens or --max-length needs less");
  } catch (const std::filesystem::filesystem_error& error) {
    qeval::cli::complain(fmt::format("{}: {}", error.path1().string(), error.code().message()));
  } catch (const std::exception& error) {
    qeval::cli::complain(error.what());
  }
  return qeval::cli::leave_ranks(qeval::cli::kFailed, false);
}
