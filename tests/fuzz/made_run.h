#pragma once

#include <string>
#include <string_view>

#include "base/json_object.h"
#include "base/strict_json.h"
#include "eval/results/checked_line.h"
#include "eval/results/results.h"
#include "eval/results/sample_file.h"
#include "tests/fuzz/support.h"

namespace qeval::fuzz {

/// Lines of JSON with the checksum that belongs to each, as a run writes them: without it nothing behind the
/// checksum would ever be reached. What is no JSON object stays as it is.
inline std::string with_checksums(std::string_view lines) {
  std::string out;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    try {
      auto object = parse_ordered_json(line, "line");
      if (object.is_object()) object.erase("checksum");
      out += object.is_object() ? eval::checked_line(object, "line") : std::string(line);
    } catch (const Error&) {
      out += line;
    }
    out += '\n';
  }
  return out;
}

/// Writes a result folder: results.json, and these samples for its first task. The number of resamples is
/// held down, which only costs time. False where results.json cannot be read.
inline bool write_run(const std::string& folder, std::string_view results, std::string_view samples) {
  constexpr int kMostResamples = 20;
  scratch().write(folder + "/results.json", results);
  return accepted([&] {
    eval::RunResults run = eval::read_results(scratch() / folder);
    if (run.bootstrap.resamples > kMostResamples) {
      run.bootstrap.resamples = kMostResamples;
      eval::write_results(scratch() / folder, run);
    }
    for (const eval::TaskResults& task : run.tasks)
      scratch().write(folder + "/" + eval::samples_file(task.name), with_checksums(samples));
  });
}

}  // namespace qeval::fuzz
