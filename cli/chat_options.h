#pragma once

#include <optional>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "eval/evaluation_options.h"

namespace qeval::cli {

/// The value of --chat-template-args in an option table, which owns it.
po::typed_value<std::string>* template_arguments_value();
/// What it says, as the harness reads it: a JSON object, or K=V,… of which true, false and numbers are such
/// and all else is text.
nlohmann::ordered_json template_arguments(const po::variables_map& arguments);

/// The options of commands whose prompts may go into a chat template, by lm-evaluation-harness's names.
void add_chat_options(po::options_description& options);
/// What they say but for the system instruction; none: prompts are plain text.
std::optional<eval::ChatOptions> chat_options(const po::variables_map& arguments);

}  // namespace qeval::cli
