// What a checkpoint, or files beside it, say about rounding.

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "quant/arithmetic/fake_arithmetic.h"
#include "quant/arithmetic/prefix.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {

bool is_quantized_checkpoint(const std::filesystem::path& path) {
  std::error_code code;
  return std::filesystem::exists(path / "act_dict.json", code) &&
         std::filesystem::exists(path / "default_qcfg.json", code);
}

std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config, const std::optional<FirstToken>& first) {
  ActRanges used = complete_ranges(qcfg, known, config, "the ranges");
  const Point end{0, Module::final_norm, Slot::input};
  used[end] = known[end];
  if (!first) return sha256_hex(qcfg_json(qcfg, config).dump() + act_ranges_json(used, config).dump());
  ActRanges used_first = complete_ranges(first->qcfg, first->ranges, config, "the ranges of position 0");
  used_first[end] = first->ranges[end];
  return sha256_hex(qcfg_json(qcfg, config, &first->qcfg).dump() +
                    act_ranges_json(used, config, &used_first).dump());
}

std::string quantization_hash(const QuantConfig& qcfg, const ActRanges& known,
                              const model::ModelConfig& config, const Prefix& prefix) {
  return sha256_hex(quantization_hash(qcfg, known, config) + prefix_json(prefix).dump());
}

namespace {

/// The prefix of a checkpoint. One that was made with a prefix is nothing without it.
std::optional<Prefix> load_prefix(const model::Model& model) {
  const std::filesystem::path file = model.path / kPrefixFile;
  std::error_code code;
  if (std::filesystem::exists(file, code)) return read_prefix(file, model.config);
  const std::filesystem::path record = model.path / "quantize.json";
  if (!std::filesystem::exists(record, code)) return std::nullopt;
  const nlohmann::json json = read_json_object(record);
  const nlohmann::json* settings = find_field(json, "settings");
  const nlohmann::json* mode = settings == nullptr ? nullptr : find_field(*settings, "first_token");
  if (mode != nullptr && *mode == "prefix")
    fail("{}: quantized with a prefix, but {} is missing", model.path.string(), kPrefixFile);
  return std::nullopt;
}

/// A checkpoint's codes are what its configuration asks for: any other would be a second rounding.
void check_stored_codes(const model::Model& model, const QuantConfig& qcfg,
                        const std::filesystem::path& file) {
  if (!is_quantized_checkpoint(model.path)) return;
  for (const Point& point : all_points(model.config)) {
    if (point.slot != Slot::weight || is_norm(point.module)) continue;
    const bool head = point.module == Module::head;
    // A tied head has the codes of the embedding, which is no point.
    if (head && model.config.tie_word_embeddings) continue;
    std::vector<const model::LinearWeights*> maps{&model.head};
    if (!head) maps = model.layers[static_cast<size_t>(point.layer)].all(point.module);
    for (const model::LinearWeights* map : maps) {
      const model::Matrix& matrix = map->weight;
      if (matrix.stored.coded() == nullptr || is_stored_as(matrix, qcfg[point])) continue;
      fail("{}: {} is {}, but {} stores it as {}; accepted: what is stored", file.string(), point_name(point),
           describe(qcfg[point]), model.path.string(), matrix.stored.format());
    }
  }
}

}  // namespace

Quantization load_quantization(const model::Model& model, const std::optional<std::filesystem::path>& qcfg,
                               const std::optional<std::filesystem::path>& act_ranges) {
  std::error_code code;
  const std::filesystem::path own_qcfg = model.path / "default_qcfg.json";
  const std::filesystem::path own_ranges = model.path / "act_dict.json";
  if (!qcfg && !std::filesystem::exists(own_qcfg, code)) {
    fail(
        "{}: no default_qcfg.json, which says how the fake-quantized model computes; make a checkpoint with "
        "`qeval quantize`, or give {}",
        model.path.string(), setting("qcfg"));
  }
  Quantization result;
  result.qcfg = read_qcfg(qcfg ? *qcfg : own_qcfg, model.config);
  check_stored_codes(model, result.qcfg, qcfg ? *qcfg : own_qcfg);
  if (act_ranges || std::filesystem::exists(own_ranges, code)) {
    const std::filesystem::path& file = act_ranges ? *act_ranges : own_ranges;
    result.known_ranges = read_act_ranges(file, model.config);
    result.ranges = complete_ranges(result.qcfg, result.known_ranges, model.config, file.string());
  } else {  // weight-only schemes need none
    result.known_ranges = ActRanges(model.config.num_layers);
    result.ranges = complete_ranges(
        result.qcfg, result.known_ranges, model.config,
        fmt::format("{}: no act_dict.json and no {}", model.path.string(), setting("act-ranges")));
  }
  const std::filesystem::path& qcfg_file = qcfg ? *qcfg : own_qcfg;
  result.prefix = load_prefix(model);
  if (result.prefix) {
    result.first = prefix_grids(*result.prefix, result.qcfg, model.config);
    result.hash = quantization_hash(result.qcfg, result.known_ranges, model.config, *result.prefix);
    return result;
  }
  if (std::optional<QuantConfig> first = read_first_qcfg(qcfg_file, result.qcfg, model.config)) {
    const std::filesystem::path& ranges_file = act_ranges ? *act_ranges : own_ranges;
    ActRanges known = read_first_ranges(ranges_file, model.config);
    const Point end{0, Module::final_norm, Slot::input};
    ActRanges ranges = complete_ranges(*first, known, model.config, ranges_file.string() + ": position 0");
    ranges[end] = known[end];
    result.first = FirstToken{std::move(*first), std::move(ranges)};
  }
  result.hash = quantization_hash(result.qcfg, result.known_ranges, model.config, result.first);
  return result;
}

}  // namespace qeval::quant
