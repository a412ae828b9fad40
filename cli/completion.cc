#include <iostream>

#include "base/error.h"
#include "base/shell.h"
#include "cli/option_text.h"
#include "cli/option_values.h"
#include "eval/tasks/registry.h"

namespace qeval::cli {
namespace {

/// Tasks and groups, as -t takes them.
std::string task_names() {
  std::string names;
  for (const eval::Task& task : eval::builtin_tasks()) names += task.name + " ";
  for (const eval::Group& group : eval::builtin_groups()) names += group.name + " ";
  names.pop_back();
  return names;
}

std::string names_of(const OptionText& option, std::string_view between) {
  return option.short_name.empty() ? option.long_name
                                   : fmt::format("{}{}{}", option.short_name, between, option.long_name);
}

std::string bash_values(const OptionText& option) {
  switch (option.kind) {
    case ValueKind::file:
      return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case ValueKind::folder:
      return "COMPREPLY=($(compgen -d -- \"$cur\"))";
    case ValueKind::tasks:
      return "_qeval_list \"$tasks\"";
    case ValueKind::name:
      return fmt::format("COMPREPLY=($(compgen -W \"{}\" -- \"$cur\"))", fmt::join(option.names, " "));
    case ValueKind::names:
      return fmt::format("_qeval_list \"{}\"", fmt::join(option.names, " "));
    case ValueKind::none:
    case ValueKind::other:
      break;
  }
  return "COMPREPLY=()";
}

/// "[what it does]:value:action" behind an option's name in zsh's _arguments.
std::string zsh_option(const OptionText& option) {
  std::string text;
  for (const char c : option.description) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') text += '\\';
    text += c;
  }
  std::string out = fmt::format("[{}]", text);
  const std::string name = option.value.substr(0, option.value.find(' '));
  switch (option.kind) {
    case ValueKind::none:
      return out;
    case ValueKind::file:
      return out + ":" + name + ":_files";
    case ValueKind::folder:
      return out + ":" + name + ":_files -/";
    case ValueKind::tasks:
      return out + ":" + name + ":_sequence compadd - " + task_names();
    case ValueKind::name:
      return out + fmt::format(":{}:({})", name, fmt::join(option.names, " "));
    case ValueKind::names:
      return out + fmt::format(":{}:_sequence compadd - {}", name, fmt::join(option.names, " "));
    case ValueKind::other:
      break;
  }
  return out + ":" + name + ": ";
}

po::options_description completion_options() {
  po::options_description options("Options");
  options.add_options()("shell", one_of("SHELL", "bash, zsh"),
                        "bash or zsh; may be given without the option's name");
  return options;
}

int run_completion(const po::variables_map& arguments) {
  const std::string shell = require(arguments, "shell");
  std::cout << (shell == "bash" ? bash_completion() : zsh_completion());
  return 0;
}

}  // namespace

std::string bash_completion() {
  std::string names;
  for (const Command& command : commands())
    names += fmt::format("{}{}", names.empty() ? "" : " ", command.name);
  std::string out = fmt::format(
      R"(# Completion of qeval for bash, made by `qeval completion bash`.

_qeval_list() {{  # the last word of a list with commas
  local head=
  [[ $cur == *,* ]] && head="${{cur%,*}},"
  COMPREPLY=($(compgen -P "$head" -W "$1" -- "${{cur##*,}}"))
  compopt -o nospace 2> /dev/null
}}

_qeval() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD - 1]}}" options
  local tasks="{}"
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "{} --help --version" -- "$cur"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
)",
      task_names(), names);
  for (const Command& command : commands()) {
    std::string options, values;
    for (const OptionText& option : option_texts(command)) {
      options += fmt::format("{}{}", options.empty() ? "" : " ", names_of(option, " "));
      if (option.kind != ValueKind::none)
        values += fmt::format("        {}) {}; return ;;\n", names_of(option, "|"), bash_values(option));
    }
    out += fmt::format("    {})\n      options=\"{}\"\n", command.name, options);
    if (!values.empty()) out += fmt::format("      case \"$previous\" in\n{}      esac\n", values);
    if (const OptionText positional = positional_text(command); positional.kind != ValueKind::none)
      out += fmt::format("      if [[ $cur != -* ]]; then {}; return; fi\n", bash_values(positional));
    out += "      ;;\n";
  }
  return out + R"(    *) return ;;
  esac
  COMPREPLY=($(compgen -W "$options" -- "$cur"))
}

complete -o filenames -F _qeval qeval
)";
}

std::string zsh_completion() {
  std::string out =
      "#compdef qeval\n# Completion of qeval for zsh, made by `qeval completion zsh`.\n\n_qeval() {\n  local "
      "-a "
      "commands\n  commands=(\n";
  for (const Command& command : commands())
    out += fmt::format("    {}\n", shell_quoted(fmt::format("{}:{}", command.name, command.summary)));
  out +=
      "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const Command& command : commands()) {
    out += fmt::format("    {})\n      _arguments -s", command.name);
    for (const OptionText& option : option_texts(command)) {
      const std::string text = shell_quoted(zsh_option(option));
      for (const std::string& name : {option.short_name, option.long_name}) {
        if (!name.empty()) out += fmt::format(" \\\n        '*{}'{}", name, text);
      }
    }
    const OptionText positional = positional_text(command);
    switch (positional.kind) {
      case ValueKind::none:
        break;
      case ValueKind::folder:
        out += " \\\n        '*:folder:_files -/'";
        break;
      case ValueKind::name:
        out += fmt::format(" \\\n        '*:name:({})'", fmt::join(positional.names, " "));
        break;
      default:
        out += " \\\n        '*:argument:_files'";
    }
    out += "\n      ;;\n";
  }
  return out + "  esac\n}\n\n_qeval \"$@\"\n";
}

const Command completion_command{
    .name = "completion",
    .summary = "A script that completes qeval's commands and options in bash or zsh",
    .usage = "bash|zsh",
    .example = "qeval completion bash > ~/.qeval-completion && echo '. ~/.qeval-completion' >> ~/.bashrc",
    .options = completion_options,
    .run = run_completion,
    .positional = "shell",
};

}  // namespace qeval::cli
