#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace qeval::cli {

/// What an option's value is, as far as its name says (`value_name` in the option table).
enum class ValueKind : uint8_t {
  none,    ///< the option takes no value
  file,    ///< FILE, MODEL
  folder,  ///< DIR
  tasks,   ///< TASKS
  name,    ///< one of OptionText::names
  names,   ///< several of them, with commas
  other,
};

/// One option as it stands in a command's table.
struct OptionText {
  std::string long_name;   ///< "--model"
  std::string short_name;  ///< "-m", empty where it has none
  std::string value;       ///< "MODEL", "N (=2048)"; empty where it takes none
  std::string description;
  ValueKind kind = ValueKind::none;
  std::vector<std::string> names;  ///< what the value may be, where it is one of a few
};

/// The options of a command with --help, in the order of its help.
std::vector<OptionText> option_texts(const Command& command);

/// The option of the arguments that need no option's name; of kind none where the command takes none.
OptionText positional_text(const Command& command);

/// A script that completes commands, options and their values in bash or zsh.
std::string bash_completion();
std::string zsh_completion();

/// The manual page, in the language of man(7).
std::string manual_page();

}  // namespace qeval::cli
