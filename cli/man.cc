#include <iostream>

#include "base/error.h"
#include "cli/option_text.h"

namespace qeval::cli {
namespace {

/// A text for troff: backslashes and dashes are taken as they are, and no line of it is a command.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (out.empty() && (c == '.' || c == '\'')) out += "\\&";
    if (c == '-') {
      out += "\\-";
    } else if (c == '\\') {
      out += "\\e";
    } else {
      out += c == '\n' ? ' ' : c;
    }
  }
  return out;
}

std::string section_of(const Command& command) {
  std::string out = fmt::format(".SS qeval {}\n{}.\n.PP\n.B qeval {}\n{}\n", plain(command.name),
                                plain(command.summary), plain(command.name), plain(command.usage));
  for (const OptionText& option : option_texts(command)) {
    out += fmt::format(".TP\n\\fB{}{}{}\\fR{}{}\n{}\n", plain(option.short_name),
                       option.short_name.empty() ? "" : "\\fR, \\fB", plain(option.long_name),
                       option.value.empty() ? "" : " ", plain(option.value), plain(option.description));
  }
  return out + fmt::format(".PP\nExample:\n.PP\n.nf\n.RS\n{}\n.RE\n.fi\n", plain(command.example));
}

po::options_description man_options() {
  return po::options_description("Options");
}

int run_man(const po::variables_map&) {
  std::cout << manual_page();
  return 0;
}

}  // namespace

std::string manual_page() {
  std::string out =
      ".TH QEVAL 1 \"\" \"qeval " QEVAL_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\nqeval \\- measure what quantization costs a language model\n"
      ".SH SYNOPSIS\n.B qeval\n.I COMMAND\n[\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n"
      "qeval reads Hugging Face folders, GGUF files and PyTorch checkpoints, scores them on the tasks that "
      "papers report,\nrequest by request as lm\\-evaluation\\-harness does, quantizes them, and reports "
      "what "
      "quantization costs.\n"
      ".SH COMMANDS\n";
  for (const Command& command : commands()) out += section_of(command);
  return out +
         ".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nsomething failed; one line on standard error says what, "
         "where, "
         "and what would be accepted\n.TP\n2\nthe command line was wrong\n"
         ".SH ENVIRONMENT\n.TP\n.B QEVAL_CPU\navx512, avx2, neon or portable: the kernels to use instead of "
         "the "
         "best that the CPU has\n"
         ".SH FILES\nThe documentation is in the folder docs of the source, and installed in "
         "share/doc/qeval.\n";
}

const Command man_command{
    .name = "man",
    .summary = "The manual page, made from the options of every command",
    .usage = "",
    .example = "qeval man > qeval.1 && man ./qeval.1",
    .options = man_options,
    .run = run_man,
};

}  // namespace qeval::cli
