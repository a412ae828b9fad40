#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "eval/requests.h"

namespace qeval::cli {

/// One line of `qeval score`'s input.
struct ScoreRequest {
  nlohmann::json id;  ///< whatever JSON the request has there; null where it has none
  eval::TokenRequest tokens;
};

/// Reads a request: {"id", "context", "continuation"}, or {"id", "context_ids", "continuation_ids"} with ids
/// from 0 to vocab_size − 1, of which at most `max_length` count as input, the last ones. `encoder` is asked
/// for when text is met first. Throws Error naming the field; malformed JSON, text beside ids, other keys, a
/// key twice and nesting deeper than 32 are refused.
ScoreRequest parse_score_request(std::string_view line, int64_t vocab_size, int64_t max_length,
                                 const std::function<const eval::RequestEncoder&()>& encoder);

}  // namespace qeval::cli
