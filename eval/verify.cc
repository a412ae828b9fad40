#include "eval/verify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "base/strict_json.h"
#include "eval/distributed/shard_record.h"
#include "eval/kept_distributions.h"
#include "eval/results/comparison.h"
#include "eval/results/folder_use.h"
#include "eval/results/recompute.h"
#include "eval/results/run_directory.h"
#include "eval/results/sample_file.h"
#include "model/finite.h"

namespace qeval::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

using Differences = std::vector<std::string>;

std::string hash_start(std::string_view hash) {
  return printable(hash.substr(0, 12)) + "…";
}

bool is_there(const fs::path& path) {
  std::error_code code;
  return fs::exists(path, code);
}

/// Hands checks on and remembers whether one failed.
class Checks {
 public:
  explicit Checks(const std::function<void(const Check&)>& report) : report_(report) {}

  /// Runs `find`, which returns what is wrong; an Error is wrong too.
  template <typename Find>
  bool check(const fs::path& subject, const std::string& good, const Find& find) {
    Check done{subject, good, true};
    try {
      const Differences differences = find();
      if (!differences.empty()) {
        done.passed = false;
        done.finding = differences.front();
        if (differences.size() > 1) done.finding += fmt::format(" (and {} more)", differences.size() - 1);
      }
    } catch (const Error& error) {
      done.passed = false;
      done.finding = error.what();
    }
    passed_ = passed_ && done.passed;
    report_(done);
    return done.passed;
  }
  bool passed() const { return passed_; }

 private:
  const std::function<void(const Check&)>& report_;
  bool passed_ = true;
};

/// A run's folder, or a shard's.
struct Folder {
  fs::path path;
  const char* record = results_file;  ///< or shard_file
  RunResults run;
  Fingerprint fingerprint;
  std::optional<ShardRecord> shard;  ///< of a shard
};

/// Numbers to 1e-12 relative, all else exactly.
bool agree(const ordered_json& a, const ordered_json& b) {
  if (a.is_number_float() && b.is_number()) {
    const double x = a.get<double>(), y = b.get<double>();
    return x == y || std::abs(x - y) <= 1e-12 * std::max(std::abs(x), std::abs(y));
  }
  return a == b;
}

/// The first place where the values differ, as a path of keys; empty where they agree.
std::string first_difference(const ordered_json& stored, const ordered_json& derived, const std::string& at) {
  if (stored.is_object() && derived.is_object()) {
    for (const auto& [key, value] : derived.items()) {
      std::string below = fmt::format("{}/{}", at, key);
      if (!stored.contains(key)) return below;
      if (std::string found = first_difference(stored[key], value, below); !found.empty()) return found;
    }
    for (const auto& [key, unused] : stored.items()) {
      if (!derived.contains(key)) return fmt::format("{}/{}", at, key);
    }
    return "";
  }
  if (stored.is_array() && derived.is_array() && stored.size() == derived.size()) {
    for (size_t i = 0; i < stored.size(); ++i) {
      if (std::string found = first_difference(stored[i], derived[i], fmt::format("{}/{}", at, i));
          !found.empty())
        return found;
    }
    return "";
  }
  return agree(stored, derived) ? "" : at;
}

Differences check_record(Folder& folder) {
  const fs::path path = folder.path / folder.record;
  ordered_json json = parse_ordered_json(read_file(path), path.string());
  if (folder.record == shard_file) {
    constexpr std::array kKnown{"shard", "fingerprint", "documents", "group_metrics", "vocab_size", "run"};
    for (const auto& [key, unused] : json.items()) {
      if (std::ranges::find(kKnown, key) == kKnown.end())
        return {fmt::format("{}: /{} is unknown", path.string(), printable(key))};
    }
    folder.shard = read_shard_record(folder.path);
    folder.run = folder.shard->run;
    json = OrderedJsonObject(json, path.string()).at("run");
  } else {
    folder.run = run_results_from_json(json, path.string());
  }
  const OrderedJsonObject fields(json, path.string());
  if (!fields.has("content_hash")) {
    return {fmt::format(
        "{}: holds no content_hash: it was edited, or written before qeval recorded one; the same "
        "run again writes it",
        path.string())};
  }
  const std::string stored = fields.string("content_hash"), derived = content_hash(json);
  if (stored != derived) {
    return {fmt::format("{}: its content has the SHA-256 {}, it says {}: it was edited", path.string(),
                        hash_start(derived), hash_start(stored))};
  }
  // Much stands in several places, for readers of several kinds, and not all of it was read above.
  ordered_json again = to_json(folder.run);
  again["content_hash"] = stored;
  const std::string where = first_difference(json, again, "");
  if (where.empty()) return {};
  return {
      fmt::format("{}: {} is unknown, or contradicts the rest of the file", path.string(), printable(where))};
}

