#include "cli/parse.h"

#include <limits>

#include "base/error.h"
#include "base/near_names.h"
#include "cli/option_text.h"

namespace qeval::cli {
namespace {

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
std::vector<std::string> joined_words(const po::options_description& options,
                                      std::span<const std::string> given) {
  std::vector<std::string> words;
  for (size_t i = 0; i < given.size(); ++i) {
    words.push_back(given[i]);
    const std::string& word = words.back();
    if (!word.starts_with("--") || i + 1 == given.size()) continue;
    if (given[i + 1].empty() || given[i + 1].starts_with('-')) continue;
    const po::option_description* option = options.find_nothrow(word.substr(2), false);
    if (option == nullptr) continue;
    const auto value = option->semantic();
    if (value->min_tokens() == 0 && value->max_tokens() == 1) words.back() += "=" + given[++i];
  }
  return words;
}

}  // namespace

po::options_description all_options(const Command& command) {
  po::options_description options = command.options();
  add_help_option(options);
  return options;
}

po::variables_map parse_arguments(const Command& command, const std::vector<std::string>& words) {
  const po::options_description options = all_options(command);
  po::positional_options_description positional;
  if (command.positional != nullptr) positional.add(command.positional, -1);
  po::variables_map arguments;
  try {
    const po::parsed_options parsed =
        po::command_line_parser(joined_words(options, words))
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
  return arguments;
}

}  // namespace qeval::cli
