// What a client may ask for, and what is refused.
#include <array>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/unicode.h"
#include "cli/serve/completions.h"
#include "eval/engine/chat_template.h"

namespace qeval::cli::serve {
namespace {

using nlohmann::json;

constexpr size_t kMostPrompts = 2048;
constexpr int64_t kMostPromptTokens = int64_t{1} << 18;
constexpr int64_t kMostLikeliest = 20;
constexpr size_t kMostStops = 16;

std::string shown(const json& value) {
  return printable(value.dump(-1, ' ', false, json::error_handler_t::replace), 60);
}

int64_t integer(const json& value, const std::string& field, int64_t least, int64_t most) {
  const bool fits =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<uint64_t>() > std::numeric_limits<int64_t>::max());
  if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most) {
    fail("\"{}\": {}; accepted: a whole number from {} to {}", field, shown(value), least, most);
  }
  return value.get<int64_t>();
}

double real(const json& value, const std::string& field) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    fail("\"{}\": {}; accepted: a number", field, shown(value));
  }
  return value.get<double>();
}

bool boolean(const json& value, const std::string& field) {
  if (!value.is_boolean()) fail("\"{}\": {}; accepted: true, false", field, shown(value));
  return value.get<bool>();
}

std::string string_of(const json& value, const std::string& field) {
  if (!value.is_string()) fail("\"{}\": {}; accepted: a string", field, shown(value));
  return value.get<std::string>();
}

json object(std::string_view body) {
  json request = parse_strict_json(body, "the request's body");
  if (!request.is_object()) fail("the request's body: not a JSON object");
  return request;
}

std::vector<int32_t> ids(const json& list, const std::string& field, int64_t vocab_size) {
  std::vector<int32_t> out;
  out.reserve(list.size());
  for (const json& id : list) out.push_back(static_cast<int32_t>(integer(id, field, 0, vocab_size - 1)));
  return out;
}

std::vector<std::string> stop_strings(const json& value) {
  std::vector<std::string> out;
  if (value.is_null()) return out;
  if (value.is_string()) {
    out.push_back(value.get<std::string>());
  } else if (value.is_array() && value.size() <= kMostStops) {
    for (const json& entry : value) out.push_back(string_of(entry, "stop"));
  } else {
    fail("\"stop\": {}; accepted: a string, or a list of at most {}", shown(value), kMostStops);
  }
  for (const std::string& stop : out) {
    if (stop.empty()) fail("\"stop\": an empty string; accepted: text at which to end");
  }
  return out;
}

/// Fields that other servers know and this one does not, with the values that change nothing.
struct Inert {
  std::string_view name;
  json value;
};
const std::array<Inert, 9>& inert_fields() {
  static const std::array<Inert, 9> fields{{{"n", 1},
                                            {"best_of", 1},
                                            {"stream", false},
                                            {"suffix", nullptr},
                                            {"presence_penalty", 0},
                                            {"frequency_penalty", 0},
                                            {"repetition_penalty", 1},
                                            {"logit_bias", json::object()},
                                            {"stream_options", nullptr}}};
  return fields;
}

void check_inert(const std::string& field, const json& value) {
  const auto& inert = inert_fields();
  const auto known = std::ranges::find(inert, field, &Inert::name);
  if (known == inert.end()) fail("\"{}\": not supported", printable(field, 60));
  if (!value.is_null() && value != known->value) {
    fail("\"{}\": {}; accepted: {}", field, shown(value), known->value.dump());
  }
}

/// A message's content as the text that templates print: of a list of parts the texts, a line apart, as vLLM
/// and llama.cpp join them.
std::string content_text(const json& content, const std::string& field) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array() || content.empty()) {
    fail("\"{}\": {}; accepted: a string, or a list of {{\"type\": \"text\", \"text\": ...}}", field,
         shown(content));
  }
  std::string out;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part = fmt::format("{}[{}]", field, i);
    if (!content[i].is_object())
      fail("\"{}\": {}; accepted: {{\"type\": \"text\", \"text\": ...}}", part, shown(content[i]));
    const json type = content[i].value("type", json());
    if (type != "text") fail("\"{}.type\": {}; accepted: \"text\"", part, shown(type));
    if (i > 0) out += '\n';
    out += string_of(content[i].value("text", json()), part + ".text");
  }
  return out;
}

