#include "quant/arithmetic/prefix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/json_object.h"
#include "base/setting.h"
#include "model/decoder.h"
#include "quant/arithmetic/integer/integer_arithmetic.h"
#include "quant/arithmetic/integer/model_grids.h"
#include "quant/calibrate/observer.h"

namespace qeval::quant {
namespace {

using model::Tensor;

/// Keeps keys, values and what the head reads, of one row.
class Recorder final : public model::ForwardingArithmetic {
 public:
  Recorder(const model::Arithmetic& inner, Prefix& prefix) : ForwardingArithmetic(inner), prefix_(prefix) {
    prefix_.keys.resize(static_cast<size_t>(inner.layers()));
    prefix_.values.resize(prefix_.keys.size());
  }
  void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                const model::KvBlock& block, int64_t at) const override {
    prefix_.keys[static_cast<size_t>(layer)].assign(k.row<float>(0), k.row<float>(0) + k.cols);
    prefix_.values[static_cast<size_t>(layer)].assign(v.row<float>(0), v.row<float>(0) + v.cols);
    inner().store_kv(layer, k, v, first_row, count, block, at);
  }
  void finish(const Tensor& residual, Tensor& out) const override {
    inner().finish(residual, out);
    prefix_.normed.assign(out.row<float>(0), out.row<float>(0) + out.cols);
  }

 private:
  Prefix& prefix_;
};

Prefix record(const model::Model& model, const model::Arithmetic& arithmetic, int32_t token) {
  Prefix prefix{.token = token, .keys = {}, .values = {}, .normed = {}};
  run_first_tokens(model, Recorder(arithmetic, prefix), std::array{token});
  return prefix;
}

Point key_point(int64_t layer) {
  return {layer, Module::qk_product, Slot::input2};
}
Point value_point(int64_t layer) {
  return {layer, Module::pv_product, Slot::input2};
}

Range range_of(const std::vector<float>& values) {
  const auto [least, most] = std::ranges::minmax(values);
  return {least, most};
}

/// A tensor may be two points: those that round what is kept have its grid as well.
template <typename Body>
void for_each_kept_point(const Prefix& prefix, const model::ModelConfig& config, const Body& body) {
  for (const Point& point : all_points(config)) {
    if (point.slot == Slot::weight || is_after_blocks(point.module)) continue;
    const Point made = made_at(config, point);
    const auto layer = static_cast<size_t>(point.layer);
    if (made == made_at(config, key_point(point.layer))) body(point, prefix.keys[layer]);
    if (made == made_at(config, value_point(point.layer))) body(point, prefix.values[layer]);
  }
}

/// The prefix as the elements of an arithmetic: a row per layer.
struct PrefixRows {
  std::vector<Tensor> keys, values;
  Tensor normed;
};

template <typename Element, typename Convert>
Tensor one_row(const std::vector<float>& values, const Convert& convert) {
  Tensor row;
  row.resize(1, std::ssize(values), sizeof(Element));
  for (size_t i = 0; i < values.size(); ++i) row.row<Element>(0)[i] = convert(values[i]);
  row.first_rows = {0};
  return row;
}

PrefixRows rounded_rows(const Quantization& quantization) {
  const Prefix prefix = rounded_prefix(quantization);
  const auto row = [](const std::vector<float>& values) {
    return one_row<float>(values, [](float x) { return x; });
  };
  PrefixRows rows;
  for (const auto& key : prefix.keys) rows.keys.push_back(row(key));
  for (const auto& value : prefix.values) rows.values.push_back(row(value));
  rows.normed = row(prefix.normed);
  return rows;
}

PrefixRows coded_rows(const Prefix& prefix, const IntegerArithmetic& arithmetic) {
  const auto coded = [](const std::vector<float>& values, const PointGrid& grid) {
    return one_row<int16_t>(values, [&](float x) { return grid.code(x); });
  };
  PrefixRows rows;
  for (size_t layer = 0; layer < prefix.keys.size(); ++layer) {
    const AttentionGrids& grids = arithmetic.first_grids().layers[layer].attention;
    rows.keys.push_back(coded(prefix.keys[layer], grids.k));
    rows.values.push_back(coded(prefix.values[layer], grids.v));
  }
  rows.normed = coded(prefix.normed, arithmetic.grids().normed);
  return rows;
}

/// An arithmetic whose position 0 is a constant: keys, values and what the head reads. The rest of that row
/// is computed and not used.
class PrefixedArithmetic final : public model::ForwardingArithmetic {
 public:
  PrefixedArithmetic(std::unique_ptr<model::Arithmetic> inner, int32_t token, PrefixRows rows,
                     std::string path)
      : ForwardingArithmetic(*inner),
        owned_(std::move(inner)),
        token_(token),
        rows_(std::move(rows)),
        path_(std::move(path)) {}

