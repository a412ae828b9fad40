#include "quant/export/weight_codes.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace qeval::quant {
namespace {

constexpr int64_t kDecodedRows = 256;

/// Codes [rows, cols] less `zero` of their grid if asked, written as [cols, rows] of type Out.
template <typename In, typename Out>
void write_transposed(TensorFile& file, const QuantizedMatrix& matrix, bool subtract) {
  const In* codes = matrix.codes.as<In>();
  std::vector<Out> line(static_cast<size_t>(matrix.rows));
  for (int64_t c = 0; c < matrix.cols; ++c) {
    for (int64_t r = 0; r < matrix.rows; ++r) {
      const int32_t zero = subtract ? matrix.zero_points[static_cast<size_t>(matrix.grid_index(r, c))] : 0;
      line[static_cast<size_t>(r)] = static_cast<Out>(codes[r * matrix.cols + c] - zero);
    }
    file.write(std::as_bytes(std::span(line)));
  }
}

template <typename Out>
void write_transposed(TensorFile& file, const QuantizedMatrix& matrix, bool subtract) {
  if (matrix.wide()) {
    write_transposed<int16_t, Out>(file, matrix, subtract);
  } else {
    write_transposed<int8_t, Out>(file, matrix, subtract);
  }
}

/// How the codes of a matrix are stored.
struct Storage {
  onnx::TensorProto::DataType type;
  bool steps;  ///< q − zero_point, with a zero point of 0
};

Storage choose_storage(const QuantizedMatrix& matrix) {
  const auto [least, most] = std::ranges::minmax(matrix.zero_points);
  const int64_t smallest = matrix.wide() ? -32768 : -128;
  const int64_t largest = -smallest - 1;
  if (least >= smallest && most <= largest) {
    return {matrix.wide() ? onnx::TensorProto::INT16 : onnx::TensorProto::INT8, false};
  }
  // A code lies in [smallest, largest], so that a step lies in [smallest − most, largest − least].
  const bool narrow = smallest - most >= -32768 && largest - least <= 32767;
  return {narrow ? onnx::TensorProto::INT16 : onnx::TensorProto::INT32, true};
}

/// values [rows, groups] as [groups, rows].
template <typename T>
std::vector<T> transposed(const std::vector<T>& values, int64_t rows) {
  const auto groups = std::ssize(values) / rows;
  std::vector<T> out(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      out[static_cast<size_t>(g * rows + r)] = values[static_cast<size_t>(r * groups + g)];
    }
  }
  return out;
}

}  // namespace

std::string add_quantized_matrix(OnnxGraph& graph, const std::string& name, const QuantizedMatrix& matrix) {
  const Storage storage = choose_storage(matrix);
  const std::string codes =
      graph.external(name + ".codes", storage.type, {matrix.cols, matrix.rows}, [&](TensorFile& file) {
        if (storage.type == onnx::TensorProto::INT8) {
          write_transposed<int8_t>(file, matrix, storage.steps);
        } else if (storage.type == onnx::TensorProto::INT16) {
          write_transposed<int16_t>(file, matrix, storage.steps);
        } else {
          write_transposed<int32_t>(file, matrix, storage.steps);
        }
      });
  std::vector<int64_t> dims;
  std::vector<OnnxGraph::Attribute> attributes;
  std::vector<float> scales = matrix.scales;
  std::vector<int32_t> zeros = matrix.zero_points;
  if (!matrix.per_tensor && matrix.group == matrix.cols) {
    dims = {matrix.rows};
    attributes = {OnnxGraph::integer("axis", 1)};
  } else if (!matrix.per_tensor) {
    dims = {matrix.cols / matrix.group, matrix.rows};
    scales = transposed(scales, matrix.rows);
    zeros = transposed(zeros, matrix.rows);
    attributes = {OnnxGraph::integer("axis", 0), OnnxGraph::integer("block_size", matrix.group)};
  }
  std::vector<std::string> inputs{codes, graph.constant(name + ".scale", scales, dims)};
  if (!storage.steps) inputs.push_back(graph.codes(name + ".zero_point", storage.type, zeros, dims));
  return graph.node("DequantizeLinear", inputs, name, attributes);
}

Grid norm_grid(const std::string& name, const std::vector<float>& weight, const QuantSpec& spec) {
  const Range range = quant_kernels().range(weight.data(), std::ssize(weight));
  if (std::isnan(range.lo)) fail("tensor {}: a weight is not finite: cannot quantize", name);
  return make_grid(spec, range);
}

std::string add_quantized_norm(OnnxGraph& graph, const std::string& name, const std::vector<float>& weight,
                               const QuantSpec& spec) {
  const Grid grid = norm_grid(name, weight, spec);
  std::vector<float> rounded(weight.size());
  quant_kernels().fake_quantize(weight.data(), std::ssize(weight), grid, rounded.data());
  std::vector<int32_t> steps;
  steps.reserve(rounded.size());
  // A step times the scale, divided by it: an integer but for a rounding of some 2^-24 of it.
  for (const float value : rounded) {
    steps.push_back(static_cast<int32_t>(std::nearbyint(value / grid.scale)));
  }
  return graph.node("DequantizeLinear",
                    {graph.codes(name + ".codes", onnx::TensorProto::INT32, steps, {std::ssize(steps)}),
                     graph.scalar(name + ".scale", grid.scale)},
                    name);
}

std::string add_matrix(OnnxGraph& graph, const std::string& name, const model::Matrix& matrix,
                       bool transpose) {
  const std::vector<int64_t> dims =
      transpose ? std::vector{matrix.cols, matrix.rows} : std::vector{matrix.rows, matrix.cols};
  return graph.external(name, onnx::TensorProto::FLOAT, dims, [&](TensorFile& file) {
    std::vector<float> block;
    if (!transpose) {
      for (int64_t row = 0; row < matrix.rows; row += kDecodedRows) {
        const int64_t count = std::min(kDecodedRows, matrix.rows - row);
        block.resize(static_cast<size_t>(count * matrix.cols));
        matrix.decode_rows(row, count, block.data());
        file.write(std::as_bytes(std::span(block)));
      }
      return;
    }
    block.resize(static_cast<size_t>(matrix.rows * matrix.cols));
    matrix.decode_rows(0, matrix.rows, block.data());
    std::vector<float> line(static_cast<size_t>(matrix.rows));
    for (int64_t c = 0; c < matrix.cols; ++c) {
      for (int64_t r = 0; r < matrix.rows; ++r) {
        line[static_cast<size_t>(r)] = block[static_cast<size_t>(r * matrix.cols + c)];
      }
      file.write(std::as_bytes(std::span(line)));
    }
  });
}

}  // namespace qeval::quant
