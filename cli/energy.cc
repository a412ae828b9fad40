#include "cli/energy.h"

#include <algorithm>
#include <fstream>

namespace qeval::cli {
namespace {

/// The number that a file of the kernel's holds; −1 where it cannot be read.
int64_t read_number(const std::filesystem::path& file) {
  std::ifstream stream(file);
  int64_t number = -1;
  stream >> number;
  return stream ? number : -1;
}

std::string read_line(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

}  // namespace

EnergyCounters::EnergyCounters(const std::filesystem::path& powercap) {
  std::error_code code;
  bool found = false;
  std::vector<std::filesystem::path> zones;
  for (const auto& entry : std::filesystem::directory_iterator(powercap, code)) zones.push_back(entry.path());
  std::ranges::sort(zones);
  for (const std::filesystem::path& zone : zones) {
    // Packages only: their parts (core, dram) are counted in them, or are not on every machine.
    if (!read_line(zone / "name").starts_with("package")) continue;
    found = true;
    const int64_t range = read_number(zone / "max_energy_range_uj");
    if (range > 0 && read_number(zone / "energy_uj") >= 0) packages_.push_back({zone / "energy_uj", range});
  }
  if (packages_.empty()) {
    reason_ = found ? powercap.string() + ": the energy counters can be read by root only"
                    : powercap.string() + ": this machine shows no energy counters (RAPL)";
  }
}

EnergyCounters::Reading EnergyCounters::now() const {
  Reading reading;
  for (const Package& package : packages_) reading.microjoules.push_back(read_number(package.counter));
  return reading;
}

std::optional<double> EnergyCounters::joules(const Reading& begin, const Reading& end) const {
  if (packages_.empty()) return std::nullopt;
  int64_t total = 0;
  for (size_t i = 0; i < packages_.size(); ++i) {
    if (begin.microjoules[i] < 0 || end.microjoules[i] < 0) return std::nullopt;
    const int64_t difference = end.microjoules[i] - begin.microjoules[i];
    total += difference >= 0 ? difference : difference + packages_[i].range;
  }
  return static_cast<double>(total) * 1e-6;
}

}  // namespace qeval::cli
