#include "eval/results/run_directory.h"

#include <algorithm>
#include <cassert>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/setting.h"
#include "eval/results/folder_use.h"
#include "eval/results/results.h"
#include "eval/results/sample_file.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;

fs::path create(fs::path directory) {
  qeval::create_directories(directory);
  return directory;
}

/// The files of finished or unfinished work in the folder, whichever task they belong to.
struct Holdings {
  bool results = false;
  std::vector<std::string> samples, journals, companions, temporaries;
  bool of_ranks = false;  ///< a rank-K below it holds any
  bool any() const { return results || !samples.empty() || !journals.empty() || of_ranks; }
  bool unfinished() const { return !journals.empty() || (!results && !samples.empty()) || of_ranks; }
};

void remove_file(const fs::path& path) {
  std::error_code code;
  fs::remove(path, code);
  if (code) fail("{}: cannot remove: {}", path.string(), code.message());
}

/// What a killed run left of a file that it was writing.
bool is_temporary(std::string_view name) {
  const auto file = file_of_temporary(name);
  return file && is_result_file(*file);
}

Holdings look(const fs::path& directory) {
  Holdings out;
  std::error_code code;
  if (!fs::exists(directory, code)) return out;
  fs::directory_iterator entries(directory, code);
  for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
    const std::string name = entries->path().filename().string();
    if (is_rank_folder(entries->path())) out.of_ranks = out.of_ranks || look(entries->path()).any();
    if (is_temporary(name)) out.temporaries.push_back(name);
    if (name == results_file || name == shard_file) out.results = true;
    if (!is_document_file(name)) continue;
    if (is_companion_file(name)) {
      out.companions.push_back(name);
    } else {
      (name.starts_with("samples_") ? out.samples : out.journals).push_back(name);
    }
  }
  if (code) fail("{}: cannot list the folder: {}", directory.string(), code.message());
  return out;
}

/// Throws where the rules of the class forbid to begin. Only looks.
Holdings check(const fs::path& directory, const Fingerprint& here, bool resume) {
  require_use(directory, FolderUse::run);
  const std::optional<RunRecord> there = read_run_record(directory);
  Holdings holdings = look(directory);
  if (!holdings.any()) return holdings;
  if (!there) {
    fail(
        "{}: holds results but no {}, so they are not of a run that could be continued: choose another "
        "directory",
        directory.string(), run_file);
  }
  if (const std::string changes = describe_changes(there->fingerprint, here); !changes.empty()) {
    fail("{}: holds {} of a run with other settings: {}: choose another directory or the same settings",
         directory.string(), holdings.unfinished() ? "unfinished work" : "results", changes);
  }
  if (!resume && holdings.unfinished()) {
    fail("{}: holds an unfinished run: continue it with {} or choose another directory", directory.string(),
         setting("resume"));
  }
  return holdings;
}

/// Clears away what is of no more use, and results that are to be made again. The folder is locked, so nobody
/// is writing the temporary files. Returns what run.json says from here on.
RunRecord prepare(const fs::path& directory, const Fingerprint& here, bool resume) {
  const Holdings holdings = check(directory, here, resume);
  for (const std::string& name : holdings.temporaries) remove_file(directory / name);
  if (!resume &&
      holdings
          .any()) {  // results.json first: without it the rest counts as unfinished, if we are killed here
    remove_file(directory / results_file);
    remove_file(directory / shard_file);
    for (const std::string& name : holdings.samples) remove_file(directory / name);
    for (const std::string& name : holdings.companions) remove_file(directory / name);
  }
  RunRecord record{here, {}};
  if (resume && holdings.any()) record.cpu_paths = read_run_record(directory)->cpu_paths;
  write_run_record(directory, record);
  return record;
}

std::string joined_names(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ",") + name;
  return out;
}

Fingerprint with_tasks(Fingerprint fingerprint, const std::vector<std::string>& tasks) {
  fingerprint["tasks"] = joined_names(tasks);
  return fingerprint;
}

}  // namespace

fs::path rank_folder(const fs::path& directory, int64_t rank) {
  return directory / fmt::format("rank-{}", rank);
}

