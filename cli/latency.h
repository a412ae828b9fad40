#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/energy.h"
#include "model/decoder.h"

namespace qeval::cli {

/// What is measured, and how often.
struct LatencySettings {
  int64_t prompt = 256;            ///< tokens
  std::vector<int64_t> contexts;   ///< ascending; generation ends at each of these lengths
  int64_t generate = 16;           ///< tokens timed at each of them
  int64_t repeat = 5;              ///< prompts timed
  std::optional<int32_t> start{};  ///< the token that sequences begin with, where it matters
  int64_t warmup = 1;              ///< prompts before, and tokens before each context's
  std::filesystem::path powercap;  ///< where the energy counters are
};

/// Times of one kind, in seconds.
struct Spread {
  double median = 0, least = 0, most = 0;
  int64_t count = 0;
};
Spread spread(std::vector<double> seconds);

struct Latency {
  Spread prompt;  ///< a whole prompt, to the logits of the next token
  struct Generation {
    int64_t context;
    Spread token;  ///< one token, to the logits of the next
    std::optional<double> token_joules{};
  };
  std::vector<Generation> generation;
  std::optional<double> prompt_joules{};
  int64_t memory_bytes = 0;  ///< of the process, with keys and values of the longest context; files apart
  int64_t kv_bytes = 0;
};

/// Measures on token ids made up from a fixed seed: speed does not depend on them.
Latency measure_latency(model::Decoder& decoder, const LatencySettings& settings,
                        const EnergyCounters& energy);

nlohmann::ordered_json to_json(const Latency& latency);
Latency latency_from_json(const nlohmann::ordered_json& json);

}  // namespace qeval::cli
