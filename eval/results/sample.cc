#include "eval/results/sample.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "eval/results/checked_line.h"
#include "eval/results/checked_sum.h"
#include "eval/results/metrics.h"

namespace qeval::eval {
namespace {

using nlohmann::ordered_json;

constexpr std::array<std::pair<TextEnd, std::string_view>, 3> end_names{
    {{TextEnd::stop, "stop"}, {TextEnd::eos, "eos"}, {TextEnd::length, "length"}}};

constexpr std::array<std::pair<Scoring, std::string_view>, 5> scoring_names{{
    {Scoring::multiple_choice, "multiple_choice"},
    {Scoring::multiple_true, "multiple_true"},
    {Scoring::last_word, "last_word"},
    {Scoring::rolling, "rolling"},
    {Scoring::generation, "generation"},
}};

/// Shortest decimal that reads back as the same double; "nan", "inf", "-inf" as Python spells them.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";  // whatever its sign
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

double parse_number(const ordered_json& value, const OrderedJsonObject& line) {
  double out = 0;
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
    if (result.ec == std::errc() && result.ptr == text.data() + text.size()) return out;
  }
  line.refuse("filtered_resps",
              "a list of [\"number\", \"True\" or \"False\"], or of \"number\" for rolling documents");
}

/// Python's str(): a text as it stands, a number as JSON writes it.
std::string target_text(const ordered_json& target, std::string_view where) {
  return target.is_string() ? target.get<std::string>() : dump_json(target, where);
}

/// The response to one request as the harness shows it: [log-likelihood, is_greedy], or the bare
/// log-likelihood of a rolling document.
ordered_json response(const Scores& scores, const Answer& answer) {
  if (scores.scoring == Scoring::rolling) return number_text(answer.log_likelihood);
  return ordered_json::array({number_text(answer.log_likelihood), answer.is_greedy ? "True" : "False"});
}

template <typename Member>
ordered_json per_request(const Scores& scores, Member member) {
  ordered_json out = ordered_json::array();
  for (const Answer& answer : scores.answers) out.push_back(answer.*member);
  return out;
}

int64_t sum(const Scores& scores, int64_t Answer::*member) {
  int64_t total = 0;
  for (const Answer& answer : scores.answers) add_count(total, answer.*member);
  return total;
}

void write_harness_fields(const Sample& sample, std::string_view where, ordered_json& line) {
  const Scores& scores = sample.scores;
  const std::string target = target_text(sample.target, where);
  const bool rolling = scores.scoring == Scoring::rolling, generated = scores.scoring == Scoring::generation;
  ordered_json arguments = ordered_json::object(), all = ordered_json::array(),
               filtered = ordered_json::array();
  for (size_t i = 0; i < sample.requests.size(); ++i) {
    const TextRequest& request = sample.requests[i];
    ordered_json& texts = arguments["gen_args_" + std::to_string(i)];
    texts["arg_0"] = rolling ? request.continuation : request.context;
    if (generated) {
      texts["arg_1"] = sample.generated.arguments;
      all.push_back(ordered_json::array({sample.generated.responses[i]}));
      continue;
    }
    if (!rolling) texts["arg_1"] = request.continuation;
    filtered.push_back(response(scores, scores.answers[i]));
    all.push_back(ordered_json::array({filtered.back()}));
  }
  if (generated) filtered.push_back(sample.generated.filtered.front().second);
  const TextRequest& first = sample.requests.front();
  line["doc_id"] = scores.doc_id;
  line["doc"] = sample.doc;
  line["target"] = target;
  line["arguments"] = std::move(arguments);
  line["resps"] = std::move(all);
  line["filtered_resps"] = std::move(filtered);
  line["filter"] = generated ? sample.generated.filtered.front().first : "none";
  line["metrics"] = scores.metrics;
  line["doc_hash"] = sha256_hex(dump_json(sample.doc, where, 2));
  line["prompt_hash"] = sha256_hex(rolling ? first.continuation : first.context);
  line["target_hash"] = sha256_hex(target);
  for (const std::string& metric : scores.metrics) line[metric] = document_metric_json(scores, metric);
}

std::string_view end_name(TextEnd end) {
  const auto* const found = std::ranges::find(end_names, end, &std::pair<TextEnd, std::string_view>::first);
  return found == end_names.end() ? "" : found->second;
}

void write_generated_fields(const Sample& sample, ordered_json& line) {
  ordered_json& filtered = line["filtered"] = ordered_json::object();
  for (const auto& [filter, text] : sample.generated.filtered) filtered[filter] = text;
  ordered_json& ends = line["ends"] = ordered_json::array();
  for (const Answer& answer : sample.scores.answers) ends.push_back(end_name(answer.end));
}

void write_own_fields(const Scores& scores, ordered_json& line) {
  const DocumentFacts& facts = scores.facts;
  const bool rolling = scores.scoring == Scoring::rolling;
  line["scoring"] = scoring_name(scores.scoring);
  if (!facts.gold.empty()) line["gold"] = facts.gold;
  if (!facts.choice_chars.empty()) line["choice_chars"] = facts.choice_chars;
  if (!facts.choice_bytes.empty()) line["choice_bytes"] = facts.choice_bytes;
  if (facts.parts > 0) line["parts"] = facts.parts;
  if (rolling) line["words"] = facts.words;
  if (rolling) line["bytes"] = facts.bytes;
  line["tokens"] = sum(scores, &Answer::tokens);
  line["tokens_requested"] = sum(scores, &Answer::input_tokens);
  line["request_tokens"] = per_request(scores, &Answer::tokens);
  line["input_tokens"] = per_request(scores, &Answer::input_tokens);
  line["truncated"] = per_request(scores, &Answer::truncated);
  if (rolling) line["windows"] = scores.answers.front().windows;
  ordered_json apart = ordered_json::array();
  for (size_t i = 0; i < scores.answers.size(); ++i) {
    if (scores.answers[i].encoded_apart) apart.push_back(i);
  }
  if (!apart.empty()) line["encoded_apart"] = std::move(apart);
  line["token_hash"] = scores.token_hash;
  line["logits_hash"] = scores.logits_hash;
}

std::vector<TextRequest> read_requests(const OrderedJsonObject& line, Scoring scoring) {
  const bool rolling = scoring == Scoring::rolling, generated = scoring == Scoring::generation,
             single = rolling || scoring == Scoring::last_word;
  const OrderedJsonObject arguments = line.object("arguments");
  std::vector<TextRequest> out;
  for (size_t i = 0; i < arguments.value().size(); ++i) {
    const OrderedJsonObject request = arguments.object(("gen_args_" + std::to_string(i)).c_str());
    if (generated) {
      out.push_back({request.string("arg_0"), ""});
    } else if (rolling) {
      out.push_back({"", request.string("arg_0")});
    } else {
      out.push_back({request.string("arg_0"), request.string("arg_1")});
    }
  }
  if (out.empty() || (out.size() > 1 && single))
    line.refuse("arguments", single ? "one request" : "one request or more");
  return out;
}

/// The texts of a generated document.
GeneratedTexts read_generated(const OrderedJsonObject& line, size_t requests) {
  GeneratedTexts out;
  out.arguments = line.object("arguments").object("gen_args_0").object("arg_1").value();
  const ordered_json& responses = line.at("resps");
  for (const ordered_json& response : responses) {
    const bool text = response.is_array() && response.size() == 1 && response[0].is_string();
    if (!text) line.refuse("resps", "a list of [\"text\"] for each request");
    out.responses.push_back(response[0].get<std::string>());
  }
  if (out.responses.size() != requests) line.refuse("resps", "an entry for each request");
  const OrderedJsonObject filtered = line.object("filtered");
  for (const auto& [filter, unused] : filtered.value().items())
    out.filtered.emplace_back(filter, filtered.string(filter));
  if (out.filtered.empty()) line.refuse("filtered", "what a filter took out, by its name");
  return out;
}

/// The values that the task gave a generated document, and how its texts ended.
void read_judgement(const OrderedJsonObject& line, Scores& scores) {
  for (const std::string& metric : scores.metrics) scores.values.push_back(line.any_number(metric));
  const std::vector<std::string> ends = line.strings("ends");
  for (size_t i = 0; i < scores.answers.size(); ++i) {
    const auto* const found = std::ranges::find(end_names, i < ends.size() ? ends[i] : "",
                                                &std::pair<TextEnd, std::string_view>::second);
    if (found == end_names.end() || ends.size() != scores.answers.size())
      line.refuse("ends", "\"stop\", \"eos\" or \"length\" for each request");
    scores.answers[i].end = found->first;
  }
}

std::vector<Answer> read_answers(const OrderedJsonObject& line, size_t requests, Scoring scoring) {
  const bool rolling = scoring == Scoring::rolling, generated = scoring == Scoring::generation;
  std::vector<Answer> out(requests);
  const ordered_json& responses = line.at("filtered_resps");
  const auto tokens = line.counts("request_tokens");
  const auto inputs = line.counts("input_tokens");
  const auto truncated = line.counts("truncated");
  for (const auto& [key, size] :
       {std::pair{"filtered_resps", generated              ? requests
                                    : responses.is_array() ? responses.size()
                                                           : 0},
        std::pair{"request_tokens", tokens.size()}, std::pair{"input_tokens", inputs.size()},
        std::pair{"truncated", truncated.size()}}) {
    if (size != requests)
      line.refuse(key, fmt::format("an array with an entry for each of the {} requests", requests));
  }
  for (size_t i = 0; i < requests; ++i) {
    out[i].tokens = tokens[i];
    out[i].input_tokens = inputs[i];
    out[i].truncated = truncated[i];
    if (generated) continue;
    const ordered_json& response = responses[i];
    const bool pair =
        response.is_array() && response.size() == 2 && (response[1] == "True" || response[1] == "False");
    out[i].log_likelihood = parse_number(rolling ? response : pair ? response[0] : ordered_json(), line);
    out[i].is_greedy = pair && response[1] == "True";
    if (rolling) out[i].windows = line.count("windows");
  }
  if (line.has("encoded_apart")) {
    for (const int64_t index : line.counts("encoded_apart")) {
      if (static_cast<size_t>(index) >= requests) line.refuse("encoded_apart", "indices of requests");
      out[static_cast<size_t>(index)].encoded_apart = true;
    }
  }
  return out;
}

DocumentFacts read_facts(const OrderedJsonObject& line, Scoring scoring, size_t requests) {
  DocumentFacts facts;
  const bool choices = scoring == Scoring::multiple_choice || scoring == Scoring::multiple_true;
  if (choices || line.has("gold")) {
    facts.gold = line.counts("gold");
    for (const int64_t index : facts.gold) {
      if (static_cast<size_t>(index) >= requests)
        line.refuse("gold", fmt::format("below the {} choices", requests));
    }
    if (facts.gold.empty()) line.refuse("gold", "at least one index");
  }
  if (scoring == Scoring::multiple_choice || line.has("choice_chars"))
    facts.choice_chars = line.counts("choice_chars");
  if (scoring == Scoring::multiple_choice || line.has("choice_bytes"))
    facts.choice_bytes = line.counts("choice_bytes");
  for (const auto& [key, lengths] :
       {std::pair{"choice_chars", &facts.choice_chars}, std::pair{"choice_bytes", &facts.choice_bytes}}) {
    if (!lengths->empty() && lengths->size() != requests)
      line.refuse(key, "an array with an entry for each choice");
  }
  if (scoring == Scoring::generation && line.has("parts")) facts.parts = line.count("parts");
  if (scoring == Scoring::rolling) {
    facts.words = line.count("words");
    facts.bytes = line.count("bytes");
  }
  return facts;
}

}  // namespace

