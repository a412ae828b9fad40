#include "cli/score_request.h"

#include "tests/fuzz/support.h"
#include "tests/fuzz/tiny_model_folder.h"

namespace qeval::fuzz {

void score_request(Input input) {
  static const auto tokenizer = model::load_tokenizer(tiny_model_folder());
  static const int64_t vocab_size = tokenizer->vocab_size();
  constexpr int64_t kMaxLength = 128;
  static const eval::RequestEncoder encoder(*tokenizer, eval::Protocol::lm_eval_0_4,
                                            eval::PrefixToken::automatic, kMaxLength);
  accepted([&] {
    const cli::ScoreRequest request = cli::parse_score_request(
        text_of(input), vocab_size, kMaxLength, []() -> const eval::RequestEncoder& { return encoder; });
    const auto length = std::ssize(request.tokens.tokens);
    if (request.tokens.scored < 1 || request.tokens.scored >= length || length > kMaxLength + 1)
      defect("a request that cannot be scored", text_of(input));
    (void)request.id.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  });
}

}  // namespace qeval::fuzz
