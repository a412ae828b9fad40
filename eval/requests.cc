#include "eval/requests.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "base/setting.h"
#include "base/unicode.h"
#include "eval/engine/session.h"

namespace qeval::eval {

RequestEncoder::RequestEncoder(const model::Tokenizer& tokenizer, Protocol protocol, PrefixToken prefix,
                               int64_t max_length, std::optional<AddBos> add_bos, bool composed)
    : tokenizer_(tokenizer),
      protocol_(protocol),
      max_length_(max_length),
      add_bos_(add_bos),
      composed_(composed) {
  if (max_length < 1) fail("{} {}: at least 1", setting("max-length"), max_length);
  if (protocol == Protocol::lm_eval_0_4) {
    if (add_bos == AddBos::texts && !tokenizer.bos_id()) {
      fail("{} true: the tokenizer names no BOS token; accepted with it: false, always",
           setting("add-bos-token"));
    }
    const auto own = tokenizer.leading_ids();
    if (!add_bos) leading_ids_.assign(own.begin(), own.end());
    if (add_bos == AddBos::texts) leading_ids_ = {*tokenizer.bos_id()};
  }
  if (add_bos == AddBos::always) {
    start_id_ = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
    if (!start_id_)
      fail("{} always: the tokenizer names neither a BOS nor an EOS token; accepted with it: false",
           setting("add-bos-token"));
    leading_ids_ = {*start_id_};
  }
  const bool chosen = prefix != PrefixToken::automatic;
  if (!chosen) {
    const bool bos = (protocol == Protocol::lm_eval_0_4 || start_id_) && tokenizer.bos_id().has_value();
    prefix = bos ? PrefixToken::bos : PrefixToken::eos;
  }
  prefix_name_ = prefix == PrefixToken::none ? "none" : prefix == PrefixToken::bos ? "bos" : "eos";
  prefix_refused_ = prefix == PrefixToken::none;
  if (prefix_refused_) return;
  prefix_id_ = prefix == PrefixToken::bos ? tokenizer.bos_id() : tokenizer.eos_id();
  if (prefix_id_ && start_id_ && *prefix_id_ != *start_id_) {
    fail(
        "{} {}: with {} always, the default of a checkpoint with a prefix, every sequence begins with token "
        "{}; "
        "accepted with it: bos, none",
        setting("prefix-token"), prefix_name_, setting("add-bos-token"), *start_id_);
  }
  if (prefix_id_) return;
  if (chosen) fail_without_prefix(fmt::format("{} {}", setting("prefix-token"), prefix_name_));
  prefix_name_ = "none";
}

/// `what` needs a prefix token: says why there is none, and what can take its place.
void RequestEncoder::fail_without_prefix(std::string_view what) const {
  if (prefix_refused_)
    fail("{}, and {} none leaves nothing to predict the first token from", what, setting("prefix-token"));
  const bool bos = tokenizer_.bos_id().has_value(), eos = tokenizer_.eos_id().has_value();
  if (bos || eos) {
    fail("{}: the tokenizer names no {} token; accepted: {} {}", what, bos ? "eos" : "bos",
         setting("prefix-token"), bos ? "bos" : "eos");
  }
  fail(
      "{}: the tokenizer names neither a bos nor an eos token to predict the first token from; accepted are "
      "contexts that are not empty, and {} none for documents of perplexity tasks",
      what, setting("prefix-token"));
}

std::string RequestEncoder::prefix_policy() const {
  return prefix_id_ ? fmt::format("{} ({})", prefix_name_, *prefix_id_) : prefix_name_;
}

std::string RequestEncoder::add_bos_policy() const {
  if (!add_bos_) return "";
  return *add_bos_ == AddBos::always ? "always" : *add_bos_ == AddBos::texts ? "true" : "false";
}

std::vector<int32_t> RequestEncoder::encode_text(std::string_view text) const {
  return composed_ ? tokenizer_.encode_prompt(text) : tokenizer_.encode(text);
}

std::vector<int32_t> RequestEncoder::encode_with_special(std::string_view text) const {
  std::vector<int32_t> ids = encode_text(text);
  model::put_in_front(leading_ids_, ids);
  return ids;
}

int64_t truncate_left(TokenRequest& request, int64_t max_length) {
  if (request.scored > max_length) {
    fail("the continuation has {} tokens, more than the {} that {} allows", request.scored, max_length,
         setting("max-length"));
  }
  const int64_t excess = std::max<int64_t>(0, std::ssize(request.tokens) - (max_length + 1));
  request.tokens.erase(request.tokens.begin(), request.tokens.begin() + excess);
  return excess;
}

int64_t RequestEncoder::truncate(TokenRequest& request, int64_t max_length) const {
  if (start_id_) model::put_in_front({&*start_id_, 1}, request.tokens);
  const int64_t truncated = truncate_left(request, max_length);
  if (start_id_) request.tokens.front() = *start_id_;
  return truncated;
}

EncodedRequest RequestEncoder::encode(const TextRequest& request) const {
  const std::string_view kept = strip_right(request.context);
  const std::string continuation = request.context.substr(kept.size()) + request.continuation;
  EncodedRequest out;
  std::vector<int32_t> context;
  std::vector<int32_t> scored;
  if (kept.empty()) {
    scored = tokenizer_.encode(continuation);
    if (!prefix_id_) fail_without_prefix("empty context");
    // Where the continuation spells the prefix token itself, it is not put there twice.
    if (scored.size() > 1 && scored.front() == *prefix_id_) scored.erase(scored.begin());
    context = {*prefix_id_};
  } else if (protocol_ == Protocol::lm_eval_0_3) {
    context = tokenizer_.encode(kept);
    scored = tokenizer_.encode(continuation);
  } else {
    context = encode_with_special(kept);
    const std::vector<int32_t> whole = encode_with_special(std::string(kept) + continuation);
    if (whole.size() > context.size()) {
      // Where the join changes the context's last ids, they stay as the context alone has them: the harness
      // does so.
      scored.assign(whole.begin() + std::ssize(context), whole.end());
    } else {
      scored = encode_text(continuation);
      out.encoded_apart = true;
    }
  }
  if (scored.empty()) fail("the continuation has no tokens: nothing to score");
  out.tokens.scored = std::ssize(scored);
  out.tokens.tokens = std::move(context);
  out.tokens.tokens.insert(out.tokens.tokens.end(), scored.begin(), scored.end());
  out.truncated = truncate(out.tokens, max_length_);
  return out;
}

EncodedRequest RequestEncoder::encode_prompt(std::string_view prompt, int64_t max_tokens) const {
  const int64_t room = max_length_ - max_tokens;
  if (room < 1) {
    fail(
        "{} {} leaves no room for a prompt before the {} tokens that may be generated; more than {} is "
        "expected",
        setting("max-length"), max_length_, max_tokens, max_tokens);
  }
  EncodedRequest out;
  const bool plain = protocol_ == Protocol::lm_eval_0_3 && !start_id_;
  out.tokens.tokens = plain ? encode_text(prompt) : encode_with_special(prompt);
  std::vector<int32_t>& ids = out.tokens.tokens;
  if (ids.empty()) fail("the prompt has no tokens: there is nothing to continue");
  out.truncated = std::max<int64_t>(0, std::ssize(ids) - room);
  ids.erase(ids.begin(), ids.begin() + out.truncated);
  if (start_id_) ids.front() = *start_id_;
  ids.push_back(0);
  out.tokens.scored = 1;
  return out;
}

EncodedRequest RequestEncoder::encode_answer(std::string_view prompt, std::string_view answer,
                                             std::span<const int32_t> ends) const {
  const std::vector<int32_t> before = encode_with_special(prompt);
  std::vector<int32_t> whole = encode_with_special(fmt::format("{}{}", prompt, answer));
  const auto first = std::ranges::mismatch(whole, before).in1 - whole.begin();
  if (first == 0) fail("the prompt has no tokens: there is nothing to predict the answer from");
  // What a template writes behind the end of a turn is not the model's.
  const auto last = std::find_first_of(whole.rbegin(), whole.rend() - first, ends.begin(), ends.end());
  if (last != whole.rend() - first) whole.erase(last.base(), whole.end());
  EncodedRequest out;
  out.tokens.scored = std::ssize(whole) - first;
  if (out.tokens.scored == 0) fail("the answer has no tokens: nothing to score");
  out.tokens.tokens = std::move(whole);
  out.truncated = truncate(out.tokens, max_length_);
  return out;
}

std::vector<TokenRequest> RequestEncoder::windows(std::string_view document) const {
  std::vector<int32_t> ids = tokenizer_.encode(document);
  std::vector<TokenRequest> windows;
  if (ids.empty()) return windows;
  if (!prefix_id_ && !prefix_refused_) fail_without_prefix("a document");
  // With a prefix, ids[i] is predicted from the prefix and ids[0 … i); without, the first token stays
  // unscored.
  if (prefix_id_) ids.insert(ids.begin(), *prefix_id_);
  if (start_id_ && !prefix_id_) ids.insert(ids.begin(), *start_id_);
  const int64_t count = std::ssize(ids);
  for (int64_t scored_end = 1; scored_end < count;) {
    const int64_t end = std::min(count, scored_end + max_length_);
    const int64_t begin = std::max<int64_t>(0, end - (max_length_ + 1));
    windows.push_back({.tokens = {ids.begin() + begin, ids.begin() + end}, .scored = end - scored_end});
    // Nothing that is scored: a window's first token is only read.
    if (start_id_) windows.back().tokens.front() = *start_id_;
    scored_end = end;
  }
  return windows;
}

std::optional<AddBos> add_bos_for(const Session& session, std::optional<AddBos> given) {
  if (!session.prefix_token()) return given;
  if (given.value_or(AddBos::always) != AddBos::always) {
    throw UsageError(fmt::format("{}: not what {} needs, which was quantized with a prefix; accepted: always",
                                 setting("add-bos-token"), session.model().path.string()));
  }
  return AddBos::always;
}

std::string token_hash(std::span<const TokenRequest> requests) {
  Sha256 hash;
  for (const TokenRequest& request : requests) {
    const int64_t header[] = {std::ssize(request.tokens), request.scored};
    hash.update(std::as_bytes(std::span(header))).update(std::as_bytes(std::span(request.tokens)));
  }
  return hash.hex().substr(0, 16);
}

}  // namespace qeval::eval
