#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/weights.h"
#include "tests/model/fixtures.h"
#include "tests/reference_data.h"

namespace qeval::model {

/// A folder of tests/goldens/quantized.
inline std::filesystem::path golden(const std::string& name) {
  return test::goldens() / "quantized" / name;
}

/// A golden's folder, to be changed.
class ChangedGolden {
 public:
  explicit ChangedGolden(const std::string& name) {
    config_ = nlohmann::json::parse(read_file(golden(name) / "config.json"));
    const auto checkpoint = open_safetensors(golden(name) / "model.safetensors");
    for (const TensorView& view : checkpoint->tensors()) {
      tensors_.push_back({view.name, view.dtype, view.shape,
                          std::string(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size())});
    }
  }
  nlohmann::json& config() { return config_; }
  nlohmann::json& quantization() { return config_["quantization_config"]; }
  fixtures::Tensor& tensor(const std::string& name) {
    const auto found = std::ranges::find(tensors_, name, &fixtures::Tensor::name);
    EXPECT_NE(found, tensors_.end()) << name;
    return *found;
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&](const fixtures::Tensor& t) { return t.name == name; });
  }
  void add(fixtures::Tensor tensor) { tensors_.push_back(std::move(tensor)); }
  /// Element i of an I32 tensor.
  void set(const std::string& name, size_t i, int32_t value) {
    std::memcpy(tensor(name).bytes.data() + 4 * i, &value, sizeof value);
  }

  Model load(const std::string& gptq_zeros = "") const {
    fixtures::write(folder_ / "config.json", config_.dump());
    fixtures::write(folder_ / "model.safetensors", fixtures::safetensors(tensors_));
    return load_model(folder_.path(), gptq_zeros);
  }
  std::string refusal(const std::string& gptq_zeros = "") const {
    return fixtures::error_of([&] { load(gptq_zeros); });
  }

 private:
  fixtures::TemporaryFolder folder_;
  nlohmann::json config_;
  std::vector<fixtures::Tensor> tensors_;
};

}  // namespace qeval::model