std::set<int64_t> finished_documents(const fs::path& directory, const std::string& task) {
  std::set<int64_t> out;
  const auto read = [&](const fs::path& path, Tail tail) {
    std::error_code code;
    if (!fs::exists(path, code)) return;
    for_each_sample(path, tail, [&](SampleLine&& line) { out.insert(line.sample.scores.doc_id); });
  };
  std::error_code code;
  for (fs::directory_iterator entries(directory, code); !code && entries != fs::directory_iterator();
       entries.increment(code)) {
    if (is_rank_folder(entries->path())) out.merge(finished_documents(entries->path(), task));
  }
  read(directory / journal_file(task), Tail::drop);
  read(directory / samples_file(task), Tail::refuse);
  return out;
}

void check_run_directory(const fs::path& directory, Fingerprint fingerprint,
                         const std::vector<std::string>& tasks, bool resume) {
  check(directory, with_tasks(std::move(fingerprint), tasks), resume);
}

/// A task's finished documents: their scores, and where their lines stand.
struct RunDirectory::Task {
  struct Line {
    bool in_journal = false;
    uint64_t offset = 0, length = 0;  // without the newline
  };
  fs::path samples, journal;
  AppendFile file;  // the journal, opened at the first append
  uint64_t journal_size = 0;
  std::vector<Scores> scores;
  std::unordered_map<int64_t, Line> lines;
  std::vector<std::unique_ptr<CompanionFile>> companions;
};

RunDirectory::RunDirectory(fs::path directory, Fingerprint fingerprint, const std::vector<std::string>& tasks,
                           bool resume, std::vector<CompanionFormat> companions)
    : directory_(create(std::move(directory))),
      record_{with_tasks(std::move(fingerprint), tasks), {}},
      lock_(directory_),
      companions_(std::move(companions)) {
  for (const std::string& name : tasks) {
    auto task = std::make_unique<Task>();
    task->samples = directory_ / samples_file(name);
    task->journal = directory_ / journal_file(name);
    for (const CompanionFormat& format : companions_) {
      if (format.is_of(name))
        task->companions.push_back(std::make_unique<CompanionFile>(directory_, format, name));
    }
    tasks_.emplace(name, std::move(task));
  }
  record_ = prepare(directory_, record_.fingerprint, resume);
  for (const auto& [name, task] : tasks_) load(*task);
  absorb_ranks();
}

RunDirectory::~RunDirectory() = default;

RunDirectory::Task& RunDirectory::task(std::string_view name) const {
  const auto found = tasks_.find(name);
  assert(found != tasks_.end());
  return *found->second;
}

void RunDirectory::load(Task& task) {
  const auto read = [&](const fs::path& path, bool in_journal) -> uint64_t {
    if (!fs::exists(path)) return 0;
    uint64_t offset = 0;
    return for_each_sample(path, in_journal ? Tail::drop : Tail::refuse, [&](SampleLine&& line) {
      const int64_t id = line.sample.scores.doc_id;
      const Task::Line place{in_journal, offset, line.text.size()};
      offset += line.text.size() + 1;
      const auto [found, is_new] = task.lines.emplace(id, place);
      if (is_new) {
        task.scores.push_back(std::move(line.sample.scores));
      } else if (found->second.in_journal == in_journal) {
        fail("{}: document {} stands in the file twice", line.where, id);
      }
      // In both files: the run was killed after it had written the samples, before it removed the journal.
    });
  };
  read(task.samples, false);
  task.journal_size = read(task.journal, true);
  if (fs::exists(task.journal) && fs::file_size(task.journal) > task.journal_size) {
    std::error_code code;
    fs::resize_file(task.journal, task.journal_size, code);  // the line under way when the run was killed
    if (code) fail("{}: cannot drop the incomplete last line: {}", task.journal.string(), code.message());
  }
  for (const auto& companion : task.companions) companion->load();
}

bool RunDirectory::is_finished(std::string_view name, int64_t doc_id) const {
  return task(name).lines.contains(doc_id);
}

int64_t RunDirectory::finished_documents(std::string_view name) const {
  return static_cast<int64_t>(task(name).lines.size());
}

void RunDirectory::record_cpu_paths(const std::set<std::string>& cpu_paths) {
  const size_t known = record_.cpu_paths.size();
  record_.cpu_paths.insert(cpu_paths.begin(), cpu_paths.end());
  if (record_.cpu_paths.size() > known) write_run_record(directory_, record_);
}

void RunDirectory::append(std::string_view name, const Sample& sample, std::span<const std::string> records) {
  if (!cpu_path_.empty()) record_cpu_paths({cpu_path_});
  append(task(name), sample.scores, to_line(sample), records);
}

