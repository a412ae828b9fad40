#include "eval/divergence/measure.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "base/setting.h"
#include "eval/divergence/side_by_side.h"
#include "eval/divergence/token_divergence.h"
#include "eval/requests.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

/// The windows of `ids` cut into chunks.
TextWindows chunks(const model::Tokenizer& tokenizer, std::vector<int32_t> ids, int64_t context) {
  TextWindows out{TextProtocol::llama_cpp, context, {}, std::move(ids)};
  const bool adds_bos =
      tokenizer.bos_id() &&
      std::ranges::find(tokenizer.leading_ids(), *tokenizer.bos_id()) != tokenizer.leading_ids().end();
  for (int64_t first = 0; first + context <= std::ssize(out.tokens); first += context) {
    TokenRequest window{{out.tokens.begin() + first, out.tokens.begin() + first + context},
                        context - 1 - context / 2};
    if (adds_bos) window.tokens.front() = *tokenizer.bos_id();
    out.windows.push_back(std::move(window));
  }
  out.tokens.resize(out.windows.size() * static_cast<size_t>(context));
  return out;
}

class Measurement {
 public:
  explicit Measurement(const MeasureInput& input)
      : in_(input),
        llama_(input.windows.protocol == TextProtocol::llama_cpp),
        measured_(input.others.size()),
        tallies_(input.others.size()) {}

  std::vector<Measured> run() {
    std::vector<Session*> models = in_.others;
    if (in_.base != nullptr) models.insert(models.begin(), in_.base);
    int64_t longest = 1;
    for (const TokenRequest& window : in_.windows.windows)
      longest = std::max(longest, std::ssize(window.input()));
    SideBySide lanes(models, longest);
    const auto total = std::ssize(in_.windows.windows);
    const std::span<const TokenRequest> windows = in_.windows.windows;
    for (int64_t first = 0; first < total;) {
      if (in_.progress) in_.progress(first, total);
      const auto rest = windows.subspan(static_cast<size_t>(first));
      window_ = first;
      first +=
          lanes.run(rest, [&](std::span<const int32_t> targets, std::span<const std::vector<float>> logits) {
            visit(targets, logits);
            if (row_ == windows[static_cast<size_t>(window_)].scored) end_window();
          });
    }
    for (size_t i = 0; i < tallies_.size(); ++i) measured_[i].divergence = std::move(tallies_[i]).finish();
    return std::move(measured_);
  }

 private:
  /// What one row gives of every other model.
  struct Row {
    std::vector<uint16_t> stored;
    std::vector<TokenDivergence> tokens;
    std::vector<LlamaToken> llama;
    int not_finite = -1;  ///< a model, the base being 0
  };

  void end_window() {
    ++window_;
    row_ = 0;
    for (size_t i = 0; i < tallies_.size(); ++i) {
      tallies_[i].end_window();
      if (llama_) measured_[i].chunk_lines.push_back(measured_[i].llama.chunk_line(window_));
    }
  }

  void visit(std::span<const int32_t> targets, std::span<const std::vector<float>> logits) {
    const size_t others = in_.others.size(), first_other = in_.base != nullptr ? 1 : 0;
    std::vector<Row> rows(targets.size());
    parallel_tasks(std::ssize(targets), [&](int64_t i) {
      compute(static_cast<size_t>(i), targets, logits, first_other, rows[static_cast<size_t>(i)]);
    });
    for (const Row& row : rows) {
      if (row.not_finite >= 0) refuse(row.not_finite);
      if (in_.writer != nullptr) in_.writer->add(row.stored);
      for (size_t k = 0; k < others; ++k) {
        tallies_[k].add(row.tokens[k]);
        if (llama_) measured_[k].llama.add(row.llama[k]);
      }
    }
    row_ += std::ssize(targets);
  }

