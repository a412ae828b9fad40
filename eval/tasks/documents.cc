#include "eval/tasks/documents.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <iterator>
#include <span>
#include <utility>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/setting.h"
#include "base/unicode.h"
#include "datasets/locate.h"
#include "datasets/reader.h"
#include "datasets/sample.h"
#include "datasets/wikitext.h"
#include "eval/tasks/fewshot.h"

namespace qeval::eval {
namespace {

using datasets::DataText;
using datasets::Row;
using datasets::Table;

/// Running text as rows of one field, `page`.
Table read_running_text(const Task& task, const DataText& data) {
  const auto file = std::make_shared<const std::string>(data.name);
  Table table{.rows = {}, .files = {datasets::describe(data)}};
  const std::string_view text = datasets::checked_text(data);
  for (const datasets::Page& page :
       task.text_has_pages ? datasets::wikitext_pages(text) : datasets::whole_page(text)) {
    table.rows.emplace_back(datasets::Json{{"page", page.text}}, file, page.line);
  }
  if (table.rows.empty()) fail("{}: no text", printable(data.name, 4096));
  return table;
}

Table parse_table(const Task& task, const DataText& data) {
  if (task.text_has_pages || (task.scoring == Scoring::rolling && data.name.ends_with(".txt")))
    return read_running_text(task, data);
  if (data.name.ends_with(".csv")) {
    return datasets::read_mmlu_csv(data, std::filesystem::path(task.folder).filename().string());
  }
  return datasets::read_jsonl(data);
}

/// The folder that the task's files are relative to.
const std::filesystem::path& root_of(const Task& task, const LoadOptions& options) {
  const std::filesystem::path& root = task.root.empty() ? options.data : task.root;
  if (root.empty())
    fail("task {} reads data files; name the folder that holds {} with -d", task.name, task.folder);
  return root;
}

Table read_rows(const Task& task, const std::filesystem::path& path) {
  Table table = parse_table(task, datasets::read_text(path));
  const std::filesystem::path labels = datasets::locate_labels(path);
  if (!labels.empty() && !table.rows.front().has("label") && !table.rows.front().has("answer")) {
    datasets::attach_labels(table, datasets::read_text(labels));
  }
  if (task.see_all) task.see_all(table.rows);
  if (!task.keep) return table;
  std::erase_if(table.rows, [&](const Row& row) { return !task.keep(row); });
  if (table.rows.empty()) fail("{}: no row of task {}", printable(path.string(), 4096), task.name);
  return table;
}

std::vector<std::string> files_of(const Task& task) {
  if (!task.files.empty()) return task.files;
  return {task.folder + "/{split}.jsonl"};
}

bool names_split(std::span<const std::string> files) {
  return std::any_of(files.begin(), files.end(), [](const std::string& file) {
    return file.find("{split}") != std::string::npos || file.find("{Split}") != std::string::npos;
  });
}

/// The rows that the task itself brings as examples.
Table own_examples(const Task& task) {
  Table table;
  const auto file = std::make_shared<const std::string>("examples of " + task.name);
  for (const datasets::Json& row : task.fewshot_rows)
    table.rows.emplace_back(row, file, std::ssize(table.rows) + 1);
  return table;
}

FewShot load_examples(const Task& task, const LoadOptions& options, int64_t count,
                      std::vector<datasets::DataFile>& read) {
  if (count < 0)
    throw UsageError(fmt::format("{} {}: a count from 0 is expected", setting("num-fewshot"), count));
  if (count == 0) return {};
  if (task.scoring == Scoring::rolling) {
    fail("task {} scores running text: it takes no few-shot examples ({} {})", task.name,
         setting("num-fewshot"), count);
  }
  if (!task.fewshot_rows.empty()) return {task, own_examples(task), count, options.seed};
  const std::vector<std::string> files = task.fewshot_files.empty() ? files_of(task) : task.fewshot_files;
  if (task.fewshot_files.empty() && !names_split(files)) {
    fail("task {} names no file to take few-shot examples from; add the field \"fewshot\" to its description",
         task.name);
  }
  const std::string& split = task.fewshot_split;
  Table table;
  if (task.shipped) {
    table = parse_table(task, datasets::shipped_sample(files, split));
  } else {
    const std::filesystem::path& root = root_of(task, options);
    const std::filesystem::path path = datasets::find_split(root, files, split, task.dev_is_other);
    if (path.empty()) {
      fail("task {}: no file of the {} split, which {} {} takes examples from; {} is expected", task.name,
           split, setting("num-fewshot"), count,
           printable(datasets::path_of_split(root, files.front(), split).string(), 4096));
    }
    table = read_rows(task, path);
  }
  read.insert(read.end(), table.files.begin(), table.files.end());
  return {task, table, count, options.seed};
}

void check(const Task& task, const Row& row, int64_t doc_id, const Question& question) {
  assert(task.scoring == Scoring::generation || question.contexts.size() == 1 ||
         question.contexts.size() == question.choices.size());
  if (task.scoring == Scoring::generation && question.references.empty()) {
    fail("{}:{}: no right answer: nothing can be judged", printable(row.file(), 4096), row.line());
  }
  for (size_t i = 0; i < question.choices.size(); ++i) {
    if (!question.choices[i].empty()) continue;
    if (task.scoring == Scoring::rolling) {
      fail("{}:{}: document {} is empty: a perplexity is measured on text", printable(row.file(), 4096),
           row.line(), doc_id);
    } else {
      fail("{}:{}: choice {} is empty text: nothing can be scored", printable(row.file(), 4096), row.line(),
           i + 1);
    }
  }
}

/// The texts of a question's contexts with what stands before them.
std::vector<std::string> make_contexts(const Task& task, const Row& row, std::vector<std::string> contexts,
                                       FewShot& examples, const PromptStyle& style) {
  if (task.scoring == Scoring::rolling) return contexts;
  std::vector<Message> before;
  std::string system = join_texts(style.system_instruction, task.preamble_opens_question ? "" : task.preamble,
                                  task.fewshot_ending);
  if (!system.empty()) before.push_back({"system", std::move(system)});
  const size_t first_turn = before.size();
  std::ranges::move(examples.before(row), std::back_inserter(before));
  for (std::string& context : contexts) {
    std::vector<Message> messages = before;
    messages.push_back({"user", std::move(context)});
    if (task.preamble_opens_question) messages[first_turn].content.insert(0, task.preamble);
    context = prompt_text(std::move(messages), style);
  }
  return contexts;
}

Document make_document(const Task& task, Row& row, int64_t doc_id, FewShot& examples,
                       const PromptStyle& style) {
  Question question = task.ask(row);
  check(task, row, doc_id, question);
  const std::vector<std::string> contexts =
      make_contexts(task, row, std::move(question.contexts), examples, style);
  // A chat model's answer begins without white space; what the harness asks of a last word is one text.
  if (style.chat && task.scoring != Scoring::last_word) question.join.clear();
  Document document;
  document.doc_id = doc_id;
  document.target = question.target;
  if (question.target.empty() && !question.gold.empty())
    document.target = std::to_string(question.gold.front());
  for (size_t i = 0; i < question.choices.size(); ++i) {
    const std::string& context = contexts[contexts.size() == 1 ? 0 : i];
    document.requests.push_back({context, question.join + question.choices[i]});
    document.facts.choice_chars.push_back(static_cast<int64_t>(count_code_points(question.choices[i])));
    document.facts.choice_bytes.push_back(static_cast<int64_t>(question.choices[i].size()));
  }
  if (task.scoring == Scoring::generation) {
    document.requests.assign(static_cast<size_t>(task.generation->repeats), {contexts.front(), ""});
    document.references = std::move(question.references);
    document.judge = std::move(question.judge);
    document.facts.parts = question.parts;
  }
  document.facts.gold = std::move(question.gold);
  if (task.scoring == Scoring::rolling) {
    const std::string& raw = question.raw.empty() ? question.choices.front() : question.raw;
    document.facts.words = datasets::count_words(raw);
    document.facts.bytes = static_cast<int64_t>(raw.size());
  }
  document.row = std::move(row.fields());
  return document;
}

void hash_text(Sha256& hash, std::string_view text) {
  hash.update(fmt::format("{}:", text.size())).update(text);
}

std::string hash_of_prompts(std::span<const Document> documents) {
  Sha256 hash;
  for (const Document& document : documents) {
    for (const TextRequest& request : document.requests) {
      hash_text(hash, request.context);
      hash_text(hash, request.continuation);
    }
  }
  return hash.hex();
}

/// How a text comes to its end, and by what it is judged.
void hash_generation(Sha256& hash, const Generation& generation) {
  for (const std::string& stop : generation.until) hash_text(hash, stop);
  hash_text(hash, fmt::format("{} {}", generation.max_tokens, generation.judgement));
  if (generation.repeats > 1) hash_text(hash, fmt::format("repeats {}", generation.repeats));
  if (generation.temperature > 0) {
    hash_text(hash, fmt::format("temperature {} top_k {} top_p {} seed {}", generation.temperature,
                                generation.top_k, generation.top_p, generation.seed));
  }
  for (const AnswerFilter& filter : generation.filters) {
    hash_text(hash, filter.name);
    for (const AnswerFilter::Step& step : filter.steps) hash_text(hash, step.description);
  }
}

std::string hash_of_answers(const Task& task, std::span<const Document> documents) {
  Sha256 hash;
  hash_text(hash, scoring_name(task.scoring));
  hash_text(hash, fmt::format("{}", fmt::join(task.metrics, ",")));
  if (task.generation) hash_generation(hash, *task.generation);
  for (const Document& document : documents) {
    const DocumentFacts& facts = document.facts;
    hash_text(hash, document.target.get<std::string>());
    hash_text(hash, fmt::format("{} {} {} {} {}", facts.gold, facts.choice_chars, facts.choice_bytes,
                                facts.words, facts.bytes));
    if (facts.parts > 0) hash_text(hash, std::to_string(facts.parts));
    for (const std::string& reference : document.references) hash_text(hash, reference);
  }
  return hash.hex();
}

}  // namespace

int64_t limited_count(std::optional<double> limit, int64_t count) {
  if (!limit) return count;
  const double value = *limit;
  const bool is_fraction = value > 0 && value < 1;
  const bool is_count = value >= 1 && value <= 9e15 && value == std::floor(value);
  if (!is_fraction && !is_count) {
    throw UsageError(fmt::format("{} {}: a count of documents, or a fraction between 0 and 1, is expected",
                                 setting("limit"), value));
  }
  if (is_count) return std::min(count, static_cast<int64_t>(value));
  return static_cast<int64_t>(std::ceil(value * static_cast<double>(count)));
}

LoadedTask load_documents(const Task& task, const LoadOptions& options) {
  const std::vector<std::string> files = files_of(task);
  if (options.split && *options.split != task.split && !names_split(files)) {
    fail("task {} reads one file and has no split \"{}\"; drop {}", task.name, printable(*options.split),
         setting("split"));
  }
  if (task.generation && task.generation->runs_code && !options.run_code) {
    throw UsageError(
        fmt::format("task {} runs the programs that the model writes, in a sandbox; accepted with {}",
                    task.name, setting("confirm-run-unsafe-code")));
  }
  LoadedTask loaded{.documents = {},
                    .files = {},
                    .split = options.split.value_or(task.split),
                    .num_fewshot = options.num_fewshot.value_or(task.num_fewshot),
                    .prompt_hash = {},
                    .answer_hash = {}};
  Table table = task.shipped ? parse_table(task, datasets::shipped_sample(files, loaded.split))
                             : read_rows(task, datasets::locate_split(root_of(task, options), files,
                                                                      loaded.split, task.dev_is_other));
  loaded.files = table.files;
  loaded.split_size = static_cast<int64_t>(table.rows.size());
  FewShot examples = load_examples(task, options, loaded.num_fewshot, loaded.files);
  const int64_t count = limited_count(options.limit, loaded.split_size);
  loaded.documents.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    loaded.documents.push_back(
        make_document(task, table.rows[static_cast<size_t>(i)], i, examples, options.style));
  loaded.prompt_hash = hash_of_prompts(loaded.documents);
  loaded.answer_hash = hash_of_answers(task, loaded.documents);
  return loaded;
}

}  // namespace qeval::eval
