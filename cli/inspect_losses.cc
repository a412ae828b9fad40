#include "cli/inspect_losses.h"

#include <iostream>

#include "base/error.h"
#include "cli/option_values.h"
#include "cli/progress.h"
#include "eval/losses.h"

namespace qeval::cli {
namespace {

std::string number(double loss, bool measured = true) {
  return measured ? fmt::format("{:>+13.6f}", loss) : fmt::format("{:>13}", "-");
}

void print_row(const eval::NamedLosses& row) {
  std::cout << fmt::format("{:<26}{}{}{}\n", row.name, number(row.losses.weights, row.has_weights),
                           number(row.losses.inputs, row.has_inputs), number(row.losses.kv, row.has_kv));
}

/// Rows, and what makes them add up to the parts.
void print_rows(std::string_view title, const std::vector<eval::NamedLosses>& rows,
                const eval::PartLosses& whole) {
  std::cout << fmt::format("\n{:<26}{:>13}{:>13}{:>13}\n", title, "weights", "activations", "keys, values");
  for (const eval::NamedLosses& row : rows) print_row(row);
  print_row({.name = "interaction", .losses = eval::interaction(whole, rows), .has_kv = true});
  print_row({.name = "all", .losses = whole, .has_kv = true});
}

}  // namespace

void add_inspect_losses_options(po::options_description& options) {
  auto add = options.add_options();
  add("losses",
      "of a GGUF file, on the calibration text (default: 4 samples): what its weights, its activations as "
      "llama.cpp rounds them, and keys and values cost, each alone, by layer and by class of matrices, in "
      "nats per token from --base; a "
      "run over the text per figure");
  add("base", po::value<std::string>()->value_name("MODEL"),
      "with --losses: the original, in float (an F16 or BF16 file, or a folder)");
  add("kv-type", one_of("TYPE", quant::kGgmlKvTypes),
      "with --losses: keys and values, as llama.cpp's -ctk and -ctv (default: f16)");
}

void inspect_losses(const po::variables_map& arguments, const model::Model& model,
                    const quant::Samples& samples) {
  const model::Model base = model::load_model(require(arguments, "base"));
  const auto kv_type = quant::find_kv_type(optional<std::string>(arguments, "kv-type").value_or("f16"));
  Progress progress;
  const eval::FileLosses losses = eval::file_losses(
      {.base = base,
       .file = model,
       .kv_type = *kv_type,
       .samples = samples,
       .progress = [&](int64_t done, int64_t total) { progress.update("losses", done, total); }});
  progress.clear();
  std::cout << fmt::format("KL from {}, nats per token, {} tokens\n", base.path.string(), losses.tokens);
  const auto part = [](std::string_view name, double loss) {
    std::cout << fmt::format("{:<26}{}\n", name, number(loss));
  };
  part("weights", losses.parts.weights);
  part("activations", losses.parts.inputs);
  part("keys and values", losses.parts.kv);
  part("interaction", losses.interaction());
  part("all", losses.together);
  print_rows("layer alone", losses.layers, losses.parts);
  print_rows("class alone", losses.classes, losses.parts);
}

}  // namespace qeval::cli