void RunDirectory::append(Task& task, Scores scores, std::string_view line,
                          std::span<const std::string> records) {
  assert(records.size() == task.companions.size());
  const int64_t id = scores.doc_id;
  if (task.lines.contains(id)) fail("{}: document {} was finished before", task.journal.string(), id);
  for (size_t i = 0; i < records.size(); ++i) task.companions[i]->append(id, records[i]);
  const std::string text = std::string(line) + '\n';
  if (!task.file.is_open()) task.file.open(task.journal, task.journal_size);
  task.file.append(text);
  task.lines.emplace(id, Task::Line{true, task.journal_size, text.size() - 1});
  task.journal_size += text.size();
  task.scores.push_back(std::move(scores));
}

void RunDirectory::absorb(const fs::path& folder) {
  const std::optional<RunRecord> record = read_run_record(folder);
  for (const auto& entry : tasks_) {
    const std::string& name = entry.first;
    Task& task = *entry.second;
    std::vector<std::unique_ptr<CompanionFile>> theirs;
    for (const CompanionFormat& format : companions_) {
      if (!format.is_of(name)) continue;
      theirs.push_back(std::make_unique<CompanionFile>(folder, format, name));
      theirs.back()->load(true);
    }
    const auto read = [&](const std::string& file, Tail tail) {
      if (!fs::exists(folder / file)) return;
      for_each_sample(folder / file, tail, [&](SampleLine&& line) {
        const int64_t id = line.sample.scores.doc_id;
        if (task.lines.contains(id)) return;
        if (record) record_cpu_paths(record->cpu_paths);
        std::vector<std::string> records;
        records.reserve(theirs.size());
        for (const auto& companion : theirs) records.push_back(companion->record(id));
        append(task, std::move(line.sample.scores), line.text, records);
      });
    };
    read(samples_file(name), Tail::refuse);
    read(journal_file(name), Tail::drop);
  }
}

void RunDirectory::absorb_ranks() {
  std::vector<fs::path> folders;
  std::error_code code;
  fs::directory_iterator entries(directory_, code);
  for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
    if (is_rank_folder(entries->path())) folders.push_back(entries->path());
  }
  if (code) fail("{}: cannot list the folder: {}", directory_.string(), code.message());
  for (const fs::path& folder : folders) {
    {
      const DirectoryLock lock(folder);  // a rank of a run that is dying may still write
      if (const std::optional<RunRecord> there = read_run_record(folder)) {
        const std::string changes = describe_changes(there->fingerprint, record_.fingerprint);
        if (!changes.empty())
          fail("{}: holds unfinished work of a run with other settings: {}", folder.string(), changes);
        absorb(folder);
      }
    }
    fs::remove_all(folder, code);
    if (code) fail("{}: cannot remove: {}", folder.string(), code.message());
  }
}

RunDirectory::Finished RunDirectory::finish(std::string_view name) {
  Task& task = this->task(name);
  std::ranges::sort(task.scores, {}, &Scores::doc_id);
  Finished out;
  std::vector<int64_t> documents;
  for (const Scores& scores : task.scores) documents.push_back(scores.doc_id);
  for (const auto& companion : task.companions)
    out.companion_hashes[companion->name()] = companion->finish(documents);
  {
    const std::optional<MappedFile> samples =
        fs::exists(task.samples) ? std::optional<MappedFile>(task.samples) : std::nullopt;
    const std::optional<MappedFile> journal =
        fs::exists(task.journal) ? std::optional<MappedFile>(task.journal) : std::nullopt;
    AtomicFile file(task.samples);
    Sha256 hash;
    for (const Scores& scores : task.scores) {
      const Task::Line& line = task.lines.at(scores.doc_id);
      const std::string_view text = (line.in_journal ? journal : samples).value().text();
      const std::string_view with_newline = text.substr(line.offset, line.length + 1);
      file.write(with_newline);
      hash.update(with_newline);
    }
    file.commit();
    out.samples_hash = hash.hex();
  }
  task.file.close();
  if (fs::exists(task.journal)) remove_file(task.journal);
  for (const auto& companion : task.companions) companion->remove_unfinished();
  out.scores = std::move(task.scores);
  task.scores.clear();
  return out;
}

}  // namespace qeval::eval
