#include "eval/divergence/chat_windows.h"

#include "base/error.h"
#include "eval/requests.h"

namespace qeval::eval {

std::vector<AssistantTurn> assistant_turns(ChatRenderer& renderer, const datasets::Table& conversations) {
  std::vector<AssistantTurn> out;
  for (const datasets::Row& row : conversations.rows) {
    const datasets::Json& messages = row.at("messages");
    if (!messages.is_array()) row.fail_at("messages", "is no list of messages");
    datasets::Json so_far = datasets::Json::array();
    const size_t turns_before = out.size();
    for (size_t i = 0; i < messages.size(); ++i) {
      const std::string at = fmt::format("messages.{}", i);
      if (row.text(at + ".role") == "assistant") {
        const std::string where = fmt::format("{}:{}: message {}", row.file(), row.line(), i + 1);
        const std::string prompt = renderer(so_far);
        so_far.push_back(messages[i]);
        const std::string whole = renderer(so_far, false);
        if (!whole.starts_with(prompt)) {
          fail(
              "{}: the chat template writes what precedes this answer otherwise once the answer is there, so "
              "that the answer's tokens cannot be told apart",
              where);
        }
        out.push_back({where, prompt, whole.substr(prompt.size())});
      } else {
        so_far.push_back(messages[i]);
      }
    }
    if (out.size() == turns_before) row.fail_at("messages", "has no turn of the role assistant");
  }
  return out;
}

TextWindows chat_windows(const model::Tokenizer& tokenizer, std::span<const AssistantTurn> turns,
                         std::span<const int32_t> ends, int64_t context, int64_t& cut) {
  const RequestEncoder encoder(tokenizer, Protocol::lm_eval_0_4, PrefixToken::automatic, context,
                               std::nullopt, true);
  TextWindows out{TextProtocol::chat, context, {}, {}};
  cut = 0;
  for (const AssistantTurn& turn : turns) {
    try {
      EncodedRequest request = encoder.encode_answer(turn.prompt, turn.answer, ends);
      cut += request.truncated > 0 ? 1 : 0;
      out.windows.push_back(std::move(request.tokens));
    } catch (const Error& error) {
      fail("{}: {}", turn.where, error.what());
    }
  }
  return out;
}

}  // namespace qeval::eval
