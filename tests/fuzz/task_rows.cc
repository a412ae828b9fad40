#include "datasets/reader.h"
#include "datasets/wikitext.h"
#include "eval/tasks/registry.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {
namespace {

/// One of every way to ask: MMLU's subjects are alike.
std::vector<eval::Task> different_tasks() {
  std::vector<eval::Task> out;
  bool subject = false;
  for (const eval::Protocol protocol : {eval::Protocol::lm_eval_0_4, eval::Protocol::lm_eval_0_3}) {
    for (eval::Task& task : eval::builtin_tasks(protocol)) {
      const bool of_mmlu = task.name.starts_with("mmlu_");
      if (!of_mmlu || !subject) out.push_back(std::move(task));
      subject |= of_mmlu;
    }
  }
  return out;
}

void ask_all(datasets::Table table) {
  static const std::vector<eval::Task> tasks = different_tasks();
  for (const eval::Task& task : tasks) {
    if (task.see_all) task.see_all(table.rows);
  }
  for (const datasets::Row& row : table.rows) {
    for (const eval::Task& task : tasks) {
      accepted([&] { (void)task.ask(row); });
    }
  }
}

}  // namespace

void task_rows(Input input) {
  const Parts parts = split(text_of(input));
  const std::string_view rows = parts.first, labels = parts.second;
  const datasets::DataText data{"rows", std::string(rows)};
  accepted([&] {
    datasets::Table table = datasets::read_jsonl(data);
    if (!labels.empty()) accepted([&] { datasets::attach_labels(table, {"labels", std::string(labels)}); });
    ask_all(std::move(table));
  });
  accepted([&] { ask_all(datasets::read_mmlu_csv(data, "subject")); });
  accepted([&] {
    for (const datasets::Page& page : datasets::wikitext_pages(datasets::checked_text(data))) {
      const std::string text = datasets::wikitext_detokenize(page.text);
      if (datasets::count_words(page.text) < 1 || text.size() > page.text.size())
        defect("a page without words, or that grows", page.text);
    }
  });
}

}  // namespace qeval::fuzz
