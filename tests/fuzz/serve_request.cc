#include <nlohmann/json.hpp>

#include "cli/serve/completions.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/tiny_session.h"

namespace qeval::fuzz {

void serve_request(Input input) {
  static cli::serve::Completions completions(tiny_session(), "tiny", 64);
  const std::string_view body = text_of(input);
  accepted([&] {
    const cli::serve::CompletionRequest request = completions.parse(body);
    for (const auto& prompt : request.prompts) {
      if (prompt.ids.empty() || std::ssize(prompt.ids) + request.max_tokens > completions.max_length())
        defect("a prompt that cannot be answered", body);
    }
    constexpr size_t kFew = 2;
    constexpr int64_t kShort = 4;
    if (request.prompts.size() > kFew || request.max_tokens > kShort) return;
    const std::string answer = completions.answer(request, [] { return false; });
    if (!nlohmann::json::accept(answer)) defect("an answer that is not JSON", answer);
  });
  accepted([&] { (void)completions.tokenize(body); });
  accepted([&] { (void)completions.detokenize(body); });
}

}  // namespace qeval::fuzz
