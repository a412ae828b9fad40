#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "datasets/row.h"
#include "eval/divergence/measure.h"
#include "eval/engine/chat_template.h"

namespace qeval::eval {

/// A turn of the assistant's, as the template writes it.
struct AssistantTurn {
  std::string where;   ///< file, line and message, for messages
  std::string prompt;  ///< the conversation before it, and the opening of the answer
  std::string answer;  ///< what the template has after that, with the end of the turn
};

/// The assistant's turns of conversations, rows with `messages` ([{"role": …, "content": …}, …]), in order.
/// Throws Error naming file and line where a conversation has none, or where the template writes what
/// precedes an answer otherwise once the answer is there.
std::vector<AssistantTurn> assistant_turns(ChatRenderer& renderer, const datasets::Table& conversations);

/// A window per turn, whose answer alone is scored, up to its last token of `ends`; conversations longer than
/// `context` lose their left end, and `cut` counts them. Throws Error naming the turn that does not fit.
TextWindows chat_windows(const model::Tokenizer& tokenizer, std::span<const AssistantTurn> turns,
                         std::span<const int32_t> ends, int64_t context, int64_t& cut);

}  // namespace qeval::eval