  void embed(std::span<const int32_t> tokens, const model::RowPositions& rows,
             Tensor& residual) const override {
    for (size_t r = 0; r < tokens.size(); ++r) {
      if (rows.positions[r] != 0 || tokens[r] == token_) continue;
      fail(
          "{}: a sequence begins with token {}, but the checkpoint's prefix is the key and value of token {} "
          "at position 0; accepted: sequences that begin with it ({} always)",
          path_, tokens[r], token_, setting("add-bos-token"));
    }
    inner().embed(tokens, rows, residual);
  }
  void store_kv(int64_t layer, const Tensor& k, const Tensor& v, int64_t first_row, int64_t count,
                const model::KvBlock& block, int64_t at) const override {
    // A segment is a run of one sequence: position 0 is its first row or none. Tokens are stored in order: an
    // arithmetic may clear what comes behind one.
    const bool first = count > 0 && k.is_first(first_row);
    const auto l = static_cast<size_t>(layer);
    if (first) inner().store_kv(layer, rows_.keys[l], rows_.values[l], 0, 1, block, at);
    const int64_t done = first ? 1 : 0;
    inner().store_kv(layer, k, v, first_row + done, count - done, block, at + done);
  }
  void finish(const Tensor& residual, Tensor& out) const override {
    inner().finish(residual, out);
    if (out.rows == 0) return;
    const size_t bytes = rows_.normed.storage.size();
    for (const int64_t r : residual.first_rows)
      std::memcpy(out.storage.data() + static_cast<size_t>(r) * bytes, rows_.normed.storage.data(), bytes);
  }

 private:
  std::unique_ptr<model::Arithmetic> owned_;
  int32_t token_;
  PrefixRows rows_;
  std::string path_;
};

std::vector<float> read_numbers(const JsonObject& fields, std::string_view key, int64_t count) {
  std::vector<float> numbers;
  for (const double number : fields.numbers(key)) {
    if (!(std::abs(number) <= std::numeric_limits<float>::max())) fields.refuse(key, "numbers of 32 bits");
    numbers.push_back(static_cast<float>(number));
  }
  if (std::ssize(numbers) != count) fields.refuse(key, fmt::format("{} numbers", count));
  return numbers;
}

}  // namespace

void require_prefix(const model::ModelConfig& config) {
  for (const model::BlockGraph& block : config.graph.blocks) {
    for (const model::Operation& operation : block.operations) {
      if (!model::is_beyond_dense(operation)) continue;
      fail("{} model: a prefix has no {}; accepted for it: {} {}, {}", config.architecture,
           operation_name(operation), setting("first-token"), "shared", "ranges");
    }
  }
}

Prefix make_prefix(const model::Model& model, int32_t token) {
  require_prefix(model.config);
  return record(model, model::FloatArithmetic(model, 1), token);
}

Prefix make_prefix(const model::Model& model, const QuantConfig& qcfg, int32_t token) {
  require_prefix(model.config);
  QuantConfig weights = qcfg;
  for (const Point& point : all_points(model.config)) {
    if (point.slot != Slot::weight) weights[point] = {};
  }
  return record(model, FakeArithmetic(model, weights, ActRanges(model.config.num_layers), 1), token);
}

FirstToken prefix_grids(const Prefix& prefix, const QuantConfig& qcfg, const model::ModelConfig& config) {
  FirstToken first{qcfg, ActRanges(config.num_layers)};
  for (const Point& point : all_points(config)) {
    if (point.slot != Slot::weight && !is_after_blocks(point.module)) first.qcfg[point] = {};
  }
  for_each_kept_point(prefix, config, [&](const Point& point, const std::vector<float>& values) {
    first.qcfg[point] = qcfg[point];
    if (qcfg[point].enabled()) first.ranges[point] = range_of(values);
  });
  return first;
}

