#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/tasks/registry.h"
#include "eval/tasks/task.h"

namespace qeval::eval {

/// The settings of a task that generates, whose stop strings and most tokens (256 unless it says so) stand in
/// `arguments`, as the harness's generation_kwargs has them.
std::shared_ptr<const Generation> generating(std::vector<AnswerFilter> filters,
                                             std::vector<std::string> metrics,
                                             nlohmann::ordered_json arguments, std::string judgement);

/// gsm8k and its variants.
std::vector<Task> gsm8k_tasks();
/// ifeval and leaderboard_ifeval, whose language data lie beside the rows.
std::vector<Task> ifeval_tasks();
/// BIG-Bench Hard, MATH and the second leaderboard's tasks, in forms that generate and that score choices,
/// and their groups.
std::vector<Task> bbh_tasks();
std::vector<Group> bbh_groups();
std::vector<Task> math_tasks();
std::vector<Group> math_groups();
std::vector<Task> leaderboard_tasks();
std::vector<Group> leaderboard_groups();
/// humaneval and mbpp, whose answers are programs.
std::vector<Task> program_tasks();
/// Every task whose answers are generated, and what belongs to it.
std::vector<Task> generating_tasks();
/// The subjects of MMLU-Pro, as tasks.
std::vector<std::string> mmlu_pro_names();

/// The metrics em and f1 of DROP (Dua et al. 2019): of each right answer, which is a list of texts, and the
/// best of all.
std::vector<double> drop_metrics(const std::string& answer,
                                 const std::vector<std::vector<std::string>>& right);

}  // namespace qeval::eval
