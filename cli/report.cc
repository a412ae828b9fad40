#include <iostream>

#include "base/error.h"
#include "cli/command.h"
#include "eval/results/recompute.h"
#include "eval/results/results.h"
#include "eval/results/table.h"

namespace qeval::cli {
namespace {

po::options_description options() {
  po::options_description options("Options");
  options.add_options()(
      "folder", po::value<std::vector<std::string>>()->value_name("DIR"),
      "folder with results.json; may be given without the option's name, and several times");
  options.add_options()("recompute", "derive every metric again from the samples files and compare");
  return options;
}

/// Prints what differs between results.json and the samples; whether nothing does.
bool agrees(const std::filesystem::path& folder) {
  const eval::Recomputed recomputed = eval::recompute(folder);
  for (const std::string& difference : recomputed.differences) std::cout << "  " << difference << '\n';
  if (recomputed.differences.empty()) std::cout << "  every metric follows from the samples\n";
  return recomputed.differences.empty();
}

int run(const po::variables_map& arguments) {
  if (arguments.count("folder") == 0) throw UsageError("which results? name at least one folder");
  bool good = true;
  for (const std::string& folder : arguments["folder"].as<std::vector<std::string>>()) {
    const eval::RunResults results = eval::read_results(folder);
    std::cout << fmt::format("{}: {}, {} arithmetic, protocol {}\n\n", folder, printable(results.model.name),
                             printable(results.model.arithmetic), printable(results.protocol))
              << eval::render_table(results) << '\n';
    if (arguments.count("recompute") != 0) good = agrees(folder) && good;
  }
  if (!good) fail("the samples give other metrics than results.json holds: see above");
  return 0;
}

}  // namespace

const Command report_command{
    .name = "report",
    .summary = "Show finished results; --recompute proves that they follow from the samples",
    .usage = "DIR... [--recompute]",
    .example = "qeval report results/smollm2 --recompute",
    .options = options,
    .run = run,
    .positional = "folder",
};

}  // namespace qeval::cli
