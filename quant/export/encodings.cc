#include "quant/export/encodings.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/setting.h"
#include "quant/export/weight_codes.h"
#include "quant/grid/stored_codes.h"

namespace qeval::quant {
namespace {

using nlohmann::ordered_json;

/// Layout of the file, as tool-chains number it.
constexpr const char* kLayoutVersion = "0.6.1";

/// `lowest`: the grid's smallest value in steps, q_min − zero_point.
ordered_json encoding(const QuantSpec& spec, float scale, int64_t lowest) {
  const int64_t highest = lowest + (int64_t{1} << spec.bits) - 1;
  return {{"bitwidth", spec.bits},
          {"dtype", "int"},
          {"is_symmetric", spec.symmetric ? "True" : "False"},
          {"min", static_cast<double>(lowest) * static_cast<double>(scale)},
          {"max", static_cast<double>(highest) * static_cast<double>(scale)},
          {"offset", lowest},
          {"scale", static_cast<double>(scale)}};
}

ordered_json encoding(const QuantSpec& spec, const Grid& grid) {
  return encoding(spec, grid.scale, int64_t{grid.q_min} - grid.zero_point);
}

ordered_json matrix_encodings(const std::string& name, const model::Matrix& matrix, const QuantSpec& spec) {
  if (spec.group_size > 0) {
    fail(
        "{}: quantized in groups of {} inputs, which encodings cannot say; accepted: per tensor or per "
        "channel",
        name, spec.group_size);
  }
  const QuantizedMatrix quantized = quantized_weight(matrix, spec);
  ordered_json list = ordered_json::array();
  // Zero points are stored less 2^(bits−1) on asymmetric grids (quantized_matrix.h); so is q_min then.
  const int64_t q_min = -(int64_t{1} << (spec.bits - 1));
  for (size_t i = 0; i < quantized.scales.size(); ++i) {
    list.push_back(encoding(spec, quantized.scales[i], q_min - quantized.zero_points[i]));
  }
  return list;
}

}  // namespace

void write_encodings(const model::Model& model, const Quantization& quantization, const std::string& version,
                     const std::filesystem::path& file) {
  if (quantization.first) {
    fail(
        "{}: position 0 has {} of its own, which encodings have no place for; accepted: a checkpoint "
        "that "
        "shares them ({} shared), or ONNX",
        model.path.string(), quantization.prefix ? "keys and values" : "ranges", setting("first-token"));
  }
  ordered_json activations = ordered_json::object();
  ordered_json parameters = ordered_json::object();
  for (const Point& point : all_points(model.config)) {
    const QuantSpec& spec = quantization.qcfg[point];
    if (!spec.enabled()) continue;
    const std::string name = point_name(point);
    if (point.slot != Slot::weight) {
      const Grid grid = make_grid(spec, quantization.ranges[point].value());
      activations[name] = ordered_json::array({encoding(spec, grid)});
    } else if (is_norm(point.module)) {
      const model::NormWeights& norm = model.norm(point.layer, point.module);
      parameters[name] = ordered_json::array({encoding(spec, norm_grid(name, norm.weight, spec))});
    } else {
      const model::Matrix& matrix =
          point.module == Module::head
              ? model.head.weight
              : model.layers[static_cast<size_t>(point.layer)].linear(point.module).weight;
      parameters[name] = matrix_encodings(name, matrix, spec);
    }
  }
  const ordered_json content{{"version", kLayoutVersion},
                             {"producer", "qeval " + version},
                             {"activation_encodings", std::move(activations)},
                             {"param_encodings", std::move(parameters)}};
  write_file_atomically(file, content.dump(1) + "\n");
}

}  // namespace qeval::quant
