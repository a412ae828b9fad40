#include "datasets/locate.h"

#include <array>
#include <vector>

#include "base/error.h"
#include "base/setting.h"

namespace qeval::datasets {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kSplits = {"test", "validation", "dev", "train"};

std::vector<std::string> spellings(std::string_view split, bool dev_is_other) {
  std::vector<std::string> out = {std::string(split)};
  if (split == "validation" || split == "valid" || split == "val") {
    for (const char* other : {"validation", "valid", "val"}) {
      if (split != other) out.emplace_back(other);
    }
    if (!dev_is_other) out.emplace_back("dev");
  } else if (split == "train") {
    out.emplace_back("train_xl");
  }
  return out;
}

std::string fill(std::string pattern, std::string split) {
  const auto replace = [&](std::string_view what) {
    for (size_t at = 0; (at = pattern.find(what, at)) != std::string::npos; at += split.size()) {
      pattern.replace(at, what.size(), split);
    }
  };
  replace("{split}");
  if (!split.empty() && split[0] >= 'a' && split[0] <= 'z')
    split[0] = static_cast<char>(split[0] - 'a' + 'A');
  replace("{Split}");
  return pattern;
}

}  // namespace

fs::path path_of_split(const fs::path& data, const std::string& pattern, std::string_view split) {
  return data / fill(pattern, std::string(split));
}

fs::path find_split(const fs::path& data, std::span<const std::string> patterns, std::string_view split,
                    bool dev_is_other) {
  for (const std::string& pattern : patterns) {
    for (const std::string& name : spellings(split, dev_is_other)) {
      fs::path path = path_of_split(data, pattern, name);
      std::error_code ignored;
      if (fs::exists(path, ignored)) return path;
    }
  }
  return {};
}

fs::path locate_split(const fs::path& data, std::span<const std::string> patterns, std::string_view split,
                      bool dev_is_other) {
  fs::path found = find_split(data, patterns, split, dev_is_other);
  if (!found.empty()) return found;
  const std::string tried = printable(path_of_split(data, patterns.front(), split).string(), 4096);
  for (const std::string_view other : kSplits) {
    if (other == split) continue;
    const fs::path there = find_split(data, patterns, other, dev_is_other);
    if (!there.empty()) {
      fail("{}: not found; {} {} would read {}", tried, setting("split"), other,
           printable(there.string(), 4096));
    }
  }
  fail(
      "{}: not found; -d names the folder above those of the tasks, which scripts/fetch_datasets.py fills "
      "(docs/data.md)",
      tried);
}

fs::path locate_labels(const fs::path& rows) {
  fs::path labels = rows.parent_path() / (rows.stem().string() + "-labels.lst");
  std::error_code ignored;
  return fs::exists(labels, ignored) ? labels : fs::path();
}

}  // namespace qeval::datasets
