#include "cli/option_text.h"

#include <algorithm>

#include "cli/option_values.h"

namespace qeval::cli {
namespace {

ValueKind kind_of(const po::option_description& option) {
  if (option.semantic()->max_tokens() == 0) return ValueKind::none;
  const std::string name = option.semantic()->name();
  if (name.starts_with("FILE") || name.starts_with("MODEL")) return ValueKind::file;
  if (name.starts_with("DIR")) return ValueKind::folder;
  return name.starts_with("TASKS") ? ValueKind::tasks : ValueKind::other;
}

}  // namespace

std::vector<OptionText> option_texts(const Command& command) {
  po::options_description options = command.options();
  add_help_option(options);
  std::vector<OptionText> texts;
  for (const auto& option : options.options()) {
    OptionText text{
        .long_name = "--" + option->long_name(),
        .short_name = option->canonical_display_name(po::command_line_style::allow_dash_for_short),
        .value = {},
        .description = option->description(),
        .kind = kind_of(*option),
        .names = {}};
    if (const auto* choice = dynamic_cast<const Choice*>(option->semantic().get())) {
      text.kind = choice->several() ? ValueKind::names : ValueKind::name;
      text.names = choice->names();
    }
    if (!text.short_name.starts_with('-')) text.short_name.clear();
    if (text.kind != ValueKind::none) text.value = option->semantic()->name();
    texts.push_back(std::move(text));
  }
  return texts;
}

OptionText positional_text(const Command& command) {
  if (command.positional == nullptr) return {};
  const std::vector<OptionText> texts = option_texts(command);
  const auto found = std::ranges::find(texts, std::string("--") + command.positional, &OptionText::long_name);
  return found == texts.end() ? OptionText{{}, {}, {}, {}, ValueKind::other, {}} : *found;
}

}  // namespace qeval::cli
