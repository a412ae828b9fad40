#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <onnx/onnx.pb.h>

#include "base/file.h"

namespace qeval::quant {

/// Tensors outside the model file, as ONNX's external data: one file, each tensor at a page's start, so that
/// a runtime can map them. Nothing is there until commit().
class TensorFile {
 public:
  explicit TensorFile(const std::filesystem::path& path);

  /// Starts the bytes of `tensor`, which follow in any number of write() calls; end() notes in the tensor
  /// where they are.
  void begin(onnx::TensorProto& tensor);
  void write(std::span<const std::byte> bytes);
  void end();
  void commit() { file_.commit(); }
  int64_t bytes() const { return size_; }

 private:
  std::string location_;
  AtomicFile file_;
  onnx::TensorProto* tensor_ = nullptr;
  int64_t size_ = 0, start_ = 0;
};

/// Builds an ONNX graph in the order of computation. A tensor is known by its name, which is that of the node
/// or initializer that makes it.
class OnnxGraph {
 public:
  /// Operator set 21 is the first whose QuantizeLinear has 16-bit types; models of version 10 may use it.
  static constexpr int64_t kOperatorSet = 21;
  static constexpr int64_t kIrVersion = 10;

  /// `tensors` must outlive the graph.
  explicit OnnxGraph(TensorFile& tensors) : tensors_(tensors) {}

  struct Attribute {
    std::string_view name;
    enum class Kind : uint8_t { integer, real, text, integers } kind;
    int64_t integer = 0;
    float real = 0;
    std::string_view text{};
    std::vector<int64_t> integers{};
  };
  static Attribute integer(std::string_view name, int64_t value);
  static Attribute real(std::string_view name, float value);
  static Attribute text(std::string_view name, std::string_view value);
  static Attribute integers(std::string_view name, std::vector<int64_t> values);

  /// Adds a node with one output; returns `output`.
  std::string node(std::string_view op, const std::vector<std::string>& inputs, const std::string& output,
                   const std::vector<Attribute>& attributes = {});
  /// Adds a node with several outputs.
  void node(std::string_view op, const std::vector<std::string>& inputs,
            const std::vector<std::string>& outputs, const std::vector<Attribute>& attributes = {});

  /// A constant inside the model file; `dims` empty: a scalar. The same name twice is the same constant.
  std::string constant(const std::string& name, std::span<const int64_t> values,
                       const std::vector<int64_t>& dims);
  std::string constant(const std::string& name, std::span<const float> values,
                       const std::vector<int64_t>& dims);
  std::string scalar(const std::string& name, float value) {
    return constant(name, std::span(&value, 1), {});
  }
  /// A constant of an integer type, given as int32.
  std::string codes(const std::string& name, onnx::TensorProto::DataType type,
                    std::span<const int32_t> values, const std::vector<int64_t>& dims);

  /// A constant in the tensor file: `fill` writes its bytes.
  template <typename Fill>
  std::string external(const std::string& name, onnx::TensorProto::DataType type,
                       const std::vector<int64_t>& dims, const Fill& fill) {
    tensors_.begin(new_initializer(name, type, dims));
    fill(tensors_);
    tensors_.end();
    return name;
  }

  void input(const std::string& name, onnx::TensorProto::DataType type, const std::vector<std::string>& dims);
  /// Dimensions are names, or numbers for those that are fixed.
  void output(const std::string& name, onnx::TensorProto::DataType type,
              const std::vector<std::string>& dims);
  void property(const std::string& key, const std::string& value);

  /// The finished model; the graph is empty afterwards.
  onnx::ModelProto take(const std::string& name, const std::string& version);

 private:
  onnx::TensorProto& new_initializer(const std::string& name, onnx::TensorProto::DataType type,
                                     const std::vector<int64_t>& dims);
  bool seen(const std::string& name);

  TensorFile& tensors_;
  onnx::ModelProto model_;
  std::map<std::string, bool> constants_;
};

}  // namespace qeval::quant
