#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "eval/tasks/generation.h"

namespace qeval::eval {

/// "max_gen_toks=64,temperature=0.7", or a JSON object, as lm-evaluation-harness's --gen_kwargs takes it:
/// true and false in any case, whole numbers, numbers, else texts. Throws Error for what is neither.
nlohmann::ordered_json parse_generation_settings(const std::string& text);

/// A task's generation with other settings in place of its own: `until` (a text or a list), `max_gen_toks`
/// (or max_new_tokens), `do_sample`, `temperature`, `top_k`, `top_p`, `seed`, `repeats`. With do_sample and
/// no temperature, it is 1; a temperature of 0, or do_sample false, is greedy. Throws Error naming a setting
/// that is not known or out of range.
std::shared_ptr<const Generation> with_settings(const Generation& generation,
                                                const nlohmann::ordered_json& settings);

}  // namespace qeval::eval
