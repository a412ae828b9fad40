#include "quant/export/onnx_graph.h"

#include <cassert>
#include <charconv>
#include <cstring>

#include "base/error.h"

namespace qeval::quant {
namespace {

constexpr int64_t kPage = 4096;

void set_type(onnx::ValueInfoProto& value, const std::string& name, onnx::TensorProto::DataType type,
              const std::vector<std::string>& dims) {
  value.set_name(name);
  auto& tensor = *value.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(type);
  for (const std::string& dim : dims) {
    int64_t number = 0;
    const char* end = dim.data() + dim.size();
    auto& entry = *tensor.mutable_shape()->add_dim();
    if (std::from_chars(dim.data(), end, number).ptr == end) {
      entry.set_dim_value(number);
    } else {
      entry.set_dim_param(dim);
    }
  }
}

void add_entry(onnx::TensorProto& tensor, const std::string& key, const std::string& value) {
  auto& entry = *tensor.add_external_data();
  entry.set_key(key);
  entry.set_value(value);
}

}  // namespace

TensorFile::TensorFile(const std::filesystem::path& path)
    : location_(path.filename().string()), file_(path) {}

void TensorFile::begin(onnx::TensorProto& tensor) {
  assert(tensor_ == nullptr);
  const std::string gap(static_cast<size_t>((kPage - size_ % kPage) % kPage), '\0');
  file_.write(gap);
  size_ += std::ssize(gap);
  start_ = size_;
  tensor_ = &tensor;
}

void TensorFile::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  size_ += std::ssize(bytes);
}

void TensorFile::end() {
  tensor_->set_data_location(onnx::TensorProto::EXTERNAL);
  add_entry(*tensor_, "location", location_);
  add_entry(*tensor_, "offset", std::to_string(start_));
  add_entry(*tensor_, "length", std::to_string(size_ - start_));
  tensor_ = nullptr;
}

OnnxGraph::Attribute OnnxGraph::integer(std::string_view name, int64_t value) {
  return {.name = name, .kind = Attribute::Kind::integer, .integer = value};
}
OnnxGraph::Attribute OnnxGraph::real(std::string_view name, float value) {
  return {.name = name, .kind = Attribute::Kind::real, .real = value};
}
OnnxGraph::Attribute OnnxGraph::text(std::string_view name, std::string_view value) {
  return {.name = name, .kind = Attribute::Kind::text, .text = value};
}
OnnxGraph::Attribute OnnxGraph::integers(std::string_view name, std::vector<int64_t> values) {
  return {.name = name, .kind = Attribute::Kind::integers, .integers = std::move(values)};
}

std::string OnnxGraph::node(std::string_view op, const std::vector<std::string>& inputs,
                            const std::string& output, const std::vector<Attribute>& attributes) {
  node(op, inputs, std::vector{output}, attributes);
  return output;
}

void OnnxGraph::node(std::string_view op, const std::vector<std::string>& inputs,
                     const std::vector<std::string>& outputs, const std::vector<Attribute>& attributes) {
  onnx::NodeProto& node = *model_.mutable_graph()->add_node();
  node.set_op_type(std::string(op));
  node.set_name(outputs.front() + "/" + std::string(op));
  for (const std::string& name : inputs) node.add_input(name);
  for (const std::string& name : outputs) node.add_output(name);
  for (const Attribute& attribute : attributes) {
    onnx::AttributeProto& entry = *node.add_attribute();
    entry.set_name(std::string(attribute.name));
    switch (attribute.kind) {
      case Attribute::Kind::integer:
        entry.set_type(onnx::AttributeProto::INT);
        entry.set_i(attribute.integer);
        break;
      case Attribute::Kind::real:
        entry.set_type(onnx::AttributeProto::FLOAT);
        entry.set_f(attribute.real);
        break;
      case Attribute::Kind::text:
        entry.set_type(onnx::AttributeProto::STRING);
        entry.set_s(std::string(attribute.text));
        break;
      case Attribute::Kind::integers:
        entry.set_type(onnx::AttributeProto::INTS);
        for (const int64_t value : attribute.integers) entry.add_ints(value);
    }
  }
}

bool OnnxGraph::seen(const std::string& name) {
  return !constants_.emplace(name, true).second;
}

onnx::TensorProto& OnnxGraph::new_initializer(const std::string& name, onnx::TensorProto::DataType type,
                                              const std::vector<int64_t>& dims) {
  onnx::TensorProto& tensor = *model_.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(type);
  for (const int64_t dim : dims) tensor.add_dims(dim);
  return tensor;
}

std::string OnnxGraph::constant(const std::string& name, std::span<const int64_t> values,
                                const std::vector<int64_t>& dims) {
  if (seen(name)) return name;
  onnx::TensorProto& tensor = new_initializer(name, onnx::TensorProto::INT64, dims);
  for (const int64_t value : values) tensor.add_int64_data(value);
  return name;
}

std::string OnnxGraph::constant(const std::string& name, std::span<const float> values,
                                const std::vector<int64_t>& dims) {
  if (seen(name)) return name;
  onnx::TensorProto& tensor = new_initializer(name, onnx::TensorProto::FLOAT, dims);
  for (const float value : values) tensor.add_float_data(value);
  return name;
}

std::string OnnxGraph::codes(const std::string& name, onnx::TensorProto::DataType type,
                             std::span<const int32_t> values, const std::vector<int64_t>& dims) {
  if (seen(name)) return name;
  onnx::TensorProto& tensor = new_initializer(name, type, dims);
  for (const int32_t value : values) tensor.add_int32_data(value);
  return name;
}

void OnnxGraph::input(const std::string& name, onnx::TensorProto::DataType type,
                      const std::vector<std::string>& dims) {
  set_type(*model_.mutable_graph()->add_input(), name, type, dims);
}

void OnnxGraph::output(const std::string& name, onnx::TensorProto::DataType type,
                       const std::vector<std::string>& dims) {
  set_type(*model_.mutable_graph()->add_output(), name, type, dims);
}

void OnnxGraph::property(const std::string& key, const std::string& value) {
  auto& entry = *model_.add_metadata_props();
  entry.set_key(key);
  entry.set_value(value);
}

onnx::ModelProto OnnxGraph::take(const std::string& name, const std::string& version) {
  model_.set_ir_version(kIrVersion);
  model_.set_producer_name("qeval");
  model_.set_producer_version(version);
  model_.add_opset_import()->set_version(kOperatorSet);
  model_.mutable_graph()->set_name(name);
  return std::exchange(model_, {});
}

}  // namespace qeval::quant
