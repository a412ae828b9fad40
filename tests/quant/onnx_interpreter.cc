#include "tests/quant/onnx_interpreter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>

namespace qeval::test {
namespace {

using Dims = std::vector<int64_t>;

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error("ONNX: " + what);
}

int64_t count(const Dims& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

std::string file_content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse("cannot open " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename T>
std::vector<float> floats_of(const std::string& bytes) {
  std::vector<T> typed(bytes.size() / sizeof(T));
  std::memcpy(typed.data(), bytes.data(), typed.size() * sizeof(T));
  std::vector<float> out;
  for (const T value : typed) out.push_back(static_cast<float>(value));
  return out;
}

std::vector<float> from_bytes(int type, const std::string& bytes) {
  switch (type) {
    case onnx::TensorProto::FLOAT:
      return floats_of<float>(bytes);
    case onnx::TensorProto::INT8:
      return floats_of<int8_t>(bytes);
    case onnx::TensorProto::INT16:
      return floats_of<int16_t>(bytes);
    case onnx::TensorProto::INT32:
      return floats_of<int32_t>(bytes);
    default:
      refuse("external data of type " + std::to_string(type));
  }
}

OnnxTensor constant(const onnx::TensorProto& tensor, const std::filesystem::path& folder) {
  OnnxTensor out{{tensor.dims().begin(), tensor.dims().end()}, {}};
  if (tensor.data_location() == onnx::TensorProto::EXTERNAL) {
    std::map<std::string, std::string> entries;
    for (const auto& entry : tensor.external_data()) entries[entry.key()] = entry.value();
    const std::string content = file_content(folder / entries.at("location"));
    const size_t offset = std::stoull(entries.at("offset"));
    const size_t length = std::stoull(entries.at("length"));
    if (offset % 4096 != 0 || offset + length > content.size()) refuse(tensor.name() + ": outside its file");
    out.values = from_bytes(tensor.data_type(), content.substr(offset, length));
  } else {
    for (const float v : tensor.float_data()) out.values.push_back(v);
    for (const int32_t v : tensor.int32_data()) out.values.push_back(static_cast<float>(v));
    for (const int64_t v : tensor.int64_data()) out.values.push_back(static_cast<float>(v));
  }
  if (std::ssize(out.values) != count(out.dims)) refuse(tensor.name() + ": dims and values differ");
  return out;
}

/// Offset in a tensor of dims `of` that is broadcast to `dims`, for each element of dims.
std::vector<size_t> broadcast_offsets(const Dims& of, const Dims& dims) {
  std::vector<size_t> offsets(static_cast<size_t>(count(dims)));
  for (size_t i = 0; i < offsets.size(); ++i) {
    auto rest = static_cast<int64_t>(i);
    int64_t stride = 1, offset = 0;
    for (size_t back = 1; back <= dims.size(); ++back) {
      const int64_t at = rest % dims[dims.size() - back];
      rest /= dims[dims.size() - back];
      if (back > of.size()) continue;
      const int64_t d = of[of.size() - back];
      if (d != 1) offset += at * stride;
      stride *= d;
    }
    offsets[i] = static_cast<size_t>(offset);
  }
  return offsets;
}

Dims broadcast_dims(const Dims& a, const Dims& b) {
  Dims out(std::max(a.size(), b.size()), 1);
  for (size_t back = 1; back <= out.size(); ++back) {
    const int64_t x = back <= a.size() ? a[a.size() - back] : 1;
    const int64_t y = back <= b.size() ? b[b.size() - back] : 1;
    if (x != y && x != 1 && y != 1) refuse("shapes that do not broadcast");
    out[out.size() - back] = x == 1 ? y : x;
  }
  return out;
}

OnnxTensor zip(const OnnxTensor& a, const OnnxTensor& b, const std::function<float(float, float)>& f) {
  OnnxTensor out{broadcast_dims(a.dims, b.dims), {}};
  const auto x = broadcast_offsets(a.dims, out.dims), y = broadcast_offsets(b.dims, out.dims);
  for (size_t i = 0; i < x.size(); ++i) out.values.push_back(f(a.values[x[i]], b.values[y[i]]));
  return out;
}

OnnxTensor each(OnnxTensor x, const std::function<float(float)>& f) {
  for (float& v : x.values) v = f(v);
  return x;
}

/// Applies f to every row along the last axis.
OnnxTensor rows(OnnxTensor x, const std::function<void(float*, int64_t)>& f) {
  const int64_t n = x.dims.back();
  for (int64_t i = 0; i < std::ssize(x.values); i += n) f(x.values.data() + i, n);
  return x;
}

OnnxTensor transpose(const OnnxTensor& x, const Dims& perm) {
  OnnxTensor out;
  Dims strides(x.dims.size(), 1);
  for (size_t i = x.dims.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * x.dims[i + 1];
  for (const int64_t p : perm) out.dims.push_back(x.dims[static_cast<size_t>(p)]);
  for (int64_t i = 0; i < count(out.dims); ++i) {
    int64_t rest = i, offset = 0;
    for (size_t axis = perm.size(); axis-- > 0;) {
      offset += rest % out.dims[axis] * strides[static_cast<size_t>(perm[axis])];
      rest /= out.dims[axis];
    }
    out.values.push_back(x.values[static_cast<size_t>(offset)]);
  }
  return out;
}

OnnxTensor matmul(const OnnxTensor& a, const OnnxTensor& b) {
  const int64_t m = a.dims[a.dims.size() - 2], k = a.dims.back(), n = b.dims.back();
  if (b.dims[b.dims.size() - 2] != k) refuse("MatMul: inner sizes differ");
  const Dims a_batch(a.dims.begin(), a.dims.end() - 2), b_batch(b.dims.begin(), b.dims.end() - 2);
  OnnxTensor out{broadcast_dims(a_batch, b_batch), {}};
  const auto x = broadcast_offsets(a_batch, out.dims), y = broadcast_offsets(b_batch, out.dims);
  for (size_t i = 0; i < x.size(); ++i) {
    const float* left = a.values.data() + static_cast<int64_t>(x[i]) * m * k;
    const float* right = b.values.data() + static_cast<int64_t>(y[i]) * k * n;
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        float sum = 0;
        for (int64_t j = 0; j < k; ++j) sum = std::fma(left[r * k + j], right[j * n + c], sum);
        out.values.push_back(sum);
      }
    }
  }
  out.dims.push_back(m);
  out.dims.push_back(n);
  return out;
}

/// Elements [first, first + size) of an axis.
OnnxTensor slice(const OnnxTensor& x, size_t axis, int64_t first, int64_t size) {
  OnnxTensor out{x.dims, {}};
  out.dims[axis] = size;
  int64_t inner = 1;
  for (size_t i = axis + 1; i < x.dims.size(); ++i) inner *= x.dims[i];
  const int64_t outer = count(x.dims) / inner / x.dims[axis];
  for (int64_t o = 0; o < outer; ++o) {
    const auto* from = x.values.data() + (o * x.dims[axis] + first) * inner;
    out.values.insert(out.values.end(), from, from + size * inner);
  }
  return out;
}

OnnxTensor concat(const std::vector<const OnnxTensor*>& parts, size_t axis) {
  OnnxTensor out{parts[0]->dims, {}};
  out.dims[axis] = 0;
  int64_t outer = 1;
  for (size_t i = 0; i < axis; ++i) outer *= parts[0]->dims[i];
  for (const OnnxTensor* part : parts) out.dims[axis] += part->dims[axis];
  for (int64_t o = 0; o < outer; ++o) {
    for (const OnnxTensor* part : parts) {
      const int64_t inner = std::ssize(part->values) / outer;
      const auto* from = part->values.data() + o * inner;
      out.values.insert(out.values.end(), from, from + inner);
    }
  }
  return out;
}

/// x[…, indices, …] along an axis.
OnnxTensor gather(const OnnxTensor& x, const OnnxTensor& indices, size_t axis) {
  std::vector<OnnxTensor> parts;
  std::vector<const OnnxTensor*> pointers;
  for (const float i : indices.values) parts.push_back(slice(x, axis, static_cast<int64_t>(i), 1));
  for (const OnnxTensor& part : parts) pointers.push_back(&part);
  OnnxTensor out = concat(pointers, axis);
  Dims dims(x.dims.begin(), x.dims.begin() + static_cast<int64_t>(axis));
  dims.insert(dims.end(), indices.dims.begin(), indices.dims.end());
  dims.insert(dims.end(), x.dims.begin() + static_cast<int64_t>(axis) + 1, x.dims.end());
  out.dims = dims;
  return out;
}

/// Index into scales and zero points of element i of x.
size_t grid_of(const OnnxTensor& x, const OnnxTensor& scale, int64_t axis, int64_t block, size_t i) {
  if (scale.values.size() == 1) return 0;
  const auto cols = static_cast<size_t>(x.dims[1]);
  if (block == 0) return axis == 1 ? i % cols : i / cols;
  return i / cols / static_cast<size_t>(block) * cols + i % cols;  // axis 0, as exports have it
}

class Interpreter {
 public:
  Interpreter(const onnx::GraphProto& graph, std::map<std::string, OnnxTensor>& tensors,
              std::map<std::string, int>& types)
      : graph_(graph), tensors_(tensors), types_(types) {}

  void run() {
    for (const onnx::NodeProto& node : graph_.node()) {
      node_ = &node;
      const std::vector<OnnxTensor> outputs = compute();
      for (int i = 0; i < node.output_size(); ++i) {
        if (!tensors_.emplace(node.output(i), outputs.at(static_cast<size_t>(i))).second) {
          refuse(node.output(i) + ": made twice");
        }
      }
    }
  }

 private:
  const OnnxTensor& in(int i) const {
    const auto found = tensors_.find(node_->input(i));
    if (found == tensors_.end()) refuse(node_->input(i) + ": read before it is made");
    return found->second;
  }
  const onnx::AttributeProto* attribute(const std::string& name) const {
    for (const auto& entry : node_->attribute()) {
      if (entry.name() == name) return &entry;
    }
    return nullptr;
  }
  int64_t integer(const std::string& name, int64_t otherwise) const {
    const auto* found = attribute(name);
    return found != nullptr ? found->i() : otherwise;
  }
  size_t axis(size_t rank, int64_t otherwise) const {
    const int64_t value = integer("axis", otherwise);
    return static_cast<size_t>(value < 0 ? value + static_cast<int64_t>(rank) : value);
  }

  OnnxTensor quantize() {
    const auto [least, most] = limits(types_.at(node_->input(2)));
    const float scale = in(1).values.at(0), zero = in(2).values.at(0);
    return each(in(0), [=, lo = least, hi = most](float v) {
      return std::clamp(std::nearbyint(v / scale) + zero, lo, hi);
    });
  }
  static std::pair<float, float> limits(int type) {
    switch (type) {
      case onnx::TensorProto::UINT8:
        return {0, 255};
      case onnx::TensorProto::INT8:
        return {-128, 127};
      case onnx::TensorProto::UINT16:
        return {0, 65535};
      case onnx::TensorProto::INT16:
        return {-32768, 32767};
      default:
        refuse("QuantizeLinear to type " + std::to_string(type));
    }
  }
  OnnxTensor dequantize() {
    OnnxTensor out = in(0);
    const OnnxTensor& scale = in(1);
    for (size_t i = 0; i < out.values.size(); ++i) {
      const size_t g = grid_of(out, scale, integer("axis", 1), integer("block_size", 0), i);
      const float zero = node_->input_size() > 2 ? in(2).values.at(g) : 0.0F;
      out.values[i] = (out.values[i] - zero) * scale.values.at(g);
    }
    return out;
  }
  OnnxTensor layer_norm() {
    const float eps = attribute("epsilon")->f();
    OnnxTensor out = rows(in(0), [&](float* x, int64_t n) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(n);
      for (int64_t i = 0; i < n; ++i)
        variance += std::pow(static_cast<double>(x[i]) - mean, 2) / static_cast<double>(n);
      const double factor = 1 / std::sqrt(variance + static_cast<double>(eps));
      for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * factor);
    });
    out = zip(out, in(1), std::multiplies<>());
    return node_->input_size() > 2 ? zip(out, in(2), std::plus<>()) : out;
  }
  OnnxTensor reshape() {
    OnnxTensor out{{}, in(0).values};
    for (size_t i = 0; i < in(1).values.size(); ++i) {
      const auto dim = static_cast<int64_t>(in(1).values[i]);
      out.dims.push_back(dim == 0 ? in(0).dims[i] : dim);
    }
    if (count(out.dims) != std::ssize(out.values)) refuse("Reshape: another number of elements");
    return out;
  }
  std::vector<OnnxTensor> split() {
    std::vector<OnnxTensor> out;
    const size_t along = axis(in(0).dims.size(), 0);
    int64_t first = 0;
    for (const float size : in(1).values) {
      out.push_back(slice(in(0), along, first, static_cast<int64_t>(size)));
      first += static_cast<int64_t>(size);
    }
    if (first != in(0).dims[along]) refuse("Split: the parts are not the whole");
    return out;
  }

