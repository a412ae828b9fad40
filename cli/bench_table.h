#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/latency.h"

namespace qeval::cli {

/// All that `qeval bench` says.
struct BenchReport {
  std::string model, machine;
  LatencySettings settings;
  std::string energy_note;  ///< why there is no energy; empty where there is
  struct Row {
    std::string scheme, arithmetic;
    Latency latency;
    int64_t in_place_bytes;  ///< weights read from the mapped file
  };
  std::vector<Row> rows;
};

/// Tables of prompt, generation and memory, and under them the figures that the paper gives for a phone.
std::string to_text(const BenchReport& report);

nlohmann::ordered_json to_json(const BenchReport& report);

}  // namespace qeval::cli
