// Feeds stored inputs to the targets, for builds without libFuzzer: each CORPUS holds a folder of files per
// target. Says how many there were; a defect ends it, the input that shows it being the last one named.
#include <algorithm>
#include <iostream>
#include <vector>

#include "base/file.h"
#include "tests/fuzz/targets.h"

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr
        << "usage: fuzz_replay_models|fuzz_replay_runs CORPUS…, with a folder of inputs per target in each\n";
    return 2;
  }
  for (const auto& target : qeval::fuzz::targets()) {
    std::vector<fs::path> files;
    for (const char* corpus : std::span(argv + 1, static_cast<size_t>(argc - 1))) {
      const std::vector<fs::path> more = files_in(fs::path(corpus) / target.name);
      files.insert(files.end(), more.begin(), more.end());
    }
    if (files.empty()) {
      std::cerr << "FAIL fuzz " << target.name << ": no inputs\n";
      return 1;
    }
    for (const fs::path& file : files) {
      const std::string bytes = qeval::read_file(file);
      std::cerr << file.string() << std::endl;
      target.run(std::as_bytes(std::span(bytes)));
    }
    std::cout << "ok   fuzz " << target.name << ": " << files.size() << " inputs" << std::endl;
  }
}
