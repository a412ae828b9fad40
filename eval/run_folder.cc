#include "eval/run_folder.h"

#include <sstream>

#include "base/error.h"
#include "model/kernels/cpu.h"

namespace qeval::eval {

void RunFolder::check(const Fingerprint& fingerprint, const std::vector<std::string>& tasks) const {
  if (output_) check_run_directory(*output_, fingerprint, tasks, resume_);
}

void RunFolder::open(const Fingerprint& fingerprint, const std::vector<std::string>& tasks,
                     const std::vector<CompanionFormat>& companions) {
  if (!output_) return;
  on_first(peers_, [&] {
    directory_ = std::make_unique<RunDirectory>(*output_, fingerprint, tasks, resume_, companions);
  });
  together(peers_, [&] {
    if (peers_.is_first()) return;
    const std::optional<RunRecord> first = read_run_record(*output_);
    if (!first) {
      fail("{}: what the first rank wrote there is not to be seen; all ranks need the same storage",
           output_->string());
    }
    Fingerprint own = fingerprint;
    own["tasks"] = first->fingerprint.at("tasks");  // follows from the options, which are the same
    const std::string changes = describe_changes(first->fingerprint, own);
    if (!changes.empty()) fail("differs from the first rank in: {}", changes);
    directory_ = std::make_unique<RunDirectory>(rank_folder(*output_, peers_.rank), fingerprint, tasks, true,
                                                companions);
  });
  directory_->compute_with(std::string(model::name(model::cpu_path())));
}

DocumentSets RunFolder::unfinished(const EncodedTasks& tasks, DocumentSets documents) const {
  // Only the first rank knows what earlier runs finished: a line of doc_ids per task.
  std::string finished;
  for (const auto& task : tasks.tasks) {
    for (const Document& document : task->loaded().documents) {
      if (directory_ && directory_->is_finished(task->task().name, document.doc_id))
        finished += fmt::format(" {}", document.doc_id);
    }
    finished += '\n';
  }
  std::istringstream lines(from_first(peers_, finished));
  for (std::set<int64_t>& open : documents) {
    std::string line;
    std::getline(lines, line);
    std::istringstream ids(line);
    for (int64_t id = 0; ids >> id;) open.erase(id);
  }
  return documents;
}

}  // namespace qeval::eval
