#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "datasets/row.h"
#include "eval/results/sample.h"
#include "eval/tasks/question.h"

namespace qeval::eval {

/// Which tool's conventions a score follows (PROTOCOL.md).
enum class Protocol : uint8_t { lm_eval_0_4, lm_eval_0_3 };

/// One row of a task, ready to be asked and judged.
struct Document {
  int64_t doc_id = 0;                 ///< index in the split, from 0
  nlohmann::ordered_json row;         ///< the data row as read (for the samples file)
  nlohmann::ordered_json target;      ///< the right answer as the task spells it; always a string
  std::vector<TextRequest> requests;  ///< per choice; exactly one for lambada and rolling tasks
  DocumentFacts facts;                ///< what the metrics need besides the log-likelihoods
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

  std::string fewshot_split = "train";  ///< where examples come from: "dev" for MMLU
  bool fewshot_first = false;           ///< the first n rows of that split; otherwise a seeded draw

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