nlohmann::ordered_json conversation(const json& messages) {
  if (!messages.is_array() || messages.empty())
    fail("\"messages\": {}; accepted: a list of {{\"role\": ..., \"content\": ...}}", shown(messages));
  nlohmann::ordered_json out = nlohmann::ordered_json::parse(messages.dump());
  for (size_t i = 0; i < messages.size(); ++i) {
    const json& message = messages[i];
    const std::string at = fmt::format("messages[{}]", i);
    if (!message.is_object())
      fail("\"{}\": {}; accepted: {{\"role\": ..., \"content\": ...}}", at, shown(message));
    if (string_of(message.value("role", json()), at + ".role").empty())
      fail("\"{}.role\": an empty string; accepted: \"user\", or another that the template knows", at);
    const json content = message.value("content", json());
    // An answer that is nothing but calls of tools has no text.
    if (content.is_null() && message.contains("tool_calls")) continue;
    out[i]["content"] = content_text(content, at + ".content");
  }
  return out;
}

/// Variables for the template besides those that the request itself gives it.
nlohmann::ordered_json chat_arguments(const json& value) {
  if (value.is_null()) return nlohmann::ordered_json::object();
  if (!value.is_object())
    fail("\"chat_template_kwargs\": {}; accepted: an object of variables for the template", shown(value));
  for (const auto& [name, unused] : value.items()) {
    if (eval::is_reserved_variable(name)) {
      fail("\"chat_template_kwargs.{}\": set by the server; accepted: other variables of the template",
           printable(name, 60));
    }
  }
  return nlohmann::ordered_json::parse(value.dump());
}

}  // namespace

std::vector<int32_t> Completions::with_bos(std::vector<int32_t> ids) const {
  model::put_in_front(tokenizer_.leading_ids(), ids);
  return with_start(std::move(ids));
}

std::vector<int32_t> Completions::with_start(std::vector<int32_t> ids) const {
  if (const auto start = session_.prefix_token()) model::put_in_front({&*start, 1}, ids);
  return ids;
}

void Completions::add_prompts(const json& value, CompletionRequest& request) const {
  const auto add_text = [&](const json& entry) {
    std::string prompt = string_of(entry, "prompt");
    request.prompts.push_back({with_bos(tokenizer_.encode(prompt)), std::move(prompt)});
  };
  const auto add_ids = [&](const json& list) {
    std::vector<int32_t> prompt = ids(list, "prompt", session_.model().config.vocab_size);
    const std::optional<int32_t> start = session_.prefix_token();
    if (start && (prompt.empty() || prompt.front() != *start))
      fail("\"prompt\": the model computes only sequences that begin with its prefix, token {}", *start);
    std::string decoded;
    if (request.echo) decoded = tokenizer_.decode(prompt);
    request.prompts.push_back({std::move(prompt), std::move(decoded)});
  };
  const bool is_list = value.is_array() && !value.empty();
  if (value.is_string()) {
    add_text(value);
  } else if (is_list && value.size() <= kMostPromptTokens && value.front().is_number()) {
    add_ids(value);
  } else if (is_list && value.size() <= kMostPrompts) {
    for (const json& entry : value) {
      if (entry.is_array()) {
        add_ids(entry);
      } else {
        add_text(entry);
      }
    }
  } else {
    fail("\"prompt\": {}; accepted: a string, a list of token ids, or a list of at most {} of these",
         shown(value), kMostPrompts);
  }
}

void Completions::read_field(const std::string& field, const json& value, CompletionRequest& request) const {
  if (field == "prompt") {
    add_prompts(value, request);
  } else if (field == "model") {
    if (string_of(value, "model") != name_) {
      fail("\"model\": {}; accepted: {}, the one that is served", shown(value), name_);
    }
  } else if (field == "max_tokens") {
    if (!value.is_null()) request.max_tokens = integer(value, "max_tokens", 0, max_length());
  } else if (field == "logprobs") {
    if (!value.is_null()) request.logprobs = integer(value, "logprobs", 0, kMostLikeliest);
  } else if (field == "temperature") {
    if (!value.is_null()) request.sampling.temperature = real(value, "temperature");
  } else if (field == "top_p") {
    if (!value.is_null()) request.sampling.top_p = real(value, "top_p");
  } else if (field == "top_k") {  // −1 is how others say "all"
    const int64_t count = integer(value, "top_k", -1, session_.model().config.vocab_size);
    request.sampling.top_k = std::max<int64_t>(count, 0);
  } else if (field == "seed") {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    if (!value.is_null()) request.sampling.seed = static_cast<uint64_t>(integer(value, "seed", 0, kMost));
  } else if (field == "stop") {
    request.stop = stop_strings(value);
  } else if (field == "ignore_eos") {
    request.ignore_eos = boolean(value, "ignore_eos");
  } else if (field != "echo" && field != "user") {
    check_inert(field, value);
  }
}

