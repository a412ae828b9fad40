#pragma once

#include <string_view>
#include <vector>

#include "eval/tasks/task.h"

namespace qeval::eval {

/// The 57 subjects as tasks `mmlu_SUBJECT`, in alphabetical order.
std::vector<Task> mmlu_tasks(Protocol protocol);

/// The harness's other forms of the subjects, as tasks mmlu_SUBJECT_FORM: the letter written by the model
/// (`generative`), and the answers' texts scored (`continuation`).
std::vector<Task> mmlu_forms();

/// The four areas' names ("stem", "humanities", "social_sciences", "other") and the subjects of one.
std::vector<std::string_view> mmlu_areas();
std::vector<std::string_view> mmlu_subjects(std::string_view area);

}  // namespace qeval::eval
