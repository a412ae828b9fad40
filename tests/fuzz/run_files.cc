#include "eval/distributed/shard_record.h"
#include "eval/kept_distributions.h"
#include "eval/results/comparison_file.h"
#include "eval/results/divergence.h"
#include "eval/results/run_directory.h"
#include "tests/fuzz/made_run.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {
namespace {

void read_kept(const std::filesystem::path& file) {
  constexpr int64_t kVocabulary = 61;
  const eval::KeptDistributions kept(file, "task", kVocabulary);
  for (const int64_t document : {0, 1, 2}) {
    if (!kept.token_hash(document)) continue;
    accepted([&] {
      const eval::KeptDocument read = kept.read(document);
      if (kept.token_hash(document) != read.token_hash) defect("two token hashes", read.token_hash);
      (void)eval::kept_record(read);
    });
  }
}

}  // namespace

void run_files(Input input) {
  const std::string_view text = text_of(input);
  scratch().write("run/compare.json", text);
  accepted([&] {
    for (const auto& entry : eval::read_comparison_file(scratch() / "run").entries) {
      const std::filesystem::path folder = std::filesystem::path(entry.results).lexically_normal();
      if (folder.is_absolute() || *folder.begin() == "..") defect("a folder leads elsewhere", entry.results);
    }
  });
  scratch().write("run/shard.json", text);
  accepted([&] {
    const eval::ShardRecord record = eval::read_shard_record(scratch() / "run");
    eval::write_shard_record(scratch() / "run", record);
    (void)eval::read_shard_record(scratch() / "run");
  });
  scratch().write("run/run.json", text);
  accepted([&] {
    if (const auto record = eval::read_run_record(scratch() / "run"))
      eval::write_run_record(scratch() / "run", *record);
  });
  const auto kept = scratch().write("run/logprobs_task.bin", text);
  accepted([&] { read_kept(kept); });
  const std::string lines = with_checksums(text);
  scratch().write("run/divergence_task.jsonl", lines);
  accepted([&] {
    eval::for_each_line(lines, "divergence", eval::Tail::drop, [](const eval::TextLine& line) {
      accepted([&] { (void)eval::parse_divergence_line(line.text, line.where); });
    });
  });
  accepted([&] { (void)eval::read_divergence(scratch() / "run/divergence_task.jsonl", "task"); });
}

}  // namespace qeval::fuzz
