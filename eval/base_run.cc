#include "eval/base_run.h"

#include <algorithm>

#include "base/error.h"
#include "base/setting.h"
#include "eval/kept_distributions.h"
#include "eval/results/protocol_difference.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {

BaseRun::BaseRun(std::filesystem::path folder)
    : directory(std::move(folder)), results(read_results(directory)) {}

const TaskResults& BaseRun::task(const std::string& name) const {
  const TaskResults* found = results.find_task(name);
  if (found == nullptr) fail("{}: holds no results of task {}", directory.string(), name);
  return *found;
}

void BaseRun::require_same_prompts(const EncodedTask& task) const {
  const std::string& name = task.task().name;
  const std::vector<Scores> scored =
      read_scores(directory / samples_file(name), this->task(name).samples_hash);
  for (size_t i = 0; i < static_cast<size_t>(task.documents()); ++i) {
    const int64_t doc_id = task.document(i).doc_id;
    const auto found = std::ranges::lower_bound(scored, doc_id, {}, &Scores::doc_id);
    if (found == scored.end() || found->doc_id != doc_id)
      fail("task {}, document {}: the base did not score it", name, doc_id);
    if (found->token_hash != token_hash(task.requests(i)))
      fail("task {}, document {}: the base's prompt had other token ids", name, doc_id);
  }
}

DivergenceBase BaseRun::identity(const std::string& name) const {
  const TaskResults& scored = task(name);
  std::error_code code;
  if (!std::filesystem::exists(directory / kept_file(name), code)) {
    fail("{}: has no {}: evaluate the base with {}", directory.string(), kept_file(name),
         setting("keep-logprobs"));
  }
  const ModelInfo& model = results.model;
  return {model.weight_hash, model.arithmetic, model.quantization_hash, scored.samples_hash};
}

void BaseRun::require_same_rules(const RunResults& run) const {
  if (const auto difference = protocol_difference(results, run)) {
    fail("{}: cannot be the base: it was scored by other rules than this run: {} ({} there, {} here)",
         directory.string(), printable(difference->what), printable(difference->first),
         printable(difference->second));
  }
  for (const TaskResults& mine : run.tasks) {
    const TaskResults& theirs = task(mine.name);
    const int64_t documents = theirs.counts.documents;
    if (documents != mine.counts.documents) {
      fail("{}: holds {} documents of task {}, this run has {}: give the {}{} that the base had",
           directory.string(), documents, mine.name, mine.counts.documents, setting("limit"),
           results.limit.empty() ? " (none)" : fmt::format(" {}", printable(results.limit)));
    }
    if (!theirs.answer_hash.empty() && theirs.answer_hash != mine.answer_hash) {
      fail("{}: cannot be the base: task {} had other right answers or metrics there", directory.string(),
           mine.name);
    }
  }
}

}  // namespace qeval::eval
