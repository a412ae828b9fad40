#include <iostream>

#include "base/directory_lock.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/option_values.h"
#include "model/export.h"

namespace qeval::cli {
namespace {

po::options_description convert_options() {
  po::options_description options("Options");
  add_model_options(options);
  add_weight_options(options);
  auto add = options.add_options();
  add("output,o", po::value<std::string>()->value_name("DIR"), "new or empty folder for the converted model");
  add("dtype", one_of("TYPE", "f32, f16, bf16")->default_value("f32"),
      "how weights are stored: f32, f16, bf16");
  return options;
}

model::DType parse_dtype(const std::string& name) {
  if (name == "f16") return model::DType::f16;
  return name == "bf16" ? model::DType::bf16 : model::DType::f32;
}

/// What a model of floats no longer says; empty: nothing.
std::string lost_by_expanding(const model::Model& model) {
  if (model.quant_method.empty()) return "";
  std::string text = fmt::format("Expanded {} ({}): its codes, scales and zero points are not kept",
                                 model.quant_method, model.weight_format());
  if (model.rounds_activations())
    text += ", nor how it rounds activations: the result computes as --arithmetic float does";
  return text;
}

int run_convert(const po::variables_map& arguments) {
  const ThreadLimit limit(arguments);
  const std::filesystem::path output = require(arguments, "output");
  const model::DType dtype = parse_dtype(arguments["dtype"].as<std::string>());
  const model::Model model = load_model(arguments);
  model::read_tokenizer_files(model);  // before anything is written
  qeval::create_directories(output);
  const DirectoryLock lock(output);
  if (!is_unused(output))
    fail("{}: exists and is not empty; accepted: a new or empty folder", output.string());
  model::write_unified(model, output, dtype);  // first: where it fails, the folder stays empty
  const bool tokenizer = model::copy_tokenizer(model, output);
  if (const std::string lost = lost_by_expanding(model); !lost.empty()) std::cout << lost << '\n';
  std::cout << fmt::format("Wrote {}{}\n", output.string(),
                           tokenizer ? "" : " (the model has no tokenizer: it can be scored by ids only)");
  return 0;
}

}  // namespace

const Command convert_command{
    .name = "convert",
    .summary = "Rewrite a model in the unified layout: config.json, model.safetensors, tokenizer",
    .usage = "-m MODEL -o DIR [--dtype f32|f16|bf16]",
    .example = "qeval convert -m model.gguf -o unified --dtype bf16",
    .options = convert_options,
    .run = run_convert,
};

}  // namespace qeval::cli