/// Every prompt has a token and room for the answer, all together are no more than are taken at once.
void Completions::check_lengths(const CompletionRequest& request) const {
  int64_t total = 0;
  for (const auto& prompt : request.prompts) {
    const auto length = std::ssize(prompt.ids);
    if (length == 0) fail("\"prompt\": one without tokens; accepted: at least one token");
    if (length + request.max_tokens > max_length()) {
      fail("a prompt of {} tokens and {} new ones; accepted: {} in all", length, request.max_tokens,
           max_length());
    }
    total += length;
  }
  if (total > kMostPromptTokens) fail("\"prompt\": {} tokens; accepted: {} in all", total, kMostPromptTokens);
}

CompletionRequest Completions::parse(std::string_view body) const {
  const json request = object(body);
  CompletionRequest out;
  if (const auto echo = request.find("echo"); echo != request.end()) out.echo = boolean(*echo, "echo");
  for (const auto& [field, value] : request.items()) read_field(field, value, out);
  if (out.prompts.empty()) fail("\"prompt\" is missing");
  (void)eval::Sampler(out.sampling);  // checks the settings
  check_lengths(out);
  return out;
}

CompletionRequest Completions::parse_chat(std::string_view body) const {
  json request = object(body);
  const auto take = [&](const char* field) {
    const auto found = request.find(field);
    json value = found == request.end() ? json() : *found;
    if (found != request.end()) request.erase(found);
    return value;
  };
  const json messages = take("messages"), arguments = take("chat_template_kwargs"),
             most = take("max_completion_tokens");
  for (const char* field : {"prompt", "echo", "logprobs"}) {
    if (request.contains(field)) fail("\"{}\": not supported of conversations", field);
  }
  const eval::ChatRequest chat{.messages = conversation(messages),
                               .arguments = chat_arguments(arguments),
                               .now = eval::local_time_now()};
  std::string prompt = eval::chat_prompt(eval::load_chat_template(session_.model().path), chat);
  CompletionRequest out;
  out.chat = true;
  for (const auto& [field, value] : request.items()) read_field(field, value, out);
  if (!most.is_null()) out.max_tokens = integer(most, "max_completion_tokens", 0, max_length());
  // Templates write the special tokens themselves.
  out.prompts.push_back({with_start(tokenizer_.encode(prompt)), std::move(prompt)});
  if (most.is_null() && !request.contains("max_tokens"))
    out.max_tokens = std::max<int64_t>(1, max_length() - std::ssize(out.prompts.front().ids));
  (void)eval::Sampler(out.sampling);
  check_lengths(out);
  return out;
}

std::string Completions::tokenize(std::string_view body) const {
  const json request = object(body);
  const auto prompt = request.find("prompt");
  if (prompt == request.end()) fail("\"prompt\" is missing");
  const auto special = request.find("add_special_tokens");
  std::vector<int32_t> tokens = tokenizer_.encode(string_of(*prompt, "prompt"));
  if (special == request.end() || boolean(*special, "add_special_tokens"))
    tokens = with_bos(std::move(tokens));
  return json{{"count", tokens.size()}, {"max_model_len", max_length()}, {"tokens", tokens}}.dump();
}

std::string Completions::detokenize(std::string_view body) const {
  const json request = object(body);
  const auto tokens = request.find("tokens");
  if (tokens == request.end() || !tokens->is_array()) fail("\"tokens\": a list of token ids is wanted");
  const std::string decoded = tokenizer_.decode(ids(*tokens, "tokens", tokenizer_.vocab_size()));
  return json{{"prompt", decoded}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Completions::tokenizer_info() const {
  const auto spelt = [&](std::optional<int32_t> id) -> json {
    if (!id) return nullptr;
    return tokenizer_.decode({{*id}});
  };
  return json{{"tokenizer_class", tokenizer_.kind()},
              {"bos_token", spelt(tokenizer_.bos_id())},
              {"eos_token", spelt(tokenizer_.eos_id())},
              {"add_bos_token", tokenizer_.adds_bos() || session_.prefix_token()},
              {"model_max_length", max_length()}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Completions::models() const {
  const json model{{"id", name_},
                   {"object", "model"},
                   {"owned_by", "qeval"},
                   {"max_model_len", max_length()},
                   {"arithmetic", session_.arithmetic().name()}};
  return json{{"object", "list"}, {"data", json::array({model})}}.dump(-1, ' ', false,
                                                                       json::error_handler_t::replace);
}

}  // namespace qeval::cli::serve
