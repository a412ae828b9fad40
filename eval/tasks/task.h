#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "eval/results/sample.h"

namespace qeval::eval {

/// Which tool's conventions a score follows (PROTOCOL.md).
enum class Protocol : uint8_t { lm_eval_0_4, lm_eval_0_3 };

/// One row of a task, ready to be asked and judged.
struct Document {
  int64_t doc_id = 0;                 ///< index in the split, from 0
  nlohmann::ordered_json row;         ///< the data row as read (for the samples file)
  nlohmann::ordered_json target;      ///< the right answer as the task spells it
  std::vector<TextRequest> requests;  ///< per choice; exactly one for lambada and rolling tasks
  DocumentFacts facts;                ///< what the metrics need besides the log-likelihoods
};

/// A task of the registry.
struct Task {
  std::string name;           ///< "arc_easy", "mmlu_anatomy", or the name in a user's description file
  std::string folder;         ///< under the data directory: "arc_easy", "mmlu/anatomy"
  std::string split;          ///< the protocol's split: "test", "validation"
  std::string fewshot_split;  ///< "dev" for MMLU, "train" elsewhere
  std::string description;    ///< one line for `qeval tasks`
  int version = 1;            ///< raised when a prompt or metric changes
  Scoring scoring = Scoring::multiple_choice;
  std::vector<std::string> metrics;  ///< names in the order they are reported, such as {"acc", "acc_norm"}
};

}  // namespace qeval::eval