FirstToken prefix_grids_of_integers(const Quantization& quantization, const model::ModelConfig& config) {
  FirstToken first{quantization.qcfg, quantization.ranges};
  const Point end{0, Module::final_norm, Slot::input};
  first.ranges[end] = quantization.known_ranges[end];
  for_each_kept_point(quantization.prefix.value(), config,
                      [&](const Point& point, const std::vector<float>& values) {
                        if (needs_range(quantization.qcfg, point)) first.ranges[point] = range_of(values);
                      });
  return first;
}

Prefix rounded_prefix(const Quantization& quantization) {
  const auto round = [](const QuantConfig& qcfg, const ActRanges& ranges, const Point& point,
                        std::vector<float>& values) {
    if (!qcfg[point].enabled()) return;
    const Grid grid = needs_range(qcfg, point) ? make_grid(qcfg[point], ranges[point].value()) : Grid{};
    fake_quantize_row(qcfg[point], grid, values.data(), std::ssize(values));
  };
  Prefix prefix = quantization.prefix.value();
  const FirstToken& first = quantization.first.value();
  for (size_t layer = 0; layer < prefix.keys.size(); ++layer) {
    const auto l = static_cast<int64_t>(layer);
    round(first.qcfg, first.ranges, key_point(l), prefix.keys[layer]);
    round(first.qcfg, first.ranges, value_point(l), prefix.values[layer]);
  }
  round(quantization.qcfg, quantization.ranges, {0, Module::head, Slot::input}, prefix.normed);
  return prefix;
}

nlohmann::ordered_json prefix_json(const Prefix& prefix) {
  nlohmann::ordered_json json{{"token", prefix.token}, {"layers", nlohmann::ordered_json::array()}};
  for (size_t layer = 0; layer < prefix.keys.size(); ++layer)
    json["layers"].push_back({{"key", prefix.keys[layer]}, {"value", prefix.values[layer]}});
  json["final_norm_output"] = prefix.normed;
  return json;
}

Prefix read_prefix(const std::filesystem::path& file, const model::ModelConfig& config) {
  require_prefix(config);
  const nlohmann::json json = read_json_object(file);
  const JsonObject fields(json, file.string());
  Prefix prefix;
  const int64_t token = fields.count("token");
  if (token >= config.vocab_size) fields.refuse("token", fmt::format("0 to {}", config.vocab_size - 1));
  prefix.token = static_cast<int32_t>(token);
  const nlohmann::json& layers = fields.array("layers");
  if (std::ssize(layers) != config.num_layers)
    fields.refuse("layers", fmt::format("{} of them", config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const model::AttentionOp& op = config.graph.block(layer).attention();
    const JsonObject one(layers[static_cast<size_t>(layer)],
                         fmt::format("{}: layers[{}]", file.string(), layer));
    prefix.keys.push_back(read_numbers(one, "key", op.kv_heads * op.head_dim));
    prefix.values.push_back(read_numbers(one, "value", op.kv_heads * op.value_dim));
  }
  const int64_t width = config.embedding_size != 0 ? config.embedding_size : config.hidden_size;
  prefix.normed = read_numbers(fields, "final_norm_output", width);
  return prefix;
}

std::unique_ptr<model::Arithmetic> make_fake_arithmetic(const model::Model& model,
                                                        const Quantization& quantization,
                                                        int64_t max_positions) {
  auto fake = std::make_unique<FakeArithmetic>(model, quantization.qcfg, quantization.ranges, max_positions,
                                               quantization.first);
  if (!quantization.prefix) return fake;
  return std::make_unique<PrefixedArithmetic>(std::move(fake), quantization.prefix->token,
                                              rounded_rows(quantization), model.path.string());
}

std::unique_ptr<model::Arithmetic> make_integer_arithmetic(const model::Model& model,
                                                           const Quantization& quantization,
                                                           int64_t max_positions) {
  std::optional<FirstToken> first = quantization.first;
  if (quantization.prefix) first = prefix_grids_of_integers(quantization, model.config);
  auto integer = std::make_unique<IntegerArithmetic>(model, quantization.qcfg, quantization.known_ranges,
                                                     max_positions, kStreamGuardBits, first);
  if (!quantization.prefix) return integer;
  PrefixRows rows = coded_rows(*quantization.prefix, *integer);
  return std::make_unique<PrefixedArithmetic>(std::move(integer), quantization.prefix->token, std::move(rows),
                                              model.path.string());
}

}  // namespace qeval::quant
