#include "quant/export/export.h"

#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "eval/engine/session.h"

namespace qeval::cli {
namespace {

po::options_description export_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_weight_options(options);
  auto add = options.add_options();
  add("format", one_of("FORMAT", "onnx, encodings"),
      "onnx: the quantized graph, with QuantizeLinear and DequantizeLinear; encodings: the float graph, and "
      "the "
      "grids of its tensors as JSON, for tool-chains that quantize for themselves");
  add("output,o", po::value<std::string>()->value_name("DIR"),
      "new or empty folder, or that of an earlier export");
  add("max-length", po::value<int64_t>()->value_name("N"),
      "longest input in tokens (default: 2048, or the model's context if shorter)");
  add("qcfg", po::value<std::string>()->value_name("FILE"),
      "what is quantized and to how many bits, instead of the model's default_qcfg.json");
  add("act-ranges", po::value<std::string>()->value_name("FILE"),
      "ranges of the activations, instead of the model's act_dict.json");
  return options;
}

/// Makes the folder; one with files of somebody else's is refused. What an earlier export left is removed, so
/// that it cannot pass for this one's.
void prepare_folder(const std::filesystem::path& folder) {
  std::error_code code;
  if (std::filesystem::exists(folder, code) && !std::filesystem::is_directory(folder, code)) {
    fail("{}: is no folder", folder.string());
  }
  const auto ours = {quant::kOnnxFile, quant::kOnnxTensorFile, quant::kEncodingsFile};
  for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
    const std::string name = entry.path().filename().string();
    if (std::ranges::find(ours, name) == ours.end()) {
      fail("{}: holds {}, which is no part of an export; accepted: a new or empty folder", folder.string(),
           printable(name));
    }
  }
  qeval::create_directories(folder);
  for (const char* name : ours) std::filesystem::remove(folder / name, code);
}

int run_export(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const std::string format = require(arguments, "format");
  const std::filesystem::path folder = require(arguments, "output");
  const model::Model model = load_model(arguments);
  warn_of_own_rounding(model);
  const int64_t max_length =
      eval::choose_max_length(optional<int64_t>(arguments, "max-length"), model.config);
  const auto file = [&](const char* option) -> std::optional<std::filesystem::path> {
    return optional<std::string>(arguments, option);
  };
  const quant::Quantization quantization = quant::load_quantization(model, file("qcfg"), file("act-ranges"));
  prepare_folder(folder);
  const auto write = format == "onnx" ? quant::export_onnx : quant::export_encodings;
  const quant::ExportSummary summary = write(model, quantization, max_length, QEVAL_VERSION, folder);
  std::cout << fmt::format("Wrote {}: {} nodes, {} quantized activations, {:.1f} MiB of tensors\n",
                           folder.string(), summary.nodes, summary.points,
                           static_cast<double>(summary.bytes) / (1 << 20));
  return 0;
}

}  // namespace

const Command export_command{
    .name = "export",
    .summary = "Write a quantized model for another runtime: ONNX, or encodings for NPU tool-chains",
    .usage = "-m CHECKPOINT --format onnx|encodings -o DIR [options]",
    .example = "qeval export -m smoothed --format onnx -o smoothed-onnx",
    .options = export_options,
    .run = run_export,
};

}  // namespace qeval::cli