bool names_companion(const TaskResults& task, std::string_view prefix) {
  return std::ranges::any_of(task.companion_hashes, [&](const auto& item) {
    return item.first.starts_with(fmt::format("{}_{}.", prefix, task.name));
  });
}

/// Settings that run.json must hold for these results, and no others.
Fingerprint expected_settings(const Folder& folder) {
  const RunResults& run = folder.run;
  Fingerprint expected{{"weights", run.model.weight_hash},
                       {"tokenizer", run.tokenizer_hash},
                       {"arithmetic", run.model.arithmetic},
                       {"quantization", run.model.quantization_hash},
                       {"protocol", run.protocol},
                       {"prefix", run.prefix_policy},
                       {"max_length", std::to_string(run.max_length)},
                       {"fewshot", "0"},
                       {"seed", std::to_string(run.seed)},
                       {"limit", run.limit},
                       {"version", run.environment.version}};
  if (!run.add_bos_token.empty()) expected["add_bos_token"] = run.add_bos_token;
  expected.merge(run.chat.by_name());
  std::vector<int64_t> examples;
  std::string& tasks = expected["tasks"];
  for (const TaskResults& task : run.tasks) {
    tasks += (tasks.empty() ? "" : ",") + task.name;
    examples.push_back(task.num_fewshot);
    expected["task " + task.name] = task.version;
    expected["split " + task.name] = task.split;
    expected["prompts " + task.name] = task.prompt_hash;
    if (!task.answer_hash.empty()) expected["answers " + task.name] = task.answer_hash;
    expected["data " + task.name] = task.data_hash;
    // Compared with the file of divergences: check_companion().
    const auto base = folder.fingerprint.find("base " + task.name);
    if (base != folder.fingerprint.end()) expected.insert(*base);
    if (folder.fingerprint.contains("logprobs") || names_companion(task, "logprobs"))
      expected["logprobs"] = std::to_string(kKeptTokens);
  }
  if (!examples.empty()) expected["fewshot"] = fewshot_setting(examples);
  if (folder.shard) expected["shard"] = name(folder.shard->shard);
  return expected;
}

/// What run.json must say if the results are of this run.
Differences check_settings(Folder& folder) {
  const fs::path path = folder.path / run_file;
  const std::optional<RunRecord> record = read_run_record(folder.path);
  if (!record) return {fmt::format("{}: is missing", path.string())};
  const Fingerprint& found = folder.fingerprint = record->fingerprint;
  std::string changes = describe_changes(found, expected_settings(folder));
  if (changes.empty() && folder.shard) {
    Fingerprint here = found;
    here.erase("tasks");  // run.json alone has their list
    changes = describe_changes(here, folder.shard->fingerprint);
  }
  if (changes.empty()) return {};
  return {fmt::format("{}: is not of the run of {}: {}", path.string(), folder.record, changes)};
}

/// Files with documents in them that no task of the results claims.
Differences check_strays(const Folder& folder) {
  std::set<std::string> known;
  for (const TaskResults& task : folder.run.tasks) {
    known.insert(samples_file(task.name));
    for (const auto& [name, unused] : task.companion_hashes) known.insert(name);
  }
  std::set<std::string> strays;
  std::error_code code;
  fs::directory_iterator entries(folder.path, code);
  for (; !code && entries != fs::directory_iterator(); entries.increment(code)) {
    const std::string name = entries->path().filename();
    if (is_document_file(name) && !known.contains(name)) strays.insert(name);
  }
  if (code) fail("{}: cannot list the folder: {}", folder.path.string(), code.message());
  Differences out;
  for (const std::string& name : strays) {
    const bool unfinished = name.starts_with("journal_") || name.starts_with("unfinished_");
    out.push_back(fmt::format("{}: {}", (folder.path / name).string(),
                              unfinished ? "unfinished work beside finished results"
                                         : fmt::format("{} names no such file", folder.record)));
  }
  return out;
}

