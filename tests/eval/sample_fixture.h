#pragma once

#include <string>
#include <vector>

#include "eval/results/sample.h"

namespace qeval::eval {

/// A four-choice document whose best choice is 2 by log-likelihood, 3 by characters and 0 by bytes.
inline Sample choice_sample(int64_t doc_id) {
  Sample sample;
  sample.scores.doc_id = doc_id;
  sample.scores.scoring = Scoring::multiple_choice;
  sample.scores.metrics = {"acc", "acc_norm"};
  sample.scores.facts.gold = {2};
  sample.scores.facts.choice_chars = {20, 5, 5, 20};
  sample.scores.facts.choice_bytes = {40, 5, 5, 20};
  for (const double log_likelihood : {-22.5, -12.0, -10.25, -20.0 - 0.1}) {
    sample.scores.answers.push_back({log_likelihood, false, 5, 0, 12});
  }
  sample.scores.answers[2].is_greedy = true;
  sample.scores.token_hash = "00112233445566778899aabbccddeeff";
  sample.doc = {{"question", "Wie spät ist es?\n\"Zehn\" – 10"}, {"label", 2}, {"nested", {{"x", 1.5}}}};
  sample.target = 2;
  for (const char* choice : {" elf", " zwölf", " zehn", " 十"})
    sample.requests.push_back({"Wie spät?\nAnswer:", choice});
  return sample;
}

/// A document of running text.
inline Sample rolling_sample(int64_t doc_id, double log_likelihood, int64_t words, int64_t bytes,
                             int64_t tokens) {
  Sample sample;
  sample.scores.doc_id = doc_id;
  sample.scores.scoring = Scoring::rolling;
  sample.scores.metrics = {"word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"};
  sample.scores.facts.words = words;
  sample.scores.facts.bytes = bytes;
  sample.scores.answers.push_back({log_likelihood, false, tokens, 0, tokens, 2});
  sample.scores.token_hash = "ffeeddccbbaa99887766554433221100";
  sample.doc = {{"page", "some text"}};
  sample.target = "some text";
  sample.requests.push_back({"", "some text"});
  return sample;
}

}  // namespace qeval::eval
