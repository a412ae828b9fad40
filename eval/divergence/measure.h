#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/divergence/llama_statistics.h"
#include "eval/divergence/logits_file.h"
#include "eval/engine/plan.h"
#include "eval/engine/session.h"
#include "eval/results/text_divergence.h"

namespace qeval::eval {

/// How a text is cut into windows.
enum class TextProtocol : uint8_t {
  qeval,      ///< as rolling log-likelihoods are: every token is predicted once (RequestEncoder::windows)
  qeval_bos,  ///< the same, every window beginning with BOS (AddBos::always), as models with a prefix need
  llama_cpp,  ///< llama-perplexity's: whole chunks, BOS in the place of a chunk's first token where the
              ///< tokenizer adds it, the second half scored without its last token
  chat,       ///< no text but conversations: the assistant's turns, a window each (chat_windows.h)
};
inline constexpr std::string_view kTextProtocolNames = "qeval, qeval-bos, llama.cpp";
/// Throws Error for another name; conversations are none of them.
TextProtocol parse_text_protocol(std::string_view name);
std::string_view name(TextProtocol protocol);

/// A text in windows of at most `context` tokens of input, for models that share their token ids.
struct TextWindows {
  TextProtocol protocol = TextProtocol::qeval;
  int64_t context = 0;
  std::vector<TokenRequest> windows;
  std::vector<int32_t> tokens;  ///< llama.cpp: those of all chunks, without the BOS that is put in
};

/// A text and the name that messages have for it.
struct NamedText {
  std::string name;
  std::string_view text;
};
/// Throws Error naming the text where it is too short (llama.cpp: two chunks) or not UTF-8, or the tokenizer
/// lacks a prefix token.
TextWindows text_windows(const model::Tokenizer& tokenizer, const NamedText& text, TextProtocol protocol,
                         int64_t context);
/// Of the chunks that a file of log-probabilities was made on.
TextWindows stored_windows(const model::Tokenizer& tokenizer, const LogitsHeader& header);
/// Throws Error naming the first window that differs where `other`, of the model `path`, has other ids.
void require_same_windows(const TextWindows& windows, const TextWindows& other,
                          const std::filesystem::path& path);

/// What is compared on a text.
struct MeasureInput {
  Session* base = nullptr;               ///< or, where its predictions are stored:
  const LogitsReader* stored = nullptr;  ///< of these windows
  std::vector<Session*> others{};        ///< at least one, or a writer
  const TextWindows& windows;
  LogitsWriter* writer = nullptr;  ///< keeps the base's predictions (llama.cpp)
  /// Windows done and in all; may throw.
  std::function<void(int64_t done, int64_t total)> progress{};
};

/// One of the others against the base.
struct Measured {
  TextDivergence divergence;
  LlamaStatistics llama;                 ///< only with TextProtocol::llama_cpp, …
  std::vector<std::string> chunk_lines;  ///< … as these
};

/// Runs the models side by side, window by window. By llama.cpp's protocol the base's predictions are taken
/// as its file keeps them. Throws model::NotFinite naming model and window for a logit that is not finite.
std::vector<Measured> measure_divergence(const MeasureInput& input);

}  // namespace qeval::eval