Differences check_companion(const fs::path& path, const std::string& stored, const std::string& task,
                            const std::vector<Scores>& documents, const Fingerprint& settings) {
  {
    const MappedFile file(path);
    const std::string digits = sha256_hex(file.text());
    if (digits != stored) {
      return {fmt::format("{}: its SHA-256 is {}, the results say {}", path.string(), hash_start(digits),
                          hash_start(stored))};
    }
  }
  if (path.filename() != divergence_file(task)) return {};
  const TaskDivergence divergence = read_divergence(path, task);
  const bool same =
      std::ranges::equal(divergence.documents, documents, [](const DocumentDivergence& a, const Scores& b) {
        return a.doc_id == b.doc_id && a.token_hash == b.token_hash;
      });
  if (!same) return {fmt::format("{}: is of other documents than {}", path.string(), samples_file(task))};
  const auto base = settings.find("base " + task);
  if (base == settings.end() || base->second != divergence.base.samples_hash)
    return {fmt::format("{}: was measured from another base than {} names", path.string(), run_file)};
  return {};
}

/// Companions that the run wrote according to its settings, but that its results do not name.
Differences missing_companions(const Folder& folder, const TaskResults& task) {
  Differences out;
  const auto expect = [&](const std::string& setting, const std::string& prefix) {
    if (folder.fingerprint.contains(setting) && !names_companion(task, prefix)) {
      out.push_back(fmt::format(
          "{}: records no hash of its {}_{} file: it was edited, or written before qeval recorded one",
          (folder.path / folder.record).string(), prefix, task.name));
    }
  };
  expect("base " + task.name, "divergence");
  expect("logprobs", "logprobs");
  return out;
}

/// What is NaN or infinite is no score, however well the metrics follow from it.
Differences not_finite(const fs::path& path, const std::vector<Scores>& documents) {
  Differences out;
  for (const Scores& document : documents) {
    for (const Answer& answer : document.answers) {
      if (std::isfinite(answer.log_likelihood)) continue;
      out.push_back(fmt::format("{}: document {}: a log-likelihood is {}: the model computed no score",
                                path.string(), document.doc_id,
                                model::not_finite_text(answer.log_likelihood)));
      break;
    }
  }
  return out;
}

void check_task(const Folder& folder, const TaskResults& task, Checks& checks) {
  const bool is_shard = folder.shard.has_value();
  CheckedSamples samples;
  const fs::path path = folder.path / samples_file(task.name);
  const bool readable = checks.check(
      path, fmt::format("{} documents, every line and the file's hash", task.counts.documents), [&] {
        samples = check_samples(folder.path, task, folder.record);
        Differences found = not_finite(path, samples.documents);
        found.insert(found.end(), samples.differences.begin(), samples.differences.end());
        return found;
      });
  const bool generated =
      !samples.documents.empty() && samples.documents.front().scoring == Scoring::generation;
  if (!generated && !missing_companions(folder, task).empty())
    checks.check(folder.path / folder.record, "", [&] { return missing_companions(folder, task); });
  for (const auto& companion : task.companion_hashes) {
    const std::string &name = companion.first, &hash = companion.second;
    checks.check(folder.path / name, "the file's hash", [&]() -> Differences {
      if (name.find('/') != std::string::npos || !is_document_file(name))
        return {fmt::format("{}: {} is no file of a task", folder.record, printable(name))};
      if (!readable) return {fmt::format("{}: not checked, {} is damaged", name, path.filename().string())};
      return check_companion(folder.path / name, hash, task.name, samples.documents, folder.fingerprint);
    });
  }
  if (!readable) return;
  checks.check(folder.path / folder.record,
               fmt::format("{}: {} follow from the samples", task.name,
                           is_shard ? "the counts" : "metrics, standard errors and counts"),
               [&] {
                 return is_shard ? count_differences(task, samples.documents, folder.record)
                                 : check_metrics(task, samples.documents, folder.run.bootstrap).differences;
               });
}

