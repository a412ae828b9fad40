#include "cli/score_request.h"

#include "base/error.h"
#include "base/strict_json.h"

namespace qeval::cli {
namespace {

using nlohmann::json;

std::vector<int32_t> token_ids(const json& request, const char* field, int64_t vocab_size) {
  const auto it = request.find(field);
  if (it == request.end() || !it->is_array()) fail("\"{}\" must be a list of token ids", field);
  std::vector<int32_t> ids;
  for (const json& id : *it) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      fail("\"{}\": {} is no token id of this model (0 to {})", field,
           printable(id.dump(-1, ' ', false, json::error_handler_t::replace)), vocab_size - 1);
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

/// A request is text or ids; what belongs to neither, or to the other, would not count.
void check_fields(const json& request, bool by_ids) {
  for (const auto& [field, unused] : request.items()) {
    const bool text = field == "context" || field == "continuation";
    const bool ids = field == "context_ids" || field == "continuation_ids";
    if (!text && !ids && field != "id") {
      fail(
          "\"{}\": unknown; accepted: \"id\", \"context\" and \"continuation\", or \"context_ids\" and "
          "\"continuation_ids\"",
          printable(field, 60));
    }
    if (text && by_ids) fail("\"{}\" beside \"continuation_ids\": text or ids, not both", field);
    if (ids && !by_ids) fail("\"{}\" beside \"continuation\": text or ids, not both", field);
  }
}

std::string text_field(const json& request, const char* field) {
  const auto it = request.find(field);
  if (it == request.end() || !it->is_string()) fail("\"{}\" must be a string", field);
  return it->get<std::string>();
}

}  // namespace

ScoreRequest parse_score_request(std::string_view line, int64_t vocab_size, int64_t max_length,
                                 const std::function<const eval::RequestEncoder&()>& encoder) {
  const json request = parse_strict_json(line, "the request");
  if (!request.is_object()) fail("not a JSON object");
  ScoreRequest out{request.value("id", json()), {}};
  const bool by_ids = request.contains("continuation_ids");
  if (!by_ids && !request.contains("continuation")) {
    fail("neither \"context\" and \"continuation\" nor \"context_ids\" and \"continuation_ids\"");
  }
  check_fields(request, by_ids);
  if (by_ids) {
    out.tokens.tokens = token_ids(request, "context_ids", vocab_size);
    const std::vector<int32_t> continuation = token_ids(request, "continuation_ids", vocab_size);
    if (out.tokens.tokens.empty()) fail("\"context_ids\" is empty: nothing to predict the first token from");
    if (continuation.empty()) fail("\"continuation_ids\" is empty: nothing to score");
    out.tokens.scored = std::ssize(continuation);
    out.tokens.tokens.insert(out.tokens.tokens.end(), continuation.begin(), continuation.end());
    eval::truncate_left(out.tokens, max_length);
  } else {
    out.tokens =
        encoder().encode({text_field(request, "context"), text_field(request, "continuation")}).tokens;
  }
  return out;
}

}  // namespace qeval::cli