std::string_view scoring_name(Scoring scoring) {
  for (const auto& [value, name] : scoring_names) {
    if (value == scoring) return name;
  }
  return "";
}

Scoring parse_scoring(std::string_view name) {
  std::string known;
  for (const auto& [value, text] : scoring_names) {
    if (text == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  fail("unknown scoring \"{}\"; there are {}", printable(name), known);
}

std::string to_line(const Sample& sample) {
  const std::string where = fmt::format("document {}", sample.scores.doc_id);
  if (sample.requests.empty() || sample.requests.size() != sample.scores.answers.size()) {
    fail("{}: {} answers to {} requests", where, sample.scores.answers.size(), sample.requests.size());
  }
  const bool generated = sample.scores.scoring == Scoring::generation;
  if (generated &&
      (sample.generated.responses.size() != sample.requests.size() || sample.generated.filtered.empty() ||
       sample.scores.values.size() != sample.scores.metrics.size()))
    fail("{}: texts, filters or values are missing of what was generated", where);
  ordered_json line;
  write_harness_fields(sample, where, line);
  if (generated) write_generated_fields(sample, line);
  write_own_fields(sample.scores, line);
  return checked_line(line, where);
}

Sample parse_line(std::string_view text, std::string_view where) {
  const ordered_json json = parse_checked_line(text, where);
  const OrderedJsonObject line(json, std::string(where));
  Sample sample;
  Scores& scores = sample.scores;
  scores.doc_id = line.count("doc_id");
  scores.scoring = parse_scoring(line.string("scoring"));
  scores.metrics = line.strings("metrics");
  for (const std::string& metric : scores.metrics) find_metric(scores.scoring, metric);
  sample.doc = line.at("doc");
  sample.target = line.at("target");
  sample.requests = read_requests(line, scores.scoring);
  scores.facts = read_facts(line, scores.scoring, sample.requests.size());
  scores.answers = read_answers(line, sample.requests.size(), scores.scoring);
  if (scores.scoring == Scoring::generation) {
    sample.generated = read_generated(line, sample.requests.size());
    read_judgement(line, scores);
  }
  scores.token_hash = line.string("token_hash");
  scores.logits_hash = line.string("logits_hash");
  return sample;
}

}  // namespace qeval::eval
