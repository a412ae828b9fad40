#include "cli/latency.h"

#include <algorithm>
#include <chrono>
#include <random>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/memory.h"
#include "eval/engine/generation.h"

namespace qeval::cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

template <typename Body>
double seconds(const Body& body) {
  const Clock::time_point start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<int32_t> made_up_ids(int64_t count, int64_t vocab_size) {
  std::mt19937_64 random(20240823);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

ordered_json spread_json(const Spread& s) {
  return {
      {"median_ms", 1e3 * s.median}, {"min_ms", 1e3 * s.least}, {"max_ms", 1e3 * s.most}, {"count", s.count}};
}

Spread spread_from_json(const ordered_json& json) {
  return {json.at("median_ms").get<double>() / 1e3, json.at("min_ms").get<double>() / 1e3,
          json.at("max_ms").get<double>() / 1e3, json.at("count")};
}

ordered_json optional_number(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

std::optional<double> optional_number(const ordered_json& value) {
  if (value.is_null()) return std::nullopt;
  return value.get<double>();
}

}  // namespace

Spread spread(std::vector<double> values) {
  Spread out{.count = std::ssize(values)};
  if (values.empty()) return out;
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  out.median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  out.least = values.front();
  out.most = values.back();
  return out;
}

Latency measure_latency(model::Decoder& decoder, const LatencySettings& settings,
                        const EnergyCounters& energy) {
  Latency result;
  const int64_t longest = settings.contexts.empty() ? 0 : settings.contexts.back();
  std::vector<int32_t> ids =
      made_up_ids(std::max(settings.prompt, longest), decoder.model().config.vocab_size);
  if (settings.start && !ids.empty()) ids.front() = *settings.start;

  std::vector<double> times;
  EnergyCounters::Reading before = energy.now();
  for (int64_t i = 0; i < settings.warmup + settings.repeat; ++i) {
    eval::Generator generator(decoder, settings.prompt);
    if (i == settings.warmup) before = energy.now();
    const double time =
        seconds([&] { generator.extend(std::span(ids).first(static_cast<size_t>(settings.prompt))); });
    if (i >= settings.warmup) times.push_back(time);
  }
  const auto per_run = [&](std::optional<double> joules, int64_t runs) {
    if (joules) *joules /= static_cast<double>(runs);
    return joules;
  };
  result.prompt_joules = per_run(energy.joules(before, energy.now()), settings.repeat);
  result.prompt = spread(std::move(times));

  if (longest > 0) {
    eval::Generator generator(decoder, longest);
    for (const int64_t context : settings.contexts) {
      const int64_t timed_from = context - settings.generate;
      const int64_t warm_from = std::max(generator.length(), timed_from - settings.warmup);
      const auto next = [&](std::span<const float>) -> std::optional<int32_t> {
        if (generator.length() == timed_from) before = energy.now();
        if (generator.length() == context) return {};
        return ids[static_cast<size_t>(generator.length())];
      };
      const auto before_first = std::span(ids).subspan(static_cast<size_t>(generator.length()),
                                                       static_cast<size_t>(warm_from - generator.length()));
      std::vector<double> tokens = eval::generate(generator, before_first, settings.prompt, next).passes;
      tokens.erase(tokens.begin(), tokens.end() - std::min(settings.generate, std::ssize(tokens)));
      const auto joules = per_run(energy.joules(before, energy.now()), settings.generate);
      result.generation.push_back({context, spread(std::move(tokens)), joules});
    }
    result.kv_bytes = generator.kv_bytes();
    result.memory_bytes = own_memory();
  } else {
    result.memory_bytes = own_memory();
  }
  return result;
}

ordered_json to_json(const Latency& latency) {
  ordered_json generation = ordered_json::array();
  for (const Latency::Generation& g : latency.generation) {
    generation.push_back({{"context", g.context},
                          {"token", spread_json(g.token)},
                          {"token_joules", optional_number(g.token_joules)}});
  }
  return {{"prompt", spread_json(latency.prompt)},
          {"prompt_joules", optional_number(latency.prompt_joules)},
          {"generation", std::move(generation)},
          {"memory_bytes", latency.memory_bytes},
          {"kv_bytes", latency.kv_bytes}};
}

Latency latency_from_json(const ordered_json& json) {
  Latency latency{.prompt = spread_from_json(json.at("prompt")),
                  .generation = {},
                  .prompt_joules = optional_number(json.at("prompt_joules")),
                  .memory_bytes = json.at("memory_bytes"),
                  .kv_bytes = json.at("kv_bytes")};
  for (const ordered_json& g : json.at("generation")) {
    latency.generation.push_back(
        {g.at("context"), spread_from_json(g.at("token")), optional_number(g.at("token_joules"))});
  }
  return latency;
}

}  // namespace qeval::cli