void verify_run(const fs::path& directory, const char* record, Checks& checks) {
  Folder folder;
  folder.path = directory;
  folder.record = record;
  const fs::path path = directory / record;
  if (!checks.check(path, "its content has the hash it records", [&] { return check_record(folder); }))
    return;  // nothing that it says of the other files can be relied upon
  checks.check(directory / run_file, "settings of the same run", [&] { return check_settings(folder); });
  checks.check(directory, "no samples but those of the results", [&] { return check_strays(folder); });
  for (const TaskResults& task : folder.run.tasks) check_task(folder, task, checks);
  if (!folder.run.groups.empty() && !folder.shard) {
    checks.check(path, "the groups follow from their tasks", [&] { return rederive_groups(folder.run); });
  }
}

/// What an entry says of its run, against what the run's results say.
Differences check_entry(const fs::path& directory, const ComparisonEntry& entry) {
  const fs::path path = directory / entry.results / results_file;
  const ComparisonEntry run = describe_entry(read_results(directory / entry.results).model, path.string());
  Differences out;
  const auto compare = [&](const char* field, const std::string& said, const std::string& is) {
    if (said == is) return;
    out.push_back(fmt::format("{}: {} of {} is \"{}\", {} says \"{}\"", comparison_file, field,
                              printable(entry.name), printable(said), path.string(), printable(is)));
  };
  compare("arithmetic", entry.arithmetic, run.arithmetic);
  if (!entry.model.empty()) return out;  // ready-made: what it is stands in its results alone
  compare("method", entry.method, run.method);
  compare("variant", entry.variant, run.variant);
  compare("scheme", entry.scheme == "float" ? "" : entry.scheme, run.scheme);
  return out;
}

void verify_comparison(const fs::path& directory, Checks& checks) {
  ComparisonFile file;
  const bool readable = checks.check(directory / comparison_file, "names the runs", [&]() -> Differences {
    file = read_comparison_file(directory);
    return {};
  });
  if (!readable) return;
  for (const ComparisonEntry& entry : file.entries) {
    verify_run(directory / entry.results, results_file, checks);
    checks.check(directory / comparison_file,
                 fmt::format("method, scheme and arithmetic of {} are its results'", printable(entry.name)),
                 [&] { return check_entry(directory, entry); });
  }
  if (!checks.passed()) return;  // it would follow from something else
  checks.check(directory / results_file, "the comparison follows from the runs", [&]() -> Differences {
    const fs::path path = directory / results_file;
    const ordered_json stored = parse_ordered_json(read_file(path), path.string());
    const auto read = [&](const ComparisonEntry& entry) {
      const fs::path folder = directory / entry.results;
      return ComparedRun{entry.name, folder, read_results(folder)};
    };
    std::vector<ComparedRun> runs;
    for (const ComparisonEntry& entry : file.entries) {
      if (entry.name != file.base) runs.push_back(read(entry));
    }
    const ordered_json derived = to_json(compare_runs(read(file.base_entry()), std::move(runs)));
    const std::string where = first_difference(stored, derived, "");
    if (where.empty()) return {};
    return {fmt::format("{}: {} is not what the runs give", path.string(), printable(where))};
  });
}

}  // namespace

bool verify(const fs::path& directory, const std::function<void(const Check&)>& report) {
  Checks checks(report);
  if (is_there(directory / comparison_file)) {
    verify_comparison(directory, checks);
  } else if (is_there(directory / results_file)) {
    verify_run(directory, results_file, checks);
  } else if (is_there(directory / shard_file)) {
    verify_run(directory, shard_file, checks);
  } else if (is_there(directory / run_file)) {
    fail("{}: holds an unfinished run: its command with {} continues it", directory.string(),
         setting("resume"));
  } else {
    fail("{}: holds no {}, {} or {}; expected: a folder that qeval eval, compare or merge wrote",
         directory.string(), results_file, comparison_file, shard_file);
  }
  return checks.passed();
}

}  // namespace qeval::eval
