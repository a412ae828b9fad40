#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace qeval::eval {

/// How a document's log-likelihoods become metrics.
enum class Scoring : uint8_t {
  multiple_choice,  ///< acc, acc_norm, acc_bytes: arg-max against the one gold choice
  multiple_true,    ///< truthfulqa_mc2: probability mass of the true choices
  last_word,        ///< lambada: greedy accuracy and perplexity of the one continuation
  rolling,          ///< perplexities of a whole document
};

/// What the metrics of one document need besides the model's answers. Stored in the samples file, so that
/// metrics are a pure function of that file.
struct DocumentFacts {
  std::vector<int64_t> gold;  ///< index of the right choice (one), of all true choices (multiple_true)
  std::vector<int64_t> choice_chars;  ///< code points per choice, without the joining space
  std::vector<int64_t> choice_bytes;  ///< UTF-8 bytes per choice, likewise
  int64_t words = 0, bytes = 0;       ///< rolling: of the raw document
};

/// The model's answer to one request.
struct Answer {
  double log_likelihood = 0;  ///< natural log, summed over the continuation's tokens
  bool is_greedy = false;     ///< every continuation token was the arg-max
  int64_t tokens = 0;         ///< continuation tokens scored
  int64_t truncated = 0;      ///< tokens cut from the left of the context to fit max_length
};

}  // namespace qeval::eval