  std::vector<OnnxTensor> compute() {
    const std::string& op = node_->op_type();
    if (op == "QuantizeLinear") return {quantize()};
    if (op == "DequantizeLinear") return {dequantize()};
    if (op == "LayerNormalization") return {layer_norm()};
    if (op == "Reshape") return {reshape()};
    if (op == "Split") return split();
    if (op == "Identity") return {in(0)};
    if (op == "Add") return {zip(in(0), in(1), std::plus<>())};
    if (op == "Sub") return {zip(in(0), in(1), std::minus<>())};
    if (op == "Mul") return {zip(in(0), in(1), std::multiplies<>())};
    if (op == "Div") return {zip(in(0), in(1), std::divides<>())};
    if (op == "Equal") return {zip(in(0), in(1), [](float a, float b) { return a == b ? 1.0F : 0.0F; })};
    if (op == "Where") {
      const OnnxTensor kept = zip(in(0), in(1), [](float c, float x) { return c != 0 ? x : 0.0F; });
      return {
          zip(kept, zip(in(0), in(2), [](float c, float y) { return c != 0 ? 0.0F : y; }), std::plus<>())};
    }
    if (op == "Tanh") return {each(in(0), [](float v) { return std::tanh(v); })};
    if (op == "Relu") return {each(in(0), [](float v) { return std::max(v, 0.0F); })};
    if (op == "Sqrt") return {each(in(0), [](float v) { return std::sqrt(v); })};
    if (op == "Clip") {
      const float least = in(1).values.at(0), most = in(2).values.at(0);
      return {each(in(0), [=](float v) { return std::clamp(v, least, most); })};
    }
    if (op == "Sigmoid") return {each(in(0), [](float v) { return 1 / (1 + std::exp(-v)); })};
    if (op == "Gelu") return {gelu()};
    if (op == "MatMul") return {matmul(in(0), in(1))};
    if (op == "Transpose")
      return {transpose(in(0), {attribute("perm")->ints().begin(), attribute("perm")->ints().end()})};
    if (op == "Gather") return {gather(in(0), in(1), axis(in(0).dims.size(), 0))};
    if (op == "Concat") {
      std::vector<const OnnxTensor*> parts;
      for (int i = 0; i < node_->input_size(); ++i) parts.push_back(&in(i));
      return {concat(parts, axis(in(0).dims.size(), 0))};
    }
    if (op == "Shape") {
      return {{{1}, {static_cast<float>(in(0).dims.at(static_cast<size_t>(integer("start", 0))))}}};
    }
    if (op == "Expand") {
      OnnxTensor target;
      for (const float d : in(1).values) target.dims.push_back(static_cast<int64_t>(d));
      target.values.assign(static_cast<size_t>(count(target.dims)), 0);
      return {zip(in(0), target, [](float x, float) { return x; })};
    }
    if (op == "Slice") {  // one axis, from 0
      return {
          slice(in(0), static_cast<size_t>(in(3).values.at(0)), 0, static_cast<int64_t>(in(2).values.at(0)))};
    }
    if (op == "Trilu") {
      OnnxTensor out = in(0);
      const int64_t n = out.dims.back();
      const bool upper = integer("upper", 1) != 0;
      for (int64_t i = 0; i < std::ssize(out.values); ++i) {
        const int64_t off = i % n - i / n - static_cast<int64_t>(in(1).values.at(0));
        if (upper ? off < 0 : off > 0) out.values[static_cast<size_t>(i)] = 0;
      }
      return {out};
    }
    return {row_operation(op)};
  }

