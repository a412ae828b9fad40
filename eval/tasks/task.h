#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "datasets/row.h"
#include "eval/results/sample.h"
#include "eval/tasks/generation.h"
#include "eval/tasks/question.h"

namespace qeval::eval {

/// Which tool's conventions a score follows (docs/tasks.md#protocols).
enum class Protocol : uint8_t { lm_eval_0_4, lm_eval_0_3 };

/// One row of a task, ready to be asked and judged.
struct Document {
  int64_t doc_id = 0;                        ///< index in the split, from 0
  nlohmann::ordered_json row;                ///< the data row as read (for the samples file)
  nlohmann::ordered_json target;             ///< the right answer as the task spells it; always a string
  std::vector<TextRequest> requests;         ///< per choice; exactly one for lambada and rolling tasks
  DocumentFacts facts;                       ///< what the metrics need besides the log-likelihoods
  std::vector<std::string> references = {};  ///< generation: the right answers
  std::function<std::vector<double>(const std::string& answer)> judge = {};  ///< as Question::judge
};

/// A task of the registry, as one protocol has it.
struct Task {
  std::string name = {};         ///< "arc_easy", "mmlu_anatomy", or the name in a user's description file
  std::string description = {};  ///< one line for `qeval tasks`
  std::string folder = {};       ///< under the data directory: "arc_easy", "mmlu/anatomy"
  std::string split = {};        ///< the protocol's split: "test", "validation"
  int version = 1;               ///< raised when a prompt or metric changes
  Scoring scoring = Scoring::multiple_choice;
  std::vector<std::string> metrics = {};  ///< in the order they are reported: {"acc", "acc_norm"}

  /// What a row asks, without preamble and few-shot examples. Throws Error naming file, line and field of a
  /// bad row.
  std::function<Question(const datasets::Row&)> ask = {};
  std::string preamble = {};  ///< stands once in front of the few-shot examples and the prompt
  /// The preamble opens the first question (TruthfulQA); else it is what a chat model is told as its system
  /// message.
  bool preamble_opens_question = false;

  int64_t num_fewshot = 0;              ///< examples unless another number is asked for
  std::string fewshot_split = "train";  ///< where examples come from: "dev" for MMLU
  bool fewshot_first = false;           ///< the first n rows of that split; otherwise a seeded draw
  /// The draw is lm-evaluation-harness's own, by Python's random: other examples for every document; with
  /// `beside`, one more is drawn, lest one is the document itself.
  enum class Draw : uint8_t { ours, harness, harness_beside } fewshot_draw = Draw::ours;
  std::vector<datasets::Json> fewshot_rows = {};      ///< the examples themselves, instead of a split's
  std::string fewshot_ending = "\n\n";                ///< behind an example's answer
  std::shared_ptr<const Generation> generation = {};  ///< of scoring `generation`
  bool variant = false;  ///< another form of a task: wildcards reach it only where they match no other
  /// The rows that belong to the task, of a file that several share; empty: all.
  std::function<bool(const datasets::Row&)> keep = {};
  /// Is shown all rows of every file that is read, in their order, before any of them is asked: for a task
  /// whose questions depend on where a row stands.
  std::function<void(std::span<const datasets::Row>)> see_all = {};

  /// Where the rows are: paths below the data directory, in the order they are tried, `{split}` and `{Split}`
  /// standing for the split's name. Empty: FOLDER/{split}.jsonl. Read as JSONL, MMLU's CSV (.csv) or, of a
  /// rolling task, running text (.txt, or with pages) as rows of one field, `page`.
  std::vector<std::string> files = {};
  bool text_has_pages =
      false;  ///< rolling: running text is cut at WikiText's headings; else a file is one document
  bool dev_is_other = false;  ///< dev is a split of its own, not another name of validation
  bool shipped = false;       ///< the rows are inside the program, below datasets/sample/
  /// User tasks: the folder that `files` are relative to, instead of the data directory.
  std::filesystem::path root = {};
  std::vector<std::string> fewshot_files = {};  ///< user tasks: where examples are, if not in `files`
};

}  // namespace qeval::eval
