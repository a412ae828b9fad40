#include "eval/verify.h"

#include <iostream>

#include "base/error.h"
#include "cli/command.h"

namespace qeval::cli {
namespace {

po::options_description verify_options() {
  po::options_description options("Options");
  options.add_options()("folder", po::value<std::vector<std::string>>()->value_name("DIR"),
                        "folder of results (qeval eval -o, also with --shard), or of a comparison (qeval "
                        "compare -o); may be given without the option's name, and several times");
  return options;
}

int run_verify(const po::variables_map& arguments) {
  if (arguments.count("folder") == 0) throw UsageError("which results? name at least one folder");
  std::string first;  // of what is wrong
  int64_t checked = 0, wrong = 0;
  const auto show = [&](const eval::Check& check) {
    ++checked;
    if (check.passed) {
      std::cout << fmt::format("ok    {}: {}\n", printable(check.subject.string(), 200),
                               printable(check.finding, 400));
      return;
    }
    const std::string finding = printable(check.finding, 400);  // names in the files are not ours
    std::cout << fmt::format("WRONG {}\n", finding);
    if (wrong++ == 0) first = finding;
  };
  for (const std::string& folder : arguments["folder"].as<std::vector<std::string>>()) {
    try {
      eval::verify(folder, show);
    } catch (const Error& error) {  // the folders after it are looked at all the same
      show({.subject = folder, .finding = error.what(), .passed = false});
    }
  }
  if (wrong > 0) fail("{} of {} checks failed; the first: {}", wrong, checked, first);
  std::cout << fmt::format("{} checks, all passed\n", checked);
  return 0;
}

}  // namespace

const Command verify_command{
    .name = "verify",
    .summary = "Check that results are as they were written, and follow from their samples",
    .usage = "DIR...",
    .example = "qeval verify results/first",
    .options = verify_options,
    .run = run_verify,
    .positional = "folder",
};

}  // namespace qeval::cli
