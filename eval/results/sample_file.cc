#include "eval/results/sample_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/unicode.h"

namespace qeval::eval {
namespace {

std::string file_of_task(std::string_view prefix, std::string_view task) {
  const bool plain =
      !task.empty() && task.size() <= 200 && find_invalid_utf8(task) == std::string_view::npos &&
      std::ranges::none_of(task, [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20; });
  if (!plain)
    fail("task name \"{}\" cannot be part of a file name: 1 to 200 bytes without slashes expected",
         printable(task));
  return fmt::format("{}_{}.jsonl", prefix, task);
}

}  // namespace

std::string samples_file(std::string_view task) {
  return file_of_task("samples", task);
}
std::string journal_file(std::string_view task) {
  return file_of_task("journal", task);
}

uint64_t for_each_sample(const std::filesystem::path& path, Tail tail,
                         const std::function<void(SampleLine&&)>& visit) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  size_t begin = 0;
  for (int64_t number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    std::string where = fmt::format("{}:{}", path.string(), number);
    if (end == std::string_view::npos) {
      if (tail == Tail::refuse) fail("{}: the last line is incomplete", where);
      break;
    }
    const std::string_view line = text.substr(begin, end - begin);
    Sample sample = parse_line(line, where);
    visit({std::move(sample), line, std::move(where)});
    begin = end + 1;
  }
  return begin;
}

std::vector<Scores> read_scores(const std::filesystem::path& path) {
  std::vector<Scores> out;
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) {
    if (!out.empty() && line.sample.scores.doc_id <= out.back().doc_id) {
      fail("{}: document {} follows document {}: ascending order expected", line.where,
           line.sample.scores.doc_id, out.back().doc_id);
    }
    out.push_back(std::move(line.sample.scores));
  });
  return out;
}

std::vector<Sample> read_samples(const std::filesystem::path& path) {
  std::vector<Sample> out;
  for_each_sample(path, Tail::refuse, [&](SampleLine&& line) { out.push_back(std::move(line.sample)); });
  return out;
}

}  // namespace qeval::eval
