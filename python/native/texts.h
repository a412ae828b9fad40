#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/engine/session.h"
#include "eval/requests.h"
#include "python/native/model.h"

namespace qeval::python {

/// The request `generate` of Model: prompts that do not fit are an Error.
nlohmann::ordered_json continue_texts(eval::Session& session, const eval::RequestEncoder& encoder,
                                      int64_t batch_tokens, const nlohmann::ordered_json& request,
                                      const Observer& observer);

/// The request `answer` of Model: what an evaluation gets for these prompts, so they are cut on the left.
nlohmann::ordered_json answer_prompts(eval::Session& session, const eval::RequestEncoder& encoder,
                                      int64_t batch_tokens, const nlohmann::ordered_json& request,
                                      std::vector<std::string>& warnings, const Observer& observer);

}  // namespace qeval::python
