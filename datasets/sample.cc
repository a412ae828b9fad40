#include "datasets/sample.h"

#include <algorithm>

#include "base/error.h"
#include "datasets/sample_files.h"

namespace qeval::datasets {
namespace {

constexpr std::string_view kPlace = "{split}";

/// "test, train": what stands for the split in the names of the files there are.
std::string splits(std::span<const std::string> patterns) {
  std::string out;
  for (const std::string& pattern : patterns) {
    const size_t at = pattern.find(kPlace);
    if (at == std::string::npos) continue;
    const std::string_view front = std::string_view(pattern).substr(0, at),
                           back = std::string_view(pattern).substr(at + kPlace.size());
    for (const SampleFile& file : sample_files()) {
      if (!file.path.starts_with(front) || !file.path.ends_with(back)) continue;
      const auto split = file.path.substr(at, file.path.size() - front.size() - back.size());
      out += fmt::format("{}{}", out.empty() ? "" : ", ", split);
    }
  }
  return out;
}

}  // namespace

DataText shipped_sample(std::span<const std::string> patterns, std::string_view split) {
  std::string tried;
  for (std::string path : patterns) {
    if (const size_t at = path.find(kPlace); at != std::string::npos) path.replace(at, kPlace.size(), split);
    for (const SampleFile& file : sample_files()) {
      if (file.path == path) return {path + " (shipped)", std::string(file.text)};
    }
    if (tried.empty()) tried = path;
  }
  fail("{} (shipped): there is no such split; accepted: {}", printable(tried), splits(patterns));
}

std::vector<Json> shipped_definition(std::string_view name) {
  const std::string path = fmt::format("{}.jsonl", name);
  std::vector<Json> out;
  for (const SampleFile& file : definitions_files()) {
    if (file.path != path) continue;
    for (size_t begin = 0; begin < file.text.size();) {
      const size_t end = std::min(file.text.find('\n', begin), file.text.size());
      out.push_back(Json::parse(file.text.substr(begin, end - begin)));
      begin = end + 1;
    }
    return out;
  }
  fail("{} (shipped): there is no such file", printable(path));
}

}  // namespace qeval::datasets
