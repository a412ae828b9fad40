#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// How a document's log-likelihoods become metrics.
enum class Scoring : uint8_t {
  multiple_choice,  ///< acc, acc_norm, acc_bytes: arg-max against the one gold choice
  multiple_true,    ///< truthfulqa_mc2: probability mass of the true choices
  last_word,        ///< lambada: greedy accuracy and perplexity of the one continuation
  rolling,          ///< perplexities of a whole document
  generation,       ///< a text that the model wrote, judged by the task: a value per metric
};

/// The enumerator's own name, as written into files; parse_scoring() throws Error for any other text.
std::string_view scoring_name(Scoring scoring);
Scoring parse_scoring(std::string_view name);

/// What the model is asked: the log-likelihood of `continuation` after `context`, both as they stand. For
/// rolling log-likelihoods the context is empty and the continuation is the whole document; where the model
/// writes a text, the continuation is empty.
struct TextRequest {
  std::string context;
  std::string continuation;
  bool operator==(const TextRequest&) const = default;
};

/// What the metrics of one document need besides the model's answers. Stored in the samples file, so that
/// metrics are a pure function of that file.
struct DocumentFacts {
  std::vector<int64_t> gold;  ///< index of the right choice (one), of all true choices (multiple_true)
  std::vector<int64_t> choice_chars;  ///< code points per choice, without the joining space
  std::vector<int64_t> choice_bytes;  ///< UTF-8 bytes per choice, likewise
  int64_t words = 0, bytes = 0;       ///< rolling: of the raw document
  int64_t parts = 0;  ///< generation: by how many things a text is judged, as IFEval's instructions; 0: one
  bool operator==(const DocumentFacts&) const = default;
};

/// Why a generated text ended.
enum class TextEnd : uint8_t {
  none,    ///< nothing was generated: the request was for a log-likelihood
  stop,    ///< at one of the task's stop strings
  eos,     ///< at a token that ends an answer
  length,  ///< at the most tokens that the task allows
};

/// The model's answer to one request.
struct Answer {
  double log_likelihood = 0;  ///< natural log, summed over the continuation's tokens; NaN from a broken model
  bool is_greedy = false;     ///< every continuation token was the arg-max
  int64_t tokens = 0;         ///< continuation tokens scored
  int64_t truncated = 0;      ///< tokens cut from the left of the context to fit max_length
  int64_t input_tokens = 0;   ///< tokens fed to the model for this request alone, after truncation
  int64_t windows = 1;        ///< forward passes it takes alone: more than one for a long rolling document
  bool encoded_apart = false;   ///< a token spanned the join, so context and continuation were encoded apart
  TextEnd end = TextEnd::none;  ///< of a generated text, whose tokens are counted above, its end included
  bool operator==(const Answer&) const = default;
};

/// All that the metrics, the counts and a paired comparison see of one document: no text, so that a whole
/// task's fit in memory.
struct Scores {
  int64_t doc_id = 0;  ///< index in the split, from 0
  Scoring scoring = Scoring::multiple_choice;
  std::vector<std::string> metrics;  ///< the task's metrics in the order they are reported (metrics.h)
  DocumentFacts facts;
  std::vector<Answer> answers;  ///< per request
  std::vector<double> values;   ///< generation: parallel to metrics
  std::string token_hash;       ///< fingerprint of the ids scored; runs are comparable where it agrees
  std::string logits_hash;      ///< fingerprint of the logits at every scored position, bit for bit
};

/// What a generated document has besides its scores.
struct GeneratedTexts {
  nlohmann::ordered_json arguments;    ///< how it was generated, as the task's definition says it
  std::vector<std::string> responses;  ///< per request, cut at the stop strings
  /// What each of the task's filters takes out of the responses, by the filters' names, in their order.
  std::vector<std::pair<std::string, std::string>> filtered;
};

/// One finished document: a line of samples_TASK.jsonl.
struct Sample {
  Scores scores;
  nlohmann::ordered_json doc;         ///< the data row as read
  nlohmann::ordered_json target;      ///< the right answer as the task spells it: text or number
  std::vector<TextRequest> requests;  ///< parallel to scores.answers
  GeneratedTexts generated = {};      ///< of scoring `generation`
};

/// The sample as one line of JSON without the newline; the same sample gives the same bytes on any machine.
///
/// lm-evaluation-harness's fields come first, in its order and spelling: doc_id, doc, target (text),
/// arguments
/// ({"gen_args_0": {"arg_0": context, "arg_1": continuation}, ...}; arg_0 alone for rolling), resps,
/// filtered_resps (numbers as text, as it writes them: "-29.65", "False"; "nan" and "inf" where they occur),
/// filter, metrics, doc_hash, prompt_hash, target_hash, and a value per metric (null for NaN;
/// [log-likelihood, weight] for perplexities of documents). Ours follow: scoring, the facts, tokens (sum),
/// tokens_requested (sum of input tokens), request_tokens, input_tokens and truncated (per request), windows
/// (rolling), encoded_apart (indices of requests, only where there are any), token_hash, logits_hash.
///
/// A generated text has arg_1 = how it was generated, resps [["text"]], filter and filtered_resps of the
/// first filter, and metrics by "METRIC,FILTER" (the harness writes a line per filter). Ours: `filtered`, by
/// filter, what it took out; `ends` per request ("stop", "eos", "length"); request_tokens counts generated
/// tokens. The last field, checksum, is the first 16 hexadecimal digits of the SHA-256 of all that stands
/// before its comma.
///
/// Throws Error if the document or a request is not UTF-8.
std::string to_line(const Sample& sample);

/// Reads what to_line() wrote. `where` ("samples_arc_easy.jsonl:12") opens every message. Throws Error if the
/// checksum is missing or wrong, a field is missing or of the wrong type, or the fields contradict each
/// other. Values that follow from others (hashes, the metric values) are not taken from the line but checked
/// by recompute().
Sample parse_line(std::string_view line, std::string_view where);

}  // namespace qeval::eval
