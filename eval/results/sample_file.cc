#include "eval/results/sample_file.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/parallel.h"
#include "base/unicode.h"

namespace qeval::eval {

std::string file_of_task(std::string_view prefix, std::string_view task, std::string_view extension) {
  const bool plain =
      !task.empty() && task.size() <= 200 && find_invalid_utf8(task) == std::string_view::npos &&
      std::ranges::none_of(task, [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20; });
  if (!plain)
    fail("task name \"{}\" cannot be part of a file name: 1 to 200 bytes without slashes expected",
         printable(task));
  return fmt::format("{}_{}{}", prefix, task, extension);
}

std::string samples_file(std::string_view task) {
  return file_of_task("samples", task, ".jsonl");
}
std::string journal_file(std::string_view task) {
  return file_of_task("journal", task, ".jsonl");
}

uint64_t for_each_line(std::string_view text, const std::string& file, Tail tail,
                       const std::function<void(const TextLine&)>& visit) {
  size_t begin = 0;
  for (int64_t number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    std::string where = fmt::format("{}:{}", file, number);
    if (end == std::string_view::npos) {
      if (tail == Tail::refuse) fail("{}: the last line is incomplete", where);
      break;
    }
    visit({number, text.substr(begin, end - begin), std::move(where)});
    begin = end + 1;
  }
  return begin;
}

uint64_t for_each_sample(const std::filesystem::path& path, Tail tail,
                         const std::function<void(SampleLine&&)>& visit) {
  // Parsing takes the time of a report over many runs: some lines at once, visited in their order.
  constexpr size_t kTogether = 512;
  const MappedFile file(path);
  std::vector<TextLine> lines;
  std::vector<Sample> parsed;
  std::vector<std::exception_ptr> errors;
  const auto parse_and_visit = [&] {
    parsed.assign(lines.size(), {});
    errors.assign(lines.size(), nullptr);
    parallel_ranges(std::ssize(lines), 16, [&](int64_t first, int64_t last) {
      for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
        try {
          parsed[i] = parse_line(lines[i].text, lines[i].where);
        } catch (...) {
          errors[i] = std::current_exception();  // the first line's counts, whichever thread was faster
        }
      }
    });
    for (size_t i = 0; i < lines.size(); ++i) {
      if (errors[i]) std::rethrow_exception(errors[i]);
      visit({std::move(parsed[i]), lines[i].text, std::move(lines[i].where)});
    }
    lines.clear();
  };
  const uint64_t end = for_each_line(file.text(), path.string(), tail, [&](const TextLine& line) {
    lines.push_back(line);
    if (lines.size() == kTogether) parse_and_visit();
  });
  parse_and_visit();
  return end;
}

std::vector<Scores> read_scores(const std::filesystem::path& path, std::string_view sha256) {
  std::vector<Scores> out;
  Sha256 hash;
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) {
    if (!sha256.empty()) hash.update(line.text).update("\n");
    if (!out.empty() && line.sample.scores.doc_id <= out.back().doc_id) {
      fail("{}: document {} follows document {}: ascending order expected", line.where,
           line.sample.scores.doc_id, out.back().doc_id);
    }
    out.push_back(std::move(line.sample.scores));
  });
  if (!sha256.empty() && hash.hex() != sha256) {
    fail("{}: is not the file that results.json beside it describes (its SHA-256 differs)", path.string());
  }
  return out;
}

std::vector<Sample> read_samples(const std::filesystem::path& path) {
  std::vector<Sample> out;
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) { out.push_back(std::move(line.sample)); });
  return out;
}

}  // namespace qeval::eval