  void compute(size_t i, std::span<const int32_t> targets, std::span<const std::vector<float>> logits,
               size_t first_other, Row& out) const {
    const int32_t target = targets[i];
    const size_t vocabulary = logits.front().size() / targets.size();
    const auto row_of = [&](size_t model) {
      return std::span(logits[model]).subspan(i * vocabulary, vocabulary);
    };
    thread_local std::vector<float> base_p, other_p;
    base_p.resize(vocabulary);
    other_p.resize(vocabulary);
    std::vector<float> from_file;
    std::span<const float> base_logits;
    if (in_.base != nullptr) {
      base_logits = row_of(0);
    } else {
      out.stored = in_.stored->row(window_, row_ + static_cast<int64_t>(i));
      from_file = stored_log_probabilities(out.stored, static_cast<int64_t>(vocabulary));
      base_logits = from_file;
    }
    const LogitRow base = read_row(base_logits, base_p);
    if (!std::isfinite(base.log_sum)) out.not_finite = 0;
    if (in_.base != nullptr && llama_ && out.not_finite < 0) {
      out.stored.resize(static_cast<size_t>(LogitsHeader::row_values(static_cast<int64_t>(vocabulary))));
      quantize_row(base_logits, target, out.stored);
    }
    for (size_t k = 0; k < in_.others.size() && out.not_finite < 0; ++k) {
      const LogitRow other = read_row(row_of(first_other + k), other_p);
      if (!std::isfinite(other.log_sum)) out.not_finite = static_cast<int>(k) + 1;
      out.tokens.push_back(token_divergence(base, other, target));
      if (llama_) out.llama.push_back(llama_token(other.logits, out.stored, target));
    }
  }

  [[noreturn]] void refuse(int model) const {
    const Session* session = model == 0 ? in_.base : in_.others[static_cast<size_t>(model) - 1];
    const std::string what =
        session == nullptr ? "the stored log-probabilities" : session->model().path.string();
    throw model::NotFinite(
        fmt::format("{}: a logit in window {} of the text is not finite", what, window_ + 1));
  }

  const MeasureInput& in_;
  const bool llama_;
  std::vector<Measured> measured_;
  std::vector<DivergenceTally> tallies_;
  int64_t window_ = 0, row_ = 0;  ///< of the window, rows before those that are visited
};

}  // namespace

TextProtocol parse_text_protocol(std::string_view name) {
  if (name == "qeval") return TextProtocol::qeval;
  if (name == "qeval-bos") return TextProtocol::qeval_bos;
  if (name == "llama.cpp") return TextProtocol::llama_cpp;
  fail("{} {}: unknown; accepted: {}", setting("protocol"), printable(name), kTextProtocolNames);
}

std::string_view name(TextProtocol protocol) {
  switch (protocol) {
    case TextProtocol::qeval:
      return "qeval";
    case TextProtocol::qeval_bos:
      return "qeval-bos";
    case TextProtocol::llama_cpp:
      return "llama.cpp";
    case TextProtocol::chat:
      break;
  }
  return "chat";
}

TextWindows text_windows(const model::Tokenizer& tokenizer, const NamedText& text, TextProtocol protocol,
                         int64_t context) {
  if (protocol == TextProtocol::llama_cpp && context < 4)
    fail("{} {}: accepted: 4 or more", setting("context"), context);
  try {
    if (protocol != TextProtocol::llama_cpp) {
      const bool from_bos = protocol == TextProtocol::qeval_bos;
      const RequestEncoder encoder(tokenizer, Protocol::lm_eval_0_4, PrefixToken::automatic, context,
                                   from_bos ? std::optional(AddBos::always) : std::nullopt);
      TextWindows out{protocol, context, encoder.windows(text.text), {}};
      if (out.windows.empty()) fail("its {} bytes have no token to predict", text.text.size());
      return out;
    }
    std::vector<int32_t> ids = tokenizer.encode(text.text);
    model::put_in_front(tokenizer.leading_ids(), ids);
    if (std::ssize(ids) < 2 * context) {
      fail("has {} tokens; llama.cpp's protocol needs two chunks of {}: at least {}", ids.size(), context,
           2 * context);
    }
    return chunks(tokenizer, std::move(ids), context);
  } catch (const Error& error) {
    fail("{}: {}", text.name, error.what());
  }
}

TextWindows stored_windows(const model::Tokenizer& tokenizer, const LogitsHeader& header) {
  return chunks(tokenizer, header.tokens, header.context);
}

void require_same_windows(const TextWindows& windows, const TextWindows& other,
                          const std::filesystem::path& path) {
  const auto same = [](const TokenRequest& a, const TokenRequest& b) {
    return a.scored == b.scored && a.tokens == b.tokens;
  };
  const size_t count = std::min(windows.windows.size(), other.windows.size());
  for (size_t i = 0; i < count; ++i) {
    if (!same(windows.windows[i], other.windows[i]))
      fail("{}: its tokenizer gives other ids than the base's in window {} of the text", path.string(),
           i + 1);
  }
  if (windows.windows.size() != other.windows.size())
    fail("{}: its tokenizer gives {} windows of the text, the base's {}", path.string(), other.windows.size(),
         windows.windows.size());
}

std::vector<Measured> measure_divergence(const MeasureInput& input) {
  return Measurement(input).run();
}

}  // namespace qeval::eval
