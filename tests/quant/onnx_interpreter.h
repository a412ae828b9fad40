#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <onnx/onnx.pb.h>

namespace qeval::test {

/// A tensor of an ONNX graph; numbers of any type are held as float.
struct OnnxTensor {
  std::vector<int64_t> dims;
  std::vector<float> values;
};

/// Runs a model by ONNX's definitions of the operators that exports use, one number at a time. Tensors may
/// lie in external files beside `model_file`. Throws std::runtime_error for what it does not know: an
/// operator, a type, an input that nothing has made yet, a name made twice, external data outside its file.
std::map<std::string, OnnxTensor> run_onnx(const onnx::ModelProto& model, const std::filesystem::path& folder,
                                           std::map<std::string, OnnxTensor> inputs);

onnx::ModelProto read_onnx(const std::filesystem::path& file);

}  // namespace qeval::test
