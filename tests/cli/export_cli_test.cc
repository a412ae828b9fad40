#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace qeval::test {
namespace {

using testing::HasSubstr;

class ExportCli : public Cli {
 protected:
  ExportCli() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "Line " + std::to_string(i * 37 % 101) + " of a calibration text.\n";
    write("calibration.txt", text);
    expect_success(
        run({"quantize", "-m", path("model"), "--method", "rtn", "--scheme", "w8a8", "--calibration",
             path("calibration.txt"), "--samples", "2", "--sequence-length", "32", "-o", path("w8a8")}));
  }
  Outcome export_as(const std::string& format, const std::string& output,
                    const std::string& model = "w8a8") const {
    return run({"export", "-m", path(model), "--format", format, "-o", path(output)});
  }
  std::vector<std::string> files(const std::string& folder) const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path(folder))) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
};

TEST_F(ExportCli, WritesAGraphWithItsTensorsBesideIt) {
  const Outcome outcome = export_as("onnx", "onnx");
  expect_success(outcome);
  EXPECT_THAT(outcome.output, HasSubstr("quantized activations"));
  EXPECT_THAT(files("onnx"), testing::UnorderedElementsAre("model.onnx", "model.onnx.data"));
  EXPECT_THAT(read("onnx/model.onnx"), HasSubstr("DequantizeLinear"));
  // Again, in place, with the same bytes.
  const std::string first = read("onnx/model.onnx");
  expect_success(export_as("onnx", "onnx"));
  EXPECT_EQ(read("onnx/model.onnx"), first);
}

TEST_F(ExportCli, EncodingsStandBesideTheFloatGraph) {
  expect_success(export_as("encodings", "encodings"));
  EXPECT_THAT(files("encodings"),
              testing::UnorderedElementsAre("model.onnx", "model.onnx.data", "model.encodings"));
  EXPECT_THAT(read("encodings/model.onnx"), testing::Not(HasSubstr("QuantizeLinear")));
  const auto json = nlohmann::json::parse(read("encodings/model.encodings"));
  EXPECT_EQ(json["activation_encodings"]["model.layers.0.mlp.w2.input"][0]["bitwidth"], 8);
  // What another format left must not pass for this one's.
  expect_success(export_as("onnx", "encodings"));
  EXPECT_THAT(files("encodings"), testing::UnorderedElementsAre("model.onnx", "model.onnx.data"));
}

TEST_F(ExportCli, WhatCannotBeExportedIsNamed) {
  expect_one_line(export_as("tflite", "x"), kWrongUsage, "onnx, encodings");
  expect_one_line(export_as("onnx", "x", "model"), kFailed, "default_qcfg.json");
  expect_one_line(export_as("onnx", "model"), kFailed, "no part of an export");
  expect_one_line(export_as("onnx", "calibration.txt"), kFailed, "no folder");
  expect_one_line(
      run({"export", "-m", path("w8a8"), "--format", "onnx", "-o", path("x"), "--max-length", "0"}),
      kWrongUsage, "--max-length");
  EXPECT_FALSE(std::filesystem::exists(path("x")));
}

TEST_F(ExportCli, AFolderThatCannotBeMadeIsNamed) {
  expect_one_line(run({"export", "-m", path("w8a8"), "--format", "onnx", "-o", "/proc/export"}), kFailed,
                  "/proc/export");
}

}  // namespace
}  // namespace qeval::test
