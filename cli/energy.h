#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace qeval::cli {

/// The energy counters of the processor's packages (RAPL), as the kernel shows them below
/// /sys/class/powercap.
class EnergyCounters {
 public:
  explicit EnergyCounters(const std::filesystem::path& powercap = "/sys/class/powercap");

  bool available() const { return !packages_.empty(); }
  /// Why there are none, for people.
  const std::string& reason() const { return reason_; }

  /// Sum over packages, each counter's µJ; a point in time for since().
  struct Reading {
    std::vector<int64_t> microjoules;
  };
  Reading now() const;
  /// Joules between two readings, counters that began anew in between included (once). Nothing where a
  /// counter can no longer be read.
  std::optional<double> joules(const Reading& begin, const Reading& end) const;

 private:
  struct Package {
    std::filesystem::path counter;
    int64_t range;  ///< the counter begins anew after this
  };
  std::vector<Package> packages_;
  std::string reason_;
};

}  // namespace qeval::cli