  OnnxTensor gelu() {
    const bool tanh = attribute("approximate")->s() == "tanh";
    return each(in(0), [&](float value) {
      const double v = static_cast<double>(value);
      const double cubic = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
      return static_cast<float>(0.5 * v * (1 + (tanh ? std::tanh(cubic) : std::erf(v / std::sqrt(2.0)))));
    });
  }

  OnnxTensor row_operation(const std::string& op) {
    if (op == "Softmax") {
      return rows(in(0), [](float* x, int64_t n) {
        const float most = *std::max_element(x, x + n);
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i] = std::exp(x[i] - most));
        for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(static_cast<double>(x[i]) / sum);
      });
    }
    if (op == "LpNormalization") {
      return rows(in(0), [](float* x, int64_t n) {
        double squares = 0;
        for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
        for (int64_t i = 0; i < n; ++i)
          x[i] = static_cast<float>(static_cast<double>(x[i]) / std::sqrt(squares));
      });
    }
    if (op == "ReduceMean") {
      OnnxTensor out{in(0).dims, {}};
      out.dims.back() = 1;
      const int64_t n = in(0).dims.back();
      for (int64_t i = 0; i < std::ssize(in(0).values); i += n) {
        double sum = 0;
        for (int64_t j = 0; j < n; ++j) sum += static_cast<double>(in(0).values[static_cast<size_t>(i + j)]);
        out.values.push_back(static_cast<float>(sum / static_cast<double>(n)));
      }
      return out;
    }
    refuse("operator " + op);
  }

  const onnx::GraphProto& graph_;
  std::map<std::string, OnnxTensor>& tensors_;
  std::map<std::string, int>& types_;
  const onnx::NodeProto* node_ = nullptr;
};

}  // namespace

onnx::ModelProto read_onnx(const std::filesystem::path& file) {
  onnx::ModelProto model;
  if (!model.ParseFromString(file_content(file))) refuse(file.string() + ": no model");
  return model;
}

std::map<std::string, OnnxTensor> run_onnx(const onnx::ModelProto& model, const std::filesystem::path& folder,
                                           std::map<std::string, OnnxTensor> inputs) {
  std::map<std::string, int> types;
  for (const onnx::TensorProto& tensor : model.graph().initializer()) {
    if (!inputs.emplace(tensor.name(), constant(tensor, folder)).second) refuse(tensor.name() + ": twice");
    types[tensor.name()] = tensor.data_type();
  }
  Interpreter(model.graph(), inputs, types).run();
  return inputs;
}

}  // namespace qeval::test
