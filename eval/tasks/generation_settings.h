#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/tasks/generation.h"

namespace qeval::eval {

/// "max_gen_toks=64,temperature=0.7", or a JSON object, as lm-evaluation-harness's --gen_kwargs takes it:
/// true and false in any case, whole numbers, numbers, else texts. The settings come in one order, in
/// whichever they are given. Throws Error for what is neither, for none at all, for a setting that is not
/// known or given twice.
nlohmann::ordered_json parse_generation_settings(const std::string& text);

/// A task's generation with other settings in place of its own: `until` (a text or a list), `max_gen_toks`
/// (or max_new_tokens), `do_sample`, `temperature`, `top_k`, `top_p`, `seed`, `repeats`. As in the harness
/// tokens are drawn where do_sample, the task's own or the given, is true, or where it is not said and a
/// temperature above 0 is; with do_sample and no temperature, that is 1. `arguments` of the result say what
/// is done. Appends to `warnings` where a setting has no effect. Throws Error naming a setting that is not
/// known or out of range, or a filter that needs more texts than are written.
std::shared_ptr<const Generation> with_settings(const Generation& generation,
                                                const nlohmann::ordered_json& settings,
                                                std::vector<std::string>& warnings);

}  // namespace qeval::eval
