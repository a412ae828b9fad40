#include <array>

#include "cli/command.h"

namespace qeval::cli {

// In a file of its own: whoever links one command does not link them all.
std::span<const Command> commands() {
  static const std::array table{eval_command,    merge_command,      score_command,    quantize_command,
                                compare_command, divergence_command, convert_command,  report_command,
                                verify_command,  generate_command,   bench_command,    serve_command,
                                export_command,  tokenize_command,   template_command, inspect_command,
                                tasks_command,   completion_command, man_command};
  return table;
}

}  // namespace qeval::cli
