#include "eval/tasks/user_task.h"

#include "datasets/reader.h"
#include "eval/results/sample_file.h"
#include "eval/tasks/documents.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

// The description's own data file is replaced by the rows at hand: which file it reads is the user's affair,
// but its name becomes part of a result file's.
void user_task(Input input) {
  const auto [description, rows] = split(text_of(input));
  const auto file = scratch().write("task.json", description);
  scratch().write("rows.jsonl", rows);
  accepted([&] {
    eval::Task task = eval::read_user_task(file);
    const std::filesystem::path samples = eval::samples_file(task.name);
    if (samples.has_parent_path() || samples.filename() != samples)
      defect("a task's name leads elsewhere", task.name);
    task.root = scratch().path();
    task.files = {"rows.jsonl"};
    if (!task.fewshot_files.empty()) task.fewshot_files = task.files;
    for (const int64_t examples : {0, 1}) {
      accepted([&] {
        (void)eval::load_documents(task, {.num_fewshot = task.fewshot_files.empty() ? 0 : examples});
      });
    }
  });
}

}  // namespace qeval::fuzz
